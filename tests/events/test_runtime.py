"""A process as a whole: on both stores, idle, and at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.events.conformance import Arena
from tests.events.shop import Process, Sold, running, shop, until, write

from seamline import Event
from seamline.events.errors import BrokerUrlError
from seamline.events.tables import inbox
from seamline.kernel.store import Database
from seamline.module import Module


def books(broken: list[int]) -> Module:
    module = Module("books")

    @module.on(Sold, attempts=2, backoff_s=0.001)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)
        if event.number in broken:
            raise ValueError("cannot enter this")

    return module


@pytest.fixture
async def postgres_url(postgres_server: Any) -> Callable[[str], str]:
    """Where modules keep their data in a database made for the test."""
    admin = create_async_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text("DROP DATABASE IF EXISTS runtime_events WITH (FORCE)"))
        await connection.execute(text("CREATE DATABASE runtime_events"))
    await admin.dispose()
    return lambda _: postgres_server.url("runtime_events")


@pytest.mark.needs_server
async def test_on_postgresql_it_is_the_same(tmp_path: Path, postgres_url: Callable[[str], str]):
    """Order, effects once, rolled back publishing, dead letters, retry, two processes, replay, inbox."""
    broken = [7]
    async with (
        running(tmp_path, shop(), books(broken), url=postgres_url) as first,
        running(tmp_path, shop(), books(broken), url=postgres_url) as second,
    ):
        with pytest.raises(ZeroDivisionError):
            async with first.databases["shop"].transaction():
                await first.events.publish(Sold(sku="never", number=0))
                raise ZeroDivisionError
        async with second.databases["shop"].transaction():
            await second.events.publish_all([Sold(sku=f"sku{n % 8}", number=n) for n in range(200)])
        await until(lambda: first.count_is(199))
        rows = await first.rows()
        for key in range(8):
            numbers = [number for sku, number in rows if sku == f"sku{key}"]
            assert numbers == [n for n in range(key, 200, 8) if n != 7]
        (letter,) = await first.runtime.admin("dead list", {"module": "books"})
        broken.clear()
        answer = await second.runtime.admin("dead retry", {"module": "books", "number": letter["number"]})
        assert answer == [{"number": letter["number"], "done": True, "reason": ""}]
        assert await first.count() == 200
        await until(lambda: first.count_is(0, inbox))
        await first.runtime.admin("replay", {"module": "books", "group": "enter", "start": "latest"})
        await second.events.publish(Sold(sku="mug", number=200))
        await until(lambda: first.count_is(201))


class Priced(Event, key="sku", compacted=True):
    """Of module ``shop``: what a thing costs now."""

    sku: str
    cents: int


async def test_of_events_that_are_compacted_the_newest_of_each_key_is_kept(tmp_path: Path):
    """All others are kept, and a handler that comes later hears of the newest."""
    late = Module("books")

    @late.on(Priced)
    async def enter(event: Priced, db: Database) -> None:
        await write(db, event.sku, event.cents)

    owners: dict[type[Event], str] = {Priced: "shop", Sold: "shop"}
    async with running(tmp_path, shop(), owners=owners) as process:
        for cents in range(3):
            await process.events.publish_all([Priced(sku=sku, cents=cents) for sku in ("mug", "lamp")])
            await process.events.publish(Sold(sku="mug", number=cents))
        await process.runtime.keep()
        kept = (await process.runtime.admin("tail", {"module": "shop", "limit": 99}))["records"]
        assert [each["type"] for each in kept] == ["Sold", "Sold", "Priced", "Priced", "Sold"]
        await process.events.publish(Priced(sku="mug", cents=3))
        await process.runtime.keep()
    async with running(tmp_path, shop(), late, owners=owners) as process:
        await until(lambda: process.rows_are([("lamp", 2), ("mug", 3)]))


@contextlib.asynccontextmanager
async def two_of(folder: Path, arena: Arena, broken: list[int]) -> AsyncGenerator[tuple[Process, Process]]:
    """Two processes of one group behind a broker."""
    url = arena.broker.url()
    if arena.contender.prepare is not None:
        arena.contender.prepare(url, arena.app, "shop")
    options: dict[str, Any] = {"broker": url, "app": arena.app, "partitions": 4}
    async with (
        running(folder, shop(), books(broken), **options) as first,
        running(folder, shop(), books(broken), **options) as second,
    ):
        yield first, second


@pytest.mark.needs_server
async def test_through_a_broker_it_is_the_same(tmp_path: Path, arena: Arena):
    """Outbox, relay, broker, two processes of a group: order per key, each effect once, poison put aside."""
    broken = [7]
    async with two_of(tmp_path, arena, broken) as (first, second):
        for begin in range(0, 400, 100):
            await second.events.publish_all([Sold(sku=f"sku{n % 8}", number=n) for n in range(begin, begin + 100)])
        await until(lambda: first.count_is(399), turns=8000)
        rows = await first.rows()
        for key in range(8):
            numbers = [number for sku, number in rows if sku == f"sku{key}"]
            assert numbers == [n for n in range(key, 400, 8) if n != 7]
        (letter,) = await first.runtime.admin("dead list", {"module": "books"})
        assert letter["topic"] == "shop"


@pytest.mark.needs_server
@pytest.mark.wants("served", "leased")
async def test_a_replay_behind_a_broker_reaches_every_replica(tmp_path: Path, arena: Arena):
    """All partitions are handed out again, also those that the replica that was not asked holds and is idle on."""
    async with two_of(tmp_path, arena, []) as (first, second):
        await until(lambda: first.joined() and second.joined())
        published = 0
        while not (first.handled() and second.handled()):
            await second.events.publish_all([Sold(sku=f"sku{n}", number=n) for n in range(8)])
            published += 8
            await until(lambda published=published: first.count_is(published))
        await first.runtime.admin("replay", {"module": "books", "group": "enter", "start": "earliest"})
        await until(lambda: first.count_is(2 * published))


@pytest.mark.needs_server
@pytest.mark.wants("served", "leased")
async def test_who_takes_over_in_the_middle_of_a_replay_remembers_nothing(
    tmp_path: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
):
    """The other replica takes what the asked one gave back, reads all of it from the new place, and only then is it
    told to look anew: each event comes once more all the same."""
    async with two_of(tmp_path, arena, []) as (first, second):
        await until(lambda: first.joined() and second.joined())
        await second.events.publish_all([Sold(sku=f"sku{n}", number=n) for n in range(32)])
        await until(lambda: first.count_is(32))
        transport: Any = second.runtime.transport
        seek = first.runtime.transport.seek

        async def slow_seek(*where: Any) -> None:
            await seek(*where)
            (other,) = transport._subscriptions
            await until(lambda: len(other._held) == 4)

            async def read_all() -> bool:
                return not (await other.lag()).events

            await until(read_all)

        monkeypatch.setattr(first.runtime.transport, "seek", slow_seek)
        await first.runtime.admin("replay", {"module": "books", "group": "enter", "start": "earliest"})
        await until(lambda: first.count_is(64))


async def test_an_idle_process_does_next_to_nothing(tmp_path: Path):
    """Its consumers wait; what looks around does so a few times a second for the whole module, whatever it hosts."""
    listeners = Module("books")
    for number in range(20):

        @listeners.on(Sold, group=f"group{number}")
        async def hear(event: Sold) -> None: ...

    async with running(tmp_path, shop(), listeners) as process:
        await until(process.joined)
        await asyncio.sleep(0.3)
        file: Any = process.databases["books"]._file  # pyright: ignore[reportPrivateUsage]
        before = file.writer.commits
        steps = await _steps_within(1.0)
        assert file.writer.commits - before <= 2  # heartbeats
        assert steps < 200


async def _steps_within(seconds: float) -> int:
    """How many callbacks the event loop runs meanwhile."""
    loop = asyncio.get_running_loop()
    count = 0
    run = asyncio.Handle._run  # pyright: ignore[reportPrivateUsage]

    def counted(handle: asyncio.Handle) -> None:
        nonlocal count
        count += 1
        run(handle)

    asyncio.Handle._run = counted  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    try:
        done = loop.create_future()
        loop.call_later(seconds, done.set_result, None)
        await done
    finally:
        asyncio.Handle._run = run  # pyright: ignore[reportPrivateUsage]
    return count


async def test_a_stopped_process_leaves_nothing_running(tmp_path: Path):
    """Also if it was stopped before it had begun, or twice."""
    before = asyncio.all_tasks()
    process = Process(tmp_path, [shop(), books([])])
    await process.start()
    await process.events.publish_all([Sold(sku="mug", number=n) for n in range(100)])
    await until(lambda: process.handled() > 5)
    await process.stop()
    assert asyncio.all_tasks() == before
    await Process(tmp_path, [shop()]).stop()


def test_a_broker_that_cannot_be_is_refused_at_once(tmp_path: Path):
    """Before anything is opened."""
    with pytest.raises(BrokerUrlError):
        Process(tmp_path, [shop()], broker="pigeon://loft")
