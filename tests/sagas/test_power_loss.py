"""Power loss under the journal: what a saga had done before it went on is on disk, whatever of the rest is."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.events.power_loss import Disk, Keep, all_of_it, noted_disk, nothing, some_sectors, torn, write_files
from tests.sagas.rig import hosting, until

from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url
from seamline.module import Module
from seamline.sagas import Saga


@dataclass
class Story:
    """What was relied on, and at which moment of the disk: so many entries of a saga's journal, or its end."""

    disk: Disk
    relied_on: list[tuple[int, str, int]] = field(default_factory=list[tuple[int, str, int]])
    ended: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    ids: dict[str, str] = field(default_factory=dict[str, str])


shop = Module("shop")
stories: list[Story] = []


async def note(key: str, entries: int) -> int:
    """A step that has begun: all before it must be on disk."""
    if stories:
        stories[0].relied_on.append((stories[0].disk.now, key, entries))
    await asyncio.sleep(0)
    return entries


@shop.saga
async def steps(s: Saga, size: int) -> str:
    await s.step(note, s.key, 0)
    await s.gather(s.step(note, s.key, 1), s.step(note, s.key, 1))
    for n in range(3, 6):
        await s.step(note, s.key, n)
    return "x" * size


async def live(folder: Path, monkeypatch: pytest.MonkeyPatch, *, checkpoint_pages: int) -> Story:
    """Sagas large and small, many at once, with checkpoints in between."""
    with noted_disk(monkeypatch) as disk:
        story = Story(disk)
        stories.append(story)
        try:
            async with Database(sqlite_url(folder, "shop"), "shop") as db, hosting(shop, db, ManualClock()) as host:
                pragma = f"PRAGMA wal_autocheckpoint = {checkpoint_pages}"
                await db.raw(lambda connection: connection.execute(pragma))

                async def one(n: int) -> None:
                    handle = await host.sagas.start(steps, (10, 2_000, 9_000)[n % 3], key=f"k{n}")
                    story.relied_on.append((disk.now, f"k{n}", 0))
                    story.ids[f"k{n}"] = handle.id
                    await handle.result()
                    story.ended.append((disk.now, f"k{n}"))

                await asyncio.gather(*(one(n) for n in range(8)))
        finally:
            stories.clear()
        return story


async def judge(folder: Path, story: Story, moment: int, keep: Keep) -> None:
    """Open what was found after the power failed, and let it go on."""
    write_files(folder / "db", story.disk.lost_at(moment, keep))
    async with Database(sqlite_url(folder, "shop"), "shop") as db, hosting(shop, db, owner="elsewhere/2/2") as host:
        journal = host.engine.journal
        wanted: dict[str, int] = {}
        for at, key, entries in story.relied_on:
            if at <= moment:
                wanted[key] = max(wanted.get(key, 0), entries)
        rows = await journal.store.read("SELECT key, id, status FROM seamline_sagas WHERE key <> ''")
        status = {row[0]: row[2] for row in rows}
        assert set(wanted) <= set(status), "a saga that was started is lost"
        found = await journal.entries([row[1] for row in rows])
        for key, _, _ in rows:
            assert len(found[story.ids.get(key, "")] if key in story.ids else []) >= wanted.get(key, 0)
        ended = {key for at, key in story.ended if at <= moment}
        assert all(status[key] == "succeeded" for key in ended), "an end that was told is lost"
        for owner in await journal.workers():  # of the machine that lost its power
            if owner != host.engine.owner:
                await journal.take_over(owner)
        host.engine.wake()
        for key, saga, _ in rows:
            size = (10, 2_000, 9_000)[int(key[1:]) % 3]
            assert await host.sagas.handle(saga).result(20) == "x" * size

        async def none_stuck() -> bool:
            return not await journal.store.read("SELECT id FROM seamline_sagas WHERE stuck <> ''")

        await until(none_stuck)


KEEPS = (nothing, all_of_it, some_sectors(1), some_sectors(2))


async def test_what_was_relied_on_survives_the_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At sixteen moments, with nothing, all, some or torn parts of what was not synced."""
    story = await live(tmp_path / "before", monkeypatch, checkpoint_pages=20)
    await look(tmp_path, story, 16, seed=1)


@pytest.mark.torture
@pytest.mark.parametrize("checkpoint_pages", [1, 20, 1000])
async def test_what_was_relied_on_survives_the_loss_of_power_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_pages: int
):
    """At two hundred moments."""
    story = await live(tmp_path / "before", monkeypatch, checkpoint_pages=checkpoint_pages)
    await look(tmp_path, story, 200, seed=2)


async def look(folder: Path, story: Story, times: int, seed: int) -> None:
    lots = random.Random(seed)
    first = min(at for at, _, _ in story.relied_on)
    for n in range(times):
        moment = lots.randrange(first, story.disk.now + 1)
        unsynced = story.disk.unsynced_at(moment)
        keep = KEEPS[n % len(KEEPS)]
        if unsynced and n % 3 == 0:
            last = lots.choice(unsynced)
            length = lots.randrange(len(story.disk.changes[last].data) + 1)
            keep = torn(last, length, noise=n % 2 == 0)
        await judge(folder / f"after{n}", story, moment, keep)


async def test_an_engine_that_does_not_sync_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The harness itself: with synchronous OFF something that was relied on is lost."""
    from seamline.kernel.store import sqlite_file

    connect = sqlite_file.connect

    def unsafe(path: Path, *, read_only: bool, wait_ms: int = 10_000):
        connection = connect(path, read_only=read_only, wait_ms=wait_ms)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "connect", unsafe)
        story = await live(tmp_path / "before", monkeypatch, checkpoint_pages=1000)
    with pytest.raises(AssertionError):
        await judge(tmp_path / "after", story, story.disk.now, nothing)
