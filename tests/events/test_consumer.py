"""From publishing to the handler's effect, in one process: order, retries, filters, batches, starts."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import pytest
from tests.events.shop import OWNERS, Process, Returned, Sold, effects, running, shop, until, write

from seamline import Event
from seamline.events.context import EventContext
from seamline.events.events import Events
from seamline.events.tables import dead_letters, inbox
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.module.errors import EventError
from seamline.module.module import Start


async def test_an_event_published_in_a_transaction_takes_effect_in_another_module(tmp_path: Path):
    """The way of every event: outbox, log, handler, effect."""
    books = Module("books")

    @books.on(Sold)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books) as process:
        async with process.databases["shop"].transaction():
            await process.events.publish(Sold(sku="mug", number=1))
        await until(lambda: process.rows_are([("mug", 1)]))


async def test_ten_thousand_events_with_failing_handlers_take_effect_once_each_and_in_order(tmp_path: Path):
    """A fifth of the attempts fail, before and after the handler has written."""
    books = Module("books")
    lots = random.Random(7)

    @books.on(Sold, concurrency=64, attempts=50, backoff_s=0.001)
    async def enter(event: Sold, db: Database) -> None:
        if lots.random() < 0.1:
            raise ConnectionError("before")
        await write(db, event.sku, event.number)
        if lots.random() < 0.1:
            raise ConnectionError("after")

    async with running(tmp_path, shop(), books) as process:
        for first in range(0, 10_000, 500):
            await process.events.publish_all(
                [Sold(sku=f"sku{number % 97}", number=number) for number in range(first, first + 500)]
            )
        await until(lambda: process.handled() == 10_000, turns=12_000)
        rows = await process.rows()
        assert process.runtime.stats()["consumers"][0]["failed"] > 1_000
    assert sorted(number for _, number in rows) == list(range(10_000))
    by_key: defaultdict[str, list[int]] = defaultdict(list)
    for sku, number in rows:
        by_key[sku].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


async def test_a_failure_holds_up_its_own_key_and_no_other(tmp_path: Path):
    """Pauses double, by the application's clock."""
    books = Module("books")
    attempts: list[float] = []
    clock = ManualClock()

    @books.on(Sold, concurrency=2, backoff_s=1.0)
    async def enter(event: Sold, db: Database) -> None:
        if event.sku == "bad" and event.number == 0 and len(attempts) < 4:
            attempts.append(clock.monotonic())
            raise ConnectionError
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books, clock=clock) as process:
        await process.events.publish(Sold(sku="bad", number=0))
        await until(lambda: len(attempts) == 1)
        await process.events.publish_all([Sold(sku="bad", number=n) for n in (1, 2)])
        await process.events.publish_all([Sold(sku="good", number=n) for n in range(20)])
        good = [("good", n) for n in range(20)]
        await until(lambda: process.rows_are(good))
        for tries, pause_s in enumerate((1.0, 2.0, 4.0), start=1):
            await _resting(process)
            assert len(attempts) == tries
            clock.advance(pause_s)
            await until(lambda tries=tries: len(attempts) == tries + 1)
        await _resting(process)
        clock.advance(8.0)
        await until(lambda: process.rows_are([*good, ("bad", 0), ("bad", 1), ("bad", 2)]))
    assert attempts == [0.0, 1.0, 3.0, 7.0]


async def _resting(process: Process) -> None:
    """Until something waits for the clock."""
    await until(lambda: process.runtime.stats()["consumers"][0]["resting"] > 0)
    await asyncio.sleep(0.01)


async def test_a_slow_key_does_not_hold_up_others_however_much_of_it_there_is(tmp_path: Path):
    """Far more of it than there are workers, and other keys only behind all of it."""
    books = Module("books")
    gate = asyncio.Event()

    @books.on(Sold, concurrency=2)
    async def enter(event: Sold, db: Database) -> None:
        if event.sku == "slow":
            await gate.wait()
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish_all([Sold(sku="slow", number=n) for n in range(3000)])
        await process.events.publish_all([Sold(sku=f"quick{n}", number=n) for n in range(50)])
        await until(lambda: process.count_is(50))
        assert sorted(number for _, number in await process.rows()) == list(range(50))
        gate.set()
        await until(lambda: process.handled() >= 150)
        slow = (await process.rows())[50:]
        assert slow == [("slow", n) for n in range(len(slow))]


async def test_poison_goes_to_the_dead_letters_and_the_key_goes_on(tmp_path: Path):
    """Nothing of its attempts is kept."""
    books = Module("books")

    @books.on(Sold, attempts=3, backoff_s=0.001)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)
        if event.number == 1:
            raise ValueError("cannot enter this")

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(3)])
        await until(lambda: process.rows_are([("mug", 0), ("mug", 2)]))
        assert await process.count(dead_letters) == 1


async def test_an_attempt_that_takes_too_long_is_a_failure(tmp_path: Path):
    """And so is a handler that lets a cancellation of its own slip."""
    books = Module("books")
    calls: list[int] = []

    @books.on(Sold, timeout_s=0.05, backoff_s=0.001)
    async def enter(event: Sold, db: Database) -> None:
        calls.append(event.number)
        if len(calls) == 1:
            await asyncio.Event().wait()
        if len(calls) == 2:
            raise asyncio.CancelledError
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish(Sold(sku="mug", number=1))
        await until(lambda: process.rows_are([("mug", 1)]))
    assert calls == [1, 1, 1]


async def test_only_what_is_asked_for_is_handled(tmp_path: Path):
    """By type and by ``where``; what is left out does not come later either."""
    books = Module("books")

    @books.on(Sold, where=lambda event: event.number > 5)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    for _ in range(2):
        async with running(tmp_path, shop(), books) as process:
            await process.events.publish_all([Sold(sku="mug", number=n) for n in (3, 7)])
            await process.events.publish(Returned(sku="mug"))
            await until(lambda: process.handled() == 2)
    assert await _rows_of(tmp_path) == [("mug", 7), ("mug", 7)]


async def _rows_of(folder: Path) -> list[tuple[str, int]]:
    async with running(folder, Module("books"), owners={}) as process:
        return await process.rows()


async def test_handlers_of_one_group_share_the_order_of_a_key(tmp_path: Path):
    """Over the types of event that they handle."""
    books = Module("books")

    @books.on(Sold, group="ledger")
    async def sold(event: Sold, db: Database) -> None:
        await asyncio.sleep(0.01)
        await write(db, event.sku, 1)

    @books.on(Returned, group="ledger")
    async def returned(event: Returned, db: Database) -> None:
        await write(db, event.sku, -1)

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish_all([Sold(sku="mug", number=1), Returned(sku="mug")] * 5)
        await until(lambda: process.rows_are([("mug", 1), ("mug", -1)] * 5))


async def test_two_groups_of_a_module_are_each_handed_every_event(tmp_path: Path):
    """They do not know of each other."""
    books = Module("books")

    @books.on(Sold)
    async def first(event: Sold, db: Database) -> None:
        await write(db, "first", event.number)

    @books.on(Sold)
    async def second(event: Sold, db: Database) -> None:
        await write(db, "second", event.number)

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish(Sold(sku="mug", number=1))
        await until(lambda: process.count_is(2))
        assert sorted(await process.rows()) == [("first", 1), ("second", 1)]


async def test_a_module_hears_its_own_events_and_publishes_in_the_handlers_transaction(tmp_path: Path):
    """An attempt that fails publishes nothing."""
    module, books = shop(), Module("books")
    failures: list[int] = []

    @module.on(Sold, backoff_s=0.001)
    async def answer(event: Sold, events: Events) -> None:
        await events.publish(Returned(sku=event.sku))
        if len(failures) < 2:
            failures.append(1)
            raise ConnectionError

    @books.on(Returned)
    async def enter(event: Returned, db: Database) -> None:
        await write(db, event.sku, 0)

    async with running(tmp_path, module, books) as process:
        await process.events.publish(Sold(sku="mug", number=1))
        await until(lambda: process.count_is(1))
        await until(lambda: process.handled() == 2)
        assert await process.rows() == [("mug", 0)]


async def test_a_batch_commits_as_one_and_keeps_the_order(tmp_path: Path):
    """A full one at once, a smaller one after its wait."""
    books = Module("books")
    sizes: list[int] = []

    @books.on(Sold, batch=100, batch_wait_s=0.01)
    async def enter(events: list[Sold], db: Database) -> None:
        sizes.append(len(events))
        for event in events:
            await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(250)])
        await until(lambda: process.rows_are([("mug", n) for n in range(250)]))
    assert sum(sizes) == 250
    assert max(sizes) == 100
    assert len(sizes) < 10


async def test_a_batch_that_fails_is_tried_one_by_one_so_that_only_the_poison_is_put_aside(tmp_path: Path):
    """The order of the others is kept."""
    books = Module("books")

    @books.on(Sold, batch=20, batch_wait_s=0.01, attempts=2, backoff_s=0.001)
    async def enter(events: list[Sold], db: Database) -> None:
        for event in events:
            await write(db, event.sku, event.number)
            if event.number == 7:
                raise ValueError("poison")

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(40)])
        await until(lambda: process.rows_are([("mug", n) for n in range(40) if n != 7]))
        assert await process.count(dead_letters) == 1


CLOCK = ManualClock()


@pytest.mark.parametrize(
    ("start", "expected"),
    [("earliest", [1, 2, 3, 4]), ("latest", [4]), (2, [2, 3, 4]), (CLOCK.now() + timedelta(seconds=15), [3, 4])],
)
async def test_a_new_group_begins_where_it_says(tmp_path: Path, start: Start, expected: list[int]):
    """Earliest, latest, at an offset, at a time; and goes on where it was, whatever it says then."""
    books, clock = Module("books"), ManualClock()

    @books.on(Sold, start=start)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), clock=clock) as process:
        for number in (1, 2, 3):
            await process.events.publish(Sold(sku="mug", number=number))
            clock.advance(10)
    async with running(tmp_path, shop(), books, clock=clock) as process:
        await until(process.joined)
        await process.events.publish(Sold(sku="mug", number=4))
        await until(lambda: process.rows_are([("mug", number) for number in expected]))
    async with running(tmp_path, shop(), books, clock=clock) as process:
        await process.events.publish(Sold(sku="mug", number=5))
        await until(lambda: process.rows_are([("mug", number) for number in [*expected, 5]]))


async def test_what_was_handled_is_not_handled_again_after_a_stop_at_any_moment(tmp_path: Path):
    """Stopped in the middle of its work ten times over."""
    books = Module("books")

    @books.on(Sold, concurrency=4)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop()) as process:
        await process.events.publish_all([Sold(sku=f"sku{n % 5}", number=n) for n in range(300)])
    for _ in range(10):
        async with running(tmp_path, shop(), books) as process:
            before = process.handled()
            await until(lambda process=process, before=before: process.handled() >= before + 20)
    async with running(tmp_path, shop(), books) as process:
        await until(lambda: process.count_is(300))
        assert sorted(number for _, number in await process.rows()) == list(range(300))


async def test_draining_finishes_what_is_at_work_and_leaves_the_rest(tmp_path: Path):
    """And says whether all that was at work came to its end."""
    books = Module("books")
    begun, gate = asyncio.Event(), asyncio.Event()

    @books.on(Sold, concurrency=1)
    async def enter(event: Sold, db: Database) -> None:
        begun.set()
        await gate.wait()
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(3)])
        await begun.wait()
        assert not await process.runtime.drain(0.01)
    begun.clear()
    async with running(tmp_path, shop(), books) as process:
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, gate.set)
        assert await process.runtime.drain(10)
        assert await process.rows() == [("mug", 0)]
    async with running(tmp_path, shop(), books) as process:
        await until(lambda: process.rows_are([("mug", n) for n in range(3)]))


async def test_an_outside_effect_comes_at_least_once_with_one_key(tmp_path: Path):
    """The handler fails after it has acted, and the process stops before it is noted."""
    books = Module("books")
    keys: list[str] = []
    stuck = asyncio.Event()

    @books.on(Sold, outside=True, backoff_s=0.001)
    async def tell(event: Sold, context: EventContext) -> None:
        keys.append(context.idempotency_key)
        if len(keys) == 1:
            raise ConnectionError
        if len(keys) == 2:
            stuck.set()
            await asyncio.Event().wait()

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish(Sold(sku="mug", number=1))
        await stuck.wait()
    async with running(tmp_path, shop(), books) as process:
        await until(lambda: process.handled() == 1)
        await process.events.publish(Sold(sku="mug", number=2))
        await until(lambda: process.handled() == 2)
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1
    assert keys[3] not in keys[:3]


async def test_nothing_is_held_open_while_an_outside_handler_runs(tmp_path: Path):
    """Another task of the module writes meanwhile."""
    books = Module("books")
    gate = asyncio.Event()

    @books.on(Sold, outside=True)
    async def tell(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)
        await gate.wait()

    async with running(tmp_path, shop(), books) as process:
        await process.events.publish(Sold(sku="mug", number=1))
        await until(lambda: process.count_is(1))
        await write(process.databases["books"], "other", 2)
        gate.set()
        await until(lambda: process.handled() == 1)


async def test_the_inbox_forgets_what_lies_before_the_position(tmp_path: Path):
    """It stays small however many events there were; what a crash leaves in it goes by age."""
    books = Module("books")

    @books.on(Sold)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    clock = ManualClock()
    async with running(tmp_path, shop(), books, clock=clock, inbox_s=100) as process:
        await process.events.publish_all([Sold(sku=f"sku{n}", number=n) for n in range(200)])
        await until(lambda: process.handled() == 200)
        await until(lambda: process.count_is(0, inbox))
        async with process.databases["books"].transaction() as tx:
            await tx.execute(inbox.insert().values(consumer_group="old", source="shop", event_id="1", handled_ms=0))
        await process.runtime.keep()
        assert await process.count(inbox) == 0


async def test_handlers_that_cannot_work_are_refused_before_anything_starts(tmp_path: Path):
    """Two batch handlers in one group, a batch that asks for one context, a handler that is not async."""
    both = Module("books")

    @both.on(Sold, group="one", batch=5)
    async def first(events: list[Sold]) -> None: ...

    @both.on(Returned, group="one")
    async def second(event: Returned) -> None: ...

    batch = Module("books")

    @batch.on(Sold, batch=5)
    async def third(events: list[Sold], context: EventContext) -> None: ...

    plain = Module("books")

    @plain.on(Sold)
    def fourth(event: Sold) -> None: ...

    stranger = Module("books")

    @stranger.on(Sold)
    async def fifth(event: Sold) -> None: ...

    nobody: dict[type[Event], str] = {}
    for module, said, owners in (
        (both, "takes batches", OWNERS),
        (batch, "asks for an EventContext", OWNERS),
        (plain, "is not async", OWNERS),
        (stranger, "which no module of the application declares", nobody),
    ):
        process = Process(tmp_path, [shop(), module], owners=owners)
        with pytest.raises(EventError, match=said):
            await process.start()
        await process.stop()


async def test_effects_are_where_they_should_be(tmp_path: Path):
    """The rig itself: a row written twice would be seen."""
    async with running(tmp_path, Module("books"), owners={}) as process:
        for _ in range(2):
            await write(process.databases["books"], "mug", 1)
        assert await process.rows() == [("mug", 1), ("mug", 1)]
        assert await process.count(effects) == 2
