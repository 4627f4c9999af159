"""Decisions: whether an order is taken, looked at by a human, or refused; why; and what would be decided today."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from boutique.money import Money
from seamline import Contract, Event, Fault, idempotent, readonly, timeout

REPLAYED_MAX = 5_000
"""Decisions that one replay looks at, the newest."""


class Verdict(StrEnum):
    ACCEPT = "accept"
    REVIEW = "review"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Question:
    """An order that is about to be begun. ``worth`` is in euros; ``card`` tells one card of a shopper from another,
    and no more."""

    order_id: str
    shopper: str
    worth: Money
    pieces: int
    country: str
    card: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the model is told: of the order, and of the shopper's past as it was known at that moment."""

    worth: float
    pieces: float
    times_usual: float
    """How many times worth what the shopper's orders of a month were on average; 1 for who had none."""
    orders_1h: float
    orders_30d: float
    failed_1h: float
    cards_1d: float
    countries_1d: float
    new_card: float
    """1 where the one before was another."""
    new_country: float
    known_days: float


@dataclass(frozen=True, slots=True)
class Reason:
    """What one input did to the score: above 0 it speaks for fraud. In units of the logarithm of the odds."""

    name: str
    value: float
    effect: float


@dataclass(frozen=True, slots=True)
class Score:
    """``probability`` that it is fraud, and what made it so, the weightiest first."""

    probability: float
    reasons: tuple[Reason, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Decision:
    """``rules`` names the version of the rules, ``rule`` those that decided. What a human said later is at the end."""

    order_id: str
    shopper: str
    worth: Money
    at: datetime
    verdict: Verdict
    score: float
    reasons: tuple[Reason, ...]
    model: str
    rules: str
    rule: str
    approved: bool | None = None
    by: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """A decision that would be another today."""

    before: Decision
    verdict: Verdict
    score: float
    rule: str
    rules_alone: Verdict
    """Of today's rules with the score of then: where it is the verdict of before, the model has made the change."""


@dataclass(frozen=True, slots=True)
class Replay:
    """``same`` plus the changed ones are all that were replayed; ``unknown`` could not be: their past is not kept."""

    since: datetime
    model: str
    rules: str
    same: int
    changed: tuple[Changed, ...]
    unknown: int


class Judged(Event, key="shopper"):
    """An order was decided on, before it was begun."""

    order_id: str
    shopper: str
    card: str
    country: str
    cents: int
    verdict: Verdict
    at: datetime


class DecisionNotFound(Fault):
    """Nothing was decided on that order."""

    order_id: str


class ModelUnknown(Fault):
    """There is no such version of the model."""

    version: str


class Decisions(Contract):
    @timeout(2)
    @idempotent
    async def decide(self, question: Question) -> Decision:
        """Decide on an order; asked again of the same order, the first decision stands."""
        ...


class DecisionDesk(Contract):
    """For the staff."""

    @readonly
    async def explain(self, order_ids: tuple[str, ...]) -> tuple[Decision, ...]:
        """The decisions on some orders, of those that were decided on."""
        ...

    @readonly
    async def latest(self, limit: int = 50) -> tuple[Decision, ...]:
        """The newest first."""
        ...

    @timeout(60)
    @readonly
    async def replay(self, hours: int, version: str = "") -> Replay:
        """What today's model, or another ``version``, and today's rules would decide on the orders of the last hours.

        Raises ``ModelUnknown``.
        """
        ...


class Fraud(Contract):
    """The model, in one of its versions."""

    @readonly
    async def score(self, inputs: Inputs) -> Score:
        """How likely it is that the card is not the shopper's."""
        ...
