"""A model is a module's member: called through its contract, in every topology."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from seamline import Batch, Contract, DeadlineExceeded, InternalError, Module, Overloaded, batched
from seamline.models.errors import ModelLoadError
from seamline.models.serving.engine import Engine
from seamline.module.errors import ServiceError
from seamline.module.models import ModelType
from seamline.module.wiring import check_model
from seamline.testing.app import TopologyApp
from similar.page import Page
from similar.words import Words

TOPOLOGIES = ["monolith", "services"]
APP = pytest.mark.seamline(app="tests/models/shop_app", topologies=TOPOLOGIES)


@APP
async def test_calls_of_others_are_put_together(topology_app: TopologyApp):
    """Forty calls at once are a few batches, of eight at most; in one process and over the wire."""
    page = topology_app.stub(Page)
    sizes = await page.many(tuple(f"w{number}" for number in range(16)))
    assert len(sizes) == 16
    assert max(sizes) == 8
    assert sum(1 / size for size in sizes) < 6


@APP
async def test_an_answer_is_its_callers_own(topology_app: TopologyApp):
    """One that fails, by itself or with those it was put together with, fails alone."""
    words = topology_app.stub(Words)
    answers = await asyncio.gather(
        *(words.letters(word) for word in ("ab", "", "aa", "poison", "c")), return_exceptions=True
    )
    assert [answers[0], answers[2], answers[4]] == [{"a": 1, "b": 1}, {"a": 2}, {"c": 1}]
    assert isinstance(answers[1], InternalError)
    assert isinstance(answers[3], InternalError)


@APP
async def test_items_stream_as_they_are_made(topology_app: TopologyApp):
    """Also through a module between; a failure on the way comes after what was made before."""
    assert [letter async for letter in topology_app.stub(Page).spelled("alike")] == list("alike")
    heard: list[str] = []
    with pytest.raises(InternalError):
        async for letter in topology_app.stub(Words).spell("alike", 3):
            heard.append(letter)  # noqa: PERF401  # those before the failure are wanted
    assert heard == list("ali")


@APP
async def test_who_comes_too_many_is_told_when_to_come_again(topology_app: TopologyApp):
    """The answer says so on the other side of the wire, too; nothing that was refused ran."""
    words = topology_app.stub(Words)
    answers = await asyncio.gather(*(words.slow(0.02) for _ in range(60)), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, Overloaded)]
    assert refused, "some may have had room when they came again"
    assert all(each.retry_after_s > 0 for each in refused)
    assert all(each == 0.02 for each in answers if not isinstance(each, Overloaded))


@APP
async def test_a_stranger_who_comes_too_many_is_told_when_to_come_again(topology_app: TopologyApp):
    """Over HTTP in its own header, also where the module that asks the model is behind a tunnel."""
    answers = await asyncio.gather(*(topology_app.http.get("/") for _ in range(80)))
    refused = [each for each in answers if each.status == 503]
    assert refused, "some may have had room when they came again"
    assert all(int(each.header("retry-after") or 0) >= 1 for each in refused)
    assert {each.status for each in answers} == {200, 503}


@APP
async def test_the_loop_goes_on_while_a_model_works(topology_app: TopologyApp):
    """What blocks holds up the model's thread, and no other call of the process."""
    words, page = topology_app.stub(Words), topology_app.stub(Page)
    long = asyncio.get_running_loop().create_task(words.slow(0.5))
    for _ in range(20):
        assert await page.many(()) == ()
    assert not long.done()
    assert await long == 0.5


class Double(Contract):
    async def double(self, number: int) -> int: ...

    def count(self, to: int) -> AsyncIterator[int]: ...


class Good:
    @batched
    def double(self, number: list[int]) -> list[int]:
        return [2 * each for each in number]

    def count(self, to: int) -> Iterator[int]:
        yield from range(to)


def declared(cls: type[Any], **more: Any) -> ModelType:
    return ModelType(
        cls=cls, contract=Double, version="1", batch=Batch(), runs_in="thread", concurrency=1, waiting_max=10, **more
    )


async def running(cls: type[Any], **more: Any) -> Engine:
    async def make() -> object:
        return cls()

    engine = Engine(declared(cls, **more), make)
    await engine.start()
    return engine


async def test_a_model_that_cannot_be_loaded_says_why():
    """Or that cannot answer what it is to be warmed with."""

    class Broken(Good):
        def load(self) -> None:
            raise FileNotFoundError("weights.safetensors")

    with pytest.raises(ModelLoadError, match=r"Double@1 could not be loaded: FileNotFoundError: weights\.safetensors"):
        await running(Broken)
    with pytest.raises(ModelLoadError, match="TypeError"):
        await running(Good, warm=[("double", (object(),))])


async def test_a_stream_that_nobody_reads_on_is_closed_and_gives_its_thread_back():
    """Its generator is closed in its thread; the model answers the next."""
    closed: list[int] = []

    class Endless(Good):
        def count(self, to: int) -> Iterator[int]:
            number = 0
            try:
                while True:
                    yield number
                    number += 1
            finally:
                closed.append(number)

    engine = await running(Endless)
    stream = engine.stream("count", (0,))
    assert [await anext(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    await stream.aclose()
    assert len(closed) == 1
    assert closed[0] < 5 + 16 + 2, "it is ahead of its reader by a few at most"
    assert await engine.call("double", (4,), float("inf")) == 8
    await engine.stop()


async def test_a_deadline_that_has_passed_is_said():
    """Before anything runs."""
    engine = await running(Good)
    with pytest.raises(DeadlineExceeded):
        await engine.call("double", (1,), 0.0)
    await engine.stop()


def wrong(name: str, function: Any, **more: Any) -> type[Any]:
    return type("Wrong", (Good,), {name: function, **more})


def _generator(_self: object, number: int) -> Iterator[int]:
    yield number


def _otherwise_named(_self: object, n: int) -> int:
    return n


def _all_at_once(_self: object, to: int) -> list[int]:
    return list(range(to))


def _batched_stream(_self: object, to: int) -> Iterator[int]:
    yield to


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (type("Empty", (), {}), "Empty has no method 'double'"),
        (wrong("double", _otherwise_named), r"takes \['n'\], the contract says \['number'\]"),
        (wrong("double", _generator), "is a generator, Double.double is no stream"),
        (wrong("count", _all_at_once), "is no generator, Double.count is a stream"),
        (wrong("count", batched(_batched_stream)), "is batched, and streams"),
    ],
)
def test_a_model_that_cannot_answer_its_contract_is_refused_before_anything_runs(cls: type[Any], said: str):
    """With what is wrong about which method."""
    with pytest.raises(ServiceError, match=said):
        check_model(declared(cls))


def test_a_declaration_that_makes_no_sense_is_refused():
    """A contract of others, a version twice, no room."""
    module = Module("double", provides=Double)
    module.model(Double, version="1")(Good)
    with pytest.raises(ServiceError, match="twice in version '1'"):
        module.model(Double, version="1")(Good)
    with pytest.raises(ServiceError, match="concurrency=-1"):
        module.model(Double, version="2", concurrency=-1)(Good)
    with pytest.raises(ServiceError, match="workers=0"):
        module.model(Double, version="2", workers=0)(Good)
    with pytest.raises(ServiceError, match="does not provide"):
        Module("other").model(Double, version="1")(Good)
