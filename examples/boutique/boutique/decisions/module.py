"""The inside of decisions: features, a model, rules, and a book in which each decision can be read and replayed."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import lru_cache

from boutique.checkout import OrderReviewed
from boutique.decisions import (
    Changed,
    Decision,
    DecisionDesk,
    Decisions,
    Fraud,
    Inputs,
    ModelUnknown,
    Question,
    Replay,
    Score,
    Verdict,
)
from boutique.decisions import features as known
from boutique.decisions.book import Basis, Book
from boutique.decisions.rules import Rules
from boutique.decisions.scoring import Additive, load, versions
from boutique.decisions.tables import metadata
from boutique.decisions.training.measure import figures
from seamline import Clock, Database, Events, Module, Watch
from seamline.models.features import Case, keep
from seamline.models.watch.labels import Labels
from seamline.models.watch.replay import Decided, Past, Today

_log = logging.getLogger("boutique.decisions")

CHAMPION = "logistic-1"
LATEST_MAX = 200
HOURS_MAX = 90 * 24
JUDGED_OVER = timedelta(days=30)
HOUR_S, ORDERS_MIN = 3600.0, 1_000
"""What a window holds, at least: fraud is rare."""
NOTHING_KNOWN = Inputs(0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)

module = Module("decisions", provides=(Decisions, DecisionDesk, Fraud), tables=metadata)
history = keep(module, known.HISTORY)


@module.provide
def book(db: Database, events: Events, clock: Clock) -> Book:
    return Book(db, events, clock)


@module.provide
def rules() -> Rules:
    return Rules.load()


@module.provide
def labels(db: Database, clock: Clock) -> Labels:
    return Labels(db, "Fraud", clock)


@module.startup
async def prepare(labels: Labels, book: Book) -> None:
    await labels.prepare()
    await labels.forget()
    await book.tidy()


def watched(version: str) -> Watch:
    """What it is asked and says is compared with what it was trained on."""
    return Watch(reference=f"weights/reference.{version}.json", window_s=HOUR_S, rows_min=ORDERS_MIN)


@module.model(Fraud, version=CHAMPION, runs_in="loop", watch=watched(CHAMPION))
class Lines:
    """Logistic regression."""

    def __init__(self) -> None:
        self._model = load(CHAMPION)

    async def score(self, inputs: Inputs) -> Score:
        return self._model.score(inputs)

    def evaluate(self) -> dict[str, float]:
        return figures(self._model)


@module.model(Fraud, version="stumps-1", runs_in="loop", watch=watched("stumps-1"))
class Stumps:
    """Boosted trees of depth one."""

    def __init__(self) -> None:
        self._model = load("stumps-1")

    async def score(self, inputs: Inputs) -> Score:
        return self._model.score(inputs)

    def evaluate(self) -> dict[str, float]:
        return figures(self._model)


@module.service
class DecisionService(Decisions):
    def __init__(self, db: Database, clock: Clock, book: Book, rules: Rules, fraud: Fraud) -> None:
        self._db = db
        self._clock = clock
        self._book = book
        self._rules = rules
        self._fraud = fraud

    async def decide(self, question: Question) -> Decision:
        past = await history.now(self._db, self._clock, question.shopper)
        inputs = known.inputs(question, past.values)
        score = await self._fraud.score(inputs)
        verdict, rule = self._rules.decide(question.shopper, inputs, score.probability)
        decided = await self._book.enter(
            question, past.at, past.seen, inputs, score, verdict, self._rules.version, rule
        )
        return decided or await self._book.of(question.order_id)


@module.on(OrderReviewed)
async def learn(event: OrderReviewed, book: Book, labels: Labels, clock: Clock) -> None:
    """What a human said of an order is written beside its decision, and is the label of its score."""
    decided = await book.said(event.order_id, approved=event.approved, by=event.by, comment=event.comment, at=event.at)
    if decided is not None:
        await labels.predicted(decided.order_id, decided.model, decided.score)
        await labels.labelled(decided.order_id, came=not event.approved)
        await labels.tell(clock.now() - JUDGED_OVER)


@module.service
class DeskService(DecisionDesk):
    def __init__(self, db: Database, clock: Clock, book: Book, rules: Rules, fraud: Fraud) -> None:
        self._db = db
        self._clock = clock
        self._book = book
        self._rules = rules
        self._fraud = fraud

    async def explain(self, order_ids: tuple[str, ...]) -> tuple[Decision, ...]:
        return await self._book.some(order_ids)

    async def latest(self, limit: int = 50) -> tuple[Decision, ...]:
        return await self._book.latest(max(1, min(limit, LATEST_MAX)))

    async def replay(self, hours: int, version: str = "") -> Replay:
        name = version or (await self._fraud.score(NOTHING_KNOWN)).version
        if name not in versions():
            raise ModelUnknown(version=name)
        model = load(name)
        since = self._clock.now() - timedelta(hours=max(1, min(hours, HOURS_MAX)))
        found = await _kept(self._db, self._book, since)
        whole = [(each, inputs) for each, inputs in found if inputs is not None]
        changed = [again for each, inputs in whole if (again := self._again(each, inputs, model)) is not None]
        return Replay(
            since, model.version, self._rules.version, len(whole) - len(changed), tuple(changed),
            unknown=len(found) - len(whole),
        )  # fmt: skip

    def _again(self, basis: Basis, inputs: Inputs, model: Additive) -> Changed | None:
        """What is another today."""
        score = model.score(inputs).probability
        verdict, rule, alone = _decided(self._rules, basis, inputs, score)
        if verdict is basis.decision.verdict:
            return None
        return Changed(basis.decision, verdict, score, rule, rules_alone=alone)


@module.replays(Fraud)
class FraudReplay:
    """The same for `seamline models replay`: also by rules that are only tried, and by any version that is served."""

    def __init__(self, db: Database, book: Book, rules: Rules) -> None:
        self._db = db
        self._book = book
        self._rules = rules

    async def past(self, since: datetime, most: int) -> list[Past]:
        return [
            Past(
                id=each.decision.order_id, at=each.decision.at, verdict=each.decision.verdict.value,
                by=f"{each.decision.model}, rules {each.decision.rules}", score=each.decision.score,
                basis=None if inputs is None else (each, inputs),
            )
            for each, inputs in (await _kept(self._db, self._book, since))[:most]
        ]  # fmt: skip

    async def again(self, past: Past, today: Today) -> Decided:
        basis, inputs = past.basis
        rules = tried(tuple(today.policy.values())) if today.policy else self._rules
        score = (await today.model.score(inputs)).probability
        verdict, rule, alone = _decided(rules, basis, inputs, score)
        by = "model" if alone is basis.decision.verdict else "rules"
        return Decided(verdict=verdict.value, why=rule, score=score, changed_by=by)


@lru_cache(maxsize=4)
def tried(texts: tuple[str, ...]) -> Rules:
    """Rules that are not in force."""
    return Rules("\n".join(texts))


async def _kept(db: Database, book: Book, since: datetime) -> list[tuple[Basis, Inputs | None]]:
    """What stands in the book since then, with what the model was told; None where the shopper's past is gone."""
    found = await book.since(since)
    pasts = await history.at(db, [Case(each.question.shopper, each.decision.at, each.seen) for each in found])
    return [
        (each, known.inputs(each.question, past.values) if past.complete else None)
        for each, past in zip(found, pasts, strict=True)
    ]


def _decided(rules: Rules, basis: Basis, inputs: Inputs, score: float) -> tuple[Verdict, str, Verdict]:
    """What rules say to a score, by which of them, and what they say to the score of then."""
    shopper = basis.decision.shopper
    verdict, rule = rules.decide(shopper, inputs, score)
    alone, _ = rules.decide(shopper, inputs, basis.decision.score)
    return verdict, rule, alone
