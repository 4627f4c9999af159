"""Emails: letters to customers, kept in an outbox; nothing leaves the machine."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from seamline import Contract, Event, Fault, readonly


class LetterKind(StrEnum):
    CONFIRMATION = "confirmation"
    REFUSAL = "refusal"
    REMINDER = "reminder"


@dataclass(frozen=True, slots=True)
class Letter:
    recipient: str
    subject: str
    text: str


class LetterNotFound(Fault):
    """No letter was written for this order."""

    order_id: str


class LetterWritten(Event, key="about"):
    """A letter is in the outbox. ``about`` is an order's id, or the shopper who is reminded of a cart."""

    about: str
    kind: LetterKind
    at: datetime


class Emails(Contract):
    """Letters are written when others tell what happened; here they are shown."""

    @readonly
    async def letter(self, order_id: str) -> Letter:
        """What we wrote about an order. Raises ``LetterNotFound``."""
        ...

    @readonly
    async def reminder(self, shopper: str, version: int) -> Letter | None:
        """The reminder of a cart that was left alone with this version, if there is one."""
        ...
