"""Times as people write them: ``15m`` ago, or a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from seamline.cli.errors import ArgumentError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def past(given: str) -> datetime:
    """``15m``, ``1h``, ``7d`` before now, or ``2026-01-31T08:00`` (UTC unless it says). Raises ArgumentError."""
    if found := re.fullmatch(r"(\d{1,9})([smhd])", given):
        return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        then = datetime.fromisoformat(given)
    except ValueError:
        raise ArgumentError(f"{given!r} is no time", "Write 2026-01-31T08:00, or 15m, 1h, 7d") from None
    return then.astimezone(UTC) if then.tzinfo else then.replace(tzinfo=UTC)


def past_ns(given: str) -> int:
    """The same in nanoseconds since the epoch; 0 where nothing is given."""
    return int(past(given).timestamp() * 1e6) * 1000 if given else 0


def valid_seconds(text: str) -> int:
    """For how long something holds: ``90d``, ``12h``; 0 is for ever. Raises ArgumentError."""
    found = re.fullmatch(r"(\d{1,5})([smhd]?)", text)
    if found is None or (found[2] == "" and found[1] != "0"):
        raise ArgumentError(f"{text!r} is not a time", "Write a number and s, m, h or d: 90d. 0 is none.")
    return int(found[1]) * _UNITS.get(found[2], 0)


def clock_time(at_ns: int) -> str:
    """``2026-01-31 08:00:00.123``, in UTC."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(" ", "milliseconds")[:-6]
