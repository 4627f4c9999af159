"""The clients that people have: OpenAI's and Anthropic's own, through the gateway, passed on or in our own words."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel
from tests.models.gateway.doors import Door, door
from tests.models.stub_upstream import Fault, fault_of

WELL = Fault()
GUARDED: dict[str, Any] = {"guardrails": ("pii",)}
"""A step that looks inside: nothing is passed on unread."""
TOOL: Any = {
    "type": "function",
    "function": {"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
}


class Answer(BaseModel):
    answer: str


@pytest.fixture(params=["openai", "openai, in our words", "anthropic"])
async def opened(request: pytest.FixtureRequest) -> AsyncGenerator[Door]:
    """In front of either wire, with and without a need to look inside."""
    wire, _, guarded = request.param.partition(", ")
    async with door(WELL, wires=(wire,), **(GUARDED if guarded else {})) as it:
        yield it


@pytest.fixture
async def client(opened: Door) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{opened.url}/v1", api_key="any", max_retries=0) as it:
        yield it


@pytest.fixture
async def claude(opened: Door) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=opened.url, api_key="any", max_retries=0) as it:
        yield it


async def test_a_whole_answer(client: openai.AsyncOpenAI):
    """Text, finish and usage are the engine's."""
    answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "say good day"}])
    assert answer.choices[0].message.content == "good day"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_a_streamed_answer(client: openai.AsyncOpenAI):
    """Piece by piece; the usage comes to who asks for it."""
    stream = await client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "say one two three"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == "one two three"
    assert len(pieces) == 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_who_does_not_ask_for_usage_gets_no_chunk_without_a_choice(client: openai.AsyncOpenAI):
    """Though the gateway asks the engine for it."""
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "say one"}], stream=True
    )
    assert all([chunk.choices async for chunk in stream])


async def test_a_tool_is_called(client: openai.AsyncOpenAI):
    """By name, with arguments, and its result goes back."""
    asked: list[Any] = [{"role": "user", "content": "call for boots"}]
    answer = await client.chat.completions.create(model="m", messages=asked, tools=[TOOL])
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    call = calls[0]
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "search"
    assert json.loads(call.function.arguments) == {"query": "call for boots"}
    asked += [
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "say found"},
    ]
    again = await client.chat.completions.create(model="m", messages=asked)
    assert again.choices[0].message.content


async def test_a_tool_is_called_in_a_stream(client: openai.AsyncOpenAI):
    """The pieces of its arguments make the whole."""
    async with client.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "call for boots"}], tools=[TOOL]
    ) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "search"
    assert calls[0].function.arguments == '{"query": "call for boots"}'


async def test_an_answer_of_a_schema(client: openai.AsyncOpenAI):
    """As the client's own parser wants it."""
    answer = await client.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": "fine"}], response_format=Answer
    )
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    assert parsed.answer.endswith("fine")


async def test_responses(client: openai.AsyncOpenAI):
    """OpenAI's newer form, whole."""
    answer = await client.responses.create(model="m", instructions="be kind", input="say good day")
    assert answer.output_text == "good day"
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 2


async def test_responses_streamed(client: openai.AsyncOpenAI):
    """Its events, up to the one that says that it is over."""
    kinds: list[str] = []
    text = ""
    async with client.responses.stream(model="m", input="say good day") as stream:
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
        final = await stream.get_final_response()
    assert text == final.output_text == "good day"
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


async def test_responses_call_tools(client: openai.AsyncOpenAI):
    """A call, whole."""
    tool: Any = {"type": "function", **TOOL["function"], "strict": False}
    answer = await client.responses.create(model="m", input="call for boots", tools=[tool])
    call = answer.output[0]
    assert call.type == "function_call"
    assert call.name == "search"
    assert json.loads(call.arguments) == {"query": "call for boots"}


async def test_messages(claude: anthropic.AsyncAnthropic):
    """Anthropic's form, whole."""
    answer = await claude.messages.create(
        model="m", max_tokens=50, system="be kind", messages=[{"role": "user", "content": "say good day"}]
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "good day"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 2


async def test_messages_streamed(claude: anthropic.AsyncAnthropic):
    """Its events, as its own client reads them."""
    async with claude.messages.stream(
        model="m", max_tokens=50, messages=[{"role": "user", "content": "say one two three"}]
    ) as stream:
        pieces = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(pieces) == "one two three"
    assert len(pieces) == 3
    assert final.usage.output_tokens == 3


async def test_messages_call_tools(claude: anthropic.AsyncAnthropic):
    """A call in a stream, with its input put together."""
    tool: Any = {"name": "search", "input_schema": TOOL["function"]["parameters"]}
    async with claude.messages.stream(
        model="m", max_tokens=50, messages=[{"role": "user", "content": "call for boots"}], tools=[tool]
    ) as stream:
        final = await stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[0].type == "tool_use"
    assert final.content[0].input == {"query": "call for boots"}


@pytest.mark.parametrize("guarded", [False, True])
async def test_embeddings_ranking_completions_and_models(guarded: bool):
    """What is no chat."""
    async with (
        door(WELL, **(GUARDED if guarded else {})) as it,
        openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="any", max_retries=0) as client,
    ):
        vectors = await client.embeddings.create(model="m", input=["a", "b c"])
        assert [len(each.embedding) for each in vectors.data] == [4, 4]
        assert vectors.usage.prompt_tokens == 3
        said = await client.completions.create(model="m", prompt="say good day")
        assert said.choices[0].text == "good day"
        stream = await client.completions.create(model="m", prompt="say one two", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "one two"
        assert [model.id async for model in client.models.list()] == ["m"]
        assert (await client.models.retrieve("m")).id == "m"
        status, ranked = await it.ask({"model": "m", "query": "a", "documents": ["b", "a"]}, "/v1/rerank")
        assert status == 200
        assert {each["index"] for each in ranked["results"]} == {0, 1}


async def test_no_is_raised_as_what_it_is(tmp_path: Path):
    """Each refusal as the exception that the client has for it."""
    async with (
        door(WELL, folder=tmp_path) as it,
        openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="sk-sl-wrong", max_retries=0) as stranger,
        openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key=it.key, max_retries=0) as client,
        anthropic.AsyncAnthropic(base_url=it.url, api_key="sk-sl-wrong", max_retries=0) as claude,
    ):
        asked: Any = [{"role": "user", "content": "say x"}]
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="m", messages=asked)
        with pytest.raises(anthropic.AuthenticationError):
            await claude.messages.create(model="m", max_tokens=5, messages=asked)
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="other", messages=asked)
        assert missing.value.code == "model_not_found"
        it.stubs[0].fault = Fault(status=400, kind="invalid_value")
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="m", messages=asked)
        assert bad.value.code == "invalid_value"
        it.stubs[0].fault = Fault(status=401)
        with pytest.raises(openai.InternalServerError, match="does not let the gateway in"):
            await client.chat.completions.create(model="m", messages=asked)


@pytest.mark.parametrize("fault", ["error_after", "cut_after", "malformed_after", "end_after"])
@pytest.mark.parametrize("guarded", [False, True])
async def test_a_stream_that_breaks_is_raised_by_both_clients(fault: str, guarded: bool):
    """Nobody takes half an answer for a whole one."""
    for wire in ("openai", "anthropic"):
        async with (
            door(fault_of(f"{fault}=2"), wires=(wire,), **(GUARDED if guarded else {})) as it,
            openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="any", max_retries=0) as client,
            anthropic.AsyncAnthropic(base_url=it.url, api_key="any", max_retries=0) as claude,
        ):
            asked: Any = [{"role": "user", "content": "say one two three"}]
            with pytest.raises(openai.APIError):
                async for _ in await client.chat.completions.create(model="m", messages=asked, stream=True):
                    pass
            with pytest.raises(anthropic.APIError):
                async with claude.messages.stream(model="m", max_tokens=9, messages=asked) as messages:
                    await messages.get_final_message()
            with pytest.raises((openai.APIError, RuntimeError)):
                async with client.responses.stream(model="m", input="say one two three") as events:
                    await events.get_final_response()


async def test_clients_come_again_when_they_are_told_to():
    """429 with Retry-After: the client waits and is answered."""
    async with (
        door(WELL, model={"patience_s": 9}) as it,
        openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="any", max_retries=2) as client,
    ):
        it.stubs[0].next.append(Fault(status=429, retry_after="0.02"))
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "say yes"}])
        assert answer.choices[0].message.content == "yes"
