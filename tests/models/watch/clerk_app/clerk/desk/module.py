"""Its inside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from clerk.desk import Desk, Risk, Risky, Talk
from seamline import Capture, Clock, Module, Watch
from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Message, Usage
from seamline.models.rollout.route import scored
from seamline.models.watch.datasets import Datasets
from seamline.models.watch.replay import Decided, Past, Today

module = Module("desk", provides=(Risk, Talk, Desk))


def whose(who: str, amount: float, country: str) -> str:
    return who


WATCH = Watch(window_s=0, rows_min=200, capture=Capture(dataset="risks", subject=whose))


@module.model(Risk, version="mild", runs_in="loop", watch=WATCH)
class Mild:
    async def risk(self, who: str, amount: float, country: str) -> Risky:
        return Risky(min(amount / 1000, 1.0), "mild")


@module.model(Risk, version="stern", runs_in="loop", watch=WATCH)
class Stern:
    async def risk(self, who: str, amount: float, country: str) -> Risky:
        if amount < 0:
            raise ValueError(amount)
        return Risky(min(amount / 500, 1.0), "stern")

    @staticmethod
    def evaluate() -> dict[str, float]:
        return {"auc": 0.75}


@module.model(Talk, version="1", runs_in="loop", watch=Watch(cost=lambda used: used.output_tokens / 4))
class Talking:
    async def complete(self, request: ChatRequest) -> ChatAnswer:
        said = Message(role="assistant", content="I cannot say.")
        return ChatAnswer(message=said, usage=Usage(output_tokens=8))

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        for word in ("Gladly", ", ", "yes."):
            yield ChatChunk(text=word)
        yield ChatChunk(finish="stop", usage=Usage(output_tokens=4))


@dataclass(frozen=True)
class Asked:
    who: str
    amount: float
    country: str


class Book(list[Past]):
    """What was decided."""


@module.provide
def book() -> Book:
    return Book()


def judged(score: float, limit: float = 0.5) -> str:
    return "refuse" if score >= limit else "accept"


@module.service
class DeskService(Desk):
    def __init__(self, risk: Risk, book: Book, clock: Clock, datasets: Datasets) -> None:
        self._risk = risk
        self._book = book
        self._clock = clock
        self._datasets = datasets

    async def decide(self, case: str, who: str, amount: float, country: str) -> str:
        found = await self._risk.risk(who, amount, country)
        verdict = judged(found.score)
        asked = Asked(who, amount, country) if country else None
        by = found.version
        self._book.append(Past(id=case, at=self._clock.now(), verdict=verdict, by=by, score=found.score, basis=asked))
        return verdict

    async def agree(self, who: str) -> None:
        self._datasets.agree(who)

    async def withdraw(self, who: str) -> int:
        return self._datasets.withdraw(who)

    async def rate(self, version: str, good: float) -> None:
        scored("Risk", version, good)


@module.replays(Risk)
class Again:
    def __init__(self, book: Book) -> None:
        self._book = book

    async def past(self, since: datetime, most: int) -> Sequence[Past]:
        return [each for each in reversed(self._book) if each.at >= since][:most]

    async def again(self, past: Past, today: Today) -> Decided:
        found = await today.model.risk(past.basis.who, past.basis.amount, past.basis.country)
        limit = float(today.policy["limit.txt"]) if today.policy else 0.5
        assert past.score is not None
        changed = "policy" if judged(past.score, limit) != past.verdict else "model"
        return Decided(verdict=judged(found.score, limit), why=f"limit {limit}", score=found.score, changed_by=changed)
