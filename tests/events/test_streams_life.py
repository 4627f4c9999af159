"""Views outlive crashes, redelivery and changes of their definition."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.events.stream_rig import Rig, Sold, rig, sold

from seamline.events.streams import count, distinct, materialise, session, stream, sum_, top_k, tumbling
from seamline.events.streams.errors import StreamDeclarationError, StreamStateError
from seamline.kernel.store import Database
from seamline.module.module import Module

__all__ = ["rig"]

sales = stream(Sold, at=lambda e: e.at).by(currency=lambda e: e.currency)
per_minute = sales.window(tumbling(60)).aggregate(orders=count(), cents=sum_(lambda e: e.cents))


async def test_a_batch_whose_transaction_fails_has_no_effect_and_may_come_again(rig: Rig):
    definition = sales.window(session(60)).aggregate(
        orders=count(), shoppers=distinct(lambda e: e.shopper), best=top_k(2, lambda e: e.shopper)
    )
    await rig.view("v", definition)
    await rig.take(sold(1))
    batch = [sold(2, shopper="bob"), sold(100, shopper="eve")]
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with rig.db.unit():
                await rig.views[-1].take(rig.db, rig.clock, batch)
                raise ZeroDivisionError
    await rig.take(*batch)
    assert await rig.rows("v", "orders, shoppers, best") == [
        (2, 2, '[["ada",1],["bob",1]]'),
        (1, 1, '[["eve",1]]'),
    ]
    assert await rig.rows("stream_status", "events") == [(3,)]


WORKER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
    from seamline.events.streams import count, distinct, stream, sum_, tumbling
    from seamline.kernel.store import Database, sqlite_url
    from tests.events.stream_rig import Rig, Sold, sold

    metadata = MetaData()
    offsets = Table("offsets", metadata, Column("n", Integer, primary_key=True))
    definition = stream(Sold, at=lambda e: e.at).window(tumbling(60)).aggregate(
        orders=count(), cents=sum_(lambda e: e.cents), shoppers=distinct(lambda e: e.shopper)
    )

    async def main():
        async with Database(sqlite_url(Path(sys.argv[1]), "shop"), "shop") as db, Rig.on(db) as rig:
            await db.ensure(metadata)
            await rig.view("v", definition)
            async with db.read() as r:
                n = (await r.execute(select(func.max(offsets.c.n)))).scalar_one() or 0
            print("ready", n, flush=True)
            while n < 600:
                async with db.unit() as unit:
                    batch = [sold(at / 5, at, shopper=str(at % 50)) for at in range(n, n + 10)]
                    await rig.views[-1].take(db, rig.clock, batch)
                    await (await unit.connection()).execute(insert(offsets).values(n=n + 10))
                n += 10

    asyncio.run(main())
    """
)


def test_after_kill_9_at_any_moment_nothing_is_lost_or_counted_twice(tmp_path: Path):
    """The offset and the view commit as one, so what is read again was not counted."""
    root = Path(__file__).parents[2]
    finished, kills = False, 0
    while not finished:
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline().startswith("ready")
            try:
                worker.wait(0.004 + 0.013 * kills)
            except subprocess.TimeoutExpired:
                os.kill(worker.pid, signal.SIGKILL)
                kills += 1
            finished = worker.wait(30) == 0
    with sqlite3.connect(tmp_path / "db" / "shop.sqlite3") as file:
        rows = file.execute("SELECT orders, cents, shoppers FROM v ORDER BY start_ms").fetchall()
        status = file.execute("SELECT events, late FROM stream_status").fetchall()
    file.close()
    assert rows == [(300, sum(range(300)), 50), (300, sum(range(300, 600)), 50)]
    assert status == [(600, 0)]
    assert kills > 1


async def test_a_new_version_is_built_beside_the_old_one_and_takes_its_place_at_once(rig: Rig):
    """Until it has seen as much, readers see the old one; then the old one's tables are gone and nobody feeds it."""
    old = await rig.view("v", per_minute)
    events = [sold(second, second) for second in range(0, 300, 10)]
    await rig.take(*events)
    before = await rig.rows("v", "orders")
    doubled = sales.window(tumbling(60)).aggregate(orders=count(), double=sum_(lambda e: 2 * e.cents))
    await rig.view("v", doubled, version=2)
    for event in events[:-1]:
        await rig.take(event)
        assert await rig.rows("v", "orders") == before
    await rig.take(events[-1])
    rows = await rig.rows("v", "orders, double")
    assert sum(row[1] for row in rows) == 2 * sum(range(0, 300, 10))
    assert await rig.rows("stream_status", "version, state") == [(1, "retired"), (2, "live")]
    async with rig.db.unit():
        await old.take(rig.db, rig.clock, [sold(1)])
    assert await rig.rows("v", "orders, double") == rows
    async with rig.db.read() as connection:
        names = await connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name LIKE 'seamline_view_v%'")
        assert {name for (name,) in names} == {"seamline_view_v_2", "seamline_view_v_2_end"}


async def test_a_replay_that_the_log_cannot_fill_takes_its_place_when_it_has_been_quiet(rig: Rig):
    rig.now(0)
    await rig.view("v", per_minute)
    await rig.take(sold(0), sold(50))
    await rig.view("v", sales.window(tumbling(30)).aggregate(orders=count()), version=2)
    await rig.take(sold(0))
    rig.now(59)
    await rig.tick()
    assert await rig.rows("v", "orders") == [(2,)]
    rig.now(61)
    await rig.tick()
    assert await rig.rows("v", "orders") == [(1,)]


async def test_a_changed_definition_under_the_same_version_is_refused(rig: Rig):
    await rig.view("v", per_minute)
    with pytest.raises(StreamStateError, match=r"Write version=2 in materialise"):
        await rig.view("v", sales.window(tumbling(30)).aggregate(orders=count()))


async def test_two_processes_feed_one_view(rig: Rig):
    """Each batch finds what the other wrote."""
    await rig.view("v", per_minute)
    async with Database(str(rig.db.url), "shop") as second, Rig.on(second) as other:
        await other.view("v", per_minute)
        for second_s in range(0, 100, 2):
            await rig.take(sold(second_s))
            await other.take(sold(second_s + 1))
    assert await rig.rows("v", "orders") == [(60,), (40,)]


def test_a_module_registers_a_handler_for_each_event_type():
    """With the version in the group's name, so that a new version reads from the beginning."""
    module = Module("shop")
    materialise(module, "v", per_minute, version=3)
    (handler,) = module.event_handlers
    assert (handler.event, handler.group, handler.start, handler.batch) == (Sold, "v_3_sold", "earliest", 500)
    assert module.views == ["v"]
    with pytest.raises(StreamDeclarationError, match="two views"):
        materialise(module, "v", per_minute)
    with pytest.raises(StreamDeclarationError, match="cannot be the name"):
        materialise(module, "stream_status", per_minute)
