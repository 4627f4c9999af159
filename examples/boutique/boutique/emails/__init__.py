"""Emails: letters to customers, kept in an outbox; nothing leaves the machine."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass

from boutique.checkout import Order
from seamline import Contract, Fault, idempotent, readonly


@dataclass(frozen=True, slots=True)
class Letter:
    recipient: str
    subject: str
    text: str


class LetterNotFound(Fault):
    """No letter was written for this order."""

    order_id: str


class Emails(Contract):
    @idempotent
    async def confirm_order(self, order: Order) -> None:
        """Write the confirmation of an order into the outbox, once."""
        ...

    @readonly
    async def letter(self, order_id: str) -> Letter:
        """The confirmation of an order. Raises ``LetterNotFound``."""
        ...
