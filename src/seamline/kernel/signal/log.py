"""Logs as JSON lines: one object per record, whatever a message holds.

The standard ``logging`` is the way in, so that libraries are heard too. A line has ``time`` (RFC 3339, UTC),
``level``, ``module`` (the Seamline module at work), ``logger``, ``message``, and where there is one ``trace_id``,
``exception`` and the record's ``extra`` fields.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any

_TALKATIVE = ("alembic", "asyncio", "aiosqlite", "httpcore", "httpx", "sqlalchemy", "watchfiles")
MESSAGE_CHARACTERS_MAX = 16 * 1024
_OWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


def _no_trace() -> str | None:
    return None


_trace_sources: list[Callable[[], str | None]] = [_no_trace]


def set_trace_source(source: Callable[[], str | None]) -> None:
    """Ask ``source`` for the trace id of the call at work whenever a line is written."""
    _trace_sources[0] = source


def _no_module() -> str:
    return ""


_module_sources: list[Callable[[], str]] = [_no_module]


def set_module_source(source: Callable[[], str]) -> None:
    """Ask ``source`` for the module at work, ``""`` between modules, whenever a line is written."""
    _module_sources[0] = source


def get(name: str) -> logging.Logger:
    return logging.getLogger(name)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; a line break in a message cannot make a second line."""

    def __init__(self, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "module": _module_sources[0](),
            "logger": record.name,
            "message": _cut(_message(record)),
            **self._fields,
        }
        trace_id = _trace_sources[0]()
        if trace_id:
            line["trace_id"] = trace_id
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _cut("".join(traceback.format_exception(*record.exc_info)))
        for name, value in record.__dict__.items():
            if name not in _OWN and name not in line:
                line[name] = value
        return json.dumps(line, default=_shown)


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
        return f"{record.msg!s} {record.args!r} ({type(error).__name__}: {error})"


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[:MESSAGE_CHARACTERS_MAX]}…"


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # likewise
        return f"<{type(value).__name__}>"
