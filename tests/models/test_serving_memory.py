"""Calls leave nothing behind, whatever becomes of them: answers, faults, those given up, streams, cached ones."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from seamline import Cache, Contract, Workers, batched, readonly
from seamline.models.serving.engine import Engine
from seamline.module.models import ModelType
from similar.shaky import Shaky
from similar.shaky.model import ShakyModel

NEVER = float("inf")


class Mixed(Contract):
    async def double(self, number: int) -> int: ...

    @readonly
    async def kept(self, number: int) -> int: ...

    def count(self, to: int) -> AsyncIterator[int]: ...


class MixedModel:
    @batched
    def double(self, number: list[int]) -> list[int | Exception]:
        return [ValueError(str(each)) if each % 7 == 0 else 2 * each for each in number]

    def kept(self, number: int) -> int:
        return number

    def count(self, to: int) -> Iterator[int]:
        yield from range(to)


async def mixed(engine: Engine, calls: int) -> None:
    """Calls of every kind and every end, 50 at once."""

    async def some(start: int) -> None:
        for number in range(start, start + calls // 50):
            kind = number % 5
            with suppress(ValueError, TimeoutError):
                if kind == 0:
                    assert [item async for item in engine.stream("count", (3,))] == [0, 1, 2]
                elif kind == 1:
                    stream = engine.stream("count", (100,))
                    await anext(stream)
                    await stream.aclose()
                elif kind == 2:
                    assert await engine.call("kept", (number,), NEVER) == number
                elif kind == 3:
                    async with asyncio.timeout(0):
                        await engine.call("double", (number,), NEVER)
                else:
                    assert await engine.call("double", (number,), NEVER) == 2 * number

    await asyncio.gather(*(some(worker * 10_000) for worker in range(50)))


async def opened(cls: type[Any], contract: type[Any], **more: Any) -> Engine:
    async def make() -> object:
        return cls()

    engine = Engine(ModelType(cls=cls, contract=contract, version="1", **more), make)
    await engine.start()
    return engine


async def test_a_few_thousand_calls_leave_nothing_behind():
    """What Python has allocated is the same after as before, but for what the cache may hold."""
    engine = await opened(MixedModel, Mixed, concurrency=4, cache=Cache(entries=100))
    await mixed(engine, 1000)
    gc.collect()
    tracemalloc.start()
    try:
        await mixed(engine, 1000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await mixed(engine, 4000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 60_000, "fifteen bytes a call would be too much"
    await engine.stop()


@pytest.mark.torture
@pytest.mark.parametrize("runs_in", ["thread", "process"])
async def test_a_hundred_thousand_calls_leave_nothing_behind(runs_in: str):
    """Neither in the host nor in the model's process, as the machine counts it."""
    if runs_in == "thread":
        engine = await opened(MixedModel, Mixed, concurrency=4, cache=Cache(entries=100))

        async def work(calls: int) -> None:
            await mixed(engine, calls)

    else:
        engine = await opened(ShakyModel, Shaky, runs_in="process", workers=Workers(count=1))

        async def work(calls: int) -> None:
            async def some() -> None:
                for number in range(100, 100 + calls // 50):
                    assert await engine.call("double", (number,), NEVER) == 2 * number

            await asyncio.gather(*(some() for _ in range(50)))

    def resident() -> list[int]:
        pids = [each["pid"] for each in engine.stats().get("processes", [])]
        return [psutil.Process(pid).memory_info().rss for pid in (None, *pids)]

    await work(20_000)
    before = resident()
    await work(100_000)
    grown = [after - earlier for earlier, after in zip(before, resident(), strict=True)]
    assert max(grown) < 8 * 1_048_576, f"{grown} bytes"
    await engine.stop()
