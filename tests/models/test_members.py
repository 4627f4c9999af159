"""The application's own models as engines: what they can, and what becomes of what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from seamline.models.chat import (
    Chat,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    Embeddings,
    EmbedRequest,
    Message,
    RerankRequest,
)
from seamline.models.errors import EngineCannotError, EngineError, EngineRefused, EngineStalled, EngineUnreachable
from seamline.models.members import Member, members
from seamline.module.contract import Contract
from seamline.module.errors import DeadlineExceeded, InternalError, Overloaded, PermissionDenied, Unavailable
from seamline.module.values import Fault


class Talk(Chat): ...


class Places(Embeddings): ...


class Prices(Contract):
    async def price(self) -> int: ...


class TooLong(Fault):
    """The question is too long."""


class Answers(Talk, Places):
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = False

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        if self.error is not None:
            raise self.error
        return ChatAnswer(message=Message(role="assistant", content=request.prompt.upper()))

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        try:
            for letter in request.prompt:
                yield ChatChunk(text=letter)
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        return EmbedAnswer(vectors=tuple((float(len(text)),) for text in request.texts))


async def test_what_is_asked_reaches_the_contract():
    """Whole, in pieces, and as vectors."""
    answers = Answers()
    assert (await Member(Talk, answers).complete(ChatRequest(prompt="ab"))).message.content == "AB"
    assert [chunk.text async for chunk in Member(Talk, answers).stream(ChatRequest(prompt="ab"))] == ["a", "b"]
    assert (await Member(Places, answers).embed(EmbedRequest(texts=("a", "abc")))).vectors == ((1.0,), (3.0,))


def test_only_language_models_are_members():
    """By the names of their contracts."""
    found = members([Talk, Prices, Places], lambda contract: contract.__name__)
    assert list(found) == ["Talk", "Places"]


async def test_what_a_model_cannot_is_said():
    """A model of one ability has no other."""
    with pytest.raises(EngineCannotError, match="Places is no model of Chat"):
        await Member(Places, Answers()).complete(ChatRequest())
    with pytest.raises(EngineCannotError, match="Talk is no model of Rerank"):
        await Member(Talk, Answers()).rerank(RerankRequest(query="a", documents=("b",)))


def busy() -> Overloaded:
    error = Overloaded("too many wait", "Come again.")
    error.retry_after_s = 1.5
    return error


@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        (busy(), EngineRefused, 429),
        (PermissionDenied("no", ""), EngineRefused, 403),
        (InternalError("no", ""), EngineRefused, 500),
        (TooLong(), EngineRefused, 400),
        (Unavailable("gone", ""), EngineUnreachable, 0),
        (DeadlineExceeded("late", ""), EngineStalled, 0),
    ],
)
async def test_each_failure_has_its_word(error: Exception, expected: type[EngineError], status: int):
    """Of a whole answer, and of a stream that began well; when to come again is kept."""
    member = Member(Talk, Answers(error))
    with pytest.raises(expected) as caught:
        await member.complete(ChatRequest(prompt="a"))
    assert caught.value.status == status
    assert caught.value.retry_after_s == getattr(error, "retry_after_s", 0.0)
    heard: list[str] = []
    with pytest.raises(expected):
        async for chunk in member.stream(ChatRequest(prompt="ab")):
            heard.append(chunk.text)  # noqa: PERF401  # what came before the failure counts
    assert heard == ["a", "b"]


async def test_a_stream_that_is_closed_closes_the_models():
    """Nobody goes on making tokens for a reader who left."""
    answers = Answers()
    stream = Member(Talk, answers).stream(ChatRequest(prompt="abc"))
    assert (await anext(stream)).text == "a"
    await stream.aclose()
    assert answers.closed
