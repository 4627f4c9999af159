"""Several versions of one contract: a route says which answers; shadows are asked behind it and change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from seamline import Contract, Module, current
from seamline.models.runtime import Asked, ModelsRuntime, Outcome, is_shadow
from seamline.module.context import CURRENT, CallContext
from seamline.module.wiring import Wiring


class Greet(Contract):
    async def greet(self, name: str) -> str: ...

    def spell(self, name: str) -> AsyncIterator[str]: ...


class Old:
    happened: list[tuple[str, bool, str | None]]
    word = "hello"

    def __init__(self) -> None:
        type(self).happened = []
        type(self).gate = asyncio.Event()
        type(self).gate.set()

    gate: asyncio.Event

    async def greet(self, name: str) -> str:
        call = current()
        self.happened.append((name, is_shadow(), call.idempotency_key if call else None))
        await self.gate.wait()
        if name == "nobody":
            raise ValueError(name)
        return f"{self.word} {name}"

    async def spell(self, name: str) -> AsyncIterator[str]:
        for letter in name:
            yield letter


class New(Old):
    word = "hi"


class Route:
    """As told, and it keeps what it hears."""

    def __init__(self) -> None:
        self.version = "old"
        self.shadowed: Sequence[str] = ()
        self.heard: list[tuple[str, str, Asked, Outcome]] = []

    def choose(self, contract: str, call: Asked) -> str:
        return self.version

    def shadows(self, contract: str, call: Asked) -> Sequence[str]:
        return self.shadowed

    def finished(self, contract: str, version: str, call: Asked, outcome: Outcome) -> None:
        self.heard.append((contract, version, call, outcome))


async def opened(route: Route | None = None) -> tuple[ModelsRuntime, Any]:
    module = Module("greetings", provides=Greet)
    module.model(Greet, version="old", runs_in="loop", concurrency=2)(Old)
    module.model(Greet, version="new", runs_in="loop", concurrency=2)(New)
    runtime = ModelsRuntime(route=route)
    return runtime, await runtime.open(module.models, Wiring(module, {}, {}))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_version_answers_unless_a_route_says_otherwise():
    """The others are not even loaded; a version that nobody has declared is the first."""
    runtime, greet = await opened()
    assert await greet.greet("Bo") == "hello Bo"
    assert runtime.versions("Greet") == ("old", "new")
    assert [each["loaded"] for each in runtime.stats().values()] == [True, False]
    route = Route()
    runtime.route = route
    route.version = "new"
    assert await greet.greet("Bo") == "hi Bo"
    route.version = "none"
    assert await greet.greet("Bo") == "hello Bo"
    await runtime.stop()


async def test_a_version_can_be_loaded_before_it_is_asked():
    """So that nobody waits for it when its weight grows."""
    runtime, _ = await opened()
    await runtime.prepare("Greet", "new")
    assert [each["loaded"] for each in runtime.stats().values()] == [True, True]
    await runtime.stop()


async def test_a_route_hears_of_every_end():
    """Who asked what, which version answered or failed, and of streams how many items came."""
    route = Route()
    runtime, greet = await opened(route)
    CURRENT.set(CallContext("greetings", "desk"))
    await greet.greet("Bo")
    with pytest.raises(ValueError, match="nobody"):
        await greet.greet("nobody")
    assert [each async for each in greet.spell("Bo")] == ["B", "o"]
    (_, version, asked, good), (_, _, _, bad), (_, _, _, stream) = route.heard
    assert (version, asked.method, asked.arguments, asked.key) == ("old", "greet", ("Bo",), "module:desk")
    assert (good.answer, good.error, good.primary) == ("hello Bo", None, None)
    assert isinstance(bad.error, ValueError)
    assert (stream.items, stream.error) == (2, None)
    assert 0 < stream.first_s <= stream.seconds
    await runtime.stop()


async def test_a_shadow_is_asked_when_the_answer_has_been_given():
    """Without the key that makes a call run once, and marked; its answer and its failure go to the route alone."""
    route = Route()
    runtime, greet = await opened(route)
    await runtime.prepare("Greet", "new")
    New.gate.clear()
    route.shadowed = ("new",)
    CURRENT.set(CallContext("greetings", "desk", idempotency_key="once"))
    assert await greet.greet("Bo") == "hello Bo", "the shadow is stuck, and nobody waits for it"
    await turns()
    assert New.happened == [("Bo", True, None)]
    assert Old.happened == [("Bo", False, "once")]
    New.gate.set()
    await turns()
    _, version, _, outcome = route.heard[-1]
    assert (version, outcome.answer) == ("new", "hi Bo")
    assert outcome.primary is not None
    assert outcome.primary.answer == "hello Bo"
    with pytest.raises(ValueError, match="nobody"):
        await greet.greet("nobody")
    await turns()
    assert len(New.happened) == 1, "what could not be answered is not asked again"
    route.version, route.shadowed = "new", ("old", "new")
    assert [each async for each in greet.spell("Bo")] == ["B", "o"]
    await turns()
    assert [(version, each.items) for _, version, _, each in route.heard[-2:]] == [("new", 2), ("old", 2)]
    await runtime.stop()


async def test_shadows_are_given_up_where_there_is_no_room():
    """They never queue up behind each other."""
    route = Route()
    runtime, greet = await opened(route)
    await runtime.prepare("Greet", "new")
    New.gate.clear()
    route.shadowed = ("new",)
    for number in range(10):
        assert await greet.greet(str(number)) == f"hello {number}"
        await turns()
    assert len(New.happened) == 2
    New.gate.set()
    await turns()
    assert sum(outcome.primary is not None for _, _, _, outcome in route.heard) == 2
    await runtime.stop()


async def test_a_route_that_fails_harms_no_call(caplog: pytest.LogCaptureFixture):
    """Whether it chooses, counts or compares: the first version answers, and the log has the reason."""

    class Broken(Route):
        def choose(self, contract: str, call: Asked) -> str:
            raise KeyError("choose")

        def finished(self, contract: str, version: str, call: Asked, outcome: Outcome) -> None:
            super().finished(contract, version, call, outcome)
            if outcome.primary is not None or call.arguments == ("Bo",):
                raise KeyError("finished")

    route = Broken()
    runtime, greet = await opened(route)
    await runtime.prepare("Greet", "new")
    route.shadowed = ("new",)
    assert await greet.greet("Bo") == "hello Bo"
    assert await greet.greet("Cleo") == "hello Cleo"
    assert [each async for each in greet.spell("Bo")] == ["B", "o"]
    await turns()
    assert [version for _, version, _, outcome in route.heard if outcome.primary is not None] == ["new"]
    assert sum("KeyError" in (record.exc_text or "") for record in caplog.records) == 6
    await runtime.stop()
