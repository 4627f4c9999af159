"""Trace context as it travels, which traces are recorded, and spans on their way out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.kernel.signal import trace as traces
from seamline.kernel.signal.trace import Carried, TraceContext, Tracer, exception_event, said

IDS = st.integers(1, 2**128 - 1)
SPANS = st.integers(1, 2**64 - 1)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of ``monotonic``, for tests to move."""
    held = [1000.0]
    monkeypatch.setattr(traces, "monotonic", lambda: held[0])
    return held


@given(IDS, SPANS, st.booleans(), TEXT, TEXT, SPANS)
def test_a_trace_survives_both_ways_of_travelling(
    trace_id: int, span_id: int, sampled: bool, state: str, baggage: str, span: int
):
    """As headers and in a frame, once and again, and under whichever span."""
    trace = TraceContext(trace_id, span_id, sampled, traces.carried(state, baggage))
    again = TraceContext.from_headers(dict(trace.to_headers()))
    framed = TraceContext.from_bytes(trace.to_bytes(span))
    assert again is not None
    assert framed is not None
    twice = TraceContext.from_bytes(framed.to_bytes(span_id))
    assert twice is not None
    for each, under in ((again, span_id), (framed, span), (twice, span_id)):
        assert (each.sampled, each.trace_id, each.span_id, each.carried) == (sampled, trace_id, under, trace.carried)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_none(data: bytes):
    """A peer of another version cannot make this side fail."""
    trace = TraceContext.from_bytes(data)
    if trace is not None:
        assert 0 < trace.trace_id < 2**128
        assert 0 <= trace.span_id < 2**64
        assert TraceContext.from_traceparent(trace.child().to_traceparent()) is not None


@given(st.text(max_size=80))
def test_any_header_is_a_trace_or_none(header: str):
    """Whatever a stranger writes."""
    trace = TraceContext.from_traceparent(header)
    assert trace is None or 0 < trace.trace_id < 2**128


def test_an_attribute_that_a_trace_has_not_is_an_error():
    """What came in a frame and was not read yet hides no slip of the pen."""
    trace = TraceContext.from_bytes(TraceContext(1, 2, sampled=False).to_bytes(3))
    with pytest.raises(AttributeError):
        getattr(trace, "nothing")  # noqa: B009  # pyright knows that there is none


def test_what_a_trace_carries_is_bounded():
    """A state or a baggage beyond what W3C asks for is left behind, the other is not."""
    assert traces.carried("s" * 512, "b" * 8193) == Carried("s" * 512, "")
    assert traces.carried("s" * 513, "b" * 8192) == Carried("", "b" * 8192)


def test_ids_are_not_those_that_a_program_seeds():
    """Two programs that seed alike do not share their traces."""
    random.seed(1)
    one = Tracer(0.0).root().trace_id
    random.seed(1)
    assert Tracer(0.0).root().trace_id != one


def test_so_many_traces_a_second_are_recorded_whatever_the_share(now: list[float]):
    """At once after a pause, then evenly; never more, however many there are."""
    tracer = Tracer(0.0, sample_per_s=10)
    assert 10 <= sum(tracer.root().sampled for _ in range(1000)) <= 11
    recorded = 0
    for _ in range(1000):
        now[0] += 0.01
        recorded += sum(tracer.root().sampled for _ in range(5))
    assert 98 <= recorded <= 101


def test_beyond_the_reservoir_the_lot_decides(now: list[float]):
    """All of them with a share of one, none with zero."""
    assert now
    assert all(Tracer(1.0, sample_per_s=1).root().sampled for _ in range(100))
    assert not any(Tracer(0.0).root().sampled for _ in range(100))


def test_a_strangers_wish_to_be_recorded_is_granted_as_to_a_new_trace():
    """Else anybody could have all of their requests recorded."""
    tracer = Tracer(0.0)
    asked = TraceContext(5, 6, sampled=True)
    entered = tracer.enter(asked)
    assert (entered.trace_id, entered.span_id, entered.sampled) == (5, 6, False)
    assert tracer.enter(None).span_id == 0


def test_traces_that_failed_are_kept_up_to_a_number(now: list[float]):
    """An outage does not drown in its own traces; how many were left out is known. A kept one stays kept."""
    tracer = Tracer(0.0)
    kept = [tracer.keep(tracer.root()) for _ in range(500)]
    assert abs(sum(kept) - traces.KEPT_PER_S) <= 1
    assert tracer.left_out == 500 - sum(kept)
    now[0] += 1.0
    trace = tracer.root()
    assert tracer.keep(trace)
    assert trace.sampled
    before = tracer.left_out
    assert all(tracer.keep(trace) for _ in range(500))
    assert tracer.left_out == before


def record(tracer: Tracer, span_id: int) -> None:
    tracer.record(TraceContext(1, 0, sampled=True), span_id, 0, "work", "internal", "shop", "", 10.0, 0.25)


def test_spans_beyond_what_can_be_held_are_counted():
    """Whoever does not fetch them costs no more memory than that."""
    tracer = Tracer(1.0, capacity=10)
    for number in range(25):
        record(tracer, number + 1)
    assert [span.span_id for span in tracer.take()] == list(range(1, 11))
    assert tracer.dropped == 15
    record(tracer, 1)
    assert len(tracer.take()) == 1
    assert tracer.take() == []


def test_what_is_noted_of_a_span_lands_on_it():
    """Attributes, events and links; on no other span, and once."""
    tracer = Tracer(1.0)
    notes = tracer.notes_of(7)
    notes.attributes["color"] = "red"
    notes.events.append((1, "looked", None))
    notes.links.append((8, 9))
    for span_id in (6, 7, 7):
        record(tracer, span_id)
    other, span, again = tracer.take()
    assert (span.attributes, span.events, span.links) == ({"color": "red"}, [(1, "looked", None)], [(8, 9)])
    assert other.attributes is again.attributes is None
    for span_id in range(100_000):
        tracer.notes_of(span_id)
    record(tracer, 99_999)
    assert tracer.take()[0].attributes == {}


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def deep(depth: int) -> None:
    if depth:
        deep(depth - 1)
    else:
        raise ValueError("not in list")


def test_an_exception_is_told_with_the_frames_of_the_application():
    """The innermost twelve; libraries' frames are not among them, and no message is too long or too rude."""
    with pytest.raises(ValueError, match="not in list") as caught:
        deep(40)
    at_ns, name, attributes = exception_event(caught.value, 5)
    assert (at_ns, name) == (5, "exception")
    assert attributes is not None
    frames = attributes["exception.stacktrace"].splitlines()
    assert len(frames) == 12
    assert all(frame.startswith("tests/kernel/test_trace.py:") and frame.endswith(" deep") for frame in frames)
    assert attributes["exception.type"] == "ValueError"
    assert said(Rude()) == "<Rude>"
    assert len(said(ValueError("x" * 100_000))) == traces.MESSAGE_CHARACTERS_MAX


def test_work_that_nobody_asked_for_is_recorded_only_when_it_fails_or_is_slow():
    """Consumers that follow logs begin a trace a second each: they neither fill the store nor use up the reservoir."""
    tracer = Tracer(1.0, sample_per_s=1)
    assert not any(tracer.aside().sampled for _ in range(100))
    assert tracer.root().sampled
    trace = tracer.aside()
    assert tracer.keep(trace)
    assert trace.sampled
