"""A trace's tree, own times, critical path and comparison, by traces whose answers are known."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as change

from seamline.observe.records import Kind, Span
from seamline.observe.waterfall import Waterfall, compare, waterfall


def span(
    number: int, parent: int, start: int, until: int, name: str = "", *, module: str = "m", kind: Kind = "internal"
) -> Span:
    return Span(
        b"t" * 16, number.to_bytes(8, "big"), parent.to_bytes(8, "big"), name or f"s{number}", kind, module, "",
        start, until - start,
    )  # fmt: skip


def path(trace: Waterfall) -> list[tuple[str, int, int]]:
    return sorted(
        ((row.span.name, begin, until) for row in trace.rows for begin, until in row.critical), key=lambda each: each[1]
    )


def own(trace: Waterfall) -> dict[str, int]:
    return {row.span.name: row.self_ns for row in trace.rows}


def test_rows_stand_in_the_order_of_the_tree() -> None:
    """A span stands above all below it, its children in the order of time, and it knows how many rows are below it."""
    trace = waterfall([span(4, 2, 20, 30), span(3, 1, 60, 90), span(2, 1, 10, 50), span(1, 0, 0, 100)])
    assert [(row.span.name, row.depth, row.parent, row.below) for row in trace.rows] == [
        ("s1", 0, -1, 3), ("s2", 1, 0, 1), ("s4", 2, 1, 0), ("s3", 1, 0, 0),
    ]  # fmt: skip
    assert (trace.start_ns, trace.end_ns, trace.duration_ns) == (0, 100, 100)


def test_one_after_another_all_are_on_the_path() -> None:
    """Calls made in sequence are all on the critical path, with the caller's own time between them."""
    trace = waterfall([span(1, 0, 0, 100), span(2, 1, 10, 40), span(3, 1, 50, 90)])
    assert path(trace) == [("s1", 0, 10), ("s2", 10, 40), ("s1", 40, 50), ("s3", 50, 90), ("s1", 90, 100)]
    assert own(trace) == {"s1": 30, "s2": 30, "s3": 40}


def test_of_parallel_calls_only_the_last_to_return_is_on_the_path() -> None:
    """Of calls made at once, the one that everything waited for is on the path and the others are not."""
    trace = waterfall([span(1, 0, 0, 100), span(2, 1, 10, 40), span(3, 1, 10, 80), span(4, 1, 10, 60)])
    assert path(trace) == [("s1", 0, 10), ("s3", 10, 80), ("s1", 80, 100)]
    assert own(trace)["s1"] == 30


def test_an_attempt_that_was_overtaken_is_no_failure_and_not_waited_for() -> None:
    """Of a hedged call the attempt that answered is on the path, although the other ended later; alone it would be."""
    attempts = [
        change(span(2, 1, 10, 60, "C.m"), status="ok"), change(span(3, 1, 30, 62, "C.m"), status="canceled"),
    ]  # fmt: skip
    trace = waterfall([span(1, 0, 0, 100), *attempts])
    assert path(trace) == [("s1", 0, 10), ("C.m", 10, 60), ("s1", 60, 100)]
    assert trace.errors == 0
    assert path(waterfall([span(1, 0, 0, 100), attempts[1]])) == [("s1", 0, 30), ("C.m", 30, 62), ("s1", 62, 100)]


def test_the_path_goes_down_to_who_worked() -> None:
    """The published example's shape: a fan-out, then a call that itself waited for two; the path goes through both."""
    trace = waterfall(
        [
            span(1, 0, 0, 200), span(2, 1, 10, 60), span(3, 1, 10, 50), span(4, 1, 70, 190), span(5, 4, 80, 120),
            span(6, 4, 130, 180),
        ]
    )  # fmt: skip
    assert path(trace) == [
        ("s1", 0, 10), ("s2", 10, 60), ("s1", 60, 70), ("s4", 70, 80), ("s5", 80, 120), ("s4", 120, 130),
        ("s6", 130, 180), ("s4", 180, 190), ("s1", 190, 200),
    ]  # fmt: skip


def test_a_child_that_outlives_its_parent_counts_while_the_parent_lasts() -> None:
    """Work left behind, or another machine's clock: the path never leaves the time of the trace's first span."""
    trace = waterfall([span(1, 0, 0, 100), span(2, 1, 50, 300), span(3, 1, -40, 30)])
    assert path(trace) == [("s3", 0, 30), ("s1", 30, 50), ("s2", 50, 100)]
    assert own(trace)["s1"] == 20


def test_nobody_waits_for_who_consumes_an_event() -> None:
    """A consumer is shown below the span that published, and is neither its time nor its path."""
    trace = waterfall([span(1, 0, 0, 100), span(2, 1, 10, 90, kind="consumer")])
    assert path(trace) == [("s1", 0, 100)]
    assert own(trace) == {"s1": 100, "s2": 80}
    assert trace.rows[1].depth == 1


def test_where_the_first_span_is_missing_the_rest_is_shown() -> None:
    """Spans whose parent was not recorded stand at the top and say so; a real top is the one the path begins at."""
    trace = waterfall([span(2, 9, 0, 500), span(1, 0, 10, 100), span(3, 1, 20, 30)])
    assert [(row.span.name, row.depth, row.lost) for row in trace.rows] == [
        ("s2", 0, True), ("s1", 0, False), ("s3", 1, False),
    ]  # fmt: skip
    assert {name for name, _, _ in path(trace)} == {"s1", "s3"}


def test_circles_and_repeated_ids_are_shown_too() -> None:
    """Spans that are their own parents, each other's, or share an id are all shown once."""
    trace = waterfall([span(1, 1, 0, 10), span(2, 3, 20, 30), span(3, 2, 21, 29), span(4, 1, 1, 2), span(4, 1, 3, 4)])
    assert sorted(row.span.name for row in trace.rows) == ["s1", "s2", "s3", "s4", "s4"]
    assert waterfall([]).rows == ()


def test_a_trace_ten_thousand_deep() -> None:
    """Depth costs no stack."""
    deep = [span(n, n - 1, n, 30_000 - n) for n in range(1, 10_001)]
    trace = waterfall(deep)
    assert trace.rows[-1].depth == 9_999
    assert trace.rows[0].below == 9_999
    assert sum(row.critical_ns for row in trace.rows) == trace.duration_ns
    assert len(compare(trace, trace)) == 10_000


spans = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 100), st.integers(-5, 60)), min_size=1, max_size=30
)


@given(spans)
def test_whatever_the_spans_are_the_path_covers_the_first(given: list[tuple[int, int, int, int]]) -> None:
    """Whatever the spans: each has one row, no own time is negative, the path is a line without gap or overlap."""
    random.Random(1).shuffle(given)
    found = [span(number, parent, start, start + length) for number, parent, start, length in given]
    trace = waterfall(found)
    assert len(trace.rows) == len(found)
    assert all(row.self_ns >= 0 for row in trace.rows)
    line = path(trace)
    assert all(before[2] == after[1] for before, after in itertools.pairwise(line))
    longest = max((row.span.duration_ns for row in trace.rows if row.parent < 0 and not row.lost), default=None)
    if longest is not None:
        assert sum(row.critical_ns for row in trace.rows) == max(longest, 0)
    for index, row in enumerate(trace.rows):
        assert all(each.depth > row.depth for each in trace.rows[index + 1 : index + 1 + row.below])


def test_two_traces_are_laid_over_each_other() -> None:
    """What became slower by itself is told from what waited for it; what is new and what is gone is shown in place."""
    ms = 1_000_000
    before = waterfall(
        [
            span(1, 0, 0, 100 * ms, "page"), span(2, 1, 10 * ms, 30 * ms, "cart", module="cart"),
            span(3, 1, 40 * ms, 50 * ms, "ads", module="ads"), span(4, 2, 12 * ms, 20 * ms, "sql", module="cart"),
        ]
    )  # fmt: skip
    after = waterfall(
        [
            span(1, 0, 0, 180 * ms, "page"), span(2, 1, 10 * ms, 110 * ms, "cart", module="cart"),
            span(4, 2, 12 * ms, 100 * ms, "sql", module="cart"), span(5, 2, 101 * ms, 109 * ms, "sql", module="cart"),
            span(6, 1, 120 * ms, 130 * ms, "tax", module="tax"),
        ]
    )  # fmt: skip
    pairs = compare(before, after)
    assert [(each.span.name, each.change, each.depth) for each in pairs] == [
        ("page", "same", 0), ("cart", "faster", 1), ("sql", "slower", 2), ("sql", "new", 2), ("tax", "new", 1),
        ("ads", "gone", 1),
    ]  # fmt: skip
    assert [each.change_ns // ms for each in pairs] == [80, 80, 80, 8, 10, -10]


def test_a_trace_is_the_same_as_itself() -> None:
    """Compared with itself nothing has changed, whatever is alike in it."""
    trace = waterfall([span(1, 0, 0, 100), *(span(n, 1, n, n + 1, "get") for n in range(2, 40))])
    assert {each.change for each in compare(trace, trace)} == {"same"}
    assert len(compare(trace, trace)) == 39
