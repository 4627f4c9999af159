"""Hermitage's cases: which anomalies each store keeps from transactions that go on at the same time.

The cases and their names are those of https://github.com/ept/hermitage (G0 to G2 of Adya, and the lost update P4).
SQLite has one writer at a time and readers of one moment: nothing gets through. PostgreSQL works at READ COMMITTED:
what gets through there is stated as plainly, so that a change of either is noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store import Database, sqlite_url


class Work:
    """A transaction, or a reader, whose steps a test takes one by one."""

    def __init__(self, block: AbstractAsyncContextManager[AsyncConnection], group: asyncio.TaskGroup) -> None:
        self._block = block
        self._steps: asyncio.Queue[tuple[str, asyncio.Future[list[Any]]]] = asyncio.Queue()
        self._task = group.create_task(self._run())

    async def _run(self) -> None:
        sql, outcome = await self._steps.get()
        with suppress(GivenUp):
            async with self._block as connection:
                while sql != "COMMIT":
                    if sql == "ROLLBACK":
                        raise GivenUp
                    result = await connection.execute(text(sql))
                    outcome.set_result(list(result.scalars()) if result.returns_rows else [])
                    sql, outcome = await self._steps.get()
        outcome.set_result([])

    def begin(self, sql: str) -> asyncio.Future[list[Any]]:
        """A step that may have to wait for others."""
        outcome: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._steps.put_nowait((sql, outcome))
        return outcome

    async def do(self, sql: str) -> list[Any]:
        return await asyncio.wait_for(self.begin(sql), 20)

    async def commit(self) -> None:
        await self.do("COMMIT")

    async def roll_back(self) -> None:
        await self.do("ROLLBACK")


class GivenUp(Exception):
    """A transaction is rolled back."""


class Stage:
    """One module's data, ``(1, 10)`` and ``(2, 20)``, as two processes have it open."""

    def __init__(self, here: Database, there: Database, group: asyncio.TaskGroup) -> None:
        self.here, self.there = here, there
        self.serial = here.path is not None
        self._group = group

    def two(self) -> tuple[Work, Work]:
        """A transaction in each process."""
        return Work(self.here.transaction(), self._group), Work(self.there.transaction(), self._group)

    def reader(self) -> Work:
        return Work(self.there.read(), self._group)

    async def values(self) -> list[int]:
        async with self.here.read() as r:
            return list((await r.execute(text("SELECT value FROM test ORDER BY id"))).scalars())


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_server)])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Stage]:
    sqlite = request.param == "sqlite"
    module = f"shop_{uuid4().hex[:12]}"
    url = sqlite_url(tmp_path, module) if sqlite else request.getfixturevalue("postgres_server").url()
    async with Database(url, module) as here, Database(url, module) as there:
        async with here.transaction() as tx:
            await tx.execute(text("CREATE TABLE test (id INTEGER PRIMARY KEY, value INTEGER)"))
            await tx.execute(text("INSERT INTO test VALUES (1, 10), (2, 20)"))
        async with asyncio.TaskGroup() as group:
            yield Stage(here, there, group)


def change(row: int, value: int) -> str:
    return f"UPDATE test SET value = {value} WHERE id = {row}"


def look(row: int) -> str:
    return f"SELECT value FROM test WHERE id = {row}"


BY_THREE = "SELECT value FROM test WHERE value % 3 = 0"


async def test_g0_writes_of_two_transactions_do_not_mix(stage: Stage):
    a, b = stage.two()
    await a.do(change(1, 11))
    waiting = b.begin(change(1, 12))
    await a.do(change(2, 21))
    assert await stage.values() == [10, 20]
    await a.commit()
    await waiting
    assert await stage.values() == [11, 21]
    await b.do(change(2, 22))
    await b.commit()
    assert await stage.values() == [12, 22]


async def test_g1a_what_is_rolled_back_was_never_seen(stage: Stage):
    a, b = stage.two()
    reader = stage.reader()
    await a.do(change(1, 101))
    assert await reader.do(look(1)) == [10]
    await a.roll_back()
    assert await reader.do(look(1)) == [10]
    assert await b.do(look(1)) == [10]
    await b.commit()
    await reader.commit()


async def test_g1b_values_in_between_are_not_seen(stage: Stage):
    a, b = stage.two()
    reader = stage.reader()
    await a.do(change(1, 101))
    assert await reader.do(look(1)) == [10]
    await a.do(change(1, 11))
    await a.commit()
    assert await reader.do(look(1)) == [10 if stage.serial else 11]
    assert await b.do(look(1)) == [11]
    await b.commit()
    await reader.commit()


async def test_g1c_two_transactions_do_not_see_each_other(stage: Stage):
    a, b = stage.two()
    await a.do(change(1, 11))
    waiting = b.begin(change(2, 22))
    if not stage.serial:
        await waiting
    assert await a.do(look(2)) == [20]
    if not stage.serial:
        assert await b.do(look(1)) == [10]
    await a.commit()
    await waiting
    assert await b.do(look(1)) == [11]  # it came after
    await b.commit()
    assert await stage.values() == [11, 22]


async def test_otv_a_transaction_that_was_seen_does_not_vanish(stage: Stage):
    a, b = stage.two()
    reader = stage.reader()
    await a.do(change(1, 11))
    await a.do(change(2, 19))
    waiting = b.begin(change(1, 12))
    await a.commit()
    assert await reader.do(look(1)) == [11]
    await waiting
    await b.do(change(2, 18))
    assert await reader.do(look(2)) == [19]
    await b.commit()
    later = [await reader.do(look(2)), await reader.do(look(1))]
    assert later == ([[19], [11]] if stage.serial else [[18], [12]])  # either all of the second, or all of the first
    await reader.commit()


async def test_pmp_rows_that_appear_while_one_reads(stage: Stage):
    """SQLite's readers see one moment. PostgreSQL's statements each see their own: what is read twice may differ."""
    reader = stage.reader()
    assert await reader.do(BY_THREE) == []
    a, b = stage.two()
    await a.do("INSERT INTO test VALUES (3, 30)")
    await a.commit()
    assert await reader.do(BY_THREE) == ([] if stage.serial else [30])
    await reader.commit()
    await b.commit()


async def test_p4_an_update_by_a_value_read_before_may_be_lost_in_postgresql(stage: Stage):
    """Both read 10 and add to it. SQLite lets the second read after the first has ended."""
    a, b = stage.two()
    [first] = await a.do(look(1))
    reading = b.begin(look(1))
    if not stage.serial:
        assert await reading == [10]
    await a.do(change(1, first + 1))
    if stage.serial:
        assert not reading.done()
    await a.commit()
    [second] = await reading
    await b.do(change(1, second + 1))
    await b.commit()
    assert (await stage.values())[0] == (12 if stage.serial else 11)


async def test_p4_is_kept_out_by_a_lock_on_the_row_read(stage: Stage):
    """``SELECT ... FOR UPDATE``, as ``with_for_update()`` says it: the remedy on PostgreSQL, needless on SQLite."""
    lock = "" if stage.serial else " FOR UPDATE"
    a, b = stage.two()
    [first] = await a.do(look(1) + lock)
    reading = b.begin(look(1) + lock)
    await a.do(change(1, first + 1))
    await a.commit()
    [second] = await asyncio.wait_for(reading, 20)
    await b.do(change(1, second + 1))
    await b.commit()
    assert (await stage.values())[0] == 12


async def test_p4_is_kept_out_by_counting_in_the_database(stage: Stage):
    a, b = stage.two()
    add = "UPDATE test SET value = value + 1 WHERE id = 1"
    await a.do(add)
    waiting = b.begin(add)
    await a.commit()
    await waiting
    await b.commit()
    assert (await stage.values())[0] == 12


async def test_g_single_rows_of_two_moments_are_not_mixed_in_sqlite(stage: Stage):
    """A reader sees row 1 of before and row 2 of after a transaction: in PostgreSQL only."""
    reader = stage.reader()
    assert await reader.do(look(1)) == [10]
    a, b = stage.two()
    await a.do(change(1, 12))
    await a.do(change(2, 18))
    await a.commit()
    assert await reader.do(look(2)) == ([20] if stage.serial else [18])
    await reader.commit()
    await b.commit()


async def test_g2_item_two_that_read_both_and_write_one_each(stage: Stage):
    """Write skew: PostgreSQL lets both go by what they read; in SQLite the second reads what the first wrote."""
    a, b = stage.two()
    both = "SELECT value FROM test ORDER BY id"
    assert await a.do(both) == [10, 20]
    reading = b.begin(both)
    if not stage.serial:
        assert await reading == [10, 20]
    await a.do(change(1, 11))
    await a.commit()
    assert await reading == ([11, 20] if stage.serial else [10, 20])
    await b.do(change(2, 21))
    await b.commit()
    assert await stage.values() == [11, 21]


async def test_g2_two_that_find_nothing_and_both_add_it(stage: Stage):
    a, b = stage.two()
    assert await a.do(BY_THREE) == []
    reading = b.begin(BY_THREE)
    if not stage.serial:
        assert await reading == []
    await a.do("INSERT INTO test VALUES (3, 30)")
    await a.commit()
    assert await reading == ([30] if stage.serial else [])
    await b.do("INSERT INTO test VALUES (4, 42)")
    await b.commit()
    assert await stage.values() == [10, 20, 30, 42]
