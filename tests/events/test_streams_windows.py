"""Windows of event time: what each kind holds, when it closes, and what becomes of what comes late."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.stream_rig import Rig, Sold, rig, sold

from seamline.events.streams import (
    avg,
    count,
    distinct,
    fold,
    max_,
    min_,
    session,
    sliding,
    stream,
    sum_,
    top_k,
    tumbling,
)
from seamline.events.streams.errors import StreamDeclarationError
from seamline.events.streams.windows import Aligned

__all__ = ["rig"]

sales = stream(Sold, at=lambda e: e.at).by(currency=lambda e: e.currency)


async def test_a_tumbling_window_holds_its_start_and_not_its_end(rig: Rig):
    await rig.view("v", sales.window(tumbling(60)).aggregate(orders=count(), cents=sum_(lambda e: e.cents)))
    await rig.take(sold(0, 5), sold(59.999, 7), sold(60, 11), sold(61, 100, "USD"))
    assert await rig.rows("v", "currency, start_ms - :zero AS start, orders, cents") == [
        ("EUR", 0, 2, 12),
        ("EUR", 60_000, 1, 11),
        ("USD", 60_000, 1, 100),
    ]


async def test_a_sliding_window_counts_an_event_in_each_of_its_windows(rig: Rig):
    await rig.view("v", sales.window(sliding(60, every_s=20)).aggregate(orders=count()))
    await rig.take(sold(45))
    assert await rig.rows("v", "start_ms - :zero AS start, end_ms - :zero AS finish, orders") == [
        (0, 60_000, 1),
        (20_000, 80_000, 1),
        (40_000, 100_000, 1),
    ]


@given(
    at=st.integers(-(10**13), 10**13),
    size=st.integers(1, 10**6),
    overlap=st.integers(1, 50),
    offset=st.integers(-(10**6), 10**6),
)
def test_every_moment_is_in_as_many_windows_as_overlap(at: int, size: int, overlap: int, offset: int):
    """Each of them holds it, and they begin at multiples of the pace."""
    starts = Aligned(size * overlap, size, offset).starts(at)
    assert len(starts) == overlap
    assert all(start <= at < start + size * overlap for start in starts)
    assert all((start - offset) % size == 0 for start in starts)


async def test_sessions_end_with_a_pause_and_an_event_between_two_makes_them_one(rig: Rig):
    """Sums, extremes, members and the most frequent are those of all events; one row stays."""
    await rig.view(
        "v",
        sales.window(session(30), late_s=60).aggregate(
            orders=count(),
            least=min_(lambda e: e.cents),
            shoppers=distinct(lambda e: e.shopper),
            best=top_k(1, lambda e: e.shopper),
        ),
    )
    await rig.take(sold(0, 3, shopper="ada"), sold(10, 4, shopper="bob"), sold(50, 1, shopper="bob"))
    columns = "start_ms - :zero AS start, end_ms - :zero AS finish, orders, least, shoppers, best"
    assert await rig.rows("v", columns) == [
        (0, 40_000, 2, 3, 2, '[["ada",1]]'),
        (50_000, 80_000, 1, 1, 1, '[["bob",1]]'),
    ]
    await rig.take(sold(30, 9, shopper="eve"))
    assert await rig.rows("v", columns) == [(0, 80_000, 4, 1, 3, '[["bob",2]]')]


@settings(max_examples=30, deadline=None)
@given(times=st.lists(st.integers(0, 400), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_sessions_are_the_same_in_whatever_order_and_batches_events_come(times: list[int], seed: int):
    """As many as a sort and one pass find."""
    import asyncio
    import tempfile
    from pathlib import Path

    expected: list[list[int]] = []
    for at in sorted(times):
        if expected and at < expected[-1][1]:
            expected[-1][1], expected[-1][2] = at + 30, expected[-1][2] + 1
        else:
            expected.append([at, at + 30, 1])
    shuffled = list(times)
    lots = random.Random(seed)
    lots.shuffle(shuffled)

    async def run() -> list[tuple[object, ...]]:
        with tempfile.TemporaryDirectory() as folder:
            async with Rig.on_sqlite(Path(folder)) as rig:
                definition = stream(Sold, at=lambda e: e.at, out_of_order_s=1000).window(session(30))
                await rig.view("v", definition.aggregate(orders=count()))
                while shuffled:
                    many = lots.randint(1, len(shuffled))
                    await rig.take(*(sold(shuffled.pop()) for _ in range(many)))
                return await rig.rows("v", "(start_ms - :zero) / 1000, (end_ms - :zero) / 1000, orders")

    assert asyncio.run(run()) == [tuple(each) for each in expected]


async def test_aggregates_are_exact(rig: Rig):
    """Against the same computed from a list, over many batches."""

    def keep(state: list[int], event: Sold) -> list[int]:
        return sorted([*state, event.cents])[-3:]

    await rig.view(
        "v",
        stream(Sold, at=lambda e: e.at)
        .window(tumbling(3600))
        .aggregate(
            orders=count(lambda e: e.currency == "EUR"),
            cents=sum_(lambda e: e.cents),
            weight=sum_(lambda e: e.cents / 7, float),
            least=min_(lambda e: e.cents),
            most=max_(lambda e: e.cents),
            mean=avg(lambda e: e.cents),
            shoppers=distinct(lambda e: e.shopper),
            best=top_k(3, lambda e: e.shopper, lambda e: e.cents),
            three=fold(list[int], keep, state=list[int], show=lambda s: ",".join(map(str, s)), kind=str),
        ),
    )
    lots = random.Random(7)
    events = [
        sold(lots.randrange(3600), lots.randrange(1000), lots.choice(["EUR", "USD"]), f"s{lots.randrange(40)}")
        for _ in range(600)
    ]
    for at in range(0, 600, 71):
        await rig.take(*events[at : at + 71])
    cents = [event.cents for event in events]
    spent: Counter[str] = Counter()
    for event in events:
        spent[event.shopper] += event.cents
    best = sorted(spent.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    (row,) = await rig.rows("v", "orders, cents, weight, least, most, mean, shoppers, best, three")
    assert row[:2] == (sum(event.currency == "EUR" for event in events), sum(cents))
    assert row[2] == pytest.approx(sum(cents) / 7)
    assert row[3:5] == (min(cents), max(cents))
    assert row[5] == pytest.approx(sum(cents) / 600)
    assert row[6] == len(spent)
    assert row[7] == "[" + ",".join(f'["{name}",{many}]' for name, many in best) + "]"
    assert row[8] == ",".join(map(str, sorted(cents)[-3:]))


async def test_late_events_change_a_closed_window_while_it_is_kept_and_then_are_put_aside(rig: Rig):
    """What is put aside is counted, and kept with the reason."""
    definition = sales.window(tumbling(60), late_s=30).aggregate(orders=count())
    await rig.view("v", definition, on_close=rig.told.append)
    await rig.take(sold(10))
    await rig.take(sold(66))  # the watermark is 5 s behind: 61 s
    assert await rig.rows("v", "orders, closed") == [(1, 1), (1, 0)]
    await rig.take(sold(20))
    assert await rig.rows("v", "orders, closed") == [(2, 1), (1, 0)]
    assert [(each.values["orders"], each.revision) for each in rig.told] == [(1, 1), (2, 2)]
    await rig.take(sold(95))
    await rig.take(sold(30))
    assert await rig.rows("v", "orders, closed") == [(2, 1), (2, 0)]
    assert await rig.rows("stream_status", "events, late, ahead, failed") == [(5, 1, 0, 0)]
    assert await rig.aside() == [("late", "Sold", 30_000)]


async def test_an_event_from_the_future_does_not_make_the_others_late(rig: Rig):
    """It is put aside when its time lies ahead of the clock by more than a minute."""
    rig.now(30)
    await rig.view("v", sales.window(tumbling(60)).aggregate(orders=count()))
    await rig.take(sold(10), sold(10_000))
    await rig.take(sold(20))
    assert await rig.rows("v", "orders, closed") == [(2, 0)]
    assert await rig.aside() == [("ahead", "Sold", 10_000_000)]


async def test_an_event_that_a_function_fails_on_stops_nobody(rig: Rig):
    """It is put aside whole: no aggregate has counted it."""
    definition = sales.window(tumbling(60)).aggregate(orders=count(), cents=sum_(lambda e: 100 // e.cents))
    await rig.view("v", definition)
    await rig.take(sold(1, 10), sold(2, 0), sold(3, 50))
    assert await rig.rows("v", "orders, cents") == [(2, 12)]
    assert await rig.rows("stream_status", "failed") == [(1,)]
    assert await rig.aside() == [("failed", "Sold", 2_000)]


async def test_a_sum_that_does_not_fit_its_kind_is_put_aside(rig: Rig):
    await rig.view("v", sales.window(tumbling(60)).aggregate(total=sum_(lambda e: e.cents / 3)))
    await rig.take(sold(1, 10))
    assert await rig.aside() == [("failed", "Sold", 1_000)]


async def test_windows_close_by_the_clock_when_nothing_comes(rig: Rig):
    """First the source is given its time to be idle; then event time goes on as the clock does."""
    rig.now(50)
    await rig.view("v", sales.window(tumbling(60)).aggregate(orders=count()))
    await rig.take(sold(50))
    rig.now(65)
    await rig.tick()
    assert await rig.rows("v", "closed") == [(0,)]
    rig.now(70)
    await rig.tick()  # 20 s passed, 5 s of them to be idle, and events may be 5 s out of order
    assert await rig.rows("v", "closed") == [(1,)]


async def test_one_slow_partition_holds_the_watermark_until_it_is_idle(rig: Rig):
    """So that what it still has to say is not late."""
    rig.now(200)
    await rig.view("v", sales.window(tumbling(60)).aggregate(orders=count()))
    slow, fast = rig.keys_of_two_partitions()
    await rig.take(sold(10, order=slow), sold(190, order=fast))
    assert await rig.rows("v", "closed") == [(0,), (0,)]
    await rig.take(sold(12, order=slow))
    rig.now(206)
    await rig.take(sold(191, order=fast))
    assert await rig.rows("v", "orders, closed") == [(2, 1), (2, 0)]


async def test_what_came_while_nobody_listened_was_not_idleness(rig: Rig):
    """A process that was down for an hour does not find its backlog late."""
    definition = sales.window(tumbling(60)).aggregate(orders=count())
    rig.now(10)
    await rig.view("v", definition)
    await rig.take(sold(10))
    rig.now(3600)
    await rig.restart()
    await rig.tick()
    await rig.take(sold(20))
    await rig.take(sold(3590))
    assert await rig.rows("v", "orders, closed") == [(2, 1), (1, 0)]
    assert await rig.aside() == []


async def test_state_goes_when_windows_are_over_and_rows_when_they_are_old(rig: Rig):
    """Whatever came before, what is stored is bounded by what is open and what is to be kept."""
    definition = sales.window(tumbling(10)).aggregate(shoppers=distinct(lambda e: e.shopper))
    await rig.view("v", definition, keep_s=100)
    for second in range(0, 2000, 5):
        await rig.take(sold(second, shopper=str(second)))
    assert await rig.many("seamline_stream_windows") <= 3
    assert await rig.many("seamline_stream_members") <= 6
    assert 10 <= await rig.many("v") <= 13


async def test_what_is_put_aside_is_bounded_and_its_count_is_not(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("seamline.events.streams.tables.PUT_ASIDE_KEPT", 10)
    await rig.view("v", sales.window(tumbling(60)).aggregate(orders=count()))
    await rig.take(sold(1000))
    for _ in range(5):
        await rig.take(*(sold(at) for at in range(7)))
    assert await rig.rows("stream_status", "late") == [(35,)]
    assert await rig.many("seamline_stream_aside") == 10


async def test_a_batch_asks_the_same_number_of_statements_whatever_came_before(rig: Rig):
    """The cost of an event does not grow with history."""
    await rig.view("v", sales.window(tumbling(10)).aggregate(best=top_k(3, lambda e: e.shopper)))
    asked: list[int] = []
    for second in range(0, 3000, 10):
        with rig.counting() as statements:
            await rig.take(*(sold(second + n / 10, shopper=f"{second}{n}") for n in range(20)))
        asked.append(len(statements))
    assert max(asked[-100:]) <= max(asked[:20])


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: tumbling(0), "above 0"),
        (lambda: sliding(10, every_s=20), "at most size_s"),
        (lambda: sliding(86_400, every_s=1), "windows"),
        (lambda: sales.window(tumbling(1)).aggregate(), "no aggregates"),
        (lambda: sales.window(tumbling(1)).aggregate(currency=count()), "names of other columns"),
        (lambda: sales.window(tumbling(1)).aggregate(closed=count()), "names of other columns"),
        (lambda: sales.by(**{"a; DROP TABLE x": str}), "cannot be the name"),
        (lambda: sales.window(session(1)).aggregate(x=fold(int, lambda s, e: s, state=int, show=int)), "merge"),
        (lambda: sales.merge(stream(Sold, at=lambda e: e.at)), "same keys"),
        (lambda: sales.join(sales, within_s=0), "within_s"),
        (lambda: sales.join(sales, within_s=1, before_s=1, latest=True), "forward only"),
        (lambda: top_k(0, str).kind, "at least 1"),
        (lambda: stream(Sold, at=lambda e: e.at, out_of_order_s=-1), "at least 0"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_where_it_stands(declare: object, said: str):
    assert callable(declare)
    with pytest.raises(StreamDeclarationError, match=said):
        declare()
