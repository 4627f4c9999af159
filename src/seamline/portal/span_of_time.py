"""The time a page looks at, as its address says it: ``span=1h``, or from a moment until another.

An address with ``span`` moves with the clock and is live; one with ``from`` and ``until`` stays, and is what is shared
of a particular hour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from seamline.portal.errors import FieldError

CHOICES: Final = ("5m", "15m", "1h", "6h", "24h", "7d")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DAYS_MAX: Final = 400
_AGO = re.compile(r"(\d{1,7})([smhd])")
_NS = re.compile(r"\d{16,19}")


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """From ``since_ns`` to ``until_ns``; ``live`` if it ends now."""

    since_ns: int
    until_ns: int
    span: str
    """How it was asked for, empty if by moments."""

    @property
    def live(self) -> bool:
        return bool(self.span)

    @property
    def length_ns(self) -> int:
        return self.until_ns - self.since_ns

    def query(self) -> dict[str, str]:
        """For an address that shows the same."""
        return {"span": self.span} if self.span else self.fixed()

    def fixed(self) -> dict[str, str]:
        """For an address that will always show the same."""
        return {"from": str(self.since_ns), "until": str(self.until_ns)}


def time_span(query: Mapping[str, str], now_ns: int, default: str = "15m") -> TimeSpan:
    """Raises FieldError for what is no time."""
    if query.get("from"):
        since_ns = moment(query["from"])
        until_ns = moment(query["until"]) if query.get("until") else now_ns
        if until_ns <= since_ns:
            raise FieldError("the time ends before it begins", "Give `until` a later moment than `from`.")
        return TimeSpan(since_ns, until_ns, "")
    span = query.get("span") or default
    return TimeSpan(now_ns - ago_ns(span), now_ns, span)


def ago_ns(text: str) -> int:
    """``15m`` in nanoseconds. Raises FieldError."""
    found = _AGO.fullmatch(text)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= _DAYS_MAX * _UNITS_S["d"]:
        raise FieldError(f"{text!r} is no length of time", "Write 15m, 6h or 7d.")
    return seconds * 1_000_000_000


def moment(text: str) -> int:
    """Nanoseconds since the epoch, of themselves or of ISO 8601, in UTC where it does not say. Raises FieldError."""
    if _NS.fullmatch(text):
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise FieldError(f"{text!r} is no moment", "Write 2026-03-01T08:00.") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
