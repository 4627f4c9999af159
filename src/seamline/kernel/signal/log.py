"""Logs as JSON lines: one object per record, whatever a message holds.

The standard ``logging`` is the way in, so that libraries are heard too. A line has ``time`` (RFC 3339, UTC),
``level``, ``module`` (the Seamline module at work), ``logger``, ``message``, and where there is one ``trace_id``,
``span_id``, ``exception`` and the record's ``extra`` fields.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

from seamline.kernel.signal import here

_TALKATIVE = ("alembic", "asyncio", "aiosqlite", "httpcore", "httpx", "sqlalchemy", "watchfiles")
MESSAGE_CHARACTERS_MAX = 16 * 1024
LINE_CHARACTERS_MAX = 256 * 1024
_SURROGATE = re.compile(r"\\\\|\\ud[89ab]..\\ud[c-f]..|\\ud[89a-f]..")
"""Halves of characters without the other half: JSON has them, UTF-8 has not."""

_OWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


def get(name: str) -> logging.Logger:
    return logging.getLogger(name)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; a line break in a message cannot make a second line."""

    def __init__(self, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        call = here.call()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "module": call.module if call is not None else "",
            "logger": record.name,
            "message": _cut(_message(record)),
            **self._fields,
        }
        if call is not None and call.origin is not None:
            line["trace_id"] = f"{call.origin.trace_id:032x}"
            line["span_id"] = f"{call.span_id():016x}"
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _cut("".join(traceback.format_exception(*record.exc_info)))
        for name, value in record.__dict__.items():
            if name not in _OWN and name not in line:
                line[name] = value
        return _as_json(line)


def configure(
    level: str = "info", *, stream: IO[str] | None = None, fields: Mapping[str, Any] | None = None
) -> logging.Handler:
    """Send every record of this process to ``stream`` (standard error) as JSON lines; replaces what was there."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(fields))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))
    for name in _TALKATIVE:
        # What a library finds worth an info is seldom news of the application.
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    return handler


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # a wrong format string must not lose the record
        return f"{_shown(record.msg)} {_shown(record.args)} ({type(error).__name__}: {_shown(error)})"


def _as_json(line: dict[str, Any]) -> str:
    try:
        text = json.dumps(line, default=_shown, allow_nan=False)
    except Exception:  # keys that are no names, a thing that holds itself, a number that is none
        text = ""
    if not text or len(text) > LINE_CHARACTERS_MAX:
        most = max(LINE_CHARACTERS_MAX // len(line) // 8, 32)
        text = json.dumps({str(name): _shown(value)[:most] for name, value in line.items()})
    return _SURROGATE.sub(_paired, text) if "\\ud" in text else text


def _paired(found: re.Match[str]) -> str:
    return "\\ufffd" if len(found[0]) == 6 else found[0]


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[:MESSAGE_CHARACTERS_MAX]}…"


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # likewise
        return f"<{type(value).__name__}>"
