"""Analytics: what the shop sells, to how many of those who look, and which baskets are left standing."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from boutique.money import Money
from seamline import Contract, readonly

ABANDONED_AFTER_S = 1800
"""A basket without an order for so long is abandoned."""


@dataclass(frozen=True, slots=True)
class Minute:
    at: datetime
    orders: int
    visitors: int


@dataclass(frozen=True, slots=True)
class Takings:
    """What came in, in one currency."""

    orders: int
    total: Money


@dataclass(frozen=True, slots=True)
class Seller:
    product_id: str
    pieces: int


@dataclass(frozen=True, slots=True)
class Baskets:
    """Last filled in the five minutes from ``at`` on. Until ``settled``, the fate of some of them is open."""

    at: datetime
    ordered: int
    abandoned: int
    settled: bool


@dataclass(frozen=True, slots=True)
class Report:
    """``since`` to ``until``; ``visits`` are pauses of half an hour apart, ``bought`` of them ended with an order.

    ``counted`` is how many events the views have taken in since they were made, ``late`` how many came too late.
    """

    since: datetime
    until: datetime
    minutes: tuple[Minute, ...]
    takings: tuple[Takings, ...]
    visits: int
    bought: int
    sellers: tuple[Seller, ...]
    baskets: tuple[Baskets, ...]
    counted: int
    late: int


class Analytics(Contract):
    @readonly
    async def report(self, minutes: int = 60) -> Report:
        """The last minutes, up to six hours of them, as they stand now."""
        ...
