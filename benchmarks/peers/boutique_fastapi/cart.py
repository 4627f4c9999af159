"""The cart: a version and its lines."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException
from sqlalchemy import bindparam, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.peers.boutique_fastapi import store
from benchmarks.peers.boutique_fastapi.models import CartContents, CartLine, Quantity
from benchmarks.peers.boutique_fastapi.platform import Settings, service
from benchmarks.peers.boutique_fastapi.store import Engine, cart_lines, carts

QUANTITY_MAX = 20

_READ = (
    select(carts.c.version, cart_lines.c.product_id, cart_lines.c.quantity)
    .select_from(carts.outerjoin(cart_lines, cart_lines.c.shopper == carts.c.shopper))
    .where(carts.c.shopper == bindparam("shopper"))
    .order_by(cart_lines.c.position, cart_lines.c.product_id)
)
_CHANGED = text(
    "INSERT INTO carts (shopper, version) VALUES (:shopper, 1) "
    "ON CONFLICT (shopper) DO UPDATE SET version = carts.version + 1 RETURNING version"
)
_PUT = text(
    "INSERT INTO cart_lines (shopper, product_id, quantity, position) "
    "VALUES (:shopper, :product_id, :quantity, :position) "
    "ON CONFLICT (shopper, product_id) DO UPDATE SET quantity = excluded.quantity"
)


def create(settings: Settings) -> FastAPI:
    app = service("cart", settings, opened=store.database("cart", store.cart, settings))

    @app.get("/carts/{shopper}")
    async def contents(shopper: str, engine: Engine) -> CartContents:
        async with engine.connect() as connection:
            return await _contents(connection, shopper)

    @app.post("/carts/{shopper}/lines")
    async def add(shopper: str, line: CartLine, engine: Engine) -> CartContents:
        if line.quantity < 1:
            raise HTTPException(422, "quantity")
        async with engine.begin() as connection:
            version = await connection.scalar(_CHANGED, {"shopper": shopper}) or 0
            before = await connection.scalar(
                select(cart_lines.c.quantity).where(
                    cart_lines.c.shopper == shopper, cart_lines.c.product_id == line.product_id
                )
            )
            await _put(connection, shopper, line.product_id, (before or 0) + line.quantity, version)
            return await _contents(connection, shopper)

    @app.put("/carts/{shopper}/lines/{product_id}")
    async def set_quantity(shopper: str, product_id: str, change: Quantity, engine: Engine) -> CartContents:
        async with engine.begin() as connection:
            version = await connection.scalar(_CHANGED, {"shopper": shopper}) or 0
            if change.quantity == 0:
                await connection.execute(
                    delete(cart_lines).where(cart_lines.c.shopper == shopper, cart_lines.c.product_id == product_id)
                )
            else:
                await _put(connection, shopper, product_id, change.quantity, version)
            return await _contents(connection, shopper)

    @app.delete("/carts/{shopper}")
    async def empty(shopper: str, engine: Engine, version: int | None = None) -> None:
        async with engine.begin() as connection:
            changed = update(carts).where(carts.c.shopper == shopper).values(version=carts.c.version + 1)
            if version is not None:
                changed = changed.where(carts.c.version == version)
            if (await connection.execute(changed)).rowcount:
                await connection.execute(delete(cart_lines).where(cart_lines.c.shopper == shopper))

    return app


async def _contents(connection: AsyncConnection, shopper: str) -> CartContents:
    rows = (await connection.execute(_READ, {"shopper": shopper})).all()
    if not rows:
        return CartContents(version=0, lines=())
    lines = tuple(
        CartLine(product_id=row.product_id, quantity=row.quantity) for row in rows if row.product_id is not None
    )
    return CartContents(version=rows[0].version, lines=lines)


async def _put(connection: AsyncConnection, shopper: str, product_id: str, quantity: int, position: int) -> None:
    if not 1 <= quantity <= QUANTITY_MAX:
        raise HTTPException(422, "quantity")
    await connection.execute(
        _PUT, {"shopper": shopper, "product_id": product_id, "quantity": quantity, "position": position}
    )
