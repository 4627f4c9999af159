"""The audit trail: one JSON line for each decision worth keeping, in files that cannot fill the disk.

A line is written straight to the file, so it survives the death of the process. A flood of the same denial is
cut off after a few lines, and how many were left out is written when the flood is over or the minute is.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from seamline.kernel.clock import Clock, SystemClock

_Key = tuple[str, str, str, str]

_FIELD_CHARACTERS_MAX = 500
_KEYS_MAX = 1000


@dataclass(slots=True)
class _Window:
    """What was written and left out since ``began`` (monotonic seconds)."""

    began: float
    written: int = 0
    suppressed: int = 0


class Audit:
    """Append-only JSON lines at ``path``, rotated to ``path.1`` … ``path.<files_max - 1>`` by size.

    At most ``per_window`` lines for the same decision, principal, action and reason in ``window_s`` seconds, and
    ``total_per_window`` altogether. Nothing raises: an audit that cannot be written must not stop the service, but
    ``lost`` counts the lines, and the next line that can be written tells.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        bytes_max: int = 8 << 20,
        files_max: int = 4,
        per_window: int = 10,
        total_per_window: int = 3000,
        window_s: float = 60.0,
    ) -> None:
        self.path = path
        self.lost = 0
        self._clock = clock or SystemClock()
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._per_window = per_window
        self._total_per_window = total_per_window
        self._window_s = window_s
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()
        self._all = _Window(self._clock.monotonic())
        self._descriptor = -1
        self._size = 0
        self._torn = False

    def record(
        self,
        decision: str,
        *,
        principal: str,
        action: str,
        resource: str = "",
        reason: str = "",
        peer: str = "",
        **more: Any,
    ) -> bool:
        """Write one line; False if it was left out or lost. ``decision`` is "allow", "deny" or "refuse"."""
        now = self._clock.monotonic()
        key = (decision, principal[:_FIELD_CHARACTERS_MAX], action[:_FIELD_CHARACTERS_MAX], reason)
        if not self._admitted(key, now):
            return False
        line = {
            "time": self._time(),
            "decision": decision,
            "principal": principal,
            "action": action,
            "resource": resource,
            "reason": reason,
            "peer": peer,
            **more,
        }
        return self._write(line)

    def flush(self) -> None:
        """Write what has been left out so far. Call it now and then, so that the end of a flood is told."""
        for key, window in list(self._windows.items()):
            self._tell_suppressed(key, window)
        self._tell_overflow()

    def close(self) -> None:
        self.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _admitted(self, key: _Key, now: float) -> bool:
        window = self._windows.get(key)
        if window is None or now - window.began >= self._window_s:
            if window is not None:
                self._tell_suppressed(key, window)
                del self._windows[key]
            window = self._windows[key] = _Window(now)
            self._forget_oldest()
        if window.written >= self._per_window:
            window.suppressed += 1
            return False
        if now - self._all.began >= self._window_s:
            self._tell_overflow()
            self._all = _Window(now)
        if self._all.written >= self._total_per_window:
            self._all.suppressed += 1
            return False
        window.written += 1
        self._all.written += 1
        return True

    def _forget_oldest(self) -> None:
        while len(self._windows) > _KEYS_MAX:
            _, window = self._windows.popitem(last=False)
            # A flood of different keys must not write through here what the bound on all lines holds back.
            self._all.suppressed += window.suppressed

    def _tell_suppressed(self, key: _Key, window: _Window) -> None:
        if not window.suppressed:
            return
        decision, principal, action, reason = key
        line = {
            "time": self._time(),
            "decision": decision,
            "principal": principal,
            "action": action,
            "reason": reason,
            "suppressed": window.suppressed,
        }
        if self._write(line):
            window.suppressed = 0

    def _tell_overflow(self) -> None:
        line = {"time": self._time(), "decision": "", "reason": "too many lines", "suppressed": self._all.suppressed}
        if self._all.suppressed and self._write(line):
            self._all.suppressed = 0

    def _time(self) -> str:
        return _iso(self._clock.now())

    def _write(self, line: dict[str, Any]) -> bool:
        if self.lost:
            line["lost_before"] = self.lost
        cut = {name: _cut(value) for name, value in line.items()}
        content = json.dumps(cut, ensure_ascii=False, default=str).encode(errors="backslashreplace") + b"\n"
        if self._torn:
            content = b"\n" + content
        try:
            self._make_room(len(content))
            written = os.write(self._descriptor, content)
        except OSError:
            self.lost += 1
            return False
        self._size += written
        self._torn = written < len(content)
        if self._torn:
            self.lost += 1
            return False
        self.lost = 0
        return True

    def _make_room(self, count: int) -> None:
        if self._descriptor < 0:
            self._open()
        if self._size and self._size + count > self._bytes_max:
            os.close(self._descriptor)
            self._descriptor = -1
            for number in range(self._files_max - 1, 0, -1):
                older = self._numbered(number - 1)
                if older.exists():
                    older.replace(self._numbered(number))
            self._open()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        if self._files_max == 1:
            flags |= os.O_TRUNC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _FIELD_CHARACTERS_MAX:
        return value[:_FIELD_CHARACTERS_MAX] + "…"
    return value


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
