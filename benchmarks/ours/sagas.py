"""Three-step sagas with trivial steps, started and awaited by many callers in the process that runs them.

``python -m benchmarks.ours.sagas [seconds] [callers] [url]`` prints one line of JSON; with ``sleepers [count]`` it
measures the memory that so many sleeping sagas need, and with ``recovery`` how long a dead worker's sagas stand still.
"""

from __future__ import annotations

import asyncio
import gc
import json
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
import uvloop

from seamline.kernel.clock import SystemClock
from seamline.kernel.lifetime import spare_the_collector
from seamline.kernel.settings.sections import SagasSettings
from seamline.kernel.store import Database, sqlite_url
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


async def run(seconds: float, callers: int, url: str) -> dict[str, Any]:
    """Sagas per second, latency in milliseconds and CPU microseconds for each, of ``callers`` that wait for each."""
    latencies: list[float] = []
    async with engine(url) as sagas:
        await sagas.run(three_steps, 1)
        spare_the_collector()
        begin, cpu = time.perf_counter(), time.process_time()
        end = begin + seconds

        async def caller() -> None:
            while time.perf_counter() < end:
                before = time.perf_counter()
                assert await sagas.run(three_steps, 1) == 4
                latencies.append(time.perf_counter() - before)

        await asyncio.gather(*(caller() for _ in range(callers)))
        elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
    latencies.sort()
    return {
        "sagas_per_s": round(len(latencies) / elapsed),
        "callers": callers,
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
        "cpu_us_per_saga": round(cpu / len(latencies) * 1e6),
        "rss_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
    }


async def sleepers(count: int, url: str) -> dict[str, Any]:
    """Memory before, and while so many sagas sleep."""
    async with engine(url) as sagas:
        await sagas.run(three_steps, 1)
        gc.collect()
        before = psutil.Process().memory_info().rss
        begin = time.perf_counter()
        for _ in range(count // 500):
            await asyncio.gather(*(sagas.start(sleeper, 86_400.0) for _ in range(500)))
        started_s = time.perf_counter() - begin
        runtime_engine = sagas._engine
        while runtime_engine.running:
            await asyncio.sleep(0.1)
        gc.collect()
        after = psutil.Process().memory_info().rss
    return {
        "sleeping": count,
        "rss_before_mb": round(before / 1e6, 1),
        "rss_asleep_mb": round(after / 1e6, 1),
        "started_per_s": round(count / started_s),
    }


async def recovery(url: str) -> dict[str, Any]:
    """A second process is killed in the middle of a saga's step; how long until this one has done the step."""
    folder = Path(tempfile.mkdtemp())
    mark = folder / "mark"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.ours.sagas", "hold", str(mark), url
    )
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
        return {"recovery_s": round(float(done.read_text()) - killed, 3)}


async def hold(mark: str, url: str) -> None:
    async with engine(url) as sagas:
        await sagas.run(held_up, mark)


async def main(words: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        own = sqlite_url(Path(folder), "bench")
        if words[:1] == ["sleepers"]:
            return await sleepers(int(words[1]) if len(words) > 1 else 100_000, words[2] if len(words) > 2 else own)
        if words[:1] == ["recovery"]:
            return await recovery(words[1] if len(words) > 1 else own)
        seconds = float(words[0]) if words else 5.0
        return await run(seconds, int(words[1]) if len(words) > 1 else 64, words[2] if len(words) > 2 else own)


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        uvloop.run(hold(sys.argv[2], sys.argv[3]))
    else:
        print(json.dumps(uvloop.run(main(sys.argv[1:]))))
