"""Server-sent events: the parser against the WHATWG's rules, read out slowly."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.models.errors import EngineMalformed
from seamline.models.remote.sse import Event, SseParser, encoded

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def reference(stream: bytes) -> list[tuple[str, str]]:
    """Type and data of each event: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream"""
    text = stream.decode("utf-8", "replace").removeprefix("\N{BOM}")
    events: list[tuple[str, str]] = []
    data, kind = "", ""
    *lines, _unended = re.split("\r\n|\n|\r", text)
    for line in lines:
        if not line:
            if data:
                events.append((kind or "message", data.removesuffix("\n")))
            data, kind = "", ""
            continue
        if line.startswith(":"):
            continue
        name, colon, value = line.partition(":")
        if colon:
            value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
    return events


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(stream) + 1) for cut in cuts})
    edges = [0, *at, len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


def parsed(chunks: list[bytes]) -> list[tuple[str, str]]:
    parser = SseParser()
    return [(event.type, event.data.decode("utf-8", "replace")) for chunk in chunks for event in parser.feed(chunk)]


PIECES = st.sampled_from(
    [
        b"data: ", b"data:", b"data", b"event: ", b"event:x", b"event", b"id: 1", b"retry: 5", b": note", b":", b" ",
        b"a", b"{}", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\xef\xbb\xbf", "é€😀".encode(), b"\xf0\x9f",
        b"\xff", b"\x00", b"data: [DONE]\n\n", b"\xef", b"\xef\xbb",
    ]
)  # fmt: skip


@PATIENT
@given(st.lists(PIECES | st.binary(max_size=6), max_size=40).map(b"".join), st.lists(st.integers(0, 400), max_size=12))
def test_any_bytes_split_anywhere_are_read_by_the_rules(stream: bytes, cuts: list[int]):
    """Whatever comes, and however it is cut, the events are those of the rules."""
    assert parsed(split(stream, cuts)) == reference(stream)


@PATIENT
@given(st.lists(PIECES, max_size=25).map(b"".join))
def test_byte_by_byte_is_the_same(stream: bytes):
    """The smallest chunks there are."""
    assert parsed([stream[at : at + 1] for at in range(len(stream))]) == reference(stream)


@PATIENT
@given(st.lists(st.tuples(st.text(alphabet="ab:é \0", max_size=8), st.sampled_from(["", "delta"])), max_size=8))
def test_what_is_encoded_is_read(events: list[tuple[str, str]]):
    """Our own events come back as they were."""
    stream = b"".join(encoded(data.encode(), kind) for data, kind in events)
    assert SseParser().feed(stream) == [Event(kind or "message", data.encode()) for data, kind in events]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_event_without_end_is_refused(size: int):
    """However small the chunks; what is kept stays within the bound."""
    parser = SseParser(event_bytes_max=10_000)
    with pytest.raises(EngineMalformed):
        for _ in range(20_000 // size + 1):
            parser.feed(b"data: x\n"[:size] * (size // 8 + 1))


def test_a_large_event_in_one_chunk_is_refused_as_well():
    """The bound does not depend on how it is cut."""
    parser = SseParser(event_bytes_max=100)
    assert parser.feed(b"data: " + b"x" * 94 + b"\n\n") == [Event("message", b"x" * 94)]
    with pytest.raises(EngineMalformed):
        parser.feed(b"data: " + b"x" * 95 + b"\n\n")
