"""Learns from orders as they come, and keeps count of suggestions that were followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import sqrt
from typing import TypedDict

import msgspec
from sqlalchemy import bindparam, case, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from boutique.checkout import OrderPlaced
from boutique.frontend import ProductViewed
from boutique.recommendations import Uptake
from boutique.recommendations.learning import learn
from boutique.recommendations.tables import baskets, clicks, learned
from seamline import Clock, Database
from seamline.models.watch.watcher import watchers

FIRST_AFTER = 100
"""Orders; fewer say nothing."""
AGAIN_AFTER = 25
"""More orders, and a tenth of those known."""
ORDERS_MAX = 20_000
CREDIT = timedelta(days=7)
"""A suggestion that was looked at is credited with what is bought by then."""
FORGET = timedelta(days=30)
SCORED_FROM = 50
"""Clicks; a share of fewer is no score."""

_REMEMBER = text(
    "INSERT INTO baskets (order_id, shopper, products, placed_at) VALUES (:order_id, :shopper, :products, :placed_at) "
    "ON CONFLICT (order_id) DO NOTHING"
).bindparams(bindparam("placed_at", type_=baskets.c.placed_at.type))
_CLICKED = text(
    "INSERT INTO clicks (shopper, product_id, version, clicked_at, bought) "
    "VALUES (:shopper, :product_id, :version, :clicked_at, :bought) ON CONFLICT (shopper, product_id) DO NOTHING"
).bindparams(bindparam("clicked_at", type_=clicks.c.clicked_at.type), bindparam("bought", type_=clicks.c.bought.type))
_BOUGHT = (
    update(clicks)
    .where(
        clicks.c.shopper == bindparam("by"),
        clicks.c.product_id == bindparam("piece"),
        clicks.c.clicked_at.between(bindparam("since"), bindparam("until")),
    )
    .values(bought=True)
)
_UPTAKE = (
    select(clicks.c.version, func.count(), func.sum(case((clicks.c.bought, 1), else_=0)))
    .group_by(clicks.c.version)
    .order_by(clicks.c.version)
)


class _Row(TypedDict):
    order_id: str
    shopper: str
    products: str
    placed_at: datetime


class Learner:
    """Its methods run in the unit of work of an event handler: what is learned commits with the orders."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def ordered(self, orders: Sequence[OrderPlaced]) -> None:
        rows: list[_Row] = [
            {
                "order_id": order.order_id,
                "shopper": order.shopper,
                "products": " ".join(dict.fromkeys(line.product_id for line in order.lines)),
                "placed_at": order.placed_at,
            }
            for order in orders
        ]
        pieces = [
            {"by": order.shopper, "piece": line.product_id, "since": order.placed_at - CREDIT, "until": order.placed_at}
            for order in orders
            for line in order.lines
        ]
        # Learning takes a while: nothing is written before, so that nobody waits for the writer.
        said = await self._learn({order["order_id"]: order for order in rows})
        async with self._db.transaction() as connection:
            await connection.execute(_REMEMBER, rows)
            await connection.execute(_BOUGHT, pieces)
            if said is not None:
                await self._keep(connection, *said)
        await self._score()

    async def clicked(self, views: Sequence[ProductViewed]) -> None:
        """The first time that a shopper followed a suggestion of a product counts."""
        rows = [
            {
                "shopper": view.session,
                "product_id": view.product_id,
                "version": view.via,
                "clicked_at": view.at,
                "bought": False,
            }
            for view in views
        ]
        async with self._db.transaction() as connection:
            await connection.execute(_CLICKED, rows)
            await connection.execute(delete(clicks).where(clicks.c.clicked_at < self._clock.now() - FORGET))

    async def uptake(self) -> tuple[Uptake, ...]:
        async with self._db.read() as connection:
            rows = (await connection.execute(_UPTAKE)).all()
        return tuple(Uptake(version, clicked, int(bought or 0)) for version, clicked, bought in rows)

    async def _learn(self, orders: dict[str, _Row]) -> tuple[int, bytes] | None:
        """How many orders, and what they tell; None where it is too early."""
        last = select(func.max(learned.c.learned_at)).scalar_subquery()
        async with self._db.read() as connection:
            again = await connection.execute(select(baskets.c.order_id).where(baskets.c.order_id.in_([*orders])))
            told = frozenset(again.scalars())
            new = [(row["shopper"], row["products"].split()) for key, row in orders.items() if key not in told]
            before = (await connection.execute(select(func.max(learned.c.orders)))).scalar() or 0
            fresh = select(func.count()).select_from(baskets)
            if before:
                fresh = fresh.where(baskets.c.placed_at > last)
            count = ((await connection.execute(fresh)).scalar() or 0) + len(new)
            if count < (max(AGAIN_AFTER, before // 10) if before else FIRST_AFTER):
                return None
            rows = await connection.execute(
                select(baskets.c.shopper, baskets.c.products).order_by(baskets.c.placed_at.desc()).limit(ORDERS_MAX)
            )
            known = [(shopper, products.split()) for shopper, products in reversed(rows.all())]
        said = await asyncio.to_thread(learn, [*known, *new][-ORDERS_MAX:])
        return said.orders, msgspec.json.encode(said)

    async def _keep(self, connection: AsyncConnection, orders: int, said: bytes) -> None:
        newest = (await connection.execute(select(func.max(baskets.c.placed_at)))).scalar()
        number = ((await connection.execute(select(func.max(learned.c.number)))).scalar() or 0) + 1
        await connection.execute(
            insert(learned).values(number=number, orders=orders, learned_at=newest or self._clock.now(), said=said)
        )
        await connection.execute(delete(learned).where(learned.c.number <= number - 3))
        oldest = select(baskets.c.placed_at).order_by(baskets.c.placed_at.desc()).offset(ORDERS_MAX).limit(1)
        await connection.execute(delete(baskets).where(baskets.c.placed_at <= oldest.scalar_subquery()))

    async def _score(self) -> None:
        for each in await self.uptake():
            if each.clicked < SCORED_FROM:
                continue
            share = each.bought / each.clicked
            error = sqrt(max(share * (1 - share), 1e-4) / each.clicked)
            for watcher in watchers("Recommendations"):
                if watcher.version == each.version:
                    watcher.measured("bought_share", share, error)
