"""The inside of payments: a card check and a ledger. No money moves; this is an example."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError

from boutique.money import Money
from boutique.payments import (
    Card,
    CardBrand,
    CardToken,
    Charge,
    ChargeNotFound,
    PaymentCaptured,
    PaymentRefunded,
    Payments,
)
from boutique.payments.cards import tokenise
from boutique.payments.gateway import CardGateway
from boutique.payments.tables import charges, metadata
from seamline import Clock, Database, Events, Module, Secrets

module = Module("payments", provides=Payments, tables=metadata)

# Charge ids are drawn from order ids, so that a repeated charge has the same one.
_CHARGES = UUID("5b6d6b1e-6f0e-4c52-9a36-0f0a0d9e6a11")


@module.service
class PaymentService(Payments):
    def __init__(self, db: Database, events: Events, clock: Clock, secrets: Secrets) -> None:
        self._gateway = CardGateway(secrets)
        self._db = db
        self._events = events
        self._clock = clock

    async def tokenise(self, card: Card) -> CardToken:
        return tokenise(card, self._clock.now())

    async def charge(self, order_id: str, amount: Money, card: CardToken) -> Charge:
        earlier = await self._charge_of(order_id)
        if earlier is not None:
            return earlier
        now = self._clock.now()
        await self._gateway.authorise(card, now)
        charge = Charge(
            id=str(uuid5(_CHARGES, order_id)),
            order_id=order_id,
            amount=amount,
            brand=card.brand,
            last_four=card.last_four,
        )
        row: dict[str, Any] = {
            "id": charge.id,
            "order_id": order_id,
            "currency": amount.currency,
            "amount": str(amount.amount),
            "brand": card.brand.value,
            "last_four": charge.last_four,
            "charged_at": now,
        }
        try:
            async with self._db.transaction() as connection:
                await connection.execute(insert(charges).values(row))
                await self._events.publish(
                    PaymentCaptured(order_id=order_id, charge_id=charge.id, amount=amount, at=now)
                )
        except IntegrityError:  # the same order, charged at the same moment: the first one counts
            first = await self._charge_of(order_id)
            if first is None:
                raise
            return first
        return charge

    async def refund(self, charge_id: str) -> None:
        async with self._db.transaction() as connection:
            row = (await connection.execute(select(charges).where(charges.c.id == charge_id))).mappings().first()
            if row is None:
                raise ChargeNotFound(charge_id=charge_id)
            now = self._clock.now()
            refunded = await connection.execute(
                update(charges)
                .where(charges.c.id == charge_id, charges.c.refunded_at.is_(None))
                .values(refunded_at=now)
            )
            if refunded.rowcount:
                charge = _charge(row)
                await self._events.publish(
                    PaymentRefunded(order_id=charge.order_id, charge_id=charge.id, amount=charge.amount, at=now)
                )

    async def charge_of(self, order_id: str) -> Charge:
        charge = await self._charge_of(order_id)
        if charge is None:
            raise ChargeNotFound(charge_id=order_id)
        return charge

    async def _charge_of(self, order_id: str) -> Charge | None:
        async with self._db.read() as connection:
            found = await connection.execute(select(charges).where(charges.c.order_id == order_id))
            row = found.mappings().first()
        return None if row is None else _charge(row)


def _charge(row: RowMapping) -> Charge:
    return Charge(
        id=row["id"],
        order_id=row["order_id"],
        amount=Money(row["currency"], Decimal(row["amount"])),
        brand=CardBrand(row["brand"]),
        last_four=row["last_four"],
    )
