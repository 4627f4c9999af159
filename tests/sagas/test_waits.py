"""What sagas wait for: time, signals, people, children; and that they need no memory meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from tests.sagas.rig import FAST, hosting, later, settings, until

from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database
from seamline.module import Fault, Module
from seamline.sagas import (
    Approval,
    ApprovalExpired,
    Saga,
    SagaCancelled,
    SagaEndedError,
    SagasError,
    SagaTimedOut,
    StepFailed,
    UnknownSagaError,
    WaitExpired,
)

shop = Module("shop")
seen: list[str] = []


class Refused(Fault):
    """Somebody said no."""

    by: str


async def do(what: str) -> str:
    seen.append(what)
    return what


async def take_back(what: str) -> None:
    seen.append(f"not {what}")


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


@shop.saga
async def sleeper(s: Saga, seconds: float) -> datetime:
    await s.step(do, "before")
    await s.sleep(seconds)
    await s.step(do, "after")
    return s.now()


@pytest.mark.parametrize("seconds", [2.0, 7200.0])
async def test_a_saga_sleeps_by_the_wall_clock(db: Database, seconds: float):
    """Not shorter; and beyond a moment it leaves memory meanwhile."""
    clock = ManualClock()
    async with hosting(shop, db, clock, settings=settings(idle_s=5.0)) as host:
        handle = await host.sagas.start(sleeper, seconds)
        await until(lambda: seen == ["before"])
        await until(lambda: bool(host.engine.running) == (seconds < 5))
        await later(clock, seconds - 1, max(seconds / 8, 0.5))
        assert seen == ["before"]
        await later(clock, 2)
        woken = await handle.result(20)
    assert seen == ["before", "after"]
    assert woken >= datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


async def test_a_sleeping_saga_is_woken_by_another_process(db: Database):
    """The one it fell asleep in has ended."""
    clock = ManualClock()
    async with hosting(shop, db, clock) as host:
        handle = await host.sagas.start(sleeper, 3600)
        await until(lambda: seen == ["before"] and not host.engine.running)
    async with hosting(shop, db, clock, owner="elsewhere/2/2") as other:
        clock.advance(3601)
        await other.sagas.handle(handle.id).result(20)
    assert seen == ["before", "after"]


@shop.saga
async def listener(s: Saga, patience_s: float | None) -> str:
    return await s.wait_signal("word", str, patience_s)


@pytest.mark.parametrize("idle", [0.0, 60.0])
async def test_a_signal_reaches_a_saga_in_memory_and_out_of_it(db: Database, idle: float):
    """It comes with its value."""
    async with hosting(shop, db, settings=settings(idle_s=idle)) as host:
        handle = await host.sagas.start(listener, None)
        await until(lambda: not host.engine.running or idle)
        await handle.signal("word", "hello")
        assert await handle.result(20) == "hello"


@shop.saga
async def late_listener(s: Saga) -> list[str]:
    await s.wait_signal("begin", type(None))
    return [await s.wait_signal("word", str), await s.wait_signal("word", str)]


async def test_signals_sent_early_are_kept_in_their_order(db: Database):
    """Nobody waited for them yet."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(late_listener)
        await handle.signal("word", "one")
        await handle.signal("word", "two")
        await handle.signal("begin")
        assert await handle.result(20) == ["one", "two"]
        with pytest.raises(SagaEndedError):
            await handle.signal("word", "three")
        with pytest.raises(UnknownSagaError):
            await host.sagas.handle("nobody").signal("word", "x")


async def test_a_signal_from_another_process_arrives(db: Database):
    """One sends, the other runs the saga; nobody but the database tells it."""
    async with hosting(shop, db) as host, hosting(shop, db, owner="elsewhere/2/2") as other:
        handle = await host.sagas.start(listener, None)
        other.engine.draining = True  # it only sends
        await other.sagas.handle(handle.id).signal("word", "far")
        assert await handle.result(20) == "far"


async def test_a_signal_that_does_not_fit_fails_the_wait(db: Database):
    """With an error that says so."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(listener, None)
        await handle.signal("word", 5)
        with pytest.raises(StepFailed, match="does not fit"):
            await handle.result(20)


@pytest.mark.parametrize("idle", [0.0, 60.0])
@pytest.mark.parametrize("here", [True, False], ids=["its own process is asked", "another is asked"])
async def test_a_persons_slip_is_refused_and_the_saga_waits_on(db: Database, idle: float, here: bool):
    """In memory and out of it; the refusal names the field's path, and what fits is taken afterwards."""
    async with (
        hosting(shop, db, settings=settings(idle_s=idle)) as host,
        hosting(shop, db, settings=settings(idle_s=idle, running_max=0), owner="elsewhere/2/2") as other,
    ):
        handle = await host.sagas.start(address_wanted)
        await until(lambda: seen == ["before"] and (not host.engine.running or idle))

        async def shown() -> bool:
            return bool((await handle.status()).waiting)

        await until(shown)
        asked = host if here else other
        for value in ('{"lines": [1]}', '"Long Row 5"', "null"):
            with pytest.raises(SagasError, match=r"signal 'address'.* `\$\.lines\[0\]`|Expected `object`") as refused:
                await asked.runtime.admin("signal", {"id": handle.id, "name": "address", "value": value})
            assert "waits on" in refused.value.remedy
        assert (await handle.status()).status == "running"
        told = await asked.runtime.admin(
            "signal", {"id": handle.id, "name": "address", "value": '{"lines": ["Long Row 5"]}'}
        )
        assert told["awaited"]
        assert await handle.result(20) == ["Long Row 5"]
    assert seen == ["before"]


@dataclass
class Address:
    lines: list[str]


@shop.saga
async def address_wanted(s: Saga) -> list[str]:
    await s.step(do, "before", undo=take_back)
    return (await s.wait_signal("address", Address)).lines


async def test_a_persons_slip_does_not_harm_a_saga_that_does_not_wait_for_it_yet(db: Database):
    """It is kept, and refused when its time comes."""
    async with hosting(shop, db, settings=settings(idle_s=0.0)) as host:
        handle = await host.sagas.start(late_listener)
        told = await host.runtime.admin("signal", {"id": handle.id, "name": "word", "value": "5"})
        assert not told["awaited"]
        await handle.signal("begin")
        await handle.signal("word", "one")
        await handle.signal("word", "two")
        assert await handle.result(20) == ["one", "two"]


async def test_a_wait_expires(db: Database):
    """WaitExpired, when nothing came in time."""
    clock = ManualClock()
    async with hosting(shop, db, clock) as host:
        handle = await host.sagas.start(listener, 90.0)
        await until(lambda: handle.id in host.engine.running)
        await later(clock, 91, 1)
        with pytest.raises(WaitExpired):
            await handle.result(20)


@shop.saga
async def reviewed(s: Saga, cents: int) -> str:
    await s.step(do, "hold", undo=take_back)
    found = await s.approval("fraud", 3600, cents=cents)
    if not found.approved:
        raise Refused(by=found.by)
    return found.comment


async def test_a_person_approves(db: Database):
    """They see what was shown; who they are and what they say arrive."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(reviewed, 900)
        await until(lambda: not host.engine.running)
        info = await handle.status()
        assert info.waiting[0].startswith("approval fraud until ")
        await handle.approve("fraud", by="ada", comment="fine")
        assert await handle.result(20) == "fine"


async def test_a_person_refuses_and_the_saga_is_undone(db: Database):
    """Approval(approved=False) is an answer."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(reviewed, 900)
        await handle.approve("fraud", by="bob", approved=False)
        with pytest.raises(Refused):
            await handle.result(20)
    assert seen == ["hold", "not hold"]
    assert Approval(False, "bob").by == "bob"


async def test_an_approval_expires(db: Database):
    """And what was held is let go."""
    clock = ManualClock()
    async with hosting(shop, db, clock) as host:
        handle = await host.sagas.start(reviewed, 900)
        await until(lambda: not host.engine.running)
        clock.advance(3601)
        with pytest.raises(ApprovalExpired):
            await handle.result(20)
    assert seen == ["hold", "not hold"]


async def test_a_cancelled_saga_is_undone(db: Database):
    """Wherever it waits; the reason is in the error."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(reviewed, 900)
        await until(lambda: seen == ["hold"])
        await handle.cancel("changed my mind")
        with pytest.raises(SagaCancelled, match="changed my mind"):
            await handle.result(20)
        assert (await handle.status()).status == "cancelled"
    assert seen == ["hold", "not hold"]


@shop.saga(timeout_s=10)
async def hurried(s: Saga) -> None:
    await s.step(do, "hold", undo=take_back)
    await s.sleep(3600)


async def test_a_saga_that_takes_too_long_is_undone(db: Database):
    """Though it had left memory."""
    clock = ManualClock()
    async with hosting(shop, db, clock) as host:
        handle = await host.sagas.start(hurried)
        await until(lambda: seen == ["hold"] and not host.engine.running)
        await later(clock, 11, 1)
        with pytest.raises(SagaTimedOut):
            await handle.result(20)
    assert seen == ["hold", "not hold"]


@shop.saga
async def parent(s: Saga, what: list[str]) -> list[str]:
    return await s.gather(*(s.child(child, each) for each in what))


@shop.saga
async def child(s: Saga, what: str) -> str:
    if what == "bad":
        raise Refused(by="child")
    if what == "slow":
        await s.wait_signal("go", type(None))
    return await s.step(do, what, undo=take_back)


async def test_children_give_their_results(db: Database):
    """Each is a saga of its own, with its parent's name."""
    async with hosting(shop, db) as host:
        assert await host.sagas.run(parent, ["a", "b"]) == ["a", "b"]
    assert sorted(seen) == ["a", "b"]


async def test_a_childs_fault_reaches_its_parent(db: Database):
    """As itself."""
    async with hosting(shop, db) as host:
        with pytest.raises(Refused):
            await host.sagas.run(parent, ["a", "bad"])


async def test_a_parent_that_left_memory_hears_of_its_child(db: Database):
    """The child's end wakes it."""
    async with hosting(shop, db, settings=settings(idle_s=0.0)) as host:
        handle = await host.sagas.start(parent, ["slow"])
        rows = await until(lambda: host.engine.journal.store.read("SELECT id FROM seamline_sagas WHERE type = 'child'"))
        await until(lambda: not host.engine.running)
        await host.sagas.handle(rows[0][0]).signal("go")
        assert await handle.result(20) == ["slow"]


async def test_cancelling_a_parent_cancels_its_child(db: Database):
    """And waits for its end."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(parent, ["slow"])
        rows = await until(lambda: host.engine.journal.store.read("SELECT id FROM seamline_sagas WHERE type = 'child'"))
        await handle.cancel("enough")
        with pytest.raises(SagaCancelled):
            await handle.result(20)
        info = await host.sagas.handle(rows[0][0]).status()
        assert info.status == "cancelled"
        assert info.parent == handle.id


@shop.saga
async def counter(s: Saga, n: int, most: int) -> int:
    await s.step(do, f"{n}")
    s.note(n=n)
    if n < most:
        return s.continue_as_new(n + 1, most)
    return n


async def test_a_saga_continues_as_new(db: Database):
    """Under its id, with a journal that begins anew, and its keys are other ones."""
    async with hosting(shop, db) as host:
        handle = await host.sagas.start(counter, 0, 5)
        assert await handle.result(20) == 5
        assert await handle.query() == {"n": 5}
        found = await host.engine.journal.entries([handle.id])
        assert len(found[handle.id]) == 1
    assert seen == [str(n) for n in range(6)]


@shop.saga
async def lots(s: Saga) -> list[str]:
    first = [str(s.uuid()), str(s.random())]
    await s.step(do, "x")
    return [*first, str(s.uuid()), s.id, s.key]


async def test_chance_is_the_same_in_each_run_and_different_for_each_saga(db: Database):
    """s.uuid() and s.random()."""
    async with hosting(shop, db) as host:
        one, other = await host.sagas.run(lots, key="a"), await host.sagas.run(lots, key="b")
    assert len({*one, *other}) == 10
    assert FAST.step_attempts == 3


async def test_a_thousand_sleepers_need_no_memory(db: Database):
    """They all leave, and all come back."""
    clock = ManualClock()
    async with hosting(shop, db, clock) as host:
        handles = await asyncio.gather(*(host.sagas.start(sleeper, 3600 + n / 1000) for n in range(1000)))
        await until(lambda: not host.engine.running)
        clock.advance(3700)
        await asyncio.gather(*(handle.result(60) for handle in handles))
    assert seen.count("after") == 1000
