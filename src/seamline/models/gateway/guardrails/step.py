"""What a guardrail is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest
from seamline.models.gateway.keys import Caller

Ask = Callable[[ChatRequest], Awaitable[ChatAnswer]]
"""Ask the model once more."""


class Guardrail(Protocol):
    """One step, for all calls. It is asked for a :class:`Guard` at each call that it may concern."""

    name: str

    def begin(self, who: Caller, model: str) -> Guard | None: ...


class Guard:
    """One step of one call. A step overrides what it cares for."""

    whole = False
    """The answer has to be there as a whole before any of it may go out. Known after :meth:`before`."""

    def before(self, request: ChatRequest) -> ChatRequest:
        """What is asked instead. Raises Blocked, TooLarge."""
        return request

    def feed(self, chunk: ChatChunk) -> Iterable[ChatChunk]:
        """A piece of the answer; what may go out now."""
        return (chunk,)

    def finish(self) -> Iterable[ChatChunk]:
        """The stream is over; what was held back."""
        return ()

    async def after(self, answer: ChatAnswer, ask: Ask) -> ChatAnswer:  # noqa: ARG002  # for those that override it
        """The whole answer. Raises AnswerUnfit, Blocked."""
        return answer
