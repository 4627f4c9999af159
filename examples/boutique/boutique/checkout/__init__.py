"""Checkout: from a cart to an order, whole or not at all."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from boutique.catalog import ProductNotFound
from boutique.currency import CurrencyUnknown
from boutique.inventory import OutOfStock
from boutique.money import Money
from boutique.payments import Card, CardBrand, CardDeclined, DeclineReason
from boutique.people import Address
from boutique.shipping import CountryNotServed
from seamline import Attribute, Contract, Event, Fault, idempotent, readonly, timeout

__all__ = [
    "BLIND_REVIEW_ABOVE",
    "REVIEW_ABOVE",
    "REVIEW_WITHIN_S",
    "CardDeclined",
    "CartChanged",
    "CartEmpty",
    "Checkout",
    "CountryNotServed",
    "CurrencyUnknown",
    "DeclineReason",
    "NotInReview",
    "NotRefundable",
    "Order",
    "OrderLine",
    "OrderNotFound",
    "OrderPlaced",
    "OrderRefused",
    "OrderReview",
    "OrderReviewed",
    "OrderStatus",
    "OrderUndone",
    "OrderUnfinished",
    "OutOfStock",
    "ProductNotFound",
    "Purchase",
    "Refunds",
    "Waiting",
]

REVIEW_ABOVE = Money("EUR", Decimal(2000))
"""An order worth more than this is looked at by a human before it is charged."""
BLIND_REVIEW_ABOVE = Money("EUR", Decimal(500))
"""Where nobody can say whether an order may be fraud, this much is taken without a look."""
REVIEW_WITHIN_S = 3 * 24 * 3600
"""An order that nobody has decided by then is not taken."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a shopper sends from the till. ``cart_version`` is the cart that was on the screen."""

    shopper: str
    cart_version: int
    currency: str
    email: str
    address: Address
    card: Card


@dataclass(frozen=True, slots=True)
class OrderLine:
    product_id: str
    name: str
    quantity: int
    price: Money


class OrderStatus(StrEnum):
    """``UNDER_WAY`` becomes ``IN_REVIEW`` above a sum, then ``PLACED`` or ``UNDONE``; staff refund what is placed."""

    UNDER_WAY = "under way"
    IN_REVIEW = "in review"
    PLACED = "placed"
    UNDONE = "undone"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Order:
    """``reason`` is why it was undone, in words for the shopper."""

    id: str
    lines: tuple[OrderLine, ...]
    shipping: Money
    total: Money
    email: str
    address: Address
    tracking_id: str = ""
    card_brand: CardBrand | None = None
    card_last_four: str = ""
    status: OrderStatus = OrderStatus.UNDER_WAY
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that waits for a human; ``worth`` is its total in euros."""

    order: Order
    shopper: str
    worth: Money
    since: datetime


class OrderPlaced(Event, key="order_id"):
    """An order was charged and shipped."""

    order_id: str
    shopper: str
    currency: str
    total: Money
    lines: tuple[OrderLine, ...]
    placed_at: datetime


class OrderUndone(Event, key="order_id"):
    """An order that was begun is not to be; what was done for it is taken back. ``reason`` is for the shopper."""

    order_id: str
    shopper: str
    reason: str
    reviewed: bool
    at: datetime


class OrderReviewed(Event, key="order_id"):
    """A human has looked at an order, and let it go on or not."""

    order_id: str
    approved: bool
    by: str
    comment: str
    at: datetime


class CartEmpty(Fault):
    """There is nothing to order."""


class CartChanged(Fault):
    """The cart is no longer the one the shopper saw."""

    version: int


class OrderRefused(Fault):
    """We looked at the order and did not take it."""

    order_id: str


class OrderUnfinished(Fault):
    """A part of the shop does not answer. The order goes on by itself, or is undone; the same key tells which."""

    order_id: str


class OrderNotFound(Fault):
    """There is no such order."""

    order_id: str


class NotInReview(Fault):
    """The order waits for nobody: it was decided, or never asked for."""

    order_id: str


class NotRefundable(Fault):
    """The order was not placed, or its total is another than was said."""

    order_id: str
    total: Money


class Checkout(Contract):
    @timeout(15)
    @idempotent
    async def place(self, key: str, purchase: Purchase) -> Order:
        """Order what is in the cart. ``key`` names the attempt: the same key gives the same order, once.

        An order that somebody is to look at, above ``REVIEW_ABOVE`` or because it may be fraud, comes back in review,
        with its pieces put aside and nothing charged. After a fault nothing of the order is left, and the same key
        begins anew.

        Raises ``CartEmpty``, ``CartChanged``, ``ProductNotFound``, ``OutOfStock``, ``CardDeclined``,
        ``CountryNotServed``, ``CurrencyUnknown``, ``OrderRefused``, ``OrderUnfinished``.
        """
        ...

    @readonly
    async def order(self, order_id: str) -> Order:
        """An order, whatever became of it. Raises ``OrderNotFound``."""
        ...


class OrderReview(Contract):
    """For the staff: orders that wait for a human."""

    @readonly
    async def waiting(self) -> tuple[Waiting, ...]:
        """The orders in review, the oldest first."""
        ...

    @idempotent
    async def decide(self, order_id: str, approved: bool, by: str, comment: str) -> None:  # a form's field
        """Let an order go on, or not. Raises ``NotInReview``."""
        ...


class Refunds(Contract):
    """For the staff: money given back for what was sold. Policy says who may give back how much."""

    @timeout(10)
    @idempotent
    async def refund(self, order_id: str, total: Annotated[Money, Attribute("amount", "currency")]) -> Order:
        """Give back all that was charged for an order that was placed; ``total`` is what that is, and must agree.

        Raises ``OrderNotFound``, ``NotRefundable``.
        """
        ...
