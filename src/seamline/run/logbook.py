"""The logs of all workers in one stream: kept for a while, followed, printed for people or passed on as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from seamline.kernel.signal.log import JsonLines

_KEPT_LINES = 2000
_FOLLOWER_LINES_MAX = 1000
_COLOURS = (36, 35, 34, 33, 32, 96, 95, 94, 93, 92)
_LEVELS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_RESET = "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SHOWN = {"time", "level", "module", "workload", "logger", "message", "exception", "replica", "trace_id"}


class LogBook:
    """Takes lines from anywhere and hands them on.

    Args:
        show: prints a line.
        pretty: for people; otherwise one JSON object per line.
        colour: whether a terminal shows it that understands colours.
    """

    def __init__(self, show: Callable[[str], object], *, pretty: bool = True, colour: bool = False) -> None:
        self.hide: Callable[[str], str] = str
        """Strikes out of a text what nobody may read."""
        self.pass_on: Callable[[Mapping[str, Any]], None] | None = None
        """Who is given every line, too."""
        self._print = show
        self._pretty = pretty
        self._colour = colour
        self._lines: deque[dict[str, Any]] = deque(maxlen=_KEPT_LINES)
        self._followers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._colours: dict[str, int] = {}

    def write(self, raw: bytes, workload: str, replica: int) -> None:
        """One line of a worker's output: JSON as our formatter writes it, or whatever code printed."""
        line: Any = None
        if raw.startswith(b"{"):
            try:
                line = json.loads(raw)
            except ValueError:
                line = None
        if not isinstance(line, dict) or "message" not in line:
            line = {"level": "info", "module": "", "message": raw.decode(errors="backslashreplace")}
        self.add({**cast("dict[str, Any]", line), "workload": workload, "replica": replica})

    def add(self, line: dict[str, Any]) -> None:
        line = {key: self.hide(value) if isinstance(value, str) else value for key, value in line.items()}
        self._lines.append(line)
        if self.pass_on is not None:
            self.pass_on(line)
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(line)
        text = self.pretty(line) if self._pretty else json.dumps(line)
        self._print(text)

    def last(self, workload: str | None = None, count: int = 10) -> list[dict[str, Any]]:
        """The newest lines, oldest first."""
        found = [line for line in self._lines if workload is None or _is_of(line, workload)]
        return found[-count:] if count > 0 else []

    @contextmanager
    def follow(self) -> Generator[asyncio.Queue[dict[str, Any]]]:
        """Lines as they come; a follower that is too slow misses the oldest."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_FOLLOWER_LINES_MAX)
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

    def pretty(self, line: dict[str, Any]) -> str:
        """``12:00:01 payments      charged o-1``, without control characters that a terminal would obey."""
        name = str(line.get("module") or line.get("workload") or "seamline")
        level = str(line.get("level", "info"))
        moment = str(line.get("time", ""))[11:23]
        extra = " ".join(f"{key}={value}" for key, value in line.items() if key not in _SHOWN)
        message = str(line.get("message", ""))
        text = f"{message} {extra}" if extra else message
        if line.get("exception"):
            text = f"{text}\n{str(line['exception']).rstrip()}"
        text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text).replace("\n", "\n" + " " * 28)
        mark = "" if level in {"info", "debug"} else f"{level}: "
        if not self._colour:
            return f"{moment:12} {name:14} {mark}{text}"
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        tint = _LEVELS.get(level, "")
        return f"\x1b[2m{moment:12}{_RESET} \x1b[{colour}m{name:14}{_RESET} {tint}{mark}{text}{_RESET if tint else ''}"


class BookHandler(logging.Handler):
    """The supervisor's own records, into the same book."""

    def __init__(self, book: LogBook) -> None:
        super().__init__()
        self._book = book
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        self._book.add({**json.loads(self.format(record)), "module": "seamline"})


def _is_of(line: dict[str, Any], name: str) -> bool:
    return name in {line.get("workload"), line.get("module")}
