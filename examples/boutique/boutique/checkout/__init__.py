"""Checkout: from a cart to an order, at most once."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from boutique.catalog import ProductNotFound
from boutique.currency import CurrencyUnknown
from boutique.money import Money
from boutique.payments import Card, CardBrand, CardDeclined, DeclineReason
from boutique.people import Address
from boutique.shipping import CountryNotServed
from seamline import Contract, Event, Fault, idempotent, readonly, timeout

__all__ = [
    "CardDeclined",
    "CartChanged",
    "CartEmpty",
    "Checkout",
    "CountryNotServed",
    "CurrencyUnknown",
    "DeclineReason",
    "Order",
    "OrderLine",
    "OrderNotFound",
    "OrderUnfinished",
    "ProductNotFound",
    "Purchase",
]


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


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    lines: tuple[OrderLine, ...]
    shipping: Money
    total: Money
    email: str
    address: Address
    tracking_id: str = ""
    card_brand: CardBrand | None = None
    card_last_four: str = ""


class OrderPlaced(Event, key="order_id"):
    """An order was charged and shipped."""

    order_id: str
    shopper: str
    currency: str
    total: Money
    lines: tuple[OrderLine, ...]
    placed_at: datetime


class OrderUndone(Event, key="order_id"):
    """An order that was begun is not to be; all that was done for it is undone. ``reason`` is for the shopper."""

    order_id: str
    shopper: str
    reason: str
    reviewed: bool
    at: datetime


class CartEmpty(Fault):
    """There is nothing to order."""


class CartChanged(Fault):
    """The cart is no longer the one the shopper saw."""

    version: int


class OrderUnfinished(Fault):
    """A part of the shop did not answer. The same key finishes the order; nothing is charged twice."""

    order_id: str


class OrderNotFound(Fault):
    """There is no such order."""

    order_id: str


class Checkout(Contract):
    @timeout(15)
    @idempotent
    async def place(self, key: str, purchase: Purchase) -> Order:
        """Order what is in the cart. ``key`` names the attempt: the same key gives the same order, once.

        Raises ``CartEmpty``, ``CartChanged``, ``CardDeclined``, ``CountryNotServed``, ``CurrencyUnknown``,
        ``OrderUnfinished``.
        """
        ...

    @readonly
    async def order(self, order_id: str) -> Order:
        """An order that was placed. Raises ``OrderNotFound``."""
        ...
