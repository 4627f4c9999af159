"""What is said in one wire's words is the same in ours, and back."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.models.chat import (
    AnswerSchema,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    Finish,
    Kept,
    Message,
    Part,
    Ranked,
    RerankAnswer,
    RerankRequest,
    Tool,
    ToolCall,
    Usage,
)
from seamline.models.errors import EngineMalformed, EngineRefused
from seamline.models.remote.refusals import refusal
from seamline.models.wire import anthropic, anthropic_server, openai, openai_lists, openai_server, reading
from seamline.models.wire.errors import WireError

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda name: name not in ("auto", "none", "required"))
OBJECTS = st.dictionaries(NAMES, st.none() | st.booleans() | st.integers(-9, 9) | WORDS, max_size=3)
SCHEMAS = OBJECTS.map(lambda extra: json.dumps({"type": "object", **extra}, separators=(",", ":"), ensure_ascii=False))
COUNTS = st.integers(0, 10_000)
PICTURES = st.just("https://host/a.png") | st.binary(max_size=9).map(
    lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}"
)
PARTS = WORDS.map(lambda text: Part(text=text)) | PICTURES.map(lambda url: Part(image_url=url))
MIXED = st.lists(PARTS, min_size=2, max_size=3).map(tuple)


def calls(draw: st.DrawFn) -> tuple[ToolCall, ...]:
    given = draw(st.lists(st.tuples(NAMES, OBJECTS), min_size=1, max_size=2))
    return tuple(
        ToolCall(
            id=f"call_{at}",
            name=name,
            arguments=json.dumps(arguments, separators=(",", ":"), ensure_ascii=False),
            index=at,
        )
        for at, (name, arguments) in enumerate(given)
    )


@st.composite
def talks(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns as they come: a system's word, a user's, an assistant's, what tools answered."""
    messages = [Message(role="system", content=draw(WORDS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(st.just(()) | MIXED)
        messages.append(Message(role="user", content="" if parts else draw(WORDS), parts=parts))
        if draw(st.booleans()):
            asked = calls(draw)
            messages.append(Message(role="assistant", content=draw(st.just("") | WORDS), tool_calls=asked))
            messages += [Message(role="tool", content=draw(WORDS), tool_call_id=call.id) for call in asked]
        else:
            messages.append(Message(role="assistant", content=draw(WORDS)))
    return tuple(messages)


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    tools = tuple(
        Tool(name=name, description=draw(st.just("") | WORDS), parameters=draw(SCHEMAS), strict=draw(st.booleans()))
        for name in draw(st.lists(NAMES, max_size=2, unique=True))
    )
    return ChatRequest(
        messages=draw(talks()),
        model=draw(NAMES),
        tools=tools,
        tool_choice=draw(st.sampled_from(["auto", "none", "required", tools[0].name])) if tools else "auto",
        answer_schema=draw(st.none() | SCHEMAS.map(lambda schema: AnswerSchema(schema=schema))),
        tokens_max=draw(st.integers(1, 9)),
        temperature=draw(st.none() | st.floats(0, 1)),
        top_p=draw(st.none() | st.floats(0, 1)),
        stop=tuple(draw(st.lists(WORDS, max_size=2))),
        user=draw(st.just("") | NAMES),
    )


@st.composite
def answers(draw: st.DrawFn) -> ChatAnswer:
    asked = calls(draw) if draw(st.booleans()) else ()
    finish: Finish = "tool_calls" if asked else draw(st.sampled_from(["stop", "length", "refusal"]))
    cached, written = draw(COUNTS), draw(st.just(0))
    return ChatAnswer(
        message=Message(role="assistant", content=draw(st.just("") | WORDS), tool_calls=asked),
        finish=finish,
        usage=Usage(
            input_tokens=cached + draw(COUNTS), output_tokens=draw(COUNTS), cached_input_tokens=cached,
            cache_write_tokens=written,
        ),
        model=draw(NAMES),
        id=draw(NAMES),
    )  # fmt: skip


@PATIENT
@given(requests(), st.booleans())
def test_a_request_through_openai_is_the_same(request: ChatRequest, stream: bool):
    """Ours to JSON to ours; and the JSON once more to itself."""
    seeded = dataclasses.replace(request, seed=3, metadata={"a": "b"})
    body = openai.chat_body(seeded, stream=stream)
    asked = openai_server.asked_chat(body)
    assert asked == reading.Asked(seeded, stream, stream)
    assert openai.chat_body(asked.request, stream=stream) == body


@PATIENT
@given(requests(), st.booleans())
def test_a_request_through_anthropic_is_the_same(request: ChatRequest, stream: bool):
    """Ours to JSON to ours; and the JSON once more to itself."""
    body = anthropic.messages_body(request, stream=stream)
    asked = anthropic_server.asked_messages(body)
    assert (asked.request, asked.stream) == (request, stream)
    assert anthropic.messages_body(asked.request, stream=stream) == body


KEPT: Any = st.sampled_from(["", "5m", "1h"])


@PATIENT
@given(requests(), st.data())
def test_what_a_prompt_cache_is_to_keep_goes_through_anthropic(request: ChatRequest, data: st.DataObject):
    """Marks on the system's words, on parts of any turn, on what tools answered, and on tools."""
    marked = dataclasses.replace(
        request,
        tools=tuple(dataclasses.replace(tool, cache=data.draw(KEPT)) for tool in request.tools),
        messages=tuple(_marked(message, data.draw(KEPT)) for message in request.messages),
    )
    body = anthropic.messages_body(marked)
    assert anthropic_server.asked_messages(body).request == marked
    marks = [tool.cache for tool in marked.tools] + [part.cache for each in marked.messages for part in each.parts]
    assert body.count(b'"cache_control":{"type":"ephemeral"') == sum(map(bool, marks))


def _marked(message: Message, kept: Kept) -> Message:
    """The last part of it says so."""
    parts = message.parts or ((Part(text=message.content),) if message.content else ())
    if not kept or not parts:
        return message
    return dataclasses.replace(message, content="", parts=(*parts[:-1], dataclasses.replace(parts[-1], cache=kept)))


def test_openai_clients_may_say_what_to_keep():
    """A key goes through to engines of the wire; marks that some clients add reach an engine of Anthropic's."""
    told = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    asked = {"model": "m", "prompt_cache_key": "shop", "messages": [{"role": "user", "content": [told]}]}
    request = openai_server.asked_chat(json.dumps(asked).encode()).request
    assert request.cache_key == "shop"
    body = json.loads(openai.chat_body(request))
    assert body["prompt_cache_key"] == "shop"
    assert body["messages"][0]["content"] == [{"type": "text", "text": "long"}]
    body = json.loads(anthropic.messages_body(request))
    assert body["messages"][0]["content"] == [told]


@PATIENT
@given(answers(), st.just("") | WORDS)
def test_an_answer_through_openai_is_the_same(answer: ChatAnswer, refused: str):
    """With what was refused in words."""
    if refused and not answer.message.tool_calls:
        said = dataclasses.replace(answer.message, content="", refusal=refused)
        answer = dataclasses.replace(answer, message=said, finish="refusal")
    assert openai.read_answer(openai_server.told_answer(answer, created=1)) == answer


@PATIENT
@given(answers())
def test_an_answer_through_anthropic_is_the_same(answer: ChatAnswer):
    """Counts, calls, and why it ended."""
    assert anthropic.read_message(anthropic_server.told_message(answer)) == answer


@PATIENT
@given(answers(), st.integers(1, 5))
def test_a_stream_through_openai_adds_up_to_the_answer(answer: ChatAnswer, step: int):
    """However the pieces are cut."""
    telling = openai_server.Telling(id=answer.id, model=answer.model, created=1, usage=True)
    told = [data for chunk in pieces(answer, step) for data in telling.feed(chunk)]
    assert added([openai.read_piece(data) for data in told]) == answer
    assert json.loads(told[0])["choices"][0]["delta"]["role"] == "assistant"


@PATIENT
@given(answers(), st.integers(1, 5))
def test_a_stream_through_anthropic_adds_up_to_the_answer(answer: ChatAnswer, step: int):
    """However the pieces are cut; its blocks open and close in turn."""
    telling = anthropic_server.Telling(id=answer.id, model=answer.model)
    told = [event for chunk in pieces(answer, step) for event in telling.feed(chunk)]
    reading = anthropic.Reading()
    chunks = [chunk for _, data in told if (chunk := reading.feed(data)) is not None]
    assert reading.over
    assert added(chunks) == answer
    opened: int | None = None
    for kind, data in told:
        index = json.loads(data).get("index")
        match kind:
            case "content_block_start":
                assert opened is None
                opened = index
            case "content_block_delta" | "content_block_stop":
                assert index == opened
                opened = index if kind == "content_block_delta" else None
            case _:
                assert opened is None


def pieces(answer: ChatAnswer, step: int) -> list[ChatChunk]:
    """The answer as an engine streams it."""
    text = answer.message.content
    chunks = [ChatChunk(text=text[at : at + step]) for at in range(0, len(text), step)]
    for call in answer.message.tool_calls:
        chunks.append(ChatChunk(tool_calls=(dataclasses.replace(call, arguments=""),)))
        chunks += [
            ChatChunk(tool_calls=(ToolCall(arguments=call.arguments[at : at + step], index=call.index),))
            for at in range(0, len(call.arguments), step)
        ]
    return [*chunks, ChatChunk(finish=answer.finish, usage=answer.usage)]


def added(chunks: list[ChatChunk]) -> ChatAnswer:
    """What the pieces are together."""
    told: dict[int, ToolCall] = {}
    for piece in (call for chunk in chunks for call in chunk.tool_calls):
        before = told.get(piece.index, ToolCall(index=piece.index))
        told[piece.index] = ToolCall(
            id=before.id or piece.id,
            name=before.name or piece.name,
            arguments=before.arguments + piece.arguments,
            index=piece.index,
        )
    assert sum(bool(chunk.finish) for chunk in chunks) == 1
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage is not None]
    return ChatAnswer(
        message=Message(
            role="assistant", content="".join(chunk.text for chunk in chunks), tool_calls=tuple(told.values())
        ),
        finish=next(chunk.finish for chunk in chunks if chunk.finish),
        usage=usage,
        model=chunks[-1].model,
        id=chunks[-1].id,
    )


@PATIENT
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4).map(tuple), max_size=3),
    st.booleans(),
)
def test_vectors_are_the_same(vectors: list[tuple[float, ...]], packed: bool):
    """As numbers, or as base64 of float32."""
    answer = EmbedAnswer(vectors=tuple(vectors), usage=Usage(input_tokens=4), model="m")
    assert openai_lists.read_vectors(openai_lists.told_vectors(answer, packed=packed), len(vectors)) == answer


def test_lists_are_asked_for_the_same():
    """Texts to embed, documents to order."""
    embed = EmbedRequest(texts=("a", "b"), model="m", dimensions=3, user="u")
    assert openai_lists.asked_vectors(openai_lists.embed_body(embed)) == (embed, False)
    rerank = RerankRequest(query="q", documents=("a", "b"), model="m", top_n=1)
    assert openai_lists.asked_ranking(openai_lists.rerank_body(rerank)) == rerank
    answer = RerankAnswer(results=(Ranked(index=1, score=0.5), Ranked(index=0, score=0.25)), model="m")
    assert openai_lists.read_ranking(openai_lists.told_ranking(answer), 2) == answer


@pytest.mark.parametrize(
    "told", ['{"data": []}', '{"data": [{"embedding": "?"}]}', '{"data": [{"index": 1, "embedding": [1]}]}']
)
def test_vectors_that_are_not_those_asked_for_are_malformed(told: str):
    """One for each text, of numbers."""
    with pytest.raises(EngineMalformed):
        openai_lists.read_vectors(told.encode(), 1)


FIELDS = st.sampled_from(
    ["choices", "delta", "message", "content", "tool_calls", "function", "type", "error", "usage", "index", "text",
     "content_block", "messages", "role", "tools", "model", "max_tokens", "data", "results"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
)


@PATIENT
@given(ANYTHING)
def test_any_json_is_read_or_refused(value: Any):
    """Nothing but the errors of the wire ever comes of it."""
    data = json.dumps(value).encode()
    for read in (openai.read_answer, openai.read_piece, anthropic.read_message, anthropic.Reading().feed):
        with contextlib.suppress(EngineMalformed, EngineRefused):
            read(data)
    asked = (
        openai_server.asked_chat,
        openai_server.asked_completion,
        anthropic_server.asked_messages,
        openai_lists.asked_vectors,
    )
    for ask in asked:
        with contextlib.suppress(WireError):
            ask(data)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, ""),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"messages": [], "n": 2}, "n"),
        ({"messages": [], "tool_choice": 4}, "tool_choice"),
        ({"messages": [], "response_format": {"type": "poem"}}, "response_format"),
        ({"messages": [], "temperature": "hot"}, "temperature"),
    ],
)
def test_a_request_that_has_no_place_here_names_the_field(body: dict[str, Any], param: str):
    """So that whoever wrote it finds it."""
    with pytest.raises(WireError) as refused:
        openai_server.asked_chat(json.dumps(body).encode())
    assert refused.value.param == param


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:09 GMT"}, 9),
        ({"retry-after": "Thu, 01 Jan 2020 00:00:09 GMT"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "1e300"}, 86400),
        ({"x-ratelimit-reset-tokens": "6m0.5s", "x-ratelimit-remaining-tokens": "0"}, 360.5),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "9s", "x-ratelimit-remaining-requests": "4"}, 0),
        ({"anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:05Z", "anthropic-ratelimit-tokens-remaining": "0"}, 5),
        ({}, 0),
    ],
    ids=str,
)
def test_when_to_come_again_is_understood(headers: dict[str, str], seconds: float):
    """Of every form that engines have for it; nonsense is no answer, and nothing is for ever."""
    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert refusal("host", 429, told, b"", NOW).retry_after_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ('{"error": {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}}',
         "context_length_exceeded", "no"),
        ('{"error": {"message": "no", "type": "server_error", "code": null}}', "server_error", "no"),
        ('{"type": "error", "error": {"type": "overloaded_error", "message": "no"}}', "overloaded_error", "no"),
        ('{"object": "error", "message": "no", "type": "NotFoundError", "code": 404}', "NotFoundError", "no"),
        ('{"error": "no"}', "rate_limit_exceeded", "no"),
        ('{"detail": "no"}', "rate_limit_exceeded", "no"),
        ("<html>", "rate_limit_exceeded", ""),
        ("[1]", "rate_limit_exceeded", ""),
        ("", "rate_limit_exceeded", ""),
    ],
)  # fmt: skip
def test_a_refusal_is_understood(body: str, kind: str, said: str):
    """Kind and words, whoever's form it is in."""
    error = refusal("host", 429, [], body.encode(), NOW)
    assert error.kind == kind
    assert error.fact == "host refused with status 429" + (f": {said}" if said else "")
