"""The inside of decisions: features, a model, rules, and a book in which each decision can be read and replayed."""

from __future__ import annotations

import logging
from datetime import timedelta

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
)
from boutique.decisions import features as known
from boutique.decisions.book import Basis, Book
from boutique.decisions.rules import Rules
from boutique.decisions.scoring import WEIGHTS, Additive, load, versions
from boutique.decisions.tables import metadata
from boutique.decisions.training.measure import figures
from seamline import Clock, Database, Events, Module
from seamline.models.features import Case, keep
from seamline.models.watch.labels import Labels
from seamline.models.watch.reference import Reference
from seamline.models.watch.watcher import Watcher

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


class Watchers(dict[str, Watcher]):
    """By version: what each is asked is compared with what it was trained on."""


@module.provide
def watchers(clock: Clock) -> Watchers:
    references = {version: Reference.load(WEIGHTS / f"reference.{version}.json") for version in versions()}
    return Watchers(
        {
            version: Watcher("decisions", "Fraud", version, found, clock, window_s=HOUR_S, rows_min=ORDERS_MIN)
            for version, found in references.items()
        }
    )


@module.startup
async def prepare(labels: Labels, book: Book) -> None:
    await labels.prepare()
    await labels.forget()
    await book.tidy()


@module.model(Fraud, version=CHAMPION, runs_in="loop")
class Lines:
    """Logistic regression."""

    def __init__(self) -> None:
        self._model = load(CHAMPION)

    async def score(self, inputs: Inputs) -> Score:
        return self._model.score(inputs)

    def evaluate(self) -> dict[str, float]:
        return figures(self._model)


@module.model(Fraud, version="stumps-1", runs_in="loop")
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
    def __init__(self, db: Database, clock: Clock, book: Book, rules: Rules, fraud: Fraud, watchers: Watchers) -> None:
        self._db = db
        self._clock = clock
        self._book = book
        self._rules = rules
        self._fraud = fraud
        self._watchers = watchers

    async def decide(self, question: Question) -> Decision:
        past = await history.now(self._db, self._clock, question.shopper)
        inputs = known.inputs(question, past.values)
        score = await self._fraud.score(inputs)
        verdict, rule = self._rules.decide(question.shopper, inputs, score.probability)
        decided = await self._book.enter(
            question, past.at, past.seen, inputs, score, verdict, self._rules.version, rule
        )
        if decided is None:
            return await self._book.of(question.order_id)
        self._watchers[score.version].saw({**_told(inputs), "score": score.probability})
        return decided


@module.on(OrderReviewed)
async def learn(event: OrderReviewed, book: Book, labels: Labels, watchers: Watchers, clock: Clock) -> None:
    """What a human said of an order is written beside its decision, and is the label of its score."""
    decided = await book.said(event.order_id, approved=event.approved, by=event.by, comment=event.comment, at=event.at)
    if decided is not None:
        await labels.predicted(decided.order_id, decided.model, decided.score)
        await labels.labelled(decided.order_id, came=not event.approved)
        for watcher in watchers.values():
            await labels.tell(watcher, clock.now() - JUDGED_OVER)


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
        found = await self._book.since(since)
        pasts = await history.at(self._db, [Case(each.question.shopper, each.decision.at, each.seen) for each in found])
        whole = [
            (each, known.inputs(each.question, past.values))
            for each, past in zip(found, pasts, strict=True)
            if past.complete
        ]
        changed = [again for each, inputs in whole if (again := self._again(each, inputs, model)) is not None]
        return Replay(
            since, model.version, self._rules.version, len(whole) - len(changed), tuple(changed),
            unknown=len(found) - len(whole),
        )  # fmt: skip

    def _again(self, basis: Basis, inputs: Inputs, model: Additive) -> Changed | None:
        """What is another today."""
        before = basis.decision
        score = model.score(inputs)
        verdict, rule = self._rules.decide(before.shopper, inputs, score.probability)
        if verdict is before.verdict:
            return None
        alone, _ = self._rules.decide(before.shopper, inputs, before.score)
        return Changed(before, verdict, score.probability, rule, rules_alone=alone)


def _told(inputs: Inputs) -> dict[str, float]:
    return {name: getattr(inputs, name) for name in Inputs.__dataclass_fields__}
