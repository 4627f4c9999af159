"""The inside of shipping: three zones, a price per piece, and a route that can be foretold."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from boutique.money import Money
from boutique.people import Address
from boutique.shipping import CountryNotServed, Destination, ParcelCancelled, Quote, Shipping, Stop
from boutique.shipping.tables import metadata, parcels
from seamline import Clock, Database, Module

module = Module("shipping", provides=Shipping, tables=metadata)

# Reads the same in SQLite and PostgreSQL, and locks the order, so that booking and calling off are done in turn.
_BOOKED = text(
    "INSERT INTO parcels (order_id, tracking_id, country, pieces, booked_at, cancelled_at) "
    "VALUES (:order_id, :tracking_id, :country, :pieces, :booked_at, :cancelled_at) ON CONFLICT (order_id) DO NOTHING"
).bindparams(
    bindparam("booked_at", type_=parcels.c.booked_at.type), bindparam("cancelled_at", type_=parcels.c.cancelled_at.type)
)


@dataclass(frozen=True, slots=True)
class Zone:
    """A parcel costs ``base`` and ``piece`` for every piece after the first; ``hub`` is where it changes vans."""

    base: Decimal
    piece: Decimal
    days_min: int
    days_max: int
    hub: str


_NEAR = Zone(Decimal("4.90"), Decimal("0.60"), 1, 2, "Liège")
_EUROPE = Zone(Decimal("8.40"), Decimal("0.90"), 2, 5, "Leipzig")
_WORLD = Zone(Decimal("18.50"), Decimal("2.20"), 5, 12, "Luxembourg")

_COUNTRIES: dict[str, tuple[str, Zone]] = {
    "AU": ("Australia", _WORLD),
    "AT": ("Austria", _EUROPE),
    "BE": ("Belgium", _NEAR),
    "BR": ("Brazil", _WORLD),
    "CA": ("Canada", _WORLD),
    "CZ": ("Czechia", _EUROPE),
    "DK": ("Denmark", _EUROPE),
    "FI": ("Finland", _EUROPE),
    "FR": ("France", _NEAR),
    "DE": ("Germany", _NEAR),
    "IS": ("Iceland", _EUROPE),
    "IN": ("India", _WORLD),
    "IE": ("Ireland", _EUROPE),
    "IT": ("Italy", _EUROPE),
    "JP": ("Japan", _WORLD),
    "LU": ("Luxembourg", _NEAR),
    "NL": ("Netherlands", _NEAR),
    "NZ": ("New Zealand", _WORLD),
    "NO": ("Norway", _EUROPE),
    "PL": ("Poland", _EUROPE),
    "PT": ("Portugal", _EUROPE),
    "SG": ("Singapore", _WORLD),
    "ES": ("Spain", _EUROPE),
    "SE": ("Sweden", _EUROPE),
    "CH": ("Switzerland", _EUROPE),
    "GB": ("United Kingdom", _EUROPE),
    "US": ("United States", _WORLD),
}
_DESTINATIONS = tuple(Destination(code, name) for code, (name, _) in _COUNTRIES.items())


def tracking_id(order_id: str) -> str:
    """Readable over the telephone: ``HS-`` and ten characters drawn from the order's id."""
    digest = hashlib.blake2b(order_id.encode(), digest_size=8, person=b"parcel").digest()
    return f"HS-{base64.b32encode(digest)[:10].decode()}"


def _served(country: str) -> tuple[str, Zone]:
    served = _COUNTRIES.get(country)
    if served is None:
        raise CountryNotServed(country=country)
    return served


@module.service
class ShippingService(Shipping):
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def destinations(self) -> tuple[Destination, ...]:
        return _DESTINATIONS

    async def quote(self, pieces: int, country: str) -> Quote:
        _, zone = _served(country)
        cost = zone.base + zone.piece * max(0, pieces - 1)
        return Quote(Money("EUR", cost), zone.days_min, zone.days_max)

    async def ship(self, order_id: str, address: Address, pieces: int) -> str:
        _served(address.country)
        async with self._db.transaction() as connection:
            if not await self._booked(connection, order_id, address.country, pieces):
                cancelled = select(parcels.c.cancelled_at).where(parcels.c.order_id == order_id)
                if await connection.scalar(cancelled) is not None:
                    raise ParcelCancelled(order_id=order_id)
        return tracking_id(order_id)

    async def cancel(self, order_id: str) -> None:
        async with self._db.transaction() as connection:
            if not await self._booked(connection, order_id, "", 0, cancelled=True):
                await connection.execute(
                    update(parcels)
                    .where(parcels.c.order_id == order_id, parcels.c.cancelled_at.is_(None))
                    .values(cancelled_at=self._clock.now())
                )

    async def route(self, country: str) -> AsyncIterator[Stop]:
        name, zone = _served(country)
        yield Stop(0, "Ghent", "Packed in our workshop")
        yield Stop(zone.days_min - 1, "Ghent", "Handed to the carrier")
        yield Stop(zone.days_min, zone.hub, "Changes vans")
        yield Stop(zone.days_max, name, "At your door, at the latest")

    async def _booked(
        self, connection: AsyncConnection, order_id: str, country: str, pieces: int, *, cancelled: bool = False
    ) -> bool:
        """Whether this is the first that is heard of the order."""
        now = self._clock.now()
        parcel = {
            "order_id": order_id,
            "tracking_id": tracking_id(order_id),
            "country": country,
            "pieces": pieces,
            "booked_at": now,
            "cancelled_at": now if cancelled else None,
        }
        return bool((await connection.execute(_BOOKED, parcel)).rowcount)
