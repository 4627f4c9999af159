"""Shipping: what sending costs, and where a parcel goes."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from boutique.money import Money
from boutique.people import Address
from seamline import Contract, Fault, idempotent, readonly


@dataclass(frozen=True, slots=True)
class Destination:
    """A country the shop sends to; ``code`` is ISO 3166-1 alpha-2."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Quote:
    """``cost`` is in euros; working days from the workshop to the door."""

    cost: Money
    days_min: int
    days_max: int


@dataclass(frozen=True, slots=True)
class Stop:
    """One place on a parcel's way, ``day`` working days after the order."""

    day: int
    place: str
    note: str


class CountryNotServed(Fault):
    """No parcel goes there yet."""

    country: str


class ParcelCancelled(Fault):
    """The order's parcel was called off; another attempt is another order."""

    order_id: str


class Shipping(Contract):
    @readonly
    async def destinations(self) -> tuple[Destination, ...]:
        """Where the shop sends, by name."""
        ...

    @readonly
    async def quote(self, pieces: int, country: str) -> Quote:
        """What sending so many pieces costs. Raises ``CountryNotServed``."""
        ...

    @idempotent
    async def ship(self, order_id: str, address: Address, pieces: int) -> str:
        """Book the parcel of an order, once; the tracking id depends on the order alone.

        Raises ``CountryNotServed``, and ``ParcelCancelled`` for an order whose parcel was called off before.
        """
        ...

    @idempotent
    async def cancel(self, order_id: str) -> None:
        """Call the parcel of an order off, once. An order not yet known is known as called off from then on."""
        ...

    @readonly
    def route(self, country: str) -> AsyncIterator[Stop]:
        """The stops of a parcel to a country, in order. Raises ``CountryNotServed``."""
        ...
