"""The inside of inventory: every change moves pieces from one column to another, or books a delivery."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Update, bindparam, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from boutique.checkout import OrderPlaced
from boutique.inventory import (
    LOW,
    Inventory,
    OutOfStock,
    Pieces,
    ReservationClosed,
    StockLevel,
    StockLow,
    TooFewToWriteOff,
)
from boutique.inventory.tables import deliveries, metadata, reservations, reserved_lines, stock
from seamline import Clock, Database, Events, Module

module = Module("inventory", provides=Inventory, tables=metadata)

_HELD, _RELEASED, _SOLD = "held", "released", "sold"

# These read the same in SQLite and PostgreSQL. The first also locks the order, so that what is asked of one order
# at the same moment is done in turn.
_OPENED = text(
    "INSERT INTO reservations (order_id, status, changed_at) VALUES (:order_id, :status, :changed_at) "
    "ON CONFLICT (order_id) DO NOTHING"
).bindparams(bindparam("changed_at", type_=reservations.c.changed_at.type))
_KNOWN = text(
    "INSERT INTO stock (product_id, opening, restocked, free, reserved, sold) VALUES (:product_id, 0, 0, 0, 0, 0) "
    "ON CONFLICT (product_id) DO NOTHING"
)
_DELIVERED = text(
    "INSERT INTO deliveries (id, product_id, pieces, booked_at) VALUES (:id, :product_id, :pieces, :booked_at) "
    "ON CONFLICT (id) DO NOTHING"
).bindparams(bindparam("booked_at", type_=deliveries.c.booked_at.type))


@module.service
class InventoryService(Inventory):
    def __init__(self, db: Database, events: Events, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._clock = clock

    async def levels(self, product_ids: tuple[str, ...]) -> tuple[StockLevel, ...]:
        async with self._db.read() as connection:
            found = await connection.execute(select(stock).where(stock.c.product_id.in_(product_ids)))
            known = {row.product_id: row for row in found}
        return tuple(
            StockLevel(row.product_id, row.free, row.reserved, row.sold)
            for row in (known.get(product_id) for product_id in product_ids)
            if row is not None
        )

    async def reserve(self, order_id: str, lines: tuple[Pieces, ...]) -> None:
        async with self._db.transaction() as connection:
            if not await self._opened(connection, order_id, _HELD):
                if await _status(connection, order_id) == _RELEASED:
                    raise ReservationClosed(order_id=order_id)
                return
            for line in _gathered(lines):
                left = await _put_aside(connection, line)
                if left < LOW <= left + line.quantity:
                    await self._events.publish(StockLow(product_id=line.product_id, left=left, at=self._clock.now()))
                await connection.execute(
                    insert(reserved_lines).values(order_id=order_id, product_id=line.product_id, quantity=line.quantity)
                )

    async def release(self, order_id: str) -> None:
        async with self._db.transaction() as connection:
            if await self._opened(connection, order_id, _RELEASED):
                return
            if await _closed(connection, order_id, _RELEASED, self._clock.now()):
                for line in await _lines(connection, order_id):
                    await connection.execute(_moved(line, free=line.quantity))

    async def restock(self, delivery_id: str, product_id: str, pieces: int) -> StockLevel:
        async with self._db.transaction() as connection:
            await connection.execute(_KNOWN, {"product_id": product_id})
            booked = await connection.execute(
                _DELIVERED,
                {"id": delivery_id, "product_id": product_id, "pieces": pieces, "booked_at": self._clock.now()},
            )
            if booked.rowcount:
                changed = await connection.execute(
                    update(stock)
                    .where(stock.c.product_id == product_id, stock.c.free + pieces >= 0)
                    .values(free=stock.c.free + pieces, restocked=stock.c.restocked + pieces)
                )
                if not changed.rowcount:
                    raise TooFewToWriteOff(product_id=product_id, left=await _free(connection, product_id))
            row = (await connection.execute(select(stock).where(stock.c.product_id == product_id))).one()
        return StockLevel(row.product_id, row.free, row.reserved, row.sold)

    async def _opened(self, connection: AsyncConnection, order_id: str, status: str) -> bool:
        """Whether this is the first that is heard of the order."""
        order = {"order_id": order_id, "status": status, "changed_at": self._clock.now()}
        return bool((await connection.execute(_OPENED, order)).rowcount)


@module.on(OrderPlaced)
async def sold(event: OrderPlaced, db: Database) -> None:
    """What was put aside for a placed order has left the house."""
    async with db.transaction() as connection:
        if await _closed(connection, event.order_id, _SOLD, event.placed_at):
            for line in await _lines(connection, event.order_id):
                await connection.execute(_moved(line, sold=line.quantity))


def _gathered(lines: tuple[Pieces, ...]) -> list[Pieces]:
    """Each product once, in one order for everybody: who locks rows in the same order never waits in a circle."""
    quantities: dict[str, int] = {}
    for line in lines:
        quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    return [Pieces(product_id, quantities[product_id]) for product_id in sorted(quantities)]


async def _put_aside(connection: AsyncConnection, line: Pieces) -> int:
    """How many are left. Raises ``OutOfStock``."""
    left = await connection.scalar(
        update(stock)
        .where(stock.c.product_id == line.product_id, stock.c.free >= line.quantity)
        .values(free=stock.c.free - line.quantity, reserved=stock.c.reserved + line.quantity)
        .returning(stock.c.free)
    )
    if left is None:
        raise OutOfStock(product_id=line.product_id, left=await _free(connection, line.product_id))
    return left


async def _closed(connection: AsyncConnection, order_id: str, status: str, at: datetime) -> bool:
    """Whether the order's pieces were put aside until now."""
    closed = await connection.execute(
        update(reservations)
        .where(reservations.c.order_id == order_id, reservations.c.status == _HELD)
        .values(status=status, changed_at=at)
    )
    return bool(closed.rowcount)


def _moved(line: Pieces, *, free: int = 0, sold: int = 0) -> Update:
    """Pieces that were put aside go back, or go out."""
    return (
        update(stock)
        .where(stock.c.product_id == line.product_id)
        .values(reserved=stock.c.reserved - line.quantity, free=stock.c.free + free, sold=stock.c.sold + sold)
    )


async def _free(connection: AsyncConnection, product_id: str) -> int:
    return await connection.scalar(select(stock.c.free).where(stock.c.product_id == product_id)) or 0


async def _status(connection: AsyncConnection, order_id: str) -> str:
    return await connection.scalar(select(reservations.c.status).where(reservations.c.order_id == order_id)) or ""


async def _lines(connection: AsyncConnection, order_id: str) -> list[Pieces]:
    found = await connection.execute(
        select(reserved_lines.c.product_id, reserved_lines.c.quantity)
        .where(reserved_lines.c.order_id == order_id)
        .order_by(reserved_lines.c.product_id)
    )
    return [Pieces(row.product_id, row.quantity) for row in found]
