"""A call with an idempotency key runs once in effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select

from seamline import Contract, Fault, InvalidArgument, readonly
from seamline.kernel.clock import SystemClock
from seamline.kernel.store import Database, sqlite_url
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import compile_contract
from seamline.sagas.once import Handler, Once

metadata = MetaData()
entries = Table("entries", metadata, Column("id", Integer, primary_key=True), Column("what", String(50)))


class TooMuch(Fault):
    """More than there is."""

    left: int


class Ledger(Contract):
    async def book(self, what: str) -> int: ...
    @readonly
    async def look(self, what: str) -> int: ...


class Books(Ledger):
    def __init__(self, db: Database) -> None:
        self.db = db
        self.runs = 0
        self.fail: Exception | None = None
        self.began = asyncio.Event()
        self.pause = asyncio.Event()
        self.pause.set()

    async def book(self, what: str) -> int:
        self.runs += 1
        self.began.set()
        async with self.db.transaction() as tx:
            await tx.execute(insert(entries).values(what=what))
        await self.pause.wait()
        if self.fail is not None:
            raise self.fail
        return await self.look(what)

    async def look(self, what: str) -> int:
        async with self.db.read() as r:
            return (await r.execute(select(func.count()).where(entries.c.what == what))).scalar_one()


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with Database(sqlite_url(tmp_path, "ledger"), "ledger", metadata) as db:
        await db.ensure(metadata)
        yield Books(db)


async def wrapped(books: Books, database: Database | None = None) -> Handler:
    once = Once(database or books.db, SystemClock(), keep_s=60)
    await once.start()
    return once.wrap(compile_contract(Ledger).methods["book"], books.book, {"TooMuch": TooMuch})


async def call(handler: Handler, what: str, key: str | None, caller: str = "shop") -> int:
    token = CURRENT.set(CallContext("ledger", caller, "Ledger.book", idempotency_key=key))
    try:
        return await handler(what)
    finally:
        CURRENT.reset(token)


async def test_a_repeat_gets_the_first_answer_and_runs_nothing(books: Books):
    book = await wrapped(books)
    assert await call(book, "tea", "k1") == 1
    assert await call(book, "tea", "k1") == 1
    assert books.runs == 1
    assert await call(book, "tea", "k2") == 2
    assert await call(book, "tea", None) == 3
    assert await call(book, "tea", None) == 4


async def test_a_declared_fault_is_the_answer_and_its_effects_stay(books: Books):
    book = await wrapped(books)
    books.fail = TooMuch(left=2)
    for _ in range(2):
        with pytest.raises(TooMuch) as raised:
            await call(book, "tea", "k1")
        assert raised.value == TooMuch(left=2)
    assert books.runs == 1
    assert await books.look("tea") == 1


async def test_what_fails_otherwise_leaves_nothing_and_may_be_tried_again(books: Books):
    book = await wrapped(books)
    books.fail = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await call(book, "tea", "k1")
    assert await books.look("tea") == 0
    books.fail = None
    assert await call(book, "tea", "k1") == 1


async def test_a_cancelled_call_leaves_nothing(books: Books):
    book = await wrapped(books)
    books.pause.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call(book, "tea", "k1"))
        await books.began.wait()
        task.cancel()
    books.pause.set()
    assert await books.look("tea") == 0
    assert await call(book, "tea", "k1") == 1


async def test_the_same_call_many_times_at_once_runs_once(books: Books):
    book = await wrapped(books)
    assert await asyncio.gather(*(call(book, "tea", "k1") for _ in range(20))) == [1] * 20
    assert books.runs == 1


async def test_two_processes_with_the_same_call_keep_one_effect(books: Books):
    """Both run the handler; the one that commits second is rolled back and gives the first one's answer."""
    async with Database(str(books.db.url), "ledger", metadata) as second_db:
        second = Books(second_db)
        one, other = await wrapped(books), await wrapped(second)
        results = await asyncio.gather(call(one, "tea", "k1"), call(other, "tea", "k1"))
    assert results == [1, 1]
    assert await books.look("tea") == 1


async def test_a_key_for_other_arguments_is_refused(books: Books):
    book = await wrapped(books)
    await call(book, "tea", "k1")
    with pytest.raises(InvalidArgument, match="used for another call"):
        await call(book, "coffee", "k1")


async def test_nobody_gets_the_answer_to_anothers_key(books: Books):
    book = await wrapped(books)
    assert await call(book, "tea", "k1", "shop") == 1
    assert await call(book, "tea", "k1", "thief") == 2


async def test_a_readonly_method_is_left_alone(books: Books):
    once = Once(books.db, SystemClock(), keep_s=60)
    look = once.wrap(compile_contract(Ledger).methods["look"], books.look, {})
    assert look == books.look
