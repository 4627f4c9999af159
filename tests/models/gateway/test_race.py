"""Who is asked, when, and whose answer counts: with engines that do what the test says, and a clock that it moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners, TaskOwner
from seamline.kernel.settings import AiModelSettings, AiTargetSettings
from seamline.mesh.limits import RetryBudget
from seamline.models.errors import EngineCannotError, EngineError, EngineRefused, EngineStalled, EngineUnreachable
from seamline.models.gateway.errors import NoTarget
from seamline.models.gateway.prices import Price
from seamline.models.gateway.race import Race, Watch
from seamline.models.gateway.targets import OPEN_S, Model, Target, Wants
from seamline.models.runtimes.scripted import Scripted

ANY = Wants(frozenset())
PATIENCE_S = 1.5


class Begun:
    """An answer of the engine of that name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


class Scene:
    """Targets ``a``, ``b``, ``c``..., each with a future of what becomes of asking it."""

    def __init__(self, names: str, *, retries: float = 100.0) -> None:
        self.clock = ManualClock()
        self.runners = Runners()
        self.owner = TaskOwner("tests")
        self.budget = RetryBudget(0.0, retries, self.clock.monotonic())
        self.watch = Watch(self.clock, self.runners, self.budget)
        self.targets = {
            name: Target(name, name, Scripted(), AiTargetSettings(engine="module:X", tier=at), Price(input=1, output=1))
            for at, name in enumerate(names)
        }
        self.model = Model("m", AiModelSettings(patience_s=PATIENCE_S), list(self.targets.values()))
        self.asked: list[str] = []
        self.left: list[str] = []
        self.answers: dict[str, asyncio.Future[Begun]] = {}
        self.affordable = True
        self.abandoned: list[Target] = []

    async def begin(self, target: Target) -> Begun:
        self.asked.append(target.name)
        answer = self.answers[target.name] = asyncio.get_running_loop().create_future()
        try:
            return await answer
        except asyncio.CancelledError:
            self.left.append(target.name)
            raise

    def race(self, *, whole: bool = False) -> Race[Begun]:
        return Race(
            self.watch, self.model, ANY, self.begin, whole=whole, asking=lambda _: None,
            affordable=lambda _: self.affordable, abandoned=self.abandoned,
        )  # fmt: skip

    def start(self, *, whole: bool = False) -> asyncio.Task[str]:
        async def run() -> str:
            target, begun = await self.race(whole=whole).run()
            assert target.name == begun.name
            return begun.name

        return self.owner.spawn(run())

    async def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)
        self.watch.sweep()
        await settle()

    def answer(self, name: str) -> None:
        self.answers[name].set_result(Begun(name))

    def fail(self, name: str, error: EngineError | None = None) -> None:
        self.answers[name].set_exception(error or EngineUnreachable(f"{name} is away"))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def scene(names: str, *, retries: float = 100.0) -> AsyncGenerator[Scene]:
    it = Scene(names, retries=retries)
    try:
        yield it
    finally:
        it.watch.stop()
        await it.runners.stop()
    for target in it.targets.values():
        assert target.inflight == 0


def refused(status: int, kind: str = "", retry_after_s: float = 0.0) -> EngineRefused:
    error = EngineRefused("no")
    error.status, error.kind, error.retry_after_s = status, kind, retry_after_s
    return error


async def test_who_hangs_costs_the_patience_and_no_more():
    """The next is asked as well, its answer is given, and the hung one is let go of."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S - 0.1)
        assert it.asked == ["a"]
        await it.wait(0.2)
        assert it.asked == ["a", "b"]
        it.answer("b")
        assert await running == "b"
        assert it.left == ["a"]


async def test_two_of_three_hang():
    """The third is asked soon after the second, so that an answer still comes within two seconds."""
    async with scene("abc") as it:
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S)
        await it.wait(PATIENCE_S * 0.2)
        assert it.asked == ["a", "b", "c"]
        assert it.clock.monotonic() < 2
        it.answer("c")
        assert await running == "c"
        await settle()
        assert sorted(it.left) == ["a", "b"]


async def test_the_slow_one_may_still_win():
    """It was not given up; who was asked beside it is let go of, and is owed for what it was asked."""
    async with scene("ab") as it:
        running = it.owner.spawn(it.race().run())
        await settle()
        await it.wait(PATIENCE_S)
        it.answer("a")
        target, _ = await running
        await settle()
        assert target.name == "a"
        assert it.left == ["b"]
        assert [each.name for each in it.abandoned] == ["b"]


async def test_a_rival_that_fails_changes_nothing():
    """The first goes on and answers."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S)
        it.fail("b")
        await settle()
        it.answer("a")
        assert await running == "a"


async def test_the_first_fails_while_its_rival_works():
    """Then the rival's answer is waited for."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S)
        it.fail("a")
        await settle()
        it.answer("b")
        assert await running == "b"
        assert it.asked == ["a", "b"]


async def test_all_fail():
    """The error is that of the last."""
    async with scene("abc") as it:
        running = it.start()
        for name in "abc":
            await settle()
            it.fail(name)
        with pytest.raises(EngineUnreachable, match="c is away"):
            await running


async def test_both_at_once_leave_nothing_open():
    """First and rival begin in the same turn of the loop: one is given, the other closed or let go of."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S)
        it.answer("a")
        it.answer("b")
        won = await running
        await settle()
        other = "b" if won == "a" else "a"
        assert it.answers[other].result().closed or other in it.left


async def test_the_caller_leaves():
    """Everybody who was asked is let go of."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await settle()
        assert sorted(it.left) == ["a", "b"]


async def test_alone_a_target_has_its_whole_time():
    """Nobody else is there to be asked; at the end of its time it has stalled."""
    async with scene("a") as it:
        running = it.start()
        await settle()
        await it.wait(it.model.settings.first_token_timeout_s - 1)
        assert not running.done()
        await it.wait(2)
        with pytest.raises(EngineStalled):
            await running


async def test_a_usual_time_stretches_the_patience():
    """Who always takes three seconds is not doubted before six."""
    async with scene("ab") as it:
        for _ in range(20):
            it.targets["a"].streams.add(3.0)
        running = it.start()
        await settle()
        await it.wait(5.9)
        assert it.asked == ["a"]
        await it.wait(0.2)
        assert it.asked == ["a", "b"]
        it.answer("a")
        assert await running == "a"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_is_the_callers_fault_is_nobody_elses(status: int):
    """The next engine would say the same, and the first is well."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        it.fail("a", refused(status))
        with pytest.raises(EngineRefused):
            await running
        assert it.asked == ["a"]
        assert it.targets["a"].failed == 0


@pytest.mark.parametrize(
    "error",
    [
        refused(429), refused(500), refused(503), refused(529), refused(401), refused(404),
        refused(400, "context_length_exceeded"), EngineCannotError("cannot"),
    ],
    ids=lambda error: f"{error.status} {error.code}",
)  # fmt: skip
async def test_what_another_may_do_better_is_asked_of_another(error: EngineError):
    """Storms, faults, our own key, a longer context, an ability."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        it.fail("a", error)
        await settle()
        it.answer("b")
        assert await running == "b"


async def test_the_budget_of_retries_ends():
    """With nothing left of it a failure is told, and a hung engine waited for: an outage is not made twice as large."""
    async with scene("ab", retries=1.0) as it:
        for expected in ("b", ""):
            running = it.start()
            await settle()
            it.fail("a")
            await settle()
            if expected:
                it.answer("b")
                assert await running == expected
            else:
                with pytest.raises(EngineUnreachable):
                    await running
        assert it.asked == ["a", "b", "a"]


async def test_who_cannot_pay_for_a_rival_waits():
    """Nobody is asked on credit."""
    async with scene("ab") as it:
        it.affordable = False
        running = it.start()
        await settle()
        await it.wait(PATIENCE_S)
        assert it.asked == ["a"]
        it.answer("a")
        assert await running == "a"


async def test_a_target_that_keeps_failing_is_left_alone_and_tried_again():
    """Its circuit opens; after a while one call tries it, and it is back."""
    async with scene("ab") as it:
        for _ in range(5):
            running = it.start()
            await settle()
            it.fail("a")
            await settle()
            it.answer("b")
            await running
        it.asked.clear()
        running = it.start()
        await settle()
        it.answer("b")
        await running
        assert it.asked == ["b"]
        await it.wait(OPEN_S)
        probe, other = it.start(), it.start()
        await settle()
        assert it.asked == ["b", "a", "b"]
        it.answer("a")
        it.answer("b")
        assert (await probe, await other) == ("a", "b")
        running = it.start()
        await settle()
        it.answer("a")
        assert await running == "a"


async def test_a_target_rests_as_long_as_it_asks_to():
    """429 with a time: nobody asks it before."""
    async with scene("ab") as it:
        running = it.start()
        await settle()
        it.fail("a", refused(429, retry_after_s=7))
        await settle()
        it.answer("b")
        await running
        await it.wait(6.9)
        it.asked.clear()
        running = it.start()
        await settle()
        it.answer("b")
        await running
        assert it.asked == ["b"]
        await it.wait(0.2)
        running = it.start()
        await settle()
        it.answer("a")
        assert await running == "a"


async def test_nobody_can_be_asked():
    """The caller is told when somebody can."""
    async with scene("a") as it:
        running = it.start()
        await settle()
        it.fail("a", refused(429, retry_after_s=7))
        with pytest.raises(EngineRefused):
            await running
        await it.wait(3)
        with pytest.raises(NoTarget) as none:
            await it.race().run()
        assert none.value.retry_after_s == pytest.approx(4)  # pyright: ignore[reportUnknownMemberType]
