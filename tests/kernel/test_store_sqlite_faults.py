"""SQLite files among processes, on full disks, damaged, closed under work and killed."""

# The count of commits and the moment of one are seen nowhere else.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from tests.kernel.store_rig import ENDLESS, LONG, METADATA, count, db, rows, url

from seamline.kernel.store import Database, prepare, sqlite_url
from seamline.kernel.store.errors import (
    DamagedFileError,
    DiskFullError,
    FolderError,
    NotStartedError,
    UrlError,
)

__all__ = ["db", "url"]  # fixtures


async def test_close_waits_for_the_commit_under_way(url: str, tmp_path: Path):
    """A close in the middle of a commit loses nothing that is acknowledged."""
    db = Database(url, "shop", METADATA)
    await db.start()
    await prepare(db, None)
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="x"))
        acknowledged += 1

    task = asyncio.get_running_loop().create_task(write())
    assert db._file is not None
    while not db._file.writer._committing:  # noqa: ASYNC110  # nothing tells of this moment
        await asyncio.sleep(0)
    await db.close()
    await task
    plain = sqlite3.connect(tmp_path / "db" / "shop.sqlite3")
    assert plain.execute("SELECT count(*) FROM rows").fetchone()[0] == acknowledged == 1
    plain.close()


HAMMER = """
    import asyncio, sys, uvloop
    from sqlalchemy import text
    from seamline.kernel.store import Database

    async def main(url, who, times):
        async with Database(url, "shop", wait_s=60) as db:
            async def work(part):
                for number in range(times):
                    async with db.transaction() as tx:
                        value = (await tx.execute(text("SELECT name FROM rows WHERE id = 1"))).scalar_one()
                        await tx.execute(text("UPDATE rows SET name = :n WHERE id = 1"), {"n": str(int(value) + 1)})
                        await tx.execute(text("INSERT INTO rows (name) VALUES (:n)"), {"n": f"{who}-{part}-{number}"})
                    print(f"{who}-{part}-{number}", flush=True)
                    async with db.read() as r:
                        await r.execute(text("SELECT count(*) FROM rows"))
            await asyncio.gather(*(work(part) for part in range(4)))

    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def _hammer(url: str, who: str, times: int) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(HAMMER)
    return subprocess.Popen(
        [sys.executable, "-c", code, url, who, str(times)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def test_processes_hammer_one_file(db: Database, url: str):
    """Four processes read and change one row 160 times in all: no 'database is locked', no lost update."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(id=1, name="0"))
    processes = [_hammer(url, f"p{number}", 10) for number in range(4)]
    for process in processes:
        _, errors = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == 0, errors.decode()
    async with db.read() as r:
        assert (await r.execute(select(rows.c.name).where(rows.c.id == 1))).scalar_one() == "160"
    assert await count(db) == 161


async def test_killed_writer_loses_nothing_acknowledged(db: Database, url: str):
    """A process killed between its commits leaves every row that it was told of, and the file usable."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(id=1, name="0"))
    process = _hammer(url, "k", 100_000)
    assert process.stdout is not None
    told = [await asyncio.to_thread(process.stdout.readline) for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    rest, _ = await asyncio.to_thread(process.communicate, timeout=60)
    names = {line.decode() for line in (b"".join(told) + rest).splitlines(keepends=True) if line.endswith(b"\n")}
    async with db.transaction() as tx:
        kept = set((await tx.execute(select(rows.c.name).where(rows.c.id > 1))).scalars())
        counter = (await tx.execute(select(rows.c.name).where(rows.c.id == 1))).scalar_one()
    assert {name.strip() for name in names} <= kept
    assert counter == str(len(kept))


async def test_starting_a_new_file_in_many_at_once(tmp_path: Path):
    """Twelve databases open one file that does not exist yet, in threads of their own, and all can write."""
    url = sqlite_url(tmp_path, "shop")
    errors: list[BaseException] = []

    def start(number: int) -> None:
        async def main() -> None:
            async with Database(url, "shop", METADATA) as db:
                await prepare(db, None)
                async with db.transaction() as tx:
                    await tx.execute(insert(rows).values(name=str(number)))

        try:
            asyncio.run(main())
        except BaseException as error:  # handed to the test
            errors.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
    assert errors == []
    async with Database(url, "shop", METADATA) as db:
        assert await count(db) == 12


async def test_unwritable_folder(tmp_path: Path):
    """Where no folder can be made, or this user may not write, the error names the file and the remedy."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FolderError, match=r"SL7002: shop: .*file/db/shop\.sqlite3.*Make the folder writable"):
        await Database(sqlite_url(tmp_path / "file", "shop"), "shop").start()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.getuid() == 0:  # root may write anywhere: ask as nobody
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and folder != Path("/") and "pytest" in folder.name:
                folder.chmod(0o755)
        code = f"""
            import asyncio, os
            from seamline.kernel.store import Database
            os.setgid(65534); os.setuid(65534)
            asyncio.run(Database("{sqlite_url(closed, "shop")}", "shop").start())
        """
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=60
        )
        assert b"SL7002" in done.stderr
    else:
        with pytest.raises(FolderError, match="SL7002"):
            await Database(sqlite_url(closed, "shop"), "shop").start()


async def test_file_that_is_no_database(tmp_path: Path):
    """A foreign or overwritten file is named as such, and not touched."""
    file = tmp_path / "db" / "shop.sqlite3"
    file.parent.mkdir()
    file.write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(DamagedFileError, match="SL7009"):
        await Database(sqlite_url(tmp_path, "shop"), "shop").start()
    assert file.read_bytes().startswith(b"not a database")


async def test_damage_found_later(url: str, tmp_path: Path):
    """Pages overwritten while the module was down are an error that names the damage, not a wrong answer."""
    async with Database(url, "shop", METADATA) as db:
        await prepare(db, None)
        async with db.transaction() as tx:
            await tx.execute(insert(rows), [{"name": str(n) * 50} for n in range(2_000)])
    file = tmp_path / "db" / "shop.sqlite3"
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(content)
    async with Database(url, "shop", METADATA) as db:
        with pytest.raises((DamagedFileError, DBAPIError)) as found:
            async with db.read() as r:
                await r.execute(select(rows))
        assert isinstance(found.value, DamagedFileError)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_refused(url: str):
    """A database in memory belongs to one connection; the error says what to write."""
    with pytest.raises(UrlError, match=r"SL7001.*sqlite:////absolute/path"):
        Database(url, "shop")


async def test_given_up_transactions(db: Database):
    """When SQLite itself rolls back (``OR ROLLBACK``), the transaction cannot go on outside of one, those that
    shared its commit are told, and the writer is free for the next."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(name="taken"))
    acknowledged: list[str] = []

    async def work(number: int) -> None:
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name=f"row {number}"))
            if number % 7 == 5:
                with pytest.raises(IntegrityError):
                    await tx.exec_driver_sql("INSERT OR ROLLBACK INTO rows (name) VALUES ('taken')")
                if number % 2:
                    await tx.execute(insert(rows).values(name=f"outside {number}"))
        acknowledged.append(f"row {number}")

    results = await asyncio.wait_for(
        asyncio.gather(*(work(number) for number in range(40)), return_exceptions=True), 60
    )
    async with db.read() as r:
        kept = set((await r.execute(select(rows.c.name))).scalars())
    assert kept == {*acknowledged, "taken"}
    assert all(isinstance(result, OperationalError) for result in results if result is not None)


async def test_full_disk(db: Database):
    """Where the file cannot grow, transactions fail, what was acknowledged is kept, and it goes on when there is
    room again."""
    async with db.transaction() as tx:
        await tx.execute(text("PRAGMA max_page_count = 60"))
    acknowledged: set[str] = set()

    async def work(number: int) -> None:
        name = f"{number}" + "x" * 3_000
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name=name))
        acknowledged.add(name)

    await asyncio.wait_for(asyncio.gather(*(work(n) for n in range(100)), return_exceptions=True), 60)
    async with db.read() as r:
        assert set((await r.execute(select(rows.c.name))).scalars()) == acknowledged
    assert len(acknowledged) < 60
    with pytest.raises(DiskFullError, match=r"SL7010.*full"):
        for number in range(1_000, 1_100):
            await work(number)
    async with db.transaction() as tx:
        await tx.execute(text("PRAGMA max_page_count = 100000"))
    await work(2_000)
    async with db.read() as r:
        assert set((await r.execute(select(rows.c.name))).scalars()) == acknowledged


async def test_failing_commit_fails_all_that_share_it(db: Database):
    """An I/O error at the commit is told to every transaction that waits for it; none of them is kept."""
    assert db._file is not None
    lane = db._file.writer.lane
    sound = lane.connection

    class Failing:
        failures = 2

        def __getattr__(self, name: str) -> object:
            return getattr(sound, name)

        def execute(self, sql: str, *parameters: Sequence[str]) -> sqlite3.Cursor:
            if sql == "COMMIT" and self.failures:
                self.failures -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return sound.execute(sql, *parameters)

    lane.connection = Failing()  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    acknowledged: set[str] = set()

    async def work(name: str) -> None:
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name=name))
        acknowledged.add(name)

    results = await asyncio.wait_for(
        asyncio.gather(*(work(str(number)) for number in range(500)), return_exceptions=True), 60
    )
    lane.connection = sound
    async with db.read() as r:
        kept = set((await r.execute(select(rows.c.name))).scalars())
    assert kept == acknowledged
    assert {str(n) for n, result in enumerate(results) if result is None} == kept
    assert "disk I/O error" in str(next(result for result in results if result is not None))


async def test_close_under_work_hangs_nobody(url: str):
    """Endless queries, open transactions and queues at the moment of closing all end, with errors."""
    db = Database(url, "shop", METADATA)
    await db.start()
    await prepare(db, None)
    inside = 0

    async def work(way: str) -> None:
        nonlocal inside
        async with getattr(db, way)() as connection:
            await connection.execute(text("SELECT 1"))
            inside += 1
            await connection.execute(LONG, {"count": ENDLESS})

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work(way)) for way in ["read"] * 12 + ["transaction"] * 5]
    while inside < 3:  # noqa: ASYNC110  # all of them, as soon as may be
        await asyncio.sleep(0)
    await asyncio.wait_for(db.close(), 60)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert all(isinstance(result, (DBAPIError, NotStartedError)) for result in results), results
    await db.start()
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(name="again"))
    await db.close()
