"""A language model's answers as they pass: tokens in time, what they cost, and what evaluators say of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from math import sqrt
from typing import Final

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Usage
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
        began = last = self._time()
        first_s = 0.0
        text: list[str] = []
        pieces = length = 0
        usage = Usage()
        async with aclosing(_closing(chunks)) as passing:
            async for chunk in passing:
                if chunk.text:
                    last = self._time()
                    pieces += 1
                    first_s = first_s or max(last - began, 1e-9)
                    if length < _TEXT_MAX:
                        text.append(chunk.text)
                        length += len(chunk.text)
                usage = chunk.usage or usage
                yield chunk
        if pieces:
            self._add(FIRST, 1000.0 * first_s)
        if pieces > 1:
            self._add(BETWEEN, 1000.0 * (last - began - first_s) / (pieces - 1))
        self._judge(request, "".join(text), usage)

    def saw(self, request: ChatRequest, answer: ChatAnswer) -> None:
        """An answer that came as a whole."""
        self._judge(request, answer.message.content, answer.usage)

    def graded(self, grade: float) -> None:
        """A judge's, or a person's, word on an answer, from 0 to 1."""
        self._add("grade", grade)

    def _judge(self, request: ChatRequest, answer: str, usage: Usage) -> None:
        question = request.messages[-1].content if request.messages else request.prompt
        for evaluator in self._evaluators:
            value = evaluator.score(question, answer)
            if value is not None:
                self._add(evaluator.name, value)
        if self._cost is not None:
            self._add("cost", self._cost(usage))

    def _add(self, name: str, value: float) -> None:
        values = self._values.setdefault(name, [])
        values.append(value)
        if len(values) >= self._answers_min:
            self._values[name] = []
            mean, error = _mean(values)
            self._watcher.measured(name, mean, error, least_share=_LEAST_SHARES.get(name, 0.0))


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
