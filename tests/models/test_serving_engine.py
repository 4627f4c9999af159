"""A model is loaded when it has to be, and unloaded when nobody asks; who asks meanwhile waits or is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from seamline import Contract, DeadlineExceeded, Overloaded, batched
from seamline.kernel.clock import ManualClock
from seamline.models.errors import ModelLoadError
from seamline.models.serving.engine import Engine
from seamline.models.serving.telling import Telling
from seamline.module.models import ModelType

NEVER = float("inf")


class Double(Contract):
    async def double(self, number: int) -> int: ...

    async def wait(self, number: int) -> int: ...

    def count(self, to: int) -> AsyncIterator[int]: ...


class Model:
    """Its load waits for a gate; it keeps a list of what happened."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.happened: list[str] = []
        self.fails = 0

    def load(self) -> None:
        self.gate.wait(20)
        self.happened.append("load")
        if self.fails:
            self.fails -= 1
            raise MemoryError("no room")

    def unload(self) -> None:
        self.happened.append("unload")

    @batched
    def double(self, number: list[int]) -> list[int]:
        return [2 * each for each in number]

    def wait(self, number: int) -> int:
        self.gate.wait(20)
        return number

    def count(self, to: int) -> Iterator[int]:
        yield from range(to)


class OnTheLoop:
    def __init__(self) -> None:
        self.cancelled: list[int] = []
        self.begun = asyncio.Event()

    async def double(self, number: int) -> int:
        return 2 * number

    async def wait(self, number: int) -> int:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        return number

    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


def engine_of(model: Any, clock: ManualClock | None = None, **more: Any) -> Engine:
    async def make() -> object:
        return model

    settings: dict[str, Any] = {"waiting_max": 10, **more}
    declared = ModelType(cls=model.__class__, contract=Double, version="1", **settings)
    return Engine(declared, make, clock=clock)


def calls(engine: Engine, *numbers: int, deadline: float = NEVER) -> list[asyncio.Task[Any]]:
    loop = asyncio.get_running_loop()
    return [loop.create_task(engine.call("double", (number,), deadline)) for number in numbers]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # a thread is looked at
            await asyncio.sleep(0.001)


async def test_many_who_ask_while_it_loads_share_one_load():
    """They wait in its queue, in the order in which they came, and streams wait, too."""
    model = Model()
    model.gate.clear()
    engine = engine_of(model, loads="first_call")
    await engine.start()
    assert model.happened == []
    asked = calls(engine, 1, 2, 3)
    stream = engine.stream("count", (2,))
    first = asyncio.get_running_loop().create_task(anext(stream))
    await asyncio.sleep(0)
    assert not engine.loaded
    model.gate.set()
    assert await asyncio.gather(*asked) == [2, 4, 6]
    assert await first == 0
    assert [item async for item in stream] == [1]
    assert (model.happened, engine.cold_starts) == (["load"], 1)
    await engine.stop()


async def test_who_cannot_wait_for_the_load_is_told_in_time():
    """By deadline, or because too many wait; and nothing of it is computed when the load is done."""
    model = Model()
    model.gate.clear()
    engine = engine_of(model, loads="background")
    await engine.start()
    loop = asyncio.get_running_loop()
    soon = loop.time() + 0.3
    late = calls(engine, 1, deadline=soon)
    waiting = calls(engine, *range(9))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await engine.call("double", (99,), NEVER)
    await until(lambda: loop.time() > soon)
    model.gate.set()
    with pytest.raises(DeadlineExceeded):
        await late[0]
    assert await asyncio.gather(*waiting) == [2 * number for number in range(9)]
    await engine.stop()


async def test_a_load_that_fails_answers_all_and_is_tried_again_later():
    """Not by each call anew: while the failure is fresh it is told at once."""
    model, clock = Model(), ManualClock()
    model.fails = 2
    engine = engine_of(model, clock, loads="first_call")
    answers = await asyncio.gather(*calls(engine, 1, 2, 3), return_exceptions=True)
    assert all(isinstance(each, ModelLoadError) and "no room" in str(each) for each in answers)
    with pytest.raises(ModelLoadError):
        await engine.call("double", (1,), NEVER)
    assert model.happened.count("load") == 1
    clock.advance(1.1)
    with pytest.raises(ModelLoadError):
        await engine.call("double", (1,), NEVER)
    clock.advance(1.1)
    with pytest.raises(ModelLoadError):
        await engine.call("double", (1,), NEVER)
    assert model.happened.count("load") == 2, "the pause has doubled"
    clock.advance(2.1)
    assert await engine.call("double", (1,), NEVER) == 2
    await engine.stop()


async def test_one_that_nobody_asks_is_unloaded_and_loaded_again():
    """Not while a call or a stream goes on, however long; and the clock begins anew with each call."""
    model, clock = Model(), ManualClock()
    engine = engine_of(model, clock, idle_s=60)
    await engine.start()
    for _ in range(3):
        clock.advance(50)
        await asyncio.sleep(0)
        assert await engine.call("double", (1,), NEVER) == 2
    stream = engine.stream("count", (2,))
    assert await anext(stream) == 0
    for _ in range(3):
        clock.advance(100)
        await asyncio.sleep(0)
    assert engine.loaded
    assert [item async for item in stream] == [1]
    clock.advance(61)
    await until(lambda: not engine.loaded)
    await until(lambda: model.happened == ["load", "unload"])
    asked = calls(engine, 4, 5)
    assert await asyncio.gather(*asked) == [8, 10]
    assert (model.happened, engine.cold_starts) == (["load", "unload", "load"], 1)
    await engine.stop()


async def test_who_asks_while_it_is_unloaded_is_answered_by_the_next_load():
    """The one does not begin before the other has ended."""
    model, clock = Model(), ManualClock()
    leaving = threading.Event()

    def unload() -> None:
        model.happened.append("unload")
        leaving.wait(20)

    model.unload = unload
    engine = engine_of(model, clock, idle_s=60)
    await engine.start()
    clock.advance(61)
    await until(lambda: "unload" in model.happened)
    asked = calls(engine, 1, 2)
    stream = asyncio.get_running_loop().create_task(anext(engine.stream("count", (1,))))
    await asyncio.sleep(0)
    assert model.happened == ["load", "unload"]
    leaving.set()
    assert await asyncio.gather(*asked) == [2, 4]
    assert await stream == 0
    assert model.happened == ["load", "unload", "load"]
    await engine.stop()


async def test_a_call_on_the_loop_ends_when_its_caller_leaves():
    """At once, so that nothing is computed, or paid for, that nobody hears."""
    model = OnTheLoop()
    engine = engine_of(model, runs_in="loop")
    await engine.start()
    call = asyncio.get_running_loop().create_task(engine.call("wait", (5,), NEVER))
    await model.begun.wait()
    call.cancel()
    await asyncio.wait([call])
    await until(lambda: model.cancelled == [5])
    assert await engine.call("double", (4,), NEVER) == 8
    await engine.stop()


async def test_many_calls_go_on_at_once_on_the_loop():
    """Where nothing blocks, none waits for another."""
    model = OnTheLoop()
    engine = engine_of(model, runs_in="loop")
    await engine.start()
    waiting = [asyncio.get_running_loop().create_task(engine.call("wait", (n,), NEVER)) for n in range(50)]
    await model.begun.wait()
    assert await engine.call("double", (4,), NEVER) == 8
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    await until(lambda: sorted(model.cancelled) == list(range(50)))
    await engine.stop()


async def test_streams_beyond_all_measure_are_refused():
    """As calls are; when one ends there is room again."""
    engine = engine_of(Model(), waiting_max=2)
    await engine.start()
    streams = [engine.stream("count", (100,)) for _ in range(3)]
    first = await anext(streams[0])
    others = [asyncio.get_running_loop().create_task(anext(stream)) for stream in streams[1:]]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await anext(engine.stream("count", (1,)))
    assert caught.value.retry_after_s > 0
    assert first == 0
    for stream, other in zip(streams[1:], others, strict=True):
        other.cancel()
        await asyncio.wait([other])
        await stream.aclose()
    await streams[0].aclose()
    assert [item async for item in engine.stream("count", (2,))] == [0, 1]
    await engine.stop()


async def test_its_work_is_told_in_figures():
    """Sizes of batches, waiting, cold starts; each once."""
    engine = engine_of(Model(), loads="first_call")
    await engine.start()
    await asyncio.gather(*calls(engine, 1, 2, 3))
    telling = Telling()
    telling.streamed("shop", engine, 1.0, 0.4, 3)
    told = {measure.name: measure for measure in telling.take([("shop", engine)]) if measure.value or measure.count}
    assert told["seamline.serving.batch_size"].value == 3
    assert told["seamline.serving.batch_size"].attributes == {"contract": "Double", "version": "1", "method": "double"}
    assert told["seamline.serving.queue_wait"].count == 3
    assert told["seamline.serving.cold_starts"].value == 1
    assert told["seamline.serving.first_item"].value == 0.4
    assert told["seamline.serving.between_items"].value == pytest.approx(0.3)
    assert not [each for each in telling.take([("shop", engine)]) if each.value or each.count]
    await engine.stop()
