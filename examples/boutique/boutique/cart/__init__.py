"""The cart: what a shopper means to buy."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from seamline import Contract, Event, Fault, idempotent, readonly

QUANTITY_MAX = 20
REMINDER_AFTER_S = 20 * 3600
"""A cart that is left alone for so long is forgotten, perhaps."""


@dataclass(frozen=True, slots=True)
class CartLine:
    product_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class CartContents:
    """``version`` grows with every change, so that what was seen is what is ordered."""

    version: int
    lines: tuple[CartLine, ...]

    @property
    def pieces(self) -> int:
        return sum(line.quantity for line in self.lines)


class QuantityRefused(Fault):
    """One line of a cart holds at least one and at most ``quantity_max`` pieces."""

    product_id: str
    quantity_max: int


class CartUpdated(Event, key="shopper"):
    """What is in a cart has changed; ``pieces`` are in it now."""

    shopper: str
    pieces: int
    version: int
    at: datetime


class CartEmptied(Event, key="shopper"):
    """Everything was taken out of a cart, by its shopper or by an order."""

    shopper: str
    at: datetime


class CartLeft(Event, key="shopper"):
    """Told ``REMINDER_AFTER_S`` after a change: the cart was left alone since, if ``version`` is still its version."""

    shopper: str
    version: int


class Cart(Contract):
    @readonly
    async def contents(self, shopper: str) -> CartContents:
        """What is in the cart; empty for a shopper never seen."""
        ...

    async def add(self, shopper: str, product_id: str, quantity: int) -> CartContents:
        """Put more pieces of a product in. Raises ``QuantityRefused``."""
        ...

    @idempotent
    async def set_quantity(self, shopper: str, product_id: str, quantity: int) -> CartContents:
        """Change a line to ``quantity`` pieces; 0 takes it out. Raises ``QuantityRefused``."""
        ...

    @idempotent
    async def empty(self, shopper: str, version: int | None = None) -> int:
        """Take everything out; with ``version``, only if nothing changed since.

        Returns the version that the cart has then, the same if it is asked again; or 0 if nothing was taken out.
        """
        ...

    @idempotent
    async def put_back(self, shopper: str, version: int, lines: tuple[CartLine, ...]) -> None:
        """Undo ``empty``, which returned ``version``; of no effect if the shopper has gone on since."""
        ...
