"""Many questions at once, where asking them at once is worth it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


async def each(ask: Callable[[Q], Awaitable[A]], questions: Sequence[Q]) -> list[A]:
    """The answer to every question, in order; the first error is raised when all are done.

    The first question tells where the answers come from. If it was answered without waiting, in this process,
    the rest are asked one after the other, since a task for each would cost more than the answer; else all at once.
    """
    if not questions:
        return []
    waited = list[bool]()
    turn = asyncio.get_running_loop().call_soon(waited.append, True)
    answers = [await ask(questions[0])]
    if not waited:
        turn.cancel()
        for question in questions[1:]:
            answers.append(await ask(question))  # noqa: PERF401  # an asynchronous comprehension is slower
        return answers
    rest = await asyncio.gather(*map(ask, questions[1:]), return_exceptions=True)
    for answer in rest:
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers
