"""An engine that speaks Anthropic's wire: what it answers, and what becomes of each way to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest
from tests.models.stub_upstream import Fault, Stub, stub_upstream

from seamline.models.chat import AnswerSchema, ChatChunk, ChatRequest, EmbedRequest, Message, RerankRequest, Tool
from seamline.models.errors import (
    EngineCannotError,
    EngineError,
    EngineMalformed,
    EngineRefused,
    EngineStalled,
    EngineUnreachable,
    ModelError,
)
from seamline.models.remote.anthropic import AnthropicEngine
from seamline.models.remote.client import Patience
from seamline.models.remote.engines import engine_of

SOON = Patience(connect_s=1.0, first_s=0.5, stall_s=0.3, answer_s=0.3)


@asynccontextmanager
async def engine_at_stub(patience: Patience | None = None) -> AsyncGenerator[tuple[AnthropicEngine, Stub]]:
    async with stub_upstream() as stub:
        engine = engine_of(f"anthropic:{stub.url}", key="k", model="m", patience=patience)
        assert isinstance(engine, AnthropicEngine)
        try:
            yield engine, stub
        finally:
            await engine.close()


def asked(text: str, *, tools: tuple[Tool, ...] = (), tokens_max: int = 0) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="system", content="Be kind."), Message(role="user", content=text)),
        tools=tools,
        tokens_max=tokens_max,
    )


async def read(engine: AnthropicEngine, request: ChatRequest) -> list[ChatChunk]:
    async with aclosing(engine.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def test_an_answer_comes_whole_and_in_pieces():
    """The same words, end and counts either way; the cached tokens are among the input."""
    async with engine_at_stub() as (engine, stub):
        answer = await engine.complete(asked("say one two three", tokens_max=3))
        chunks = await read(engine, asked("say one two three", tokens_max=3))
    assert answer.message.content == "".join(chunk.text for chunk in chunks) == "one two three"
    assert answer.finish == chunks[-1].finish == "length"
    assert answer.usage == chunks[-1].usage
    assert answer.usage.input_tokens > answer.usage.cached_input_tokens > 0
    assert answer.usage.output_tokens == 3
    assert {(chunk.model, chunk.id) for chunk in chunks} == {("m", "msg_1")}
    for request in stub.requests:
        assert request.path == "/v1/messages"
        assert request.headers["x-api-key"] == "k"
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert request.body["system"] == "Be kind."
        assert [each["role"] for each in request.body["messages"]] == ["user"]
    assert len({request.peer for request in stub.requests}) == 1


async def test_a_tool_is_called():
    """Whole, and in pieces that add up to the same."""
    tool = Tool(name="find", parameters='{"type":"object"}')
    async with engine_at_stub() as (engine, _):
        answer = await engine.complete(asked("please call", tools=(tool,)))
        chunks = await read(engine, asked("please call", tools=(tool,)))
    (call,) = answer.message.tool_calls
    pieces = [piece for chunk in chunks for piece in chunk.tool_calls]
    assert (pieces[0].id, pieces[0].name) == (call.id, call.name) == ("toolu_1", "find")
    assert "".join(piece.arguments for piece in pieces).replace(" ", "") == call.arguments.replace(" ", "")
    assert chunks[-1].finish == answer.finish == "tool_calls"


async def test_a_refusal_by_the_model_is_no_error():
    """It is an answer that ended with ``refusal``, whole or in pieces."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(refuse=True)
        assert (await engine.complete(asked("hello"))).finish == "refusal"
        assert (await read(engine, asked("hello")))[-1].finish == "refusal"


async def test_what_it_cannot_do_is_said_so():
    """Nothing is sent for it."""
    async with engine_at_stub() as (engine, stub):
        for ask in (
            engine.embed(EmbedRequest(texts=("a",))),
            engine.rerank(RerankRequest(query="a", documents=())),
            engine.complete(ChatRequest(messages=(), answer_schema=AnswerSchema())),
        ):
            with pytest.raises(EngineCannotError):
                await ask
        assert not stub.requests


async def test_a_status_becomes_a_refusal():
    """With its status, its kind in the engine's words, and when to come again."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(status=529, retry_after="3")
        with pytest.raises(EngineRefused) as refused:
            await engine.complete(asked("a"))
    assert (refused.value.status, refused.value.kind) == (529, "overloaded_error")
    assert refused.value.retry_after_s == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(hang=True), EngineStalled),
        (Fault(first_s=30), EngineStalled),
        (Fault(stall_after=2), EngineStalled),
        (Fault(cut_after=2), EngineUnreachable),
        (Fault(end_after=2), EngineUnreachable),
        (Fault(malformed_after=2), EngineMalformed),
        (Fault(error_after=2), EngineRefused),
    ],
    ids=str,
)
async def test_each_fault_of_a_stream_has_its_error(fault: Fault, error: type[EngineError]):
    """After the pieces that came before it."""
    async with engine_at_stub(SOON if error is EngineStalled else None) as (engine, stub):
        stub.fault = fault
        came = ""
        with pytest.raises(error):
            async with asyncio.timeout(5), aclosing(engine.stream(asked("say a b c d"))) as chunks:
                async for chunk in chunks:
                    came += chunk.text
        before = max(fault.stall_after, fault.cut_after, fault.end_after, fault.malformed_after, fault.error_after, 0)
        assert came == "a b"[: 2 * before]


async def test_an_answer_of_another_form_is_malformed():
    """JSON alone is no answer."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(wrong_schema=True)
        with pytest.raises(EngineMalformed):
            await engine.complete(asked("a"))


@pytest.mark.parametrize(
    "url",
    ["", "https://host/v1", "gopher:https://host", "openai:", "openai:host/v1", "openai:ftp://host", "openai:https://k@host",
     "openai:https://host/v1?x=1"],
)  # fmt: skip
def test_a_line_that_names_no_engine_is_refused(url: str):
    """Before anything is asked; and no credential is repeated."""
    with pytest.raises(ModelError) as refused:
        engine_of(url, key="secret")
    assert "k@" not in str(refused.value)
