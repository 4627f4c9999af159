"""A unit of work: one commit for all a handler writes, and none when it fails."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select

from seamline.kernel.store import Combiner, Database, raw_in, set_scope_source, sqlite_url
from seamline.kernel.store.errors import NestedTransactionError

metadata = MetaData()
numbers = Table("numbers", metadata, Column("n", Integer, primary_key=True))


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(sqlite_url(tmp_path, "sums"), "sums", metadata) as opened:
        await opened.ensure(metadata)
        yield opened


async def add(db: Database, n: int) -> None:
    async with db.transaction() as tx:
        await tx.execute(insert(numbers).values(n=n))


async def seen(db: Database) -> list[int]:
    async with db.read() as r:
        return list((await r.execute(select(numbers.c.n).order_by(numbers.c.n))).scalars())


async def test_what_a_unit_writes_is_seen_by_others_only_at_its_end(db: Database):
    async with db.unit():
        await add(db, 1)
        await add(db, 2)
        assert await seen(db) == [1, 2]  # its own reads see it
        async with asyncio.TaskGroup() as group:
            elsewhere = group.create_task(read_elsewhere(db))
        assert elsewhere.result() == []
    assert await seen(db) == [1, 2]


async def read_elsewhere(db: Database) -> list[int]:
    async with Database(str(db.url), db.module) as other:
        return await seen(other)


async def test_a_unit_that_raises_leaves_nothing(db: Database):
    with pytest.raises(ZeroDivisionError):
        async with db.unit():
            await add(db, 1)
            raise ZeroDivisionError
    assert await seen(db) == []
    await add(db, 3)
    assert await seen(db) == [3]


async def test_a_part_that_raises_is_undone_alone(db: Database):
    async with db.unit():
        await add(db, 1)
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await tx.execute(insert(numbers).values(n=2))
                raise ZeroDivisionError
        await add(db, 3)
    assert await seen(db) == [1, 3]


async def test_parts_of_concurrent_tasks_take_turns(db: Database):
    async with db.unit():
        await asyncio.gather(*(add(db, n) for n in range(20)))
    assert await seen(db) == list(range(20))


async def test_a_part_inside_a_part_is_refused(db: Database):
    async with db.unit(), db.transaction():
        with pytest.raises(NestedTransactionError):
            await add(db, 1)


async def test_a_unit_does_not_cover_another_call(db: Database):
    """What a handler calls has transactions of its own: they survive the handler's failure."""
    call = ["the handler"]
    set_scope_source(lambda: call[0])
    try:
        with pytest.raises(ZeroDivisionError):
            async with db.unit():
                call[0] = "what it calls"
                await add(db, 7)
                call[0] = "the handler"
                await add(db, 8)
                raise ZeroDivisionError
    finally:
        set_scope_source(lambda: None)
    assert await seen(db) == [7]


async def test_raw_work_commits_or_leaves_nothing(db: Database):
    await db.raw(lambda c: c.execute("INSERT INTO numbers VALUES (5)"))
    with pytest.raises(ZeroDivisionError):
        await db.raw(lambda c: (c.execute("INSERT INTO numbers VALUES (6)"), 1 // 0))
    assert await seen(db) == [5]


async def test_raw_reading_sees_what_is_on_disk_and_cannot_write(db: Database):
    await add(db, 5)
    assert await db.raw_read(lambda c: c.execute("SELECT n FROM numbers").fetchall()) == [(5,)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await db.raw_read(lambda c: c.execute("INSERT INTO numbers VALUES (6)"))
    assert await seen(db) == [5]


async def test_a_combiner_writes_all_and_reports_each(db: Database):
    sizes: list[int] = []

    async def flush(items: Sequence[int]) -> list[int | BaseException]:
        sizes.append(len(items))
        await asyncio.sleep(0)
        return [ValueError(item) if item == 13 else item * 2 for item in items]

    combiner = Combiner(flush, items_max=64)
    results = await asyncio.gather(*(combiner.add(n) for n in range(100)), return_exceptions=True)
    assert [r for n, r in enumerate(results) if n != 13] == [n * 2 for n in range(100) if n != 13]
    assert isinstance(results[13], ValueError)
    assert len(sizes) < 10
    await combiner.close()


async def test_what_waits_for_the_commit_is_called_after_it_and_never_after_a_rollback(db: Database):
    """Whoever hears of it can read what was written."""
    heard: list[str] = []
    async with db.transaction() as tx:
        await tx.execute(insert(numbers).values(n=1))
        db.after_commit(tx, lambda: heard.append("alone"))
        assert heard == []
    async with db.unit():
        await add(db, 2)
        connection = await db.current()
        assert connection is not None
        db.after_commit(connection, lambda: heard.append("unit"))
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            db.after_commit(tx, lambda: heard.append("never"))
            raise ZeroDivisionError
    await add(db, 3)
    assert heard == ["alone", "unit"]


async def test_the_first_part_is_undone_alone_and_the_unit_goes_on(db: Database):
    """It has no savepoint, since nothing is before it."""
    async with db.unit():
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await tx.execute(insert(numbers).values(n=1))
                raise ZeroDivisionError
        await add(db, 2)
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await tx.execute(insert(numbers).values(n=3))
                raise ZeroDivisionError
        await add(db, 4)
    assert await seen(db) == [2, 4]


async def test_raw_statements_share_a_transaction_and_its_fate(db: Database):
    """Also where nothing else was written in it."""

    def put(n: int) -> Callable[[sqlite3.Connection], object]:
        return lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (n,))

    async with db.transaction() as tx:
        await raw_in(tx, put(1))
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await raw_in(tx, put(2))
            raise ZeroDivisionError
    async with db.unit() as unit:
        await add(db, 3)
        await raw_in(await unit.connection(), put(4))
    assert await seen(db) == [1, 3, 4]
