"""Coroutines start at once, in tasks that are used again and never mix up their calls."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from seamline.kernel.lifetime import Runners, TaskOwner

_VARIABLE = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
async def runners() -> AsyncIterator[Runners]:
    pool = Runners()
    yield pool
    await pool.stop()


async def in_a_callback(function: Callable[[], None]) -> None:
    """Run outside of any task, as a protocol's data_received does."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run() -> None:
        try:
            function()
        finally:
            done.set_result(None)

    loop.call_soon(run)
    await done


async def test_a_coroutine_that_does_not_wait_ends_within_start(runners: Runners):
    """No tick of the loop passes, once the pool has a parked task."""
    seen: list[object] = []

    async def quick() -> None:
        seen.append(asyncio.current_task())

    runners.start(quick())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    def start() -> None:
        assert runners.start(quick()).done
        assert runners.start(quick()).done

    await in_a_callback(start)
    assert len(seen) == 3
    assert None not in seen


async def test_decimal_arithmetic_does_not_use_up_a_task_unless_it_changes_the_arithmetic(runners: Runners):
    """Writing a Decimal leaves its context in the task; a handler that sets the precision leaves it to nobody."""
    tasks: list[object] = []
    precisions: list[int] = []

    async def work(precision: int) -> None:
        tasks.append(asyncio.current_task())
        precisions.append(decimal.getcontext().prec)
        if precision:
            decimal.getcontext().prec = precision

    for precision in (0, 0, 7, 0):
        job = work(precision)

        def start(job: Coroutine[Any, Any, None] = job) -> None:
            runners.start(job)

        await in_a_callback(start)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert tasks[0] is tasks[1] is tasks[2]
    assert tasks[3] is not tasks[2]
    assert precisions == [decimal.DefaultContext.prec] * 4


async def test_a_waiting_coroutine_is_an_ordinary_task(runners: Runners):
    """asyncio.timeout, task groups and cancellation work from the first step on."""
    seen: list[str] = []

    async def waits() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        seen.append("group")
        await asyncio.sleep(10)

    running = runners.start(waits())
    async with asyncio.timeout(5):
        while seen != ["timeout", "group"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    running.cancel()
    async with asyncio.timeout(5):
        while not running.done:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_cancelled_task_serves_the_next_call_unharmed(runners: Runners):
    """Neither the cancellation nor a swallowed one leaks into the call that follows."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    seen: list[int] = []

    async def polite() -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(task.cancelling())
        await asyncio.sleep(0)
        seen.append(1)

    for _ in range(5):
        running = runners.start(stubborn())
        await asyncio.sleep(0.002)
        running.cancel()
        running.cancel()
        await asyncio.sleep(0.002)
        assert running.done
        running.cancel()
        runners.start(polite())
        await asyncio.sleep(0.002)
    assert seen == [0, 1] * 5


async def test_context_variables_do_not_reach_the_next_call(runners: Runners):
    """What one handler sets, no other sees."""
    seen: list[str] = []

    async def sets() -> None:
        seen.append(_VARIABLE.get())
        _VARIABLE.set("left behind")
        await asyncio.sleep(0)
        seen.append(_VARIABLE.get())

    for _ in range(3):
        runners.start(sets())
        await asyncio.sleep(0.002)
    assert seen == ["unset", "left behind"] * 3


async def test_started_from_within_a_task_it_still_runs(runners: Runners):
    """A start from inside a task cannot run at once; it runs in the next tick."""
    seen: list[int] = []

    async def quick() -> None:
        seen.append(1)

    for _ in range(3):
        runners.start(quick())
    await asyncio.sleep(0.002)
    assert seen == [1, 1, 1]


async def test_stop_cancels_what_runs():
    """Nothing is left behind."""
    pool = Runners()
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    pool.start(long())
    pool.start(long())
    await asyncio.sleep(0)
    await pool.stop()
    assert ended == ["ended", "ended"]


async def test_an_owner_tells_of_failures():
    """A background task's error is not lost: it is logged, and raised at the end."""
    owner = TaskOwner("test")

    async def fails() -> None:
        raise ValueError

    owner.spawn(fails())
    await asyncio.sleep(0)
    with pytest.raises(ValueError):
        await owner.stop()
    async with TaskOwner() as other:
        other.spawn(asyncio.sleep(60))


async def test_a_coroutine_cancelled_before_its_first_step_still_cleans_up(runners: Runners):
    """It begins, and is cancelled where it first waits: what it took (a place, a lock) is given back."""
    seen: list[str] = []

    async def takes_a_place() -> None:
        seen.append("taken")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("given back")

    running = runners.start(takes_a_place())
    running.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == ["taken", "given back"]
    assert running.done


async def test_a_late_cancellation_by_a_past_handler_reaches_nobody(runners: Runners):
    """A task that a handler kept hold of, cancelled while it is parked, serves the next call unharmed."""
    kept: list[asyncio.Task[None]] = []
    seen: list[str] = []

    async def keeps() -> None:
        task = asyncio.current_task()
        assert task is not None
        kept.append(task)

    async def next_call() -> None:
        assert asyncio.current_task() is kept[0]
        await asyncio.sleep(0)
        seen.append("unharmed")

    runners.start(keeps())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    def cancel_and_start() -> None:
        kept[0].cancel()
        runners.start(next_call())

    await in_a_callback(cancel_and_start)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == ["unharmed"]


async def test_a_handler_that_cancels_itself_and_returns_leaves_no_trace(runners: Runners):
    """The cancellation it asked for dies with it."""
    seen: list[int] = []

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def polite() -> None:
        await asyncio.sleep(0)
        seen.append(1)

    for _ in range(3):
        runners.start(cancels_itself())
        await asyncio.sleep(0.002)
        await in_a_callback(lambda: runners.start(polite()) and None)
        await asyncio.sleep(0.002)
    assert seen == [1, 1, 1]


async def test_a_stopped_pool_starts_nothing():
    """A frame that comes after the stop leaves neither a task nor an unawaited coroutine."""
    pool = Runners()
    await pool.stop()

    async def never() -> None:
        raise AssertionError

    assert pool.start(never()).done
