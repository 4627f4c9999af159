"""The inside of the cart: a version and its lines, in the module's own database."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from boutique.cart import (
    QUANTITY_MAX,
    REMINDER_AFTER_S,
    Cart,
    CartContents,
    CartEmptied,
    CartLeft,
    CartLine,
    CartUpdated,
    QuantityRefused,
)
from boutique.cart.tables import cart_lines, carts, metadata
from seamline import Clock, Database, Events, Module

module = Module("cart", provides=Cart, tables=metadata)

_NOTHING = CartContents(0, ())

_READ = (
    select(carts.c.version, cart_lines.c.product_id, cart_lines.c.quantity)
    .select_from(carts.outerjoin(cart_lines, cart_lines.c.shopper == carts.c.shopper))
    .where(carts.c.shopper == bindparam("shopper"))
    .order_by(cart_lines.c.position, cart_lines.c.product_id)
)

# Both statements read the same in SQLite and PostgreSQL. The first also locks the cart, so that changes
# of one shopper follow one another.
_CHANGED = text(
    "INSERT INTO carts (shopper, version) VALUES (:shopper, 1) "
    "ON CONFLICT (shopper) DO UPDATE SET version = carts.version + 1 RETURNING version"
)
_PUT = text(
    "INSERT INTO cart_lines (shopper, product_id, quantity, position) "
    "VALUES (:shopper, :product_id, :quantity, :position) "
    "ON CONFLICT (shopper, product_id) DO UPDATE SET quantity = excluded.quantity"
)


@module.service
class CartService(Cart):
    def __init__(self, db: Database, events: Events, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._clock = clock

    async def contents(self, shopper: str) -> CartContents:
        async with self._db.read() as connection:
            return await _contents(connection, shopper)

    async def add(self, shopper: str, product_id: str, quantity: int) -> CartContents:
        if quantity < 1:
            raise QuantityRefused(product_id=product_id, quantity_max=QUANTITY_MAX)
        async with self._db.transaction() as connection:
            version = await _changed(connection, shopper)
            before = await connection.scalar(
                select(cart_lines.c.quantity).where(
                    cart_lines.c.shopper == shopper, cart_lines.c.product_id == product_id
                )
            )
            await _put(connection, shopper, product_id, (before or 0) + quantity, version)
            return await self._tell(connection, shopper)

    async def set_quantity(self, shopper: str, product_id: str, quantity: int) -> CartContents:
        async with self._db.transaction() as connection:
            version = await _changed(connection, shopper)
            if quantity == 0:
                await connection.execute(
                    delete(cart_lines).where(cart_lines.c.shopper == shopper, cart_lines.c.product_id == product_id)
                )
            else:
                await _put(connection, shopper, product_id, quantity, version)
            return await self._tell(connection, shopper)

    async def empty(self, shopper: str, version: int | None = None) -> int:
        async with self._db.transaction() as connection:
            changed = update(carts).where(carts.c.shopper == shopper).values(version=carts.c.version + 1)
            if version is not None:
                changed = changed.where(carts.c.version == version)
            now = await connection.scalar(changed.returning(carts.c.version))
            if now is None:
                return await _emptied_before(connection, shopper, version)
            gone = await connection.execute(delete(cart_lines).where(cart_lines.c.shopper == shopper))
            if not gone.rowcount:
                return 0
            await self._events.publish(CartEmptied(shopper=shopper, at=self._clock.now()))
            return now

    async def put_back(self, shopper: str, version: int, lines: tuple[CartLine, ...]) -> None:
        async with self._db.transaction() as connection:
            found = await connection.execute(
                update(carts)
                .where(carts.c.shopper == shopper, carts.c.version == version)
                .values(version=carts.c.version + 1)
            )
            if found.rowcount:
                for line in lines:
                    await _put(connection, shopper, line.product_id, line.quantity, version + 1)
                await self._tell(connection, shopper)

    async def _tell(self, connection: AsyncConnection, shopper: str) -> CartContents:
        """Publish what the cart has become, and set the timer that finds it left alone."""
        contents = await _contents(connection, shopper)
        await self._events.publish(
            CartUpdated(shopper=shopper, pieces=contents.pieces, version=contents.version, at=self._clock.now())
        )
        if contents.lines:
            await self._events.publish(CartLeft(shopper=shopper, version=contents.version), delay_s=REMINDER_AFTER_S)
        return contents


async def _contents(connection: AsyncConnection, shopper: str) -> CartContents:
    rows = (await connection.execute(_READ, {"shopper": shopper})).all()
    if not rows:
        return _NOTHING
    lines = tuple(CartLine(row.product_id, row.quantity) for row in rows if row.product_id is not None)
    return CartContents(rows[0].version, lines)


async def _emptied_before(connection: AsyncConnection, shopper: str, version: int | None) -> int:
    """The cart's version if it is what emptying ``version`` made of it, else 0."""
    contents = await _contents(connection, shopper)
    return contents.version if version is not None and contents == CartContents(version + 1, ()) else 0


async def _changed(connection: AsyncConnection, shopper: str) -> int:
    version = await connection.scalar(_CHANGED, {"shopper": shopper})
    return int(version or 0)


async def _put(connection: AsyncConnection, shopper: str, product_id: str, quantity: int, position: int) -> None:
    if not 1 <= quantity <= QUANTITY_MAX:
        raise QuantityRefused(product_id=product_id, quantity_max=QUANTITY_MAX)
    await connection.execute(
        _PUT, {"shopper": shopper, "product_id": product_id, "quantity": quantity, "position": position}
    )
