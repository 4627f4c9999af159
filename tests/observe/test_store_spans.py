"""What is put into the telemetry store comes out of it: every field, by every question, hot and from history."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as change
from tests.observe.stored import NOW, S, add, by_id, clock, opened, trace

from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.errors import BadQueryError
from seamline.observe.records import Attribute, Log, Span, SpanEvent, SpanLink
from seamline.observe.store import TelemetryReader, TelemetryStore, parquet, search
from seamline.observe.store.pieces import ATTRIBUTES_MAX, CUT, TEXT_MAX, pack_log, pack_spans, unpack_log, unpack_spans
from seamline.observe.store.query import LogQuery, TraceQuery, TraceSummary

KEEP_ALL = ObserveSettings(keep_traces=1.0)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
int64 = st.integers(-(2**63), 2**63 - 1)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | int64 | st.floats() | text | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
attributes: st.SearchStrategy[dict[str, Attribute]] = st.dictionaries(text, values, max_size=4)
trace_ids = st.binary(min_size=16, max_size=16).filter(any)
spans = st.builds(
    Span,
    trace_id=trace_ids,
    span_id=st.binary(max_size=8),
    parent_id=st.binary(max_size=8),
    name=text,
    kind=st.sampled_from(["internal", "server", "client", "producer", "consumer"]),
    module=text,
    peer=text,
    start_ns=int64,
    duration_ns=int64,
    status=st.sampled_from(["ok", "unavailable", "internal"]),
    message=text,
    attributes=attributes,
    events=st.lists(st.builds(SpanEvent, int64, text, attributes), max_size=2),
    links=st.lists(st.builds(SpanLink, trace_ids, st.binary(max_size=8), attributes, text), max_size=2),
    workload=text,
    replica=st.integers(0, 100),
    resource=attributes,
    scope=text,
    trace_state=text,
)
logs = st.builds(
    Log, int64, st.integers(0, 24), text, text, text, text, st.integers(0, 9), st.binary(max_size=16),
    st.binary(max_size=8), text, attributes, attributes,
)  # fmt: skip


def same(one: object, other: object) -> bool:
    """Equal in value and type, with no number counting as no number."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)


@given(st.lists(spans, min_size=1, max_size=5))
def test_every_field_of_a_span_comes_back_from_sqlite(given: list[Span]) -> None:
    """Nanoseconds, types of attributes, bytes, nested values and numbers that are none are as they were."""
    body, kept = pack_spans(given)
    assert same(kept, given)
    assert same(unpack_spans(body), given)


@given(logs)
def test_every_field_of_a_log_comes_back_from_sqlite(line: Log) -> None:
    """The same of logs."""
    packed = pack_log(line)
    assert packed is not None
    assert same(unpack_log(packed[0]), line)


@settings(deadline=None, max_examples=30)
@given(st.lists(spans, min_size=1, max_size=5), st.lists(logs, min_size=1, max_size=5))
def test_every_field_comes_back_from_parquet(given: list[Span], lines: list[Log]) -> None:
    """What JSON cannot say stands in ``exact``, so that history is as exact as what is hot."""
    with TemporaryDirectory() as name, duckdb.connect(config=parquet.CONFIG) as connection:
        source, path = Path(name) / "lines", str(Path(name) / "file.parquet")
        source.write_bytes(b"".join(parquet.span_line(each) + b"\n" for each in given))
        parquet.write(connection, "spans", str(source), path)
        wanted = sorted({each.trace_id.hex() for each in given})
        job: dict[str, Any] = {"files": [path], "traces": wanted, "limit": 100}
        assert sorted(parquet.span_rows(connection, job)) == sorted(map(msgspec.msgpack.encode, given))
        source.write_bytes(b"".join(parquet.log_line(each) + b"\n" for each in lines))
        parquet.write(connection, "logs", str(source), path)
        job = {"files": [path], "limit": 100, "skip": 0, "words": [], "since_ns": 0, "until_ns": 0}
        found = parquet.log_rows(connection, {**job, "module": "", "severity": 0, "trace": ""})
        assert sorted(found) == sorted(map(msgspec.msgpack.encode, lines))


async def test_a_trace_is_found_by_its_id_hot_and_past(tmp_path: Path) -> None:
    """By id the spans of a trace come back in the order of time, also those that came later, also from Parquet."""
    time = clock()
    with opened(tmp_path, KEEP_ALL, time) as (store, reader):
        given = trace(1, NOW)
        add(store, given[:1])
        add(store, [*given[1:], *trace(2, NOW)])
        id_ = given[0].trace_id.hex()
        assert reader.trace(id_) == given
        time.advance(7 * 3600)
        await store.tend()
        assert store.trouble == ""
        assert reader.size().spans == 0
        assert reader.trace(id_) == given
        assert reader.trace("00" * 16) == []
        with pytest.raises(BadQueryError):
            reader.trace("nonsense")


def brute(all_spans: list[list[Span]], q: TraceQuery) -> set[str]:
    """The answer to a question, by looking at everything."""

    def fits(span: Span) -> bool:
        return (
            q.module in {"", span.module}
            and q.name in {"", span.name}
            and (q.status in {"", span.status} or (q.status == "failed" and span.status != "ok"))
            and span.duration_ns >= q.slower_than_ms * 1e6
            and (not q.roots_only or not span.parent_id)
            and q.since_ns <= span.start_ns < (q.until_ns or 2**63)
            and all(str(span.attributes.get(key)).lower() == value for key, value in q.attributes.items())
        )

    return {spans[0].trace_id.hex() for spans in all_spans if any(map(fits, spans))}


def questions(lot: random.Random, known: list[list[Span]]) -> TraceQuery:
    span = lot.choice(lot.choice(known))
    return TraceQuery(
        module=lot.choice(["", "", span.module, "nobody"]),
        name=lot.choice(["", "", span.name]),
        status=lot.choice(["", "", "ok", "failed", "unavailable"]),
        slower_than_ms=lot.choice([0, 0, 1, span.duration_ns / 1e6, 20]),
        attributes=lot.choice(
            [{}, {}, {"user": "u3"}, {"paid": "true"}, {"order.number": "17"}, {"user": "u4", "paid": "false"}]
        ),
        roots_only=lot.random() < 0.2,
        since_ns=lot.choice([0, 0, NOW - 300 * S]),
        until_ns=lot.choice([0, 0, NOW - 200 * S]),
        limit=lot.choice([7, 20, 50]),
    )


def all_pages(reader: TelemetryReader, q: TraceQuery) -> list[TraceSummary]:
    found: list[TraceSummary] = []
    while True:
        page = reader.traces(q)
        found += page.items
        if not page.next:
            return found
        assert len(page.items) <= q.limit
        q = replace(q, cursor=page.next)


async def test_every_question_finds_what_looking_at_everything_finds(tmp_path: Path) -> None:
    """Drawn questions: each trace that fits is found once over all pages, and no other, hot and past."""
    lot = random.Random(20260314)
    time = clock()
    with opened(tmp_path, KEEP_ALL, time) as (store, reader):
        known = [trace(number, NOW - (400 - number) * S, failed=number % 9 == 0) for number in range(400)]
        for begin in range(0, 400, 40):
            together = [span for spans in known[begin : begin + 40] for span in spans]
            lot.shuffle(together)
            half = len(together) // 2
            add(store, together[:half])
            add(store, together[half:])
        asked = [questions(lot, known) for _ in range(100)]
        check(reader, known, asked)
        time.advance(6 * 3600 + 1800)
        await store.tend()
        size = reader.size()
        assert (size.spans, size.history_spans) == (0, sum(map(len, known)))
        check(reader, known, asked[:30])


async def test_pages_go_on_over_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a history of many files, looked at two at a time: each trace and each line once, newest first."""
    monkeypatch.setattr(search, "FILES_AT_ONCE", 2)
    time = clock()
    with opened(tmp_path, ObserveSettings(keep_traces=1, hot_s=60), time) as (store, reader):
        known = [trace(number, NOW - (60 - number) * S, failed=number % 9 == 0) for number in range(60)]
        lines = [Log(NOW - (60 - number) * S, 9, "cart", f"line {number}") for number in range(60)]
        for begin in range(0, 60, 20):
            time.advance(-40 if begin == 0 else 20)
            add(store, [span for spans in known[begin : begin + 20] for span in spans], lines[begin : begin + 20])
        time.advance(600)
        await store.tend()
        assert len(list((tmp_path / "history").glob("spans-*"))) > 4
        lot = random.Random(7)
        check(reader, known, [questions(lot, known) for _ in range(12)])
        rows = all_pages(reader, TraceQuery(limit=7))
        assert [row.trace_id for row in rows] == [spans[0].trace_id.hex() for spans in reversed(known)]
        found, cursor = list[Log](), ""
        while not found or cursor:
            page = reader.logs(LogQuery(limit=11, cursor=cursor))
            found += page.items
            cursor = page.next
        assert found == lines[::-1]


def check(reader: TelemetryReader, known: list[list[Span]], asked: list[TraceQuery]) -> None:
    some = 0
    for q in asked:
        found = [each.trace_id.lower() for each in all_pages(reader, q)]
        assert len(found) == len(set(found)), q
        assert set(found) == brute(known, q), q
        some += bool(found)
    assert some > len(asked) // 5


async def test_a_list_is_in_the_order_of_time_and_says_what_a_trace_was(tmp_path: Path) -> None:
    """The newest trace is first, across pages and across the border to history; a row has the root and the counts."""
    time = clock()
    with opened(tmp_path, KEEP_ALL, time) as (store, reader):
        old = [trace(number, NOW + number * S) for number in range(20)]
        add(store, [span for spans in old for span in spans])
        time.advance(7 * 3600)
        await store.tend()
        new = [trace(number, store.now_ns() + number * S, failed=True) for number in range(20, 40)]
        add(store, [span for spans in new for span in spans])
        rows = all_pages(reader, TraceQuery(limit=6))
        expected = [*reversed(new), *reversed(old)]
        assert [row.trace_id for row in rows] == [spans[0].trace_id.hex() for spans in expected]
        for row, spans in zip(rows, expected, strict=True):
            assert (row.name, row.module, row.status) == (spans[0].name, spans[0].module, spans[0].status)
            assert (row.spans, row.errors) == (len(spans), sum(span.status != "ok" for span in spans))
            assert row.modules == list(dict.fromkeys(span.module for span in spans))
            assert row.started_ns == spans[0].start_ns
            assert row.duration_ns == max(span.start_ns + span.duration_ns for span in spans) - spans[0].start_ns


async def test_words_are_found_in_spans_and_logs_hot_and_past(tmp_path: Path) -> None:
    """Whole words and the beginning of the last, whatever their case; a word that stands nowhere finds nothing."""
    time = clock()
    with opened(tmp_path, KEEP_ALL, time) as (store, reader):
        given = trace(3, NOW, failed=True)
        lines = [
            Log(NOW + 1, 17, "cart", "Größe ÄÖÜ не найдено: order-17 refused", exception="ValueError: boom"),
            Log(NOW + 2, 9, "cart", "order 18 placed", attributes={"user": "ada lovelace"}),
            Log(NOW + 3, 13, "email", "slow mailbox", workload="post", trace_id=given[0].trace_id),
        ]
        add(store, given, lines)
        for _ in range(2):
            for words, number in (("card serv", 1), ("CARD down", 1), ("card ser down", 0), ("kart", 0)):
                assert len(reader.traces(TraceQuery(text=words)).items) == number, words
            for words, at in (
                ("order", [2, 1]), ("refused 17", [1]), ("найд", [1]), ("boom", [1]), ("lovelace", [2]), ("rder", []),
                ('"*) NEAR (', []), ("placed order", [2]), ("place order", []),
            ):  # fmt: skip
                assert [each.at_ns - NOW for each in reader.logs(LogQuery(text=words)).items] == at, words
            for q, at in (
                (LogQuery(module="cart"), [2, 1]), (LogQuery(module="post"), [3]), (LogQuery(severity=13), [3, 1]),
                (LogQuery(severity=10), [3, 1]), (LogQuery(trace_id=given[0].trace_id.hex()), [3]),
                (LogQuery(since_ns=NOW + 2), [3, 2]), (LogQuery(until_ns=NOW + 2), [1]),
                (LogQuery(module="cart", severity=17, text="order"), [1]),
            ):  # fmt: skip
                assert [each.at_ns - NOW for each in reader.logs(q).items] == at, q
            time.advance(7 * 3600)
            await store.tend()
        assert reader.size().history_logs == 3
        assert reader.logs(LogQuery(text="boom")).items == lines[:1]


async def test_logs_page_through_moments_with_many_lines(tmp_path: Path) -> None:
    """Pages neither repeat nor leave out a line, even where hundreds have the same nanosecond."""
    time = clock()
    lines = [Log(NOW + number // 90, 9, "cart", f"line {number}") for number in range(300)]
    with opened(tmp_path, KEEP_ALL, time) as (store, reader):
        add(store, logs=lines)
        for _ in range(2):
            found: list[Log] = []
            cursor = ""
            while True:
                page = reader.logs(LogQuery(limit=37, cursor=cursor))
                found += page.items
                cursor = page.next
                if not cursor:
                    break
            assert len(found) == 300
            assert {each.message for each in found} == {each.message for each in lines}
            assert [each.at_ns for each in found] == sorted((each.at_ns for each in found), reverse=True)
            time.advance(7 * 3600)
            await store.tend()


def test_what_is_too_much_is_cut_and_said(tmp_path: Path) -> None:
    """A megabyte in one attribute, ten thousand attributes, a number of 400 bits: cut and counted, the rest is kept."""
    base = trace(5, NOW)[0]
    hostile: dict[str, dict[str, Any]] = {
        "long": {"attributes": {"body": "x" * 1_000_000, "fine": 1}},
        "many": {"attributes": {f"k{number}": number for number in range(10_000)}},
        "large": {"attributes": {"n": 1 << 400}},
        "deep": {"attributes": {"d": _nested(5_000)}},
        "text": {"message": "y" * 1_000_000},
        "half": {"name": "\ud800 half a pair"},
    }
    with opened(tmp_path) as (store, reader):
        for number, fields in enumerate(hostile.values(), 1):
            add(store, [change(base, trace_id=bytes([number]) * 16, **fields)])
        found = {name: reader.trace(f"{number:02x}" * 16)[0] for number, name in enumerate(hostile, 1)}
        assert store.dropped == {}
        assert reader.size().hot_bytes < 4_000_000
    assert found["long"].attributes["fine"] == 1
    assert found["long"].attributes[CUT] == 1
    assert len(str(found["long"].attributes["body"])) < TEXT_MAX + 100
    assert "1000000 characters" in str(found["long"].attributes["body"])
    assert found["many"].attributes[CUT] == 10_000 - ATTRIBUTES_MAX
    assert found["large"].attributes["n"] == hex(1 << 400)
    assert len(found["text"].message) < TEXT_MAX + 100
    assert found["half"].name == "? half a pair"


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_spans_that_nobody_could_find_are_refused_and_strange_ones_kept(tmp_path: Path) -> None:
    """A trace id of zeros or of the wrong length is counted as dropped; odd times and numbers do no harm."""
    base = trace(6, NOW)[0]
    with opened(tmp_path) as (store, reader):
        add(store, [change(base, trace_id=b"\0" * 16), change(base, trace_id=b"short"), change(base, trace_id=b"")])
        assert store.dropped == {"spans": 3}
        strange = [
            change(base, trace_id=b"a" * 16, start_ns=-5, duration_ns=-1),
            change(base, trace_id=b"b" * 16, start_ns=2**63 - 1),
            change(base, trace_id=b"c" * 16, start_ns=0, duration_ns=0, span_id=b"\0" * 8),
            change(base, trace_id=b"d" * 16, attributes={"n": math.nan, "i": -math.inf, "e": ""}),
        ]
        add(store, strange)
        for span in strange:
            assert same(reader.trace(span.trace_id.hex()), [span])
        assert len(reader.traces(TraceQuery(limit=10)).items) == 4
        assert store.trouble == ""
        add(store)
        assert reader.size().dropped == {"spans": 3}


def test_ten_thousand_different_attributes_are_each_found(tmp_path: Path) -> None:
    """The number of distinct keys bounds nothing: no table or index grows a column or a name for each."""
    with opened(tmp_path) as (store, reader):
        base = trace(7, NOW)[0]
        store_many(store, base)
        for number in (0, 4_711, 9_999):
            page = reader.traces(TraceQuery(attributes={f"key.{number}": f"v{number}"}))
            assert [each.trace_id for each in page.items] == [(number + 1).to_bytes(16, "big").hex()]
        assert store.dropped == {}


def store_many(store: TelemetryStore, base: Span) -> None:
    for begin in range(0, 10_000, 1_000):
        add(
            store,
            [
                change(base, trace_id=(number + 1).to_bytes(16, "big"), attributes={f"key.{number}": f"v{number}"})
                for number in range(begin, begin + 1_000)
            ],
        )


async def test_history_keeps_what_matters_and_a_share_of_the_rest(tmp_path: Path) -> None:
    """Slow and failed traces all go to history; of the others a tenth, as whole traces, and plain tools can read it."""
    time = clock()
    with opened(tmp_path, ObserveSettings(keep_traces=0.1), time) as (store, reader):
        normal = [trace(number, NOW + number) for number in range(2_000)]
        failed = [trace(number, NOW + number, failed=True) for number in range(2_000, 2_050)]
        slow = [
            [change(span, duration_ns=2 * S) for span in trace(number, NOW + number)] for number in range(2_050, 2_100)
        ]
        for each in (normal, failed, slow):
            add(store, [span for spans in each for span in spans])
        time.advance(7 * 3600)
        await store.tend()
        kept = {each.trace_id.lower(): each.spans for each in all_pages(reader, TraceQuery(limit=500))}
        for spans in (*failed, *slow):
            assert kept[spans[0].trace_id.hex()] == len(spans)
        there = [spans for spans in normal if spans[0].trace_id.hex() in kept]
        assert 120 < len(there) < 280
        assert all(kept[spans[0].trace_id.hex()] == len(spans) for spans in there)
        assert by_id(reader.trace(failed[3][0].trace_id.hex())) == by_id(failed[3])
    with duckdb.connect() as plain:
        row = plain.execute(
            f"SELECT name, attributes FROM '{tmp_path}/history/spans-*.parquet' WHERE trace = unhex(?) AND parent = ''",
            [failed[0][0].trace_id.hex()],
        ).fetchone()
    assert row is not None
    assert (row[0], json.loads(row[1])) == (failed[0][0].name, failed[0][0].attributes)
