"""Cron's five fields: minute, hour, day of the month, month, day of the week. In UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from seamline.module.errors import SagaError

_MONTHS: Final = {
    name: n
    for n, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_DAYS: Final = {name: n for n, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_DAYS_MAX: Final = 366 * 8
"""29 February is at most eight years away."""


class Cron:
    """``Cron("0 3 * * mon-fri")``; ``*/5``, lists, ranges and English short names as in Vixie's cron.

    Where both days are restricted, one of them is enough. Raises SagaError.
    """

    def __init__(self, text: str) -> None:
        fields = text.lower().split()
        if len(fields) != len(_FIELDS):
            raise _wrong(text, f"has {len(fields)} fields, not five")
        names: tuple[dict[str, int], ...] = ({}, {}, {}, _MONTHS, _DAYS)
        sets = [
            _values(text, field, *limits, known) for field, limits, known in zip(fields, _FIELDS, names, strict=True)
        ]
        self.text = text
        self._minutes, self._hours, self._days, self._months = (sorted(each) for each in sets[:4])
        self._weekdays = {day % 7 for day in sets[4]}
        self._either = not fields[2].startswith("*") and not fields[4].startswith("*")
        if self.after(datetime(2026, 1, 1, tzinfo=UTC)) is None:
            raise _wrong(text, "names no day that exists")

    def after(self, time: datetime) -> datetime | None:
        """The first time after ``time`` (aware)."""
        start = time.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        day = start.replace(hour=0, minute=0)
        for _ in range(_DAYS_MAX):
            if self._matches(day):
                for hour in self._hours:
                    for minute in self._minutes:
                        found = day.replace(hour=hour, minute=minute)
                        if found >= start:
                            return found
            day += timedelta(days=1)
        return None

    def _matches(self, day: datetime) -> bool:
        if day.month not in self._months:
            return False
        in_month = day.day in self._days
        in_week = (day.weekday() + 1) % 7 in self._weekdays
        return (in_month or in_week) if self._either else (in_month and in_week)


def _values(text: str, field: str, what: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isdigit() and int(step) > 0):
            raise _wrong(text, f"has the step {step!r} in its {what}")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(text, first, what, names)
            end = _number(text, last, what, names) if dash else (high if slash else begin)
        if not low <= begin <= end <= high:
            raise _wrong(text, f"has {part!r} as its {what}, which is not within {low} to {high}")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return found


def _number(text: str, word: str, what: str, names: dict[str, int]) -> int:
    if word in names:
        return names[word]
    if not word.isdigit():
        raise _wrong(text, f"has {word!r} as its {what}")
    return int(word)


def _wrong(text: str, why: str) -> SagaError:
    return SagaError(f"the schedule {text!r} {why}", 'Write five fields, such as "0 3 * * *" for three in the morning.')
