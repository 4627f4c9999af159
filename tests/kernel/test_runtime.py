"""How a process fares is told by OpenTelemetry's names; who holds up its loop is found out."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from seamline.kernel.signal.measures import Histogram, Measure
from seamline.kernel.signal.profile import Profiler
from seamline.kernel.signal.runtime import Runtime
from seamline.kernel.signal.watchdog import Blocked, waits

HERE = {"kernel_tests": str(Path(__file__).parent)}


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    made = Runtime(folders=HERE)
    made.start()
    yield made
    made.stop()


def by_name(measures: list[Measure], name: str, kind: str = "") -> Measure:
    (found,) = [measure for measure in measures if measure.name == name and kind in ("", *measure.attributes.values())]
    return found


async def test_the_process_is_measured(runtime: Runtime):
    """Gauges are what is, counters what was added since they were taken last."""
    runtime.take()
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    gc.collect()
    found = runtime.take()
    used = sum(by_name(found, "process.cpu.time", mode).value for mode in ("user", "system"))
    assert 0.04 < used < 5
    assert by_name(found, "process.memory.usage").value > 10_000_000
    assert by_name(found, "process.thread.count").value >= 2
    assert by_name(found, "seamline.tasks").value >= 1
    if sys.platform == "linux":
        assert by_name(found, "process.unix.file_descriptor.count").value > 3
    assert by_name(found, "cpython.gc.collections", "2").value == 1
    assert by_name(found, "cpython.gc.collections", "2").kind == "counter"
    assert by_name(found, "seamline.gc.pause").count >= 1
    assert by_name(runtime.take(), "cpython.gc.collections", "2").value == 0


def hold_up(seconds: float) -> None:
    time.sleep(seconds)  # the fault that is looked for


@pytest.mark.parametrize("profiled", [True, False], ids=["profiled", "by its stack"])
async def test_who_holds_up_the_loop_is_found_while_it_does(profiled: bool):
    """With its module, its stack and for how long; the profiler knows the module, else the code's folder does."""
    profiler = Profiler(50, lambda: "cart")
    runtime = Runtime(profiler, HERE)
    if profiled:
        profiler.start()
    runtime.start()
    try:
        hold_up(0.5)
        await asyncio.sleep(0)  # it turns
        await asyncio.sleep(0)
        found = [each for each in runtime.take_blocked() if "hold_up" in each.stack]
        lag = by_name(runtime.take(), "seamline.loop.lag")
    finally:
        runtime.stop()
        profiler.stop()
    assert {each.module for each in found} == {"cart" if profiled else "kernel_tests"}
    assert 0.4e9 < sum(each.wall_ns for each in found) < 5e9
    assert all(each.stack.split(";")[-1].startswith("hold_up (") for each in found)
    assert lag.value > 0.4
    assert lag.buckets.keys() & {"0.5", "1", "2.5", "5"}


def count_far() -> None:
    sum(range(15_000_000))


async def test_what_lets_no_other_thread_run_is_found_right_after_it(runtime: Runtime):
    """A long call into C keeps the watchdog out, too; it sees what is there when it may run again."""
    found: list[Blocked] = []
    deadline = time.monotonic() + 30
    while not found and time.monotonic() < deadline:  # without CPU of its own it looks as if it only waited for some
        await asyncio.sleep(0.06)
        count_far()
        await asyncio.sleep(0.06)
        found += [each for each in runtime.take_blocked() if "count_far" in each.stack or "test_what" in each.stack]
    assert found[0].module == "kernel_tests"
    assert found[0].wall_ns > 0.1e9


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_that_only_waits_holds_nobody_up(make: Callable[[], asyncio.AbstractEventLoop]):
    """Its thread's innermost frame is the loop's own, also when the machine gives it no time."""
    loop = make()
    idle = threading.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(stay())

    async def stay() -> None:
        ended = asyncio.get_running_loop().create_future()
        ends.append(ended)
        idle.set()
        await ended

    ends: list[asyncio.Future[None]] = []
    thread = threading.Thread(target=run)
    thread.start()
    idle.wait()
    deadline = time.monotonic() + 10
    while not _waits(thread) and time.monotonic() < deadline:  # it is on its way there
        time.sleep(0.001)
    assert _waits(thread)
    loop.call_soon_threadsafe(ends[0].set_result, None)
    thread.join()


def _waits(thread: threading.Thread) -> bool:
    frame: Any = sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage]
    return waits(frame)


def test_a_blocking_call_of_a_library_is_no_waiting_loop():
    """``select`` that is called by somebody else than the loop holds it up."""
    import selectors

    selector = selectors.DefaultSelector()
    thread = threading.Thread(target=selector.select, args=(0.5,))
    thread.start()
    seen = set[bool]()
    while thread.is_alive():
        frame: Any = sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage]
        if frame is not None and frame.f_code.co_name == "select":
            seen.add(waits(frame))
        thread.join(0.01)
    selector.close()
    assert seen == {False}


async def test_memory_that_grew_is_found_by_who_asks(runtime: Runtime):
    """Nothing is followed before somebody asks; then the most grown stack stands first, with its module."""
    assert runtime.take_memory() == []
    runtime.begin_memory()
    kept = [bytearray(1_000) for _ in range(3_000)]
    module, stack, grown = runtime.take_memory(top=1)[0]
    runtime.end_memory()
    assert module == "kernel_tests"
    assert "test_runtime.py" in stack
    assert grown > 2_500_000
    assert len(kept) == 3_000
    assert runtime.take_memory() == []


def test_a_histograms_buckets_are_its_upper_bounds():
    """A value on a bound is below it; what is above all is in ``inf``; empty buckets are not told."""
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 2, 9):
        histogram.add(value)
    taken = histogram.take("x", "m", "s", {})
    assert taken == Measure("x", 12.5, "m", "histogram", "s", {}, 4, {"1": 2, "2.5": 1, "inf": 1})
    assert histogram.take("x", "m", "s", {}) is None


async def test_stopped_it_leaves_nothing_behind():
    """No thread, no callback of the collector, no timer; a second stop does nothing."""
    before = threading.active_count(), len(gc.callbacks)
    runtime = Runtime()
    runtime.start()
    runtime.start()
    assert threading.active_count() == before[0] + 1
    runtime.stop()
    runtime.stop()
    assert (threading.active_count(), len(gc.callbacks)) == before
