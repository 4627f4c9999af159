"""The wall clock is set, forwards and backwards, while sagas sleep, wait and run."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from tests.sagas.rig import hosting, later, settings, until

from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.sagas import Saga, SagaTimedOut

shop = Module("shop")
seen: list[str] = []
DAY_S = 86_400.0


class Wall(ManualClock):
    """A machine whose wall clock somebody sets; what passes, passes as before."""

    def __init__(self) -> None:
        super().__init__()
        self._set_by = timedelta()

    def set_by(self, seconds: float) -> None:
        self._set_by += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._set_by


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


async def do(what: str) -> str:
    seen.append(what)
    return what


@shop.saga
async def sleeper(s: Saga, seconds: float) -> datetime:
    await s.step(do, "before")
    await s.sleep(seconds)
    await s.step(do, "after")
    return s.now()


@shop.saga(timeout_s=3600)
async def hurried(s: Saga) -> str:
    return await s.wait_signal("word", str)


async def at_the_third() -> str:
    await do("tried")
    if len(seen) < 3:
        raise ValueError("not yet")
    return "done"


@shop.saga
async def stubborn(s: Saga) -> str:
    return await s.step(at_the_third)


@pytest.mark.parametrize("moves", ["clock", "pace"])
async def test_a_pause_between_attempts_ends_as_time_passes_or_is_moved(db: Database, moves: str):
    """The next attempt is made when either says so, and not before; the other may stand still for ever."""
    clock, pace = ManualClock(), ManualClock()
    patient = settings(step_backoff_s=100.0, idle_s=3600.0, step_attempts=5)
    async with hosting(shop, db, clock, settings=patient, pace=pace) as host:
        running = asyncio.get_running_loop().create_task(host.sagas.run(stubborn))
        for attempts in (1, 2):
            await until(lambda attempts=attempts: len(seen) == attempts)
            await until(lambda: bool(next(iter(host.engine.running.values())).waits))
            moved = clock if moves == "clock" else pace
            moved.advance(10)
            await asyncio.sleep(0)
            assert len(seen) == attempts
            moved.advance(300)
        assert await asyncio.wait_for(running, 20) == "done"
    assert len(seen) == 3


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S], ids=["forwards", "backwards"])
async def test_no_lease_ends_because_a_clock_was_set(db: Database, by_s: float):
    """Both processes keep their place, and what they run goes on."""
    clock = Wall()
    async with hosting(shop, db, clock) as one, hosting(shop, db, clock, owner="elsewhere/2/2") as two:
        owners = one.engine.owner, two.engine.owner
        clock.set_by(by_s)
        await later(clock, 10)
        assert (one.engine.owner, two.engine.owner) == owners
        running = asyncio.get_running_loop().create_task(two.sagas.run(sleeper, 1.0))
        await until(lambda: seen == ["before"])
        await later(clock, 2)
        await asyncio.wait_for(running, 20)
    assert seen == ["before", "after"]


async def test_a_sleeper_wakes_when_the_wall_clock_says_so(db: Database):
    """Set forwards past its time: it wakes at the next look, though little time has passed. Its own time never goes
    back, whatever becomes of the clock afterwards."""
    clock = Wall()
    async with hosting(shop, db, clock) as host:
        begun = clock.now()
        handle = await host.sagas.start(sleeper, 7200.0)
        await until(lambda: seen == ["before"] and not host.engine.running)
        clock.set_by(-3600)
        await later(clock, 2)
        assert seen == ["before"]
        clock.set_by(3600 + 7200)
        await later(clock, 2)
        woken = await handle.result(20)
    assert seen == ["before", "after"]
    assert woken >= begun + timedelta(seconds=7200)


async def test_a_saga_out_of_time_ends_when_the_wall_clock_says_so(db: Database):
    """Also where it has left memory."""
    clock = Wall()
    async with hosting(shop, db, clock) as host:
        handle = await host.sagas.start(hurried)
        await later(clock, 1)
        await until(lambda: not host.engine.running)
        clock.set_by(3601)
        await later(clock, 2)
        with pytest.raises(SagaTimedOut):
            await handle.result(20)
