"""What a guardrail is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest
from seamline.models.gateway.keys import Caller

Ask = Callable[[ChatRequest], Awaitable[ChatAnswer]]
"""Ask the model once more."""


class Guardrail(Protocol):
    """One step, for all calls. It is asked for a :class:`Guard` at each call that it may concern."""

    name: str

    def begin(self, who: Caller, model: str) -> Guard | None: ...


class Words(NamedTuple):
    """A question of texts alone: without tools, pictures, or a schema of the answer."""

    texts: Sequence[str]
    of_users: Sequence[str]
    """Those that neither the application nor the model said."""
    size: int
    """Of all of them in bytes, or more."""


@runtime_checkable
class Clearing(Protocol):
    """A step that can tell for little that a call may pass without it. Where all steps are such and say so, a question
    is not put into our own words; what is not sure is not clear."""

    def clear(self, words: Words) -> bool: ...

    def clear_answer(self, answer: ChatAnswer) -> bool: ...


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
