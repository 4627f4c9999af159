"""A language model's answers as they pass: tokens in time, what they cost, and what evaluators say of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from math import sqrt
from typing import Any, Final

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Message, Usage
from seamline.models.watch.evaluators import Evaluator, Length, Refusal
from seamline.models.watch.watcher import Watcher

FIRST: Final = "first_token_ms"
BETWEEN: Final = "between_tokens_ms"
_TEXT_MAX: Final = 20_000
_LEAST_SHARES: Final = {FIRST: 0.5, BETWEEN: 0.5, "cost": 0.25, "words": 0.25}
"""Time and length vary with what is asked; only so large a change of their mean matters."""


class Answers:
    """Watches answers, and tells their means as scores of a watcher.

    Args:
        watcher: of the model that answers.
        evaluators: what is looked at in each answer.
        cost: of what an answer used, in a currency of yours.
        answers_min: so many make a mean.
    """

    def __init__(
        self,
        watcher: Watcher,
        *,
        evaluators: Sequence[Evaluator] = (Refusal(), Length()),
        cost: Callable[[Usage], float] | None = None,
        answers_min: int = 50,
        time: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watcher = watcher
        self._evaluators = evaluators
        self._cost = cost
        self._answers_min = answers_min
        self._time = time
        self._values: dict[str, list[float]] = {}

    async def watched(self, request: ChatRequest, chunks: AsyncIterator[ChatChunk]) -> AsyncGenerator[ChatChunk]:
        """The chunks as they come. An answer that nobody read to its end is not judged."""
        looking = self.passing(request)
        async with aclosing(_closing(chunks)) as passing:
            async for chunk in passing:
                looking.passed(chunk)
                yield chunk
        looking.ended()

    def passing(self, request: ChatRequest | None = None) -> PassingAnswer:
        """Of an answer whose items are shown to it as they come; of one without a request only the time is told."""
        return PassingAnswer(self, request, self._time)

    def saw(self, request: ChatRequest, answer: ChatAnswer) -> None:
        """An answer that came as a whole."""
        message = answer.message
        refused = bool(message.refusal) or answer.finish == "refusal"
        self.judge(question_of(request), message.content or message.refusal, answer.usage, refused=refused)

    def graded(self, grade: float) -> None:
        """A judge's, or a person's, word on an answer, from 0 to 1."""
        self.add("grade", grade)

    def judge(self, question: str, answer: str, usage: Usage | None = None, *, refused: bool = False) -> None:
        """What the evaluators say of a text, and what it cost. Where its engine says that it ``refused``, it did."""
        for evaluator in self._evaluators:
            value = 1.0 if refused and evaluator.name == Refusal.name else evaluator.score(question, answer)
            if value is not None:
                self.add(evaluator.name, value)
        if self._cost is not None and usage is not None:
            self.add("cost", self._cost(usage))

    def add(self, name: str, value: float) -> None:
        """One value of a score; the mean of enough of them is told."""
        values = self._values.setdefault(name, [])
        values.append(value)
        if len(values) >= self._answers_min:
            self._values[name] = []
            mean, error = _mean(values)
            self._watcher.measured(name, mean, error, least_share=_LEAST_SHARES.get(name, 0.0))


class PassingAnswer:
    """One answer while it streams. See :class:`~seamline.models.runtime.Passing`."""

    def __init__(self, answers: Answers, request: ChatRequest | None, time: Callable[[], float]) -> None:
        self._answers = answers
        self._request = request
        self._time = time
        self._began = self._last = time()
        self._first_s = 0.0
        self._pieces = self._length = 0
        self._text: list[str] = []
        self._usage = Usage()
        self._refused = False

    def passed(self, item: Any) -> None:
        text = ""
        if isinstance(item, ChatChunk):
            self._usage = item.usage or self._usage
            self._refused = self._refused or bool(item.refusal) or item.finish == "refusal"
            text = item.text or item.refusal
            if not text:
                return
        self._last = self._time()
        self._pieces += 1
        self._first_s = self._first_s or max(self._last - self._began, 1e-9)
        if text and self._length < _TEXT_MAX:
            self._text.append(text)
            self._length += len(text)

    def answer(self) -> ChatAnswer:
        """As a whole, as far as it has come."""
        said = Message(role="assistant", content="".join(self._text))
        return ChatAnswer(message=said, finish="refusal" if self._refused else "stop", usage=self._usage)

    def ended(self) -> None:
        if self._pieces:
            self._answers.add(FIRST, 1000.0 * self._first_s)
        if self._pieces > 1:
            between_s = (self._last - self._began - self._first_s) / (self._pieces - 1)
            self._answers.add(BETWEEN, 1000.0 * between_s)
        if self._request is not None:
            self._answers.saw(self._request, self.answer())


def question_of(request: ChatRequest) -> str:
    """The text that is to be answered."""
    return request.messages[-1].content if request.messages else request.prompt


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """And its standard error, which of values that are all alike is that of one that might have differed."""
    count = len(values)
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, sqrt(max(variance, 1.0 / count if max(values) <= 1.0 else 0.0) / count)


async def _closing(chunks: AsyncIterator[ChatChunk]) -> AsyncGenerator[ChatChunk]:
    """Closes what it reads from, if that can be closed."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
