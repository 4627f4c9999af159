"""SQLite files: what a transaction promises, alone and in a crowd."""

# The count of commits and the moment of one are seen nowhere else.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.kernel.store_rig import ENDLESS, LONG, LONG_SELECT, METADATA, count, db, parts, rows, url

from seamline.kernel.store import Database, prepare
from seamline.kernel.store.errors import (
    NestedTransactionError,
    NotStartedError,
    ReadOnlyError,
    WriterBusyError,
)

__all__ = ["db", "url"]  # fixtures


async def test_commit_is_seen_and_rollback_is_not(db: Database):
    """After the block its rows are there; after a block that raised, none of its rows."""
    async with db.transaction() as tx:
        await tx.execute(insert(rows), [{"name": "a"}, {"name": "b"}])
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="c"))
            raise ZeroDivisionError
    assert await count(db) == 2


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
    assert (before, after, await count(db)) == (0, 0, 1)


async def test_read_refuses_to_write(db: Database):
    """``read()`` cannot change anything, by any statement, and says what to use."""
    for attack in ("INSERT INTO rows (name) VALUES ('x')", "DROP TABLE rows", "PRAGMA user_version = 7"):
        with pytest.raises(ReadOnlyError, match=r"SL7008.*transaction\(\)"):
            async with db.read() as r:
                await r.execute(text(attack))
    assert await count(db) == 0


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
    assert await count(db) == 600
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
    assert await count(db) == 0


async def test_nested_transaction_is_refused(db: Database):
    """A task inside its own transaction is told at once instead of waiting for itself."""
    async with db.transaction() as tx:
        with pytest.raises(NestedTransactionError, match=r"SL7007.*begin_nested"):
            async with db.transaction():
                pass
        await tx.execute(insert(rows).values(name="still sound"))
    assert await count(db) == 1


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
        assert await count(db) == 2


async def test_waiting_for_another_process_is_bounded(url: str, tmp_path: Path):
    """The same when somebody else holds the file: bounded, cancellable, and over when they let go."""
    async with Database(url, "shop", METADATA, wait_s=0.05) as db:
        await prepare(db, None)
        other = sqlite3.connect(tmp_path / "db" / "shop.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriterBusyError, match=r"SL7006.*another process"):
            async with db.transaction() as tx:
                await tx.execute(insert(rows).values(name="late"))
        assert await count(db) == 0  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(name="now"))
        assert await count(db) == 1


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
    assert await count(db) == 1


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


def test_under_uvloop(url: str):
    """The same database under the loop that production runs on."""

    async def main() -> int:
        async with Database(url, "shop", METADATA) as db:
            await prepare(db, None)

            async def work(number: int) -> None:
                async with db.transaction() as tx:
                    await tx.execute(insert(rows).values(name=str(number)))

            await asyncio.gather(*(work(number) for number in range(100)))
            return await count(db)

    assert uvloop.run(main()) == 100
