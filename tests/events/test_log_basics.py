"""What the log of a module promises, on both stores: order, atomic appends, waking, delays, expiry, upkeep."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.events.log_rig import START_MS, Place, eventually, everything, place, record

from seamline.events.errors import EventsError
from seamline.events.log import Log, Stored
from seamline.events.record import partition_of
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings.sections import EventsSettings

__all__ = ["place"]  # fixture


async def test_what_is_appended_is_read_back_in_order_and_whole(place: Place):
    """Every field comes back as it was, from a log that was opened anew, and offsets grow."""
    said = [record(n, key=f"k{n % 3}", type_=("Placed", "Paid")[n % 2], size=n * 40) for n in range(200)]
    async with place.open() as (_, log):
        await log.append(said[:100])
        for each in said[100:]:
            await log.append([each])
    async with place.open() as (_, log):
        assert await everything(log, limit=7) == said
        page = await log.read(0, limit=1000)
        assert [each.offset for each in page] == sorted({each.offset for each in page})
        assert all(each.partition == partition_of(each.record, 16) for each in page)
        assert await log.ends() == (page[0].offset, page[-1].offset)


async def test_nothing_to_append_is_no_work(place: Place):
    async with place.open() as (_, log):
        await log.append([])
        assert await log.read(0) == []
        first, last = await log.ends()
        assert first == last + 1


async def test_a_page_has_what_was_asked_for_and_says_how_far_it_looked(place: Place):
    """Filters by type, partition and a position for each partition; a page is empty only at the end of the log."""
    said = [record(n, key=f"k{n % 40}", type_="Rare" if n == 1_500 else "Common") for n in range(2_000)]
    async with place.open() as (_, log):
        await log.append(said)
        page = await log.read(0, types=frozenset({"Rare"}), limit=5)
        assert [each.record for each in page] == [said[1_500]]
        assert page.through >= page[0].offset
        assert await log.read(page.through, types=frozenset({"Rare"})) == []
        assert (await log.read(page.through, types=frozenset({"Rare"}))).through == (await log.ends()).last

        wanted = {3, 7}
        found = await of_partitions(log, [0] * 16, wanted)
        assert [each.record for each in found] == [each for each in said if partition_of(each, 16) in wanted]
        after = [0] * 16
        after[3] = found[10].offset
        rest = await of_partitions(log, after, wanted)
        assert rest == [each for each in found if each.partition == 7 or each.offset > after[3]]
        assert await log.read(0, partitions=[]) == []


async def of_partitions(log: Log, after: list[int], wanted: set[int]) -> list[Stored]:
    found: list[Stored] = []
    while page := await log.read(after, partitions=wanted, limit=100):
        found += page
        after = [max(each, page.through) for each in after]
    return found


async def test_an_append_lives_and_dies_with_its_transaction(place: Place):
    """Committed together with the caller's rows, or gone with them; a savepoint takes along what it holds only."""
    async with place.open() as (db, log):
        async with db.transaction() as tx:
            await tx.execute(text("CREATE TABLE sums (n INTEGER)"))
        async with db.transaction() as tx:
            await tx.execute(text("INSERT INTO sums VALUES (1)"))
            await log.append([record(1)], tx)
            with pytest.raises(ZeroDivisionError):
                async with tx.begin_nested():
                    await log.append([record(2)], tx)
                    raise ZeroDivisionError
            await log.append([record(3)], tx)
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await tx.execute(text("INSERT INTO sums VALUES (2)"))
                await log.append([record(4)], tx)
                raise ZeroDivisionError
        assert [each.id for each in await everything(log)] == ["event-1", "event-3"]
        async with db.read() as r:
            assert (await r.execute(text("SELECT n FROM sums"))).scalars().all() == [1]


async def test_a_reader_is_woken_by_every_way_of_appending(place: Place):
    """Nothing that is appended between looking and waiting is slept through: directly, in a transaction, elsewhere."""
    async with place.open() as (db, log), place.open() as (_, elsewhere):

        async def next_after(seen: int) -> None:
            async with asyncio.timeout(20):
                await log.changed(seen)

        seen = log.generation
        await log.append([record(1)])
        await next_after(seen)
        seen = log.generation
        async with db.transaction() as tx:
            await log.append([record(2)], tx)
        await next_after(seen)
        seen = log.generation
        await elsewhere.append([record(3)])
        await next_after(seen)  # nobody poked
        seen = log.generation
        log.poke()
        await next_after(seen)


async def test_waiting_begins_now_unless_told_otherwise(place: Place):
    async with place.open() as (_, log), asyncio.TaskGroup() as group:
        waiting = group.create_task(log.changed())
        given_up = group.create_task(log.changed())
        await asyncio.sleep(0)
        given_up.cancel()
        assert not waiting.done()
        await log.append([record(1)])
        async with asyncio.timeout(20):
            assert await waiting == log.generation


async def test_appends_are_announced_once_they_are_on_disk(place: Place):
    """The announcement to other processes follows the commit, and none follows a rollback."""
    heard: list[int] = []
    async with place.open() as (_, watching):
        async with place.open(announce=lambda: heard.append(1)) as (db, log):
            await log.append([record(1)])
            assert len(heard) == 1
            async with db.transaction() as tx:
                await log.append([record(2)], tx)
                assert len(heard) == 1
            assert len(heard) == 2
            with pytest.raises(ZeroDivisionError):
                async with db.transaction() as tx:
                    await log.append([record(3)], tx)
                    raise ZeroDivisionError
        assert len(heard) == 2
        assert len(await everything(watching)) == 2


async def test_an_event_with_a_delay_takes_its_place_when_it_is_due(place: Place):
    """Not handed out before, in order of their times, and across a restart; also when appended in a transaction."""
    clock = ManualClock()
    async with place.open(clock) as (db, log):
        await log.append([record(1, due_ms=START_MS + 60_000), record(2), record(3, due_ms=START_MS + 30_000)])
        async with db.transaction() as tx:
            await log.append([record(4, due_ms=START_MS + 45_000)], tx)
        assert [each.id for each in await everything(log)] == ["event-2"]
        assert (await log.stats()).delayed == 3
        clock.advance(30)
        assert [each.id for each in await everything(log)] == ["event-2", "event-3"]
    clock.advance(100)
    async with place.open(clock) as (_, log):
        assert [each.id for each in await everything(log)] == ["event-2", "event-3", "event-4", "event-1"]
        assert (await log.stats()).delayed == 0


async def test_a_delayed_event_wakes_readers(place: Place):
    """A reader that waits hears of an event that has become due, in the process that appended it and in others."""
    clock = ManualClock()
    async with place.open(clock) as (_, log), place.open(clock) as (_, elsewhere):
        await log.append([record(1, due_ms=START_MS + 5_000)])
        seen, seen_elsewhere = log.generation, elsewhere.generation
        clock.advance(5)
        async with asyncio.timeout(20):
            await log.changed(seen)

            async def there() -> bool:
                return bool(await elsewhere.read(0))

            await elsewhere.changed(seen_elsewhere)
            await eventually(there)
        assert len(await everything(log)) == 1


async def test_an_expired_event_is_not_handed_out(place: Place):
    clock = ManualClock()
    async with place.open(clock) as (_, log):
        await log.append([record(1, expires_ms=START_MS + 10_000), record(2)])
        assert len(await everything(log)) == 2
        clock.advance(10)
        assert [each.id for each in await everything(log)] == ["event-2"]


async def test_a_clock_that_jumps_back_costs_no_event(place: Place):
    """After a jump back by an hour: what is published with a lifetime is handed out, a delay is not longer than it
    says, and reading from a time finds everything of that time or later, wherever it stands."""
    clock = ManualClock()
    async with place.open(clock) as (_, log):
        await log.append([record(n, at_ms=START_MS + n * 1_000) for n in range(10)])
        clock.advance(10)
        clock.advance(-3_600)
        now_ms = START_MS + 10_000 - 3_600_000
        await log.append([record(10, at_ms=now_ms, expires_ms=now_ms + 5_000)])
        await log.append([record(11, at_ms=now_ms, due_ms=now_ms + 2_000)])
        clock.advance(3)
        found = await everything(log)
        assert [each.id for each in found[-2:]] == ["event-10", "event-11"]
        start = clock.now() - timedelta(seconds=60)
        assert len(await everything(log, await log.offset_at(start))) == 12
        from_the_fifth = ManualClock().now() + timedelta(seconds=5)
        assert [each.id for each in await everything(log, await log.offset_at(from_the_fifth))] == [
            *(f"event-{n}" for n in range(5, 10)), "event-10", "event-11",
        ]  # fmt: skip


async def test_where_reading_begins(place: Place):
    """``earliest``, ``latest``, an offset, a time; each after trimming too."""
    clock = ManualClock()
    async with place.open(clock) as (_, log):
        assert await everything(log, await log.offset_at("earliest")) == []
        await log.append([record(n, at_ms=START_MS + n * 1_000) for n in range(5_000)])
        assert len(await everything(log, await log.offset_at("earliest"))) == 5_000
        assert await everything(log, await log.offset_at("latest")) == []
        offset = (await log.read(0, limit=50))[-1].offset
        assert (await everything(log, await log.offset_at(offset)))[0].id == "event-49"
        assert (await everything(log, await log.offset_at(clock.now() + timedelta(seconds=4_321.5))))[0].id == (
            "event-4322"
        )
        assert await everything(log, await log.offset_at(clock.now() + timedelta(days=30))) == []
        clock.advance(5_000)
        await log.trim(older_than_s=1_000)
        assert (await everything(log, await log.offset_at("earliest")))[0].id == "event-4000"
        assert (await everything(log, await log.offset_at(ManualClock().now())))[0].id == "event-4000"
        await log.append([record(5_000, at_ms=START_MS + 5_000_000)])
        assert [each.id for each in await everything(log, await log.offset_at(clock.now()))] == ["event-5000"]


async def test_retention_by_time_drops_what_is_older_and_nothing_else(place: Place):
    """Also where times do not grow; offsets of what is gone are never used again."""
    clock = ManualClock()
    async with place.open(clock) as (_, log):
        times = [START_MS + (n * 7_919 % 3_000) * 1_000 for n in range(3_000)]
        said = [record(n, at_ms=at_ms) for n, at_ms in enumerate(times)]
        await log.append(said)
        clock.advance(3_000)
        kept = [each for each in said if each.time_ms >= START_MS + 2_000_000]
        assert await log.trim(older_than_s=1_000) == 3_000 - len(kept)
        assert await everything(log) == kept
        assert await log.trim(older_than_s=1_000) == 0
        last = (await log.ends()).last
        clock.advance(10_000)
        assert await log.trim(older_than_s=1_000) == len(kept)
        assert await log.ends() == (last + 1, last)
    async with place.open(clock) as (_, log):
        await log.append([record(1, at_ms=START_MS + 13_000_000)])
        assert (await log.read(0))[0].offset == last + 1


async def test_retention_by_size_drops_the_oldest(place: Place):
    async with place.open() as (_, log):
        await log.append([record(n, size=1_000) for n in range(3_000)])
        assert await log.trim(bytes_max=2_000_000_000) == 0
        dropped = await log.trim(bytes_max=1_000_000)
        found = await everything(log)
        assert [each.id for each in found] == [f"event-{n}" for n in range(dropped, 3_000)]
        assert 800_000 < sum(len(each.data) for each in found) <= 1_000_000
        await log.append([record(n, size=1_000) for n in range(3_000, 3_500)])
        await log.trim(bytes_max=1_000_000)
        found = await everything(log)
        assert found[-1].id == "event-3499"
        assert 800_000 < sum(len(each.data) for each in found) <= 1_000_000


async def test_compaction_keeps_the_newest_of_each_key(place: Place):
    """Other types and events without a key stay, and the order of what is kept."""
    async with place.open() as (_, log):
        said = [
            record(n, key="" if n % 50 == 0 else f"k{n % 30}", type_="Other" if n % 7 == 0 else "State")
            for n in range(2_000)
        ]
        await log.append(said)
        newest = {each.key: each for each in said if each.type == "State"}
        kept = [each for each in said if each.type == "Other" or not each.key or newest[each.key] is each]
        assert await log.compact("State") == len(said) - len(kept)
        assert await everything(log) == kept
        assert await log.compact("State") == 0


async def test_upkeep_goes_on_while_others_append(place: Place):
    """Trimming and compaction beside appenders, in two processes' places: everything new is there."""
    clock = ManualClock()
    async with place.open(clock) as (_, log), place.open(clock) as (_, other):
        await log.append([record(n, key=f"k{n % 10}", size=200) for n in range(3_000)])
        clock.advance(100)
        said = [record(n, at_ms=START_MS + 100_000, type_="New") for n in range(3_000, 3_400)]

        async def appends(through: Log, part: int) -> None:
            for each in said[part::4]:
                await through.append([each])

        async with asyncio.TaskGroup() as group:
            for part in range(4):
                group.create_task(appends((log, other)[part % 2], part))
            group.create_task(other.compact("Placed"))
            group.create_task(log.trim(older_than_s=50))
        assert sorted(each.id for each in await everything(log)) == sorted(each.id for each in said)


async def test_many_publishers_share_commits(place: Place):
    """64 publishers need far fewer commits than events, and keep their own order."""
    async with place.open() as (_, log):

        async def publish(publisher: int) -> None:
            for n in range(20):
                await log.append([record(publisher * 100 + n, key=f"k{publisher}")])

        async with asyncio.TaskGroup() as group:
            for publisher in range(64):
                group.create_task(publish(publisher))
        stats = await log.stats()
        assert stats.appended == 64 * 20
        assert stats.groups < 64 * 20 / 8
        found = await everything(log)
        for publisher in range(64):
            ids = [each.id for each in found if each.key == f"k{publisher}"]
            assert ids == [f"event-{publisher * 100 + n}" for n in range(20)]


async def test_one_that_cannot_be_stored_does_not_spoil_the_others_of_its_group(place: Place):
    """A value the store refuses fails its own append alone."""
    async with place.open() as (_, log):
        async with asyncio.TaskGroup() as group:
            good = [group.create_task(log.append([record(n)])) for n in range(5)]
            bad = group.create_task(refused(log))
            good += [group.create_task(log.append([record(n)])) for n in range(5, 10)]
        assert bad.result()
        assert all(each.done() for each in good)
        assert len(await everything(log)) == 10


async def refused(log: Log) -> bool:
    with pytest.raises(Exception, match="int"):  # each store has an error of its own
        await log.append([record(99, at_ms=2**63)])
    return True


async def test_relaxed_durability_accepts_before_the_disk_and_writes_all_by_the_close(place: Place):
    """Only where it is asked for, and never inside a transaction; a close loses nothing."""
    relaxed = EventsSettings(durability="relaxed")
    async with place.open(settings=relaxed) as (db, log):
        for n in range(500):
            await log.append([record(n)])
        assert (await log.stats()).appended < 500  # accepted, and not all of it written
        async with db.transaction() as tx:
            await log.append([record(500)], tx)

        async def there() -> bool:
            return "event-500" in [each.id for each in await everything(log)]

        await eventually(there)  # PostgreSQL's readers wait for what was begun before and is still on its way
    async with place.open() as (_, log):
        assert sorted(each.id for each in await everything(log)) == sorted(f"event-{n}" for n in range(501))


async def test_a_relaxed_buffer_is_bounded(place: Place):
    """When more is accepted than may be on its way, publishers wait for the disk."""
    async with place.open(settings=EventsSettings(durability="relaxed")) as (_, log):
        for n in range(40):
            await log.append([record(n * 1_000 + each) for each in range(1_000)])
        assert (await log.stats()).appended >= 40_000 - 9_000


async def test_a_module_has_one_log_and_other_modules_have_theirs(place: Place):
    async with place.open() as (_, log):
        await log.append([record(1)])
        other = Place(place.url.replace("orders.sqlite3", "stock.sqlite3"), f"{place.module}_b")
        async with other.open() as (_, elsewhere):
            assert await everything(elsewhere) == []


async def test_a_second_start_of_many_processes_at_once_finds_the_tables(place: Place):
    async def open_and_append(n: int) -> None:
        async with place.open() as (_, log):
            await log.append([record(n)])

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(open_and_append(n))
    async with place.open() as (_, log):
        assert len(await everything(log)) == 4


async def test_what_is_said_in_a_unit_is_heard_at_its_end(place: Place):
    """An append in a handler's unit of work is on nobody's page before the unit has ended."""
    async with place.open() as (db, log), place.open() as (_, other):
        async with db.unit() as unit:
            await log.append([record(1)], await unit.connection())
            async with asyncio.TaskGroup() as group:
                elsewhere = group.create_task(everything(other))
            assert elsewhere.result() == []
        assert len(await everything(log)) == len(await everything(other)) == 1


async def test_the_number_of_partitions_stays_what_it_was(place: Place):
    """A log that was begun with 16 is not opened with 8: events of one key would lose their order."""
    async with place.open() as (_, log):
        await log.append([record(1, key="a")])
    with pytest.raises(EventsError, match="partitions = 16"):
        async with place.open(settings=EventsSettings(partitions=8)):
            pass


async def test_retention_by_size_knows_what_another_process_compacted_and_trimmed(place: Place):
    """An outline that is out of date makes it drop nothing that fits."""
    async with place.open() as (_, log), place.open() as (_, other):
        await log.append([record(n, key=f"k{n % 5}", size=1_000) for n in range(5_000)])
        assert await log.trim(bytes_max=10_000_000) == 0  # it has looked
        assert await other.compact("Placed") == 4_995
        await log.append([record(n, size=1_000) for n in range(5_000, 5_200)])
        assert await log.trim(bytes_max=1_000_000) == 0
        assert await other.trim(bytes_max=100_000) > 100
        left = len(await everything(log))
        await log.append([record(n, size=1_000) for n in range(5_200, 5_210)])
        assert await log.trim(bytes_max=200_000) == 0
        assert len(await everything(log)) == left + 10
