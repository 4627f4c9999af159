"""Payments: charging a card, and giving the money back."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from boutique.money import Money
from seamline import Contract, Event, Fault, idempotent, readonly, timeout


class CardBrand(StrEnum):
    VISA = "visa"
    MASTERCARD = "mastercard"


class DeclineReason(StrEnum):
    NUMBER = "number"
    BRAND = "brand"
    EXPIRED = "expired"
    SECURITY_CODE = "security_code"
    ISSUER = "issuer"


@dataclass(frozen=True, slots=True)
class Card:
    """A card as the shopper typed it. Number and code never show in a log."""

    number: str = field(repr=False)
    month: int
    year: int
    security_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardToken:
    """What may be kept of a card: enough to charge it here, too little to charge it elsewhere."""

    brand: CardBrand
    last_four: str
    month: int
    year: int


@dataclass(frozen=True, slots=True)
class Charge:
    id: str
    order_id: str
    amount: Money
    brand: CardBrand
    last_four: str


class CardDeclined(Fault):
    """The card cannot be charged; ``reason`` says why."""

    reason: DeclineReason


class ChargeNotFound(Fault):
    """There is no such charge."""

    charge_id: str


class PaymentCaptured(Event, key="order_id"):
    """Money was taken for an order."""

    order_id: str
    charge_id: str
    amount: Money
    at: datetime


class PaymentRefunded(Event, key="order_id"):
    """The money taken for an order was given back, all of it."""

    order_id: str
    charge_id: str
    amount: Money
    at: datetime


class Payments(Contract):
    @readonly
    async def tokenise(self, card: Card) -> CardToken:
        """Check a card, and give what may be kept of it. Raises ``CardDeclined``."""
        ...

    @timeout(5)
    @idempotent
    async def charge(self, order_id: str, amount: Money, card: CardToken) -> Charge:
        """Charge an order once: asked again for the same order, the first charge is returned.

        Raises ``CardDeclined``.
        """
        ...

    @timeout(5)
    @idempotent
    async def refund(self, charge_id: str) -> None:
        """Give a charge back, once. Raises ``ChargeNotFound``."""
        ...

    @readonly
    async def charge_of(self, order_id: str) -> Charge:
        """What was charged for an order. Raises ``ChargeNotFound``, which names the order."""
        ...
