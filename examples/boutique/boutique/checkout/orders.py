"""The book of orders: each entry changes in one transaction with the event that tells of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid5

import msgspec
from sqlalchemy import RowMapping, bindparam, select, text, update

from boutique.checkout import Order, OrderPlaced, OrderReviewed, OrderStatus, OrderUndone, Waiting
from boutique.checkout.tables import orders
from boutique.money import Money
from boutique.payments import CardToken
from seamline import Approval, Clock, Database, Events

# Order ids are drawn from the attempt's key: a repeated attempt finds the order of the first.
_ORDERS = UUID("0d3f3a55-8a2f-4b07-8d1c-6a3b6f0f2e77")

# Reads the same in SQLite and PostgreSQL.
_BEGIN = text(
    "INSERT INTO orders (id, attempt, number, shopper, worth, saga, status, reason, reviewed, content, created_at) "
    "VALUES (:id, :attempt, :number, :shopper, :worth, :saga, :status, '', 0, :content, :created_at) "
    "ON CONFLICT (id) DO NOTHING"
).bindparams(bindparam("created_at", type_=orders.c.created_at.type))


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a saga is told: the order as it was priced, and what else it takes to carry it out.

    ``number`` counts the orders begun with the key ``attempt``; ``worth`` is the total in euros; ``review`` says that
    a human is to look at it, whatever it is worth.
    """

    attempt: str
    number: int
    shopper: str
    cart_version: int
    order: Order
    worth: Money
    card: CardToken
    review: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """An order as it stands in the book."""

    order: Order
    number: int
    saga: str


def order_id(attempt: str, number: int) -> str:
    """The id of the ``number``-th order that was begun with the key ``attempt``."""
    return str(uuid5(_ORDERS, attempt if number == 1 else f"{attempt}#{number}"))


class Orders:
    """Every change may be asked for twice and is made once."""

    def __init__(self, db: Database, events: Events, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._clock = clock

    async def find(self, order_id: str) -> Order | None:
        async with self._db.read() as connection:
            found = await connection.execute(select(orders).where(orders.c.id == order_id))
            row = found.mappings().first()
        return None if row is None else _order(row)

    async def latest(self, attempt: str) -> Entry | None:
        """The last order that was begun with a key."""
        query = select(orders).where(orders.c.attempt == attempt).order_by(orders.c.number.desc()).limit(1)
        async with self._db.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else Entry(_order(row), row["number"], row["saga"])

    async def in_review(self) -> tuple[Waiting, ...]:
        query = select(orders).where(orders.c.status == OrderStatus.IN_REVIEW).order_by(orders.c.created_at)
        async with self._db.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return tuple(
            Waiting(_order(row), row["shopper"], Money("EUR", Decimal(row["worth"])), row["created_at"]) for row in rows
        )

    async def saga_in_review(self, order_id: str) -> str | None:
        """The saga that waits for a human's word on the order."""
        reviewed = select(orders.c.saga).where(orders.c.id == order_id, orders.c.status == OrderStatus.IN_REVIEW)
        async with self._db.read() as connection:
            return await connection.scalar(reviewed)

    # The steps of a saga.

    async def begin(self, agreed: Agreed, saga: str) -> None:
        """Enter an order, unless it is entered."""
        order = agreed.order
        async with self._db.transaction() as connection:
            await connection.execute(
                _BEGIN,
                {
                    "id": order.id,
                    "attempt": agreed.attempt,
                    "number": agreed.number,
                    "shopper": agreed.shopper,
                    "worth": str(agreed.worth.amount),
                    "saga": saga,
                    "status": OrderStatus.UNDER_WAY.value,
                    "content": _json(order),
                    "created_at": self._clock.now(),
                },
            )

    async def review(self, order_id: str, saga: str) -> None:
        """From now on the order waits for a human, and ``saga`` works on it."""
        await self._change(order_id, status=OrderStatus.IN_REVIEW.value, saga=saga, reviewed=1)

    async def decided(self, order_id: str, answer: Approval) -> None:
        """The order waits for nobody any more; what was said of it is told."""
        told = OrderReviewed(
            order_id=order_id, approved=answer.approved, by=answer.by, comment=answer.comment, at=self._clock.now()
        )
        async with self._db.transaction() as connection:
            await connection.execute(
                update(orders).where(orders.c.id == order_id).values(status=OrderStatus.UNDER_WAY.value)
            )
            await self._events.publish(told)

    async def place(self, agreed: Agreed, order: Order) -> datetime:
        """The order is complete; the world is told in the same moment."""
        now = self._clock.now()
        async with self._db.transaction() as connection:
            await connection.execute(
                update(orders)
                .where(orders.c.id == order.id)
                .values(status=OrderStatus.PLACED.value, content=_json(order))
            )
            await self._events.publish(
                OrderPlaced(
                    order_id=order.id,
                    shopper=agreed.shopper,
                    currency=order.total.currency,
                    total=order.total,
                    lines=order.lines,
                    placed_at=now,
                )
            )
        return now

    async def explain(self, order_id: str, reason: str) -> None:
        """Why the order is about to be undone, in words for the shopper."""
        await self._change(order_id, reason=reason)

    async def undo(self, agreed: Agreed, saga: str) -> None:
        """Take ``begin`` back, last of all: whatever was done for the order is undone."""
        _ = saga
        order_id = agreed.order.id
        now = self._clock.now()
        async with self._db.transaction() as connection:
            changed = await connection.execute(
                update(orders)
                .where(orders.c.id == order_id, orders.c.status != OrderStatus.UNDONE)
                .values(status=OrderStatus.UNDONE.value)
                .returning(orders.c.shopper, orders.c.reason, orders.c.reviewed)
            )
            row = changed.first()
            if row is not None:
                await self._events.publish(
                    OrderUndone(
                        order_id=order_id,
                        shopper=row.shopper,
                        reason=row.reason,
                        reviewed=bool(row.reviewed),
                        at=now,
                    )
                )

    async def refunded(self, order: Order) -> Order:
        """The money for the order was given back."""
        await self._change(order.id, status=OrderStatus.REFUNDED.value)
        return replace(order, status=OrderStatus.REFUNDED)

    async def _change(self, order_id: str, **values: str | int) -> None:
        async with self._db.transaction() as connection:
            await connection.execute(update(orders).where(orders.c.id == order_id).values(values))


def _order(row: RowMapping) -> Order:
    order = msgspec.json.decode(row["content"], type=Order)
    return replace(order, status=OrderStatus(row["status"]), reason=row["reason"])


def _json(order: Order) -> str:
    return msgspec.json.encode(order).decode()
