"""A module with sagas, in one process; what they need while they sleep, and how soon they go on after a crash.

``python -m benchmarks.ours.sagas sleepers <count> <url>`` or ``... recovery <url>`` prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.driver import run, say
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings.sections import SagasSettings
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.module.wiring import Wiring
from seamline.sagas import Saga, Sagas
from seamline.sagas.runtime import SagasRuntime

bench = Module("bench")


async def add_one(number: int) -> int:
    return number + 1


@bench.saga
async def three_steps(s: Saga, number: int) -> int:
    number = await s.step(add_one, number)
    number = await s.step(add_one, number)
    return await s.step(add_one, number)


@bench.saga
async def sleeper(s: Saga, seconds: float) -> int:
    number = await s.step(add_one, 1)
    await s.sleep(seconds)
    return await s.step(add_one, number)


@bench.saga
async def held_up(s: Saga, mark: str) -> None:
    await s.step(wait_unless_marked, mark, timeout_s=3600)


async def wait_unless_marked(mark: str) -> None:
    path = Path(mark)
    if not path.exists():
        path.write_text(str(os.getpid()), encoding="ascii")
        await asyncio.sleep(3600)
    path.with_suffix(".done").write_text(repr(time.time()), encoding="ascii")


@asynccontextmanager
async def engine(url: str, **settings: Any) -> AsyncGenerator[Sagas]:
    async with Database(url, "bench") as database:
        runtime = SagasRuntime("bench", SagasSettings(**settings), SystemClock())
        runtime.add(bench, database, Wiring(bench, {}, {Database: lambda _: database}))
        await runtime.start()
        try:
            yield runtime.sagas_of(bench)
        finally:
            await runtime.drain(10)
            await runtime.stop()


async def sleepers(count: int, url: str) -> dict[str, Any]:
    """Memory before, and while so many sagas sleep."""
    async with engine(url) as sagas:
        await sagas.run(three_steps, 1)
        gc.collect()
        before = psutil.Process().memory_info().rss
        for _ in range(count // 500):
            await asyncio.gather(*(sagas.start(sleeper, 86_400.0) for _ in range(500)))
        runtime_engine = sagas._engine
        while runtime_engine.running:
            await asyncio.sleep(0.1)
        gc.collect()
        after = psutil.Process().memory_info().rss
    return {"bytes_per_sleeper": (after - before) / count, "rss_mb": after / 2**20}


async def recovery(url: str) -> dict[str, Any]:
    """A second process is killed in the middle of a saga's step; how long until this one has done the step."""
    folder = Path(tempfile.mkdtemp())
    mark = folder / "mark"
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.ours.sagas", "hold", str(mark), url)
    while not mark.exists():
        await asyncio.sleep(0.01)
    async with engine(url):
        await asyncio.sleep(1)
        child.send_signal(signal.SIGKILL)
        killed = time.time()
        await child.wait()
        done = mark.with_suffix(".done")
        while not done.exists() or not done.read_text():
            await asyncio.sleep(0.005)
        return {"recovery_s": float(done.read_text()) - killed}


async def hold(mark: str, url: str) -> None:
    async with engine(url) as sagas:
        await sagas.run(held_up, mark)


async def main(what: str, *arguments: str) -> None:
    match what:
        case "sleepers":
            say(await sleepers(int(arguments[0]), arguments[1]))
        case "recovery":
            say(await recovery(arguments[0]))
        case _:
            await hold(*arguments)


if __name__ == "__main__":
    run(lambda: main(*sys.argv[1:]))
