"""Bytes that are passed on: whatever way they come, and whatever is in them that the gateway does not know."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline.models.errors import EngineError, EngineMalformed, EngineRefused, EngineUnreachable
from seamline.models.gateway.errors import BadRequest
from seamline.models.gateway.passing import Asked, Route, Stream
from seamline.models.gateway.peeking import Peek, whole
from seamline.models.remote.client import RawAnswer
from seamline.models.remote.sse import SseParser

CHAT = Route("/chat/completions", "chat", "chat", "chat")
WORDS = ["one", " two", " thr\u00e9\u00e9", " \U0001f6a2"]


class Bytes:
    """An answer that comes in these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = list(pieces)
        self.began_at = -1

    def header(self, name: bytes) -> bytes | None:
        return b"text/event-stream" if name == b"content-type" else None

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def began(self) -> None:
        self.began_at = len(self.pieces)


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "new_field": [1]}]
    return b"data: " + json.dumps({"choices": choices, "fresh": {"a": None}, **more}).encode() + b"\n\n"


def streamed(*, crlf: bool = False) -> bytes:
    told = event({"role": "assistant", "content": ""}) + b": a comment\n\n"
    told += b"".join(event({"content": word}) for word in WORDS)
    told += event({}, "stop") + event(usage={"prompt_tokens": 3, "completion_tokens": 4}) + b"data: [DONE]\n\n"
    return told.replace(b"\n", b"\r\n") if crlf else told


async def through(pieces: list[bytes], *, usage: bool) -> tuple[Stream, bytes]:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    asked = Asked(CHAT, json.dumps({"model": "m", "stream": True, **options}).encode(), [])
    stream = Stream("engine", cast("RawAnswer", Bytes(pieces)), asked)
    await stream.begin()
    told = b""
    while more := await stream.next():
        told += more
    return stream, told


def events(told: bytes) -> list[Any]:
    return [json.loads(each.data) for each in SseParser().feed(told)]


@settings(max_examples=150, deadline=None)
@given(cuts=st.lists(st.integers(0, 1200), max_size=30), crlf=st.booleans(), usage=st.booleans())
def test_a_stream_is_the_same_wherever_it_is_cut(cuts: list[int], crlf: bool, usage: bool):
    """Between events, in a letter, in a line's end: the client gets each event whole, with fields nobody here knows."""
    raw = streamed(crlf=crlf)
    at = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[a:b] for a, b in itertools.pairwise(at)]
    stream, told = asyncio.run(through(pieces, usage=usage))
    expected = [json.loads(each.data) for each in SseParser().feed(streamed())[:-1]]
    assert events(told) == (expected if usage else expected[:-1])
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (3, 4)
    assert (stream.finish, stream.pieces) == ("stop", len(WORDS))


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=400), at=st.integers(0, 1200))
def test_noise_in_a_stream_is_an_engines_error(noise: bytes, at: int):
    """Never one of ours, and what was passed on are whole events of JSON."""
    raw = streamed()
    told = b""

    async def run() -> None:
        nonlocal told
        asked = Asked(CHAT, b'{"stream":true}', [])
        stream = Stream("engine", cast("RawAnswer", Bytes([raw[:at], noise, raw[at:]])), asked)
        try:
            await stream.begin()
            while more := await stream.next():
                told += more
        except EngineError:
            pass

    asyncio.run(run())
    assert all(isinstance(each, dict) for each in events(told))


async def test_a_stream_that_ends_without_its_end_is_told_from_a_whole_one():
    """Without [DONE] it is whole only if it said why it ended."""
    raw = streamed().removesuffix(b"data: [DONE]\n\n")
    _, told = await through([raw], usage=True)
    assert len(events(told)) == 7
    with pytest.raises(EngineUnreachable):
        await through([event({"content": "one"})], usage=True)


def test_reasoning_and_other_news_count_as_words():
    """A delta with any content begins an answer; one with only a role, or with nothing in its fields, does not."""
    for delta, begins in (
        ({"role": "assistant"}, False), ({"role": "assistant", "content": ""}, False), ({"content": None}, False),
        ({"reasoning_content": "hm"}, True), ({"tool_calls": [{"index": 0}]}, True), ({"refusal": "no"}, True),
    ):  # fmt: skip
        peek = Peek("chat")
        peek.see(json.dumps({"choices": [{"delta": delta}]}).encode())
        assert peek.begun == begins, delta


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 2, 4, 0)),
        ({"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}, (9, 2, 4, 0)),
        (
            {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5},
            (12, 2, 4, 5),
        ),
        ({"total_tokens": 7}, (7, 0, 0, 0)),
        ({"prompt_tokens": None, "completion_tokens": -5}, (0, 0, 0, 0)),
    ],
)
def test_usage_by_every_name(told: dict[str, Any], used: tuple[int, ...]):
    """OpenAI's two ways, Anthropic's, and engines that count only all of it. None makes money of a negative number."""
    usage, _ = whole(json.dumps({"choices": [], "usage": told}).encode())
    assert usage is not None
    found = usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens
    assert found == used


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"choices": 3}', b'{"answer": 1}', b"[" * 10_000])
def test_what_is_no_answer_is_malformed(data: bytes):
    """Also where it is JSON."""
    with pytest.raises(EngineMalformed):
        whole(data)


def test_an_event_of_an_error_is_a_refusal():
    """In each wire's form."""
    for wire, told in (
        ("chat", {"error": {"message": "no", "code": "overloaded"}}),
        ("messages", {"type": "error", "error": {"type": "overloaded", "message": "no"}}),
        ("responses", {"type": "response.failed", "response": {"error": {"code": "overloaded", "message": "no"}}}),
        ("chat", {"error": "no"}),
    ):
        with pytest.raises(EngineRefused) as refused:
            Peek(cast("Any", wire)).see(json.dumps(told).encode())
        assert refused.value.kind in ("overloaded", "server_error")


@settings(max_examples=100, deadline=None)
@given(
    fields=st.dictionaries(
        st.text(max_size=12),
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
        max_size=8,
    )
)
def test_what_is_not_known_here_goes_through(fields: dict[str, Any]):
    """Every field of a request, but the model's name."""
    try:
        asked = Asked(CHAT, json.dumps({**fields, "stream": False, "model": "alias"}).encode(), [])
    except BadRequest:
        pytest.fail("a request was refused that is none of our business")
    assert msgspec.json.decode(asked.body("real")) == {**fields, "stream": False, "model": "real"}
