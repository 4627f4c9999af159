"""SQLite files: what a transaction promises, alone, in a crowd, and among processes."""

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
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from seamline.kernel.store import Database, prepare, sqlite_url
from seamline.kernel.store.errors import (
    DamagedFileError,
    FolderError,
    NestedTransactionError,
    NotStartedError,
    ReadOnlyError,
    UrlError,
    WriterBusyError,
)

METADATA = MetaData()
rows = Table("rows", METADATA, Column("id", Integer, primary_key=True), Column("name", String, unique=True))
parts = Table(
    "parts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("row", Integer, ForeignKey("rows.id"), nullable=False),
)

LONG = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) SELECT count(*) FROM n")
LONG_SELECT = text(
    "SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
    "SELECT i FROM n)"
)
ENDLESS = 10**12


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path, "shop")


@pytest.fixture
async def db(url: str) -> AsyncGenerator[Database]:
    async with Database(url, "shop", METADATA, wait_s=20) as database:
        await prepare(database, None)
        yield database


async def _count(db: Database) -> int:
    async with db.read() as r:
        return (await r.execute(select(func.count()).select_from(rows))).scalar_one()


async def test_commit_is_seen_and_rollback_is_not(db: Database):
    """After the block its rows are there; after a block that raised, none of its rows."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows), [{"name": "a"}, {"name": "b"}])
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="c"))
            raise ZeroDivisionError
    assert await _count(db) == 2


async def test_file_is_durable_and_checked(db: Database):
    """WAL, synchronous FULL and foreign keys are in force on the writer and on readers."""
    for block in (db.transaction(), db.read()):
        async with block as connection:
            found = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
            assert found == ["wal", 2, 1]
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        async with db.transaction() as tx:
            await tx.execute(insert(parts).values(row=99))


async def test_reads_see_one_moment(db: Database):
    """Two reads in one block agree although a writer commits between them, and do not wait for it."""
    async with db.read() as r:
        before = (await r.execute(select(func.count()).select_from(rows))).scalar_one()
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="meanwhile"))
        after = (await r.execute(select(func.count()).select_from(rows))).scalar_one()
    assert (before, after, await _count(db)) == (0, 0, 1)


async def test_read_refuses_to_write(db: Database):
    """``read()`` cannot change anything, by any statement, and says what to use."""
    for attack in ("INSERT INTO rows (name) VALUES ('x')", "DROP TABLE rows", "PRAGMA user_version = 7"):
        with pytest.raises(ReadOnlyError, match=r"SL7008.*transaction\(\)"):
            async with db.read() as r:
                await r.execute(text(attack))
    assert await _count(db) == 0


async def test_mapped_classes(db: Database):
    """A session commits what was added, keeps its objects readable, and rolls back as a whole."""

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "rows"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    async with db.session() as session:
        row = Row(name="kept")
        session.add(row)
    assert row.id == 1
    assert row.name == "kept"
    with pytest.raises(IntegrityError):
        async with db.session() as session:
            session.add_all([Row(name="new"), Row(name="kept")])
    async with db.session() as session:
        found = (await session.scalars(select(Row))).all()
    assert [r.name for r in found] == ["kept"]


async def test_a_crowd_of_writers_shares_commits(db: Database):
    """600 transactions of 60 tasks all succeed, are all kept, and need far fewer commits than 600."""
    assert db._file is not None
    before = db._file.writer.commits

    async def work(task: int) -> None:
        for number in range(10):
            async with db.transaction() as tx:
                await tx.execute(insert(rows).values(name=f"{task}-{number}"))

    async with asyncio.TaskGroup() as group:
        for task in range(60):
            group.create_task(work(task))
    assert await _count(db) == 600
    assert db._file.writer.commits - before < 200


async def test_failures_in_a_crowd_stay_alone(db: Database):
    """In one shared commit a third of the transactions fail, each for itself, by every kind of failure."""
    done: list[int] = []

    async def work(number: int) -> None:
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(id=number + 1, name=f"row {number}"))
            if number % 9 == 0:
                raise ZeroDivisionError
            if number % 9 == 3:
                await tx.execute(insert(parts).values(row=10**6))  # no such row
            if number % 9 == 6:
                await tx.execute(insert(rows).values(name="row 1"))  # taken, or taken later
                await tx.execute(text("SELECT nothing FROM nowhere"))
        done.append(number)

    results = await asyncio.gather(*(work(number) for number in range(180)), return_exceptions=True)
    async with db.read() as r:
        kept = set((await r.execute(select(rows.c.id))).scalars())
    assert kept == {number + 1 for number in done}
    assert {number for number in range(180) if number % 3} == set(done)
    assert sum(isinstance(result, Exception) for result in results) == 60


async def test_increments_are_not_lost(db: Database):
    """Read and write in one transaction, from many tasks: every increment counts."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(id=1, name="0"))

    async def increment() -> None:
        async with db.transaction() as tx:
            value = int((await tx.execute(select(rows.c.name).where(rows.c.id == 1))).scalar_one())
            await asyncio.sleep(0)
            await tx.execute(update(rows).where(rows.c.id == 1).values(name=str(value + 1)))

    await asyncio.gather(*(increment() for _ in range(200)))
    async with db.read() as r:
        assert (await r.execute(select(rows.c.name))).scalar_one() == "200"


async def test_savepoints(db: Database):
    """A part that fails alone does not take its transaction along, alone or in a shared commit."""

    async def work(number: int) -> None:
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name=f"kept {number}"))
            with pytest.raises(ZeroDivisionError):
                async with tx.begin_nested():
                    await tx.execute(insert(rows).values(name=f"lost {number}"))
                    raise ZeroDivisionError

    await asyncio.gather(*(work(number) for number in range(30)))
    async with db.read() as r:
        names = (await r.execute(select(rows.c.name))).scalars().all()
    assert sorted(names) == sorted(f"kept {number}" for number in range(30))


async def test_transaction_cannot_be_ended_from_inside(db: Database):
    """COMMIT, BEGIN and ROLLBACK as text are refused: in a shared commit they would end others' work."""
    for attack in ("COMMIT", " rollback ", "BEGIN", "END", "-- x\nCOMMIT", "/* x */ COMMIT"):
        with pytest.raises((ProgrammingError, OperationalError)):
            async with db.transaction() as tx:
                await tx.execute(insert(rows).values(name="lost"))
                await tx.exec_driver_sql(attack)
                await tx.execute(text("SELECT nothing FROM nowhere"))
    assert await _count(db) == 0


async def test_nested_transaction_is_refused(db: Database):
    """A task inside its own transaction is told at once instead of waiting for itself."""
    async with db.transaction() as tx:
        with pytest.raises(NestedTransactionError, match=r"SL7007.*begin_nested"):
            async with db.transaction():
                pass
        await tx.execute(insert(rows).values(name="still sound"))
    assert await _count(db) == 1


async def test_waiting_is_bounded(url: str):
    """A transaction that holds the writer too long costs the waiting one a clear error, and nothing else."""
    async with Database(url, "shop", METADATA, wait_s=0.05) as db:
        await prepare(db, None)
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="slow"))

            async def wait() -> None:
                async with db.transaction() as other:
                    await other.execute(insert(rows).values(name="late"))

            with pytest.raises(WriterBusyError, match=r"SL7006.*Keep transactions short"):
                await asyncio.gather(wait())
        await wait()
        assert await _count(db) == 2


async def test_waiting_for_another_process_is_bounded(url: str, tmp_path: Path):
    """The same when somebody else holds the file: bounded, cancellable, and over when they let go."""
    async with Database(url, "shop", METADATA, wait_s=0.05) as db:
        await prepare(db, None)
        other = sqlite3.connect(tmp_path / "db" / "shop.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriterBusyError, match=r"SL7006.*another process"):
            async with db.transaction() as tx:
                await tx.execute(insert(rows).values(name="late"))
        assert await _count(db) == 0  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="now"))
        assert await _count(db) == 1


@pytest.mark.parametrize("statement", [LONG, LONG_SELECT])
@pytest.mark.parametrize("way", ["read", "transaction"])
async def test_long_statement_leaves_the_loop_free(db: Database, way: str, statement: object):
    """While an endless query runs, the loop turns; cancelling it stops SQLite and frees the connection."""
    turns = 0

    async def run() -> None:
        async with getattr(db, way)() as connection:
            await connection.execute(statement, {"count": ENDLESS})

    task = asyncio.get_running_loop().create_task(run())
    while turns < 1000:
        await asyncio.sleep(0)
        turns += 1
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(name="after"))
    assert await _count(db) == 1


async def test_long_reads_come_out_right(db: Database):
    """A read that outgrew the loop's time is run again in a thread, with the same answer, again and again."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows), [{"name": str(n)} for n in range(20_000)])
    for _ in range(40):
        async with db.read() as r:
            found = (await r.execute(select(rows.c.name).order_by(rows.c.name))).scalars().all()
            assert len(found) == 20_000
            assert found[:3] == ["0", "1", "10"]


async def test_streams_hold_few_rows(db: Database):
    """``stream()`` gives all rows in order and can be left early; the connection is whole afterwards."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows), [{"name": str(n)} for n in range(5_000)])
    for way in (db.read, db.transaction):
        async with way() as connection:
            async with connection.stream(select(rows.c.id).order_by(rows.c.id)) as stream:
                assert [row[0] async for row in stream] == list(range(1, 5_001))
            async with connection.stream(select(rows.c.id)) as stream:
                async for row in stream:
                    assert row[0] == 1
                    break
            assert (await connection.execute(select(func.count()).select_from(rows))).scalar_one() == 5_000


async def test_cancellation_at_every_point(db: Database):
    """Tasks cancelled at every step of a transaction, in a crowd: what was acknowledged is kept, and the
    database stays usable. A transaction cancelled while its commit is under way may be kept or not."""
    acknowledged: set[int] = set()
    committing: set[int] = set()

    async def work(number: int) -> None:
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(id=number, name=str(number)))
            await tx.execute(LONG, {"count": 2_000})  # in a thread
            await asyncio.sleep(0)
            committing.add(number)
        acknowledged.add(number)

    loop = asyncio.get_running_loop()
    number = 0
    for steps in range(60):
        tasks = [loop.create_task(work(number := number + 1)) for _ in range(6)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with db.read() as r:
        kept = set((await r.execute(select(rows.c.id))).scalars())
    assert acknowledged <= kept
    assert kept <= committing
    assert len(acknowledged) >= 180
    async with db.transaction() as tx:
        await tx.execute(insert(rows).values(name="after"))


async def test_readers_beyond_the_connections_wait(db: Database):
    """More readers at once than there are connections: all get their answer."""

    async def read() -> int:
        async with db.read() as r:
            count = (await r.execute(select(func.count()).select_from(rows))).scalar_one()
            await asyncio.sleep(0)
            return count

    assert await asyncio.gather(*(read() for _ in range(100))) == [0] * 100


async def test_blocks_without_statements(db: Database):
    """An empty transaction waits for nobody, and a closed database refuses with its own error."""
    async with db.transaction():
        pass
    await db.close()
    await db.close()
    for way in (db.read, db.transaction):
        with pytest.raises(NotStartedError, match="SL7005"):
            async with way():
                pass


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


def test_under_uvloop(url: str):
    """The same database under the loop that production runs on."""

    async def main() -> int:
        async with Database(url, "shop", METADATA) as db:
            await prepare(db, None)

            async def work(number: int) -> None:
                async with db.transaction() as tx:
                    await tx.execute(insert(rows).values(name=str(number)))

            await asyncio.gather(*(work(number) for number in range(100)))
            return await _count(db)

    assert uvloop.run(main()) == 100


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
    assert await _count(db) == 161


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
        assert await _count(db) == 12


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
    with pytest.raises(OperationalError, match="full"):
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
