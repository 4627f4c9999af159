"""Inventory: how much of everything there is, and for whom some of it is put aside."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from seamline import Contract, Event, Fault, idempotent, readonly

LOW = 10
"""Fewer pieces than this are worth telling."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """So many of one product."""

    product_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class StockLevel:
    """``free`` can be ordered, ``reserved`` is put aside for orders under way, ``sold`` has left the house."""

    product_id: str
    free: int
    reserved: int
    sold: int


class OutOfStock(Fault):
    """There is not enough of it left."""

    product_id: str
    left: int


class ReservationClosed(Fault):
    """The order's pieces were let go; another attempt is another order."""

    order_id: str


class TooFewToWriteOff(Fault):
    """More was written off than is free."""

    product_id: str
    left: int


class StockLow(Event, key="product_id"):
    """Few pieces of a product are free: fewer than ``LOW`` now, and not before."""

    product_id: str
    left: int
    at: datetime


class Inventory(Contract):
    @readonly
    async def levels(self, product_ids: tuple[str, ...]) -> tuple[StockLevel, ...]:
        """The stock of each product, in the order asked; nothing of what is unknown."""
        ...

    @idempotent
    async def reserve(self, order_id: str, lines: tuple[Pieces, ...]) -> None:
        """Put the pieces of an order aside, all or none; once for each order.

        Raises ``OutOfStock``, and ``ReservationClosed`` for an order that was released before.
        """
        ...

    @idempotent
    async def release(self, order_id: str) -> None:
        """Make an order's pieces free again, once. An order not yet known is known as released from then on."""
        ...

    @idempotent
    async def restock(self, delivery_id: str, product_id: str, pieces: int) -> StockLevel:
        """Book a delivery, once; below zero, what a stocktaking wrote off. Raises ``TooFewToWriteOff``."""
        ...
