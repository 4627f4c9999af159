"""Payments: a card check and a ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from fastapi import FastAPI, HTTPException
from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.peers.boutique_fastapi import store
from benchmarks.peers.boutique_fastapi.models import (
    Card,
    CardBrand,
    Charge,
    ChargeRequest,
    DeclineReason,
    Money,
)
from benchmarks.peers.boutique_fastapi.platform import Settings, service
from benchmarks.peers.boutique_fastapi.store import Engine, charges

_CHARGES = UUID("5b6d6b1e-6f0e-4c52-9a36-0f0a0d9e6a11")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def create(settings: Settings) -> FastAPI:
    app = service("payments", settings, opened=store.database("payments", store.payments, settings))

    @app.post("/charges")
    async def charge(asked: ChargeRequest, engine: Engine) -> Charge:
        earlier = await _charge_of(engine, asked.order_id)
        if earlier is not None:
            return earlier
        now = datetime.now(UTC)
        digits = _digits(asked.card.number)
        made = Charge(
            id=str(uuid5(_CHARGES, asked.order_id)),
            order_id=asked.order_id,
            amount=asked.amount,
            brand=_check(asked.card, digits, now),
            last_four=digits[-4:],
        )
        row: dict[str, Any] = {
            "id": made.id,
            "order_id": made.order_id,
            "currency": made.amount.currency,
            "amount": str(made.amount.amount),
            "brand": made.brand.value,
            "last_four": made.last_four,
            "charged_at": now,
        }
        try:
            async with engine.begin() as connection:
                await connection.execute(insert(charges).values(row))
        except IntegrityError:
            first = await _charge_of(engine, asked.order_id)
            if first is None:
                raise
            return first
        return made

    @app.post("/charges/{charge_id}/refund")
    async def refund(charge_id: str, engine: Engine) -> None:
        async with engine.begin() as connection:
            known = await connection.scalar(select(charges.c.id).where(charges.c.id == charge_id))
            if known is None:
                raise HTTPException(404, "charge")
            await connection.execute(
                update(charges)
                .where(charges.c.id == charge_id, charges.c.refunded_at.is_(None))
                .values(refunded_at=datetime.now(UTC))
            )

    return app


async def _charge_of(engine: AsyncEngine, order_id: str) -> Charge | None:
    async with engine.connect() as connection:
        found = await connection.execute(select(charges).where(charges.c.order_id == order_id))
        row = found.mappings().first()
    return None if row is None else _charge(row)


def _charge(row: RowMapping) -> Charge:
    return Charge(
        id=row["id"],
        order_id=row["order_id"],
        amount=Money(currency=row["currency"], amount=Decimal(row["amount"])),
        brand=CardBrand(row["brand"]),
        last_four=row["last_four"],
    )


def _digits(number: str) -> str:
    return number.replace(" ", "").replace("-", "")


def _check(card: Card, digits: str, now: datetime) -> CardBrand:
    if not 12 <= len(digits) <= 19 or not _passes_luhn(digits):
        raise HTTPException(402, DeclineReason.NUMBER)
    brand = _brand(digits)
    if brand is None:
        raise HTTPException(402, DeclineReason.BRAND)
    if not 1 <= card.month <= 12 or (card.year, card.month) < (now.year, now.month):
        raise HTTPException(402, DeclineReason.EXPIRED)
    code = card.security_code
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise HTTPException(402, DeclineReason.SECURITY_CODE)
    return brand


def _passes_luhn(digits: str) -> bool:
    if not (digits.isascii() and digits.isdigit()):
        return False
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def _brand(digits: str) -> CardBrand | None:
    if digits.startswith("4") and len(digits) in {13, 16, 19}:
        return CardBrand.VISA
    if len(digits) == 16 and (51 <= int(digits[:2]) <= 55 or 2221 <= int(digits[:4]) <= 2720):
        return CardBrand.MASTERCARD
    return None
