"""The engine among its surroundings: schedules, traces, full disks, lost answers, messages at the wrong moment."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.sagas.rig import Host, hosting, later, settings, until

from seamline.kernel.clock import ManualClock
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database, sqlite_url
from seamline.module import Module, current
from seamline.sagas import Saga, SagaBusyError

seen: list[str] = []


class Gate:
    """Closed at the beginning of each test."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def clear(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


gate = Gate()


@pytest.fixture(autouse=True)
def begin_anew():
    seen.clear()
    gate.clear()


async def do(what: str) -> str:
    seen.append(what)
    return what


async def held_up(what: str) -> str:
    await gate.wait()
    return await do(what)


hourly = Module("shop")


@hourly.saga(cron="0 * * * *")
async def report(s: Saga) -> str:
    return await s.step(do, s.key)


async def test_a_schedule_starts_one_saga_at_each_time_among_all_processes(db: Database):
    """Two of them; times that were slept through are one."""
    clock = ManualClock(datetime(2026, 1, 1, 11, 59, 30, tzinfo=UTC))
    async with hosting(hourly, db, clock), hosting(hourly, db, clock, owner="elsewhere/2/2"):
        await later(clock, 60, 30)
        await until(lambda: seen)
        await later(clock, 3600, 1800)
        await until(lambda: len(seen) == 2)
        clock.advance(3 * 3600)
        await until(lambda: len(seen) == 3)
    assert seen == [f"cron 2026-01-01T{hour}:00+00:00" for hour in (12, 13, 16)]


traced = Module("shop")
trace_ids: list[int] = []


async def tell_trace() -> None:
    context = current()
    assert context is not None
    assert context.trace is not None
    trace_ids.append(context.trace.trace_id)
    await gate.wait()


@traced.saga
async def follows(s: Saga) -> None:
    await s.step(do, "one")
    await s.step(tell_trace)
    await s.step(tell_trace)


async def test_a_saga_keeps_one_trace_over_its_life_and_each_step_is_a_span(db: Database):
    """Also over a crash."""
    clock = ManualClock()
    tracer = Tracer(1.0)
    host = await Host(traced, db, clock, tracer=tracer).start()
    handle = await host.sagas.start(follows)
    await until(lambda: trace_ids)
    await host.crash()
    gate.set()
    async with hosting(traced, db, clock, owner="elsewhere/2/2", tracer=tracer) as other:
        await later(clock, 5)
        await other.sagas.handle(handle.id).result(20)
    assert len(set(trace_ids)) == 1
    spans = [span for span in tracer.take() if span.trace_id == trace_ids[0]]
    whole = next(span for span in spans if span.name == "saga follows")
    assert next(span.name for span in spans if span.parent_id == whole.span_id) == "step do"
    assert len([span for span in spans if span.name == "step tell_trace" and span.status == "ok"]) == 2
    trace_ids.clear()


plain = Module("shop")


@plain.saga
async def two(s: Saga, text: str) -> str:
    await s.step(held_up, "one")
    return await s.step(do, text)


async def page_limit(db: Database, pages: int) -> None:
    await db.raw(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def test_a_full_disk_stops_sagas_and_refuses_new_ones_and_loses_nothing(tmp_path: Path):
    """They go on when there is room again."""
    clock = ManualClock()
    async with Database(sqlite_url(tmp_path, "shop"), "shop") as db, hosting(plain, db, clock) as host:
        handle = await host.sagas.start(two, "first")
        await page_limit(db, 1)
        with pytest.raises(SagaBusyError, match="full"):
            await host.sagas.start(two, "x" * 100_000)
        gate.set()
        await until(lambda: seen)
        with pytest.raises(SagaBusyError):
            await host.sagas.start(two, "second")
        await page_limit(db, 1_000_000)
        await later(clock, 1.5)
        assert await handle.result(20) == "first"
        assert await host.sagas.run(two, "third") == "third"


async def test_a_message_that_comes_while_its_saga_leaves_memory_wakes_it(db: Database):
    """It does not count as seen."""
    listening = Module("shop")

    @listening.saga
    async def listener(s: Saga) -> str:
        return await s.wait_signal("word", str)

    async with hosting(listening, db, settings=settings(idle_s=60)) as host:
        handle = await host.sagas.start(listener)
        engine: Any = host.engine
        await until(lambda: handle.id in engine.running and engine.running[handle.id].waits)
        keep = engine.keep

        async def slowly(*arguments: Any) -> None:
            await gate.wait()
            await keep(*arguments)

        engine.keep = slowly
        engine.running[handle.id].close(None)
        await handle.signal("word", "now")
        gate.set()
        assert await handle.result(20) == "now"


async def test_a_saga_whose_claim_was_lost_is_set_free(db: Database):
    """It is ours on disk, and nobody runs it."""
    clock = ManualClock()
    gate.set()
    async with hosting(plain, db, clock) as host:
        engine = host.engine
        kind = engine.by_name["two"]
        saga, *_, row = engine.starts.row(kind, b'{"text":"lost"}', "", "", owned=True)
        statement = (
            "INSERT INTO seamline_sagas (id, type, key, version, status, owner, due_ms, created_ms, began_ms, "
            "updated_ms, input, crc, trace, parent, subject) "
            "VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        await engine.journal.store.run([(statement, row)])
        await later(clock, 12, 0.5)
        assert await host.sagas.handle(saga).result(20) == "lost"


async def test_what_ended_long_ago_is_forgotten(db: Database):
    """With its journal; what goes on, or ended lately, stays."""
    clock = ManualClock()
    async with hosting(plain, db, clock) as host:
        going_on = await host.sagas.start(two, "long")
        gate.set()
        await host.sagas.run(two, "old")
        await going_on.result(20)
        gate.clear()
        going_on = await host.sagas.start(two, "longer")
        clock.advance(100)
        journal = host.engine.journal
        assert await journal.forget(host.engine.now_ms() - 200_000) == 0
        assert await journal.forget(host.engine.now_ms() - 50_000) == 2
        assert await journal.store.read("SELECT saga FROM seamline_saga_journal") == []
        gate.set()
        assert await going_on.result(20) == "longer"


async def test_callers_that_give_up_leave_the_saga_to_go_on(db: Database):
    """And may ask for its result again, by its key."""
    async with hosting(plain, db) as host:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await host.sagas.run(two, "late", key="k")
        gate.set()
        assert await host.sagas.run(two, "late", key="k") == "late"
        assert seen == ["one", "late"]


def test_the_journal_is_readable_with_sqlite_alone(tmp_path: Path):
    """For the day on which nothing else works."""

    async def once() -> None:
        gate.set()
        async with Database(sqlite_url(tmp_path, "shop"), "shop") as db, hosting(plain, db) as host:
            await host.sagas.run(two, "plainly")

    asyncio.run(once())
    with sqlite3.connect(tmp_path / "db" / "shop.sqlite3") as connection:
        entries = connection.execute(
            "SELECT entry ->> 'name', entry ->> 'output' FROM seamline_saga_journal"
        ).fetchall()
    assert entries == [("held_up", "one"), ("do", "plainly")]
