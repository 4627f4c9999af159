"""A full disk under the log: nothing is accepted and nothing lost, and it goes on when there is room."""

# Only the writer's connection can be told how large the file may be.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import nullcontext
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.conftest import PostgresqlServer
from tests.events.log_rig import Place, everything, record, sqlite_place

from seamline.events.errors import LogFullError
from seamline.events.log import Log
from seamline.kernel.settings.sections import EventsSettings
from seamline.kernel.store import Database
from seamline.kernel.store.errors import DiskFullError

SMALL = 3 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of its own with little room, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("a small file system cannot be mounted by this user")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], timeout=20, check=True)


async def fill(log: Log, acknowledged: list[str], publishers: int = 8) -> int:
    """Publish until there is no room; how many were refused."""
    refused = 0

    async def publish(publisher: int) -> None:
        nonlocal refused
        for n in range(100_000):
            number = len(acknowledged) * 10_000_000 + publisher * 100_000 + n
            try:
                await log.append([record(number, size=2_000)])
            except LogFullError:
                refused += 1
                return
            acknowledged.append(f"event-{number}")

    async with asyncio.TaskGroup() as group:
        for publisher in range(publishers):
            group.create_task(publish(publisher))
    return refused


async def check_full_and_free_again(database: Database, log: Log, make_room: Callable[[], None], place: Place) -> None:
    acknowledged: list[str] = []
    assert await fill(log, acknowledged) == 8
    assert len(acknowledged) > 50
    for _ in range(5):
        with pytest.raises(LogFullError, match="accepted again"):
            await log.append([record(n, size=20_000) for n in range(100)])
    with pytest.raises(LogFullError):
        async with database.transaction() as tx:
            await log.append([record(7, size=SMALL * 2)], tx)
    assert (await log.stats()).refused >= 8
    assert sorted(each.id for each in await everything(log)) == sorted(acknowledged)
    make_room()
    await log.append([record(1)])
    async with database.transaction() as tx:
        await log.append([record(2)], tx)
    expected = [*acknowledged, "event-1", "event-2"]
    assert sorted(each.id for each in await everything(log)) == sorted(expected)
    async with place.open() as (_, elsewhere):
        assert sorted(each.id for each in await everything(elsewhere)) == sorted(expected)
        assert await elsewhere.verify() == []


async def test_a_full_file_system(small_disk: Path):
    """A real one, with 3 MiB: ENOSPC from the system, in the WAL and in the file."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SMALL // 2))
    place = sqlite_place(small_disk)
    async with place.open() as (database, log):
        await check_full_and_free_again(database, log, ballast.unlink, place)


@pytest.mark.parametrize("whole", ["transaction", "unit"])
async def test_a_commit_that_finds_the_file_system_full(small_disk: Path, whole: str):
    """The events fit into memory and not on the disk: whoever wrote the transaction is told as a publisher would be,
    nothing of it is kept, and it is accepted when there is room. Without events it is the database that is full."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SMALL // 2))
    place = sqlite_place(small_disk)
    async with place.open() as (database, log):
        kept: list[str] = []

        async def write(number: int, *, events: bool) -> None:
            nonlocal reached_commit
            reached_commit = False
            async with database.unit() if whole == "unit" else nullcontext(), database.transaction() as tx:
                await tx.execute(text("CREATE TABLE IF NOT EXISTS bulk (body BLOB)"))
                await tx.execute(text("INSERT INTO bulk VALUES (zeroblob(9000))"))
                if events:
                    await log.append([record(number), record(number + 1)], tx)
                reached_commit = True

        reached_commit = False
        with pytest.raises(LogFullError, match="accepted again"):
            for number in range(0, 2_000, 2):
                await write(number, events=True)
                kept += [f"event-{number}", f"event-{number + 1}"]
        assert reached_commit
        assert (await log.stats()).refused == 2
        with pytest.raises(DiskFullError) as full:
            for _ in range(1_000):
                await write(0, events=False)
        assert reached_commit
        assert type(full.value) is DiskFullError
        assert [each.id for each in await everything(log)] == kept
        ballast.unlink()
        await write(5_000, events=True)
        assert [each.id for each in await everything(log)] == [*kept, "event-5000", "event-5001"]


async def test_a_database_that_may_not_grow(tmp_path: Path):
    """SQLite's own limit, where no file system can be mounted: SQLITE_FULL at the insert."""
    place = sqlite_place(tmp_path)
    async with place.open() as (database, log):
        await database.raw(lambda connection: connection.execute("PRAGMA max_page_count = 300").fetchall())

        def make_room() -> None:
            assert database._file is not None
            database._file.writer.lane.connection.execute("PRAGMA max_page_count = 100000").fetchall()

        await check_full_and_free_again(database, log, make_room, place)


async def test_events_that_were_accepted_and_not_stored_are_told_of(tmp_path: Path):
    """Relaxed durability: the loss is logged, and the next publisher is told."""
    place = sqlite_place(tmp_path)
    async with place.open(settings=EventsSettings(durability="relaxed")) as (database, log):
        await database.raw(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchall())
        with pytest.raises(LogFullError):
            async with asyncio.timeout(60):
                for n in count():
                    await log.append([record(n, size=4_000)])
                    await asyncio.sleep(0)


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from tests.events.log_rig import everything, record, sqlite_place
from seamline.events.errors import LogFullError

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with sqlite_place(Path(sys.argv[1])).open() as (_, log):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        said = []
        try:
            for n in range(100_000):
                await log.append([record(n, size=2_000)])
                said.append(f"event-{n}")
        except LogFullError:
            print("refused")
        assert len(said) > 20
        assert [each.id for each in await everything(log)] == said
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await log.append([record(-1)])
        assert [each.id for each in await everything(log)] == [*said, "event--1"]
    print("went on")

asyncio.run(main())
"""


def test_a_file_that_may_not_grow(tmp_path: Path):
    """The system's limit on the size of a file (EFBIG), in a process of its own."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["refused", "went on"], done.stderr


@pytest.mark.needs_server
async def test_a_full_postgresql(postgres_server: PostgresqlServer):
    """What the server says when its disk is full (53100), said by a trigger: refused, nothing kept, then accepted."""
    place = Place(postgres_server.url(), "orders_full")
    async with place.open() as (database, log):
        await log.append([record(1)])
        async with database.transaction() as tx:
            await tx.execute(
                text(
                    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' "
                    "USING ERRCODE = 'disk_full'; END $$"
                )
            )
            await tx.execute(
                text("CREATE TRIGGER full_disk BEFORE INSERT ON seamline_log EXECUTE FUNCTION full_disk()")
            )
        with pytest.raises(LogFullError):
            await log.append([record(2)])
        with pytest.raises(LogFullError):
            async with database.transaction() as tx:
                await log.append([record(3)], tx)
        async with database.transaction() as tx:
            await tx.execute(text("DROP TRIGGER full_disk ON seamline_log"))
        await log.append([record(4)])
        assert [each.id for each in await everything(log)] == ["event-1", "event-4"]
