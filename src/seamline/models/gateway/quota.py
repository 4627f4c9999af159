"""Limits: how much of what may be used by whom in which time. Windows follow the calendar in UTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

Unit = Literal["tokens", "money", "requests"]
Per = Literal["minute", "hour", "day", "month", "total"]
By = Literal["key", "user", "tenant", "team", "agent", "all"]

FOREVER: Final = 1 << 62
"""When the window ``total`` ends, in seconds since the epoch."""
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86400}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """``most`` of ``unit`` for each of what ``by`` says, in each window ``per``.

    Args:
        unit: ``money`` is counted in billionths of the currency of the prices.
        of: only for this one key (its id), user, tenant, ...; empty is each of them for itself.
        models: only for calls of these, together; empty is all.
    """

    name: str
    by: By
    unit: Unit
    most: int
    per: Per
    of: str = ""
    models: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What clients are told: waiting for a minute is something else than having used up a month."""
        return "rate_limit_exceeded" if self.per == "minute" or self.unit == "requests" else "insufficient_quota"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def limit_from(facts: Mapping[str, Any]) -> Limit:
    """What :meth:`Limit.to_json` gave."""
    taken: dict[str, Any] = {**facts, "models": tuple(facts["models"])}
    return Limit(**taken)


def window(per: Per, now_s: float) -> tuple[int, int]:
    """When the window that ``now_s`` is in begins and ends, in seconds since the epoch."""
    if per == "total":
        return 0, FOREVER
    if per == "month":
        now = datetime.fromtimestamp(now_s, UTC)
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        after = (first + timedelta(days=32)).replace(day=1)
        return int(first.timestamp()), int(after.timestamp())
    length = _SECONDS[per]
    begins = int(now_s // length) * length
    return begins, begins + length
