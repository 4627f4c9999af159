"""Power loss under the log: what was acknowledged is on disk, whatever of the rest is."""

# Only the writer's connection can be told not to sync.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.events.log_rig import everything, record, sqlite_place
from tests.events.power_loss import Disk, Keep, all_of_it, noted_disk, nothing, some_sectors, torn, write_files

from seamline.events.log import Log
from seamline.events.record import Record
from seamline.kernel.store import Database


@dataclass
class Story:
    """What was published, and at which moment of the disk it was acknowledged."""

    disk: Disk
    said: dict[str, Record] = field(default_factory=dict[str, Record])
    acknowledged: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    begun_at: int = 0
    """Until here the tables were being made."""

    async def publish(self, log: Log, records: Sequence[Record], database: Database | None = None) -> None:
        self.said |= {each.id: each for each in records}
        if database is None:
            await log.append(records)
        else:
            async with database.transaction() as tx:
                await tx.execute(text("INSERT INTO sums VALUES (:id)"), [{"id": each.id} for each in records])
                await log.append(records, tx)
        self.acknowledged += [(self.disk.now, each.id) for each in records]


async def live(folder: Path, monkeypatch: pytest.MonkeyPatch, *, checkpoint_pages: int) -> Story:
    """Publishers of every kind, small and large events, and checkpoints in between."""
    with noted_disk(monkeypatch) as disk:
        story = Story(disk)
        async with sqlite_place(folder).open() as (database, log):
            async with database.transaction() as tx:
                await tx.execute(text("CREATE TABLE sums (id TEXT)"))
            await database.raw(lambda connection: connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}"))
            story.begun_at = disk.now

            async def publisher(name: int) -> None:
                for n in range(6):
                    number = name * 100 + n
                    await story.publish(log, [record(number, key=f"k{name}", size=(20, 900, 6_000)[n % 3])])

            async def outbox(name: int) -> None:
                for n in range(4):
                    number = name * 100 + n * 2
                    pair = [record(number, key=f"k{name}"), record(number + 1, key=f"k{name}")]
                    await story.publish(log, pair, database)

            async with asyncio.TaskGroup() as group:
                for name in range(4):
                    group.create_task(publisher(name))
                for name in range(4, 6):
                    group.create_task(outbox(name))
            await log.trim(bytes_max=1_000_000)
        return story


async def judge(folder: Path, story: Story, moment: int, keep: Keep) -> None:
    """Open what was found after the power failed."""
    write_files(folder / "db", story.disk.lost_at(moment, keep))
    async with sqlite_place(folder).open() as (database, log):
        found = await everything(log)
        ids = [each.id for each in found]
        assert len(ids) == len(set(ids)), "an event is there twice"
        assert {id_ for at, id_ in story.acknowledged if at <= moment} <= set(ids), "an acknowledged event is lost"
        assert all(story.said[each.id] == each for each in found), "an event is not what was published"
        for key in {each.key for each in found}:
            numbers = [int(each.id.partition("-")[2]) for each in found if each.key == key]
            assert numbers == sorted(numbers), "a key's events are out of order"
        async with database.read() as r:
            sums = set((await r.execute(text("SELECT id FROM sums"))).scalars())
        assert sums == {id_ for id_ in ids if int(id_.partition("-")[2]) >= 400}, "an event without its row"
        assert await log.verify() == []


async def test_the_disk_that_remembers_finds_a_log_that_does_not_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The test of the test: with ``synchronous = OFF`` an acknowledged event is lost, and judge() says so."""
    with noted_disk(monkeypatch) as disk:
        story = Story(disk)
        async with sqlite_place(tmp_path / "life").open() as (database, log):
            async with database.transaction() as tx:
                await tx.execute(text("CREATE TABLE sums (id TEXT)"))
            assert database._file is not None
            database._file.writer.lane.connection.execute("PRAGMA synchronous = OFF")
            await story.publish(log, [record(1)])
            moment = disk.now
    with pytest.raises(AssertionError, match="an acknowledged event is lost"):
        await judge(tmp_path / "after", story, moment, nothing)
    await judge(tmp_path / "kept", story, moment, all_of_it)  # as kill -9 would have it


@pytest.mark.parametrize("checkpoint_pages", [1_000, 8])
async def test_no_acknowledged_event_is_lost_with_the_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_pages: int
):
    """At moments all over a log's life, with nothing, all, or any sectors of the unsynced writes left, and the last
    one torn: acknowledged events are there, once, in order, with the rows of their transactions."""
    await sweep(tmp_path, monkeypatch, checkpoint_pages, moments=12, subsets=3, tears=3)


@pytest.mark.torture
@pytest.mark.parametrize("checkpoint_pages", [1_000, 8, 1])
async def test_no_acknowledged_event_is_lost_with_the_power_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_pages: int
):
    """As above, at every single moment."""
    await sweep(tmp_path, monkeypatch, checkpoint_pages, moments=10_000, subsets=10, tears=10)


async def sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_pages: int, *, moments: int, subsets: int, tears: int
) -> None:
    story = await live(folder / "life", monkeypatch, checkpoint_pages=checkpoint_pages)
    lots = random.Random(checkpoint_pages)
    every = range(story.begun_at, story.disk.now + 1)
    chosen = every if len(every) <= moments else sorted(lots.sample(every, moments))
    for moment in chosen:
        unsynced = story.disk.unsynced_at(moment)
        keeps = [nothing, all_of_it, *(some_sectors(lots.randrange(10**9)) for _ in range(subsets))]
        for _ in range(tears if unsynced else 0):
            last = lots.choice(unsynced)
            length = lots.randint(0, len(story.disk.changes[last].data))
            keeps.append(torn(last, length, noise=lots.random() < 0.5))
        for number, keep in enumerate(keeps):
            await judge(folder / f"{moment}-{number}", story, moment, keep)
