"""The queue of a model's method: batches follow the load, nothing is lost, nothing expired is begun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline import DeadlineExceeded, Overloaded
from seamline.models.errors import ModelAnswerError
from seamline.models.serving.cost import Cost
from seamline.models.serving.queue import Queue

NEVER = float("inf")


class Model:
    """Answers each number with its double, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        numbers = [number for (number,) in calls]
        self.batches.append(numbers)
        await self.gate.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [KeyError(number) if number == 7 else 2 * number for number in numbers]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_calls_of_one_moment_go_together():
    """Without anything under way nobody waits, and what is called in one turn of the loop is one batch."""
    model = Model()
    queue = Queue("Test.double", model.run, batch_max=8)
    assert await asyncio.gather(*(queue.call((number,), NEVER) for number in range(5))) == [0, 2, 4, 6, 8]
    assert model.batches == [[0, 1, 2, 3, 4]]
    await queue.stop()


async def test_batches_grow_while_the_model_is_busy_and_never_beyond_their_limit():
    """What comes meanwhile waits and goes in as few batches as hold it."""
    model = Model()
    model.gate.clear()
    queue = Queue("Test.double", model.run, batch_max=4)
    first = asyncio.get_running_loop().create_task(queue.call((0,), NEVER))
    await turns()
    rest = [
        asyncio.get_running_loop().create_task(queue.call((number,), NEVER)) for number in range(1, 10) if number != 7
    ]
    await turns()
    assert model.batches == [[0]]
    model.gate.set()
    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10, 12, 16, 18]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 8, 9]]
    assert (queue.stats.calls, queue.stats.batches) == (9, 3)
    await queue.stop()


async def test_one_that_cannot_be_answered_spoils_no_other():
    """A result that is an exception is its caller's; an exception of the whole is found by halves."""
    queue = Queue("Test.double", Model().run, batch_max=8)
    answers = await asyncio.gather(
        *(queue.call((number,), NEVER) for number in (1, 7, 13, 3, 4)), return_exceptions=True
    )
    assert answers[0] == 2
    assert isinstance(answers[1], KeyError)
    assert isinstance(answers[2], ValueError)
    assert answers[3:] == [6, 8]
    await queue.stop()


async def test_what_has_expired_or_has_no_caller_is_never_begun():
    """Neither before it waits nor while it does."""
    model = Model()
    model.gate.clear()
    queue = Queue("Test.double", model.run, batch_max=4)
    loop = asyncio.get_running_loop()
    with pytest.raises(DeadlineExceeded) as caught:
        await queue.call((1,), loop.time() - 1)
    assert not caught.value.started
    running = asyncio.get_running_loop().create_task(queue.call((2,), NEVER))
    await turns()
    late = asyncio.get_running_loop().create_task(queue.call((3,), loop.time() + 0.0001))
    gone = asyncio.get_running_loop().create_task(queue.call((4,), NEVER))
    await turns()
    gone.cancel()
    await asyncio.sleep(0.001)
    model.gate.set()
    assert await running == 4
    with pytest.raises(DeadlineExceeded):
        await late
    assert model.batches == [[2]]
    assert (queue.stats.expired, queue.stats.left) == (2, 1)
    await queue.stop()


async def test_a_batch_is_no_larger_than_its_tightest_deadline_permits():
    """By what batches of such a size have taken."""
    model = Model()
    model.gate.clear()
    queue = Queue("Test.double", model.run, batch_max=100)
    for size in (1, 2, 10):
        queue.cost.learn(size, 1.0 * size)
    running = asyncio.get_running_loop().create_task(queue.call((0,), NEVER))
    await turns()
    soon = asyncio.get_running_loop().time() + 3.5
    calls = [asyncio.get_running_loop().create_task(queue.call((number,), soon)) for number in range(1, 6)]
    await turns()
    model.gate.set()
    await asyncio.gather(running, *calls)
    assert model.batches[1] == [1, 2, 3]
    await queue.stop()


async def test_who_cannot_wait_is_told_when_to_come_again():
    """By the number of those who wait and by what they take."""
    model = Model()
    model.gate.clear()
    queue = Queue("Test.double", model.run, batch_max=5, waiting_max=10)
    queue.cost.learn(5, 2.0)
    calls = [asyncio.get_running_loop().create_task(queue.call((0,), NEVER))]
    await turns()
    calls += [asyncio.get_running_loop().create_task(queue.call((number,), NEVER)) for number in range(10)]
    await turns()
    with pytest.raises(Overloaded) as caught:
        await queue.call((99,), NEVER)
    assert caught.value.retry_after_s == pytest.approx(3 * 2.0)
    model.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert queue.stats.refused == 1
    await queue.stop()


async def test_it_waits_for_those_who_are_expected():
    """Where six came together of late, a first waits for the others, and goes with the last of them; not so long that
    it would be too late."""
    model = Model()
    queue = Queue("Test.double", model.run, batch_max=32, wait_s=1000)
    for _ in range(8):
        await asyncio.gather(*(queue.call((number,), NEVER) for number in range(6)))
    model.batches.clear()
    calls: list[asyncio.Task[Any]] = []
    for number in range(1, 7):
        await turns()
        assert not model.batches
        calls.append(asyncio.get_running_loop().create_task(queue.call((number,), NEVER)))
    await asyncio.gather(*calls)
    assert model.batches == [[1, 2, 3, 4, 5, 6]]
    patient = asyncio.get_running_loop().create_task(queue.call((2,), NEVER))
    await turns()
    soon = asyncio.get_running_loop().time() + 1
    assert await queue.call((5,), soon) == 10, "one who comes later has less time"
    assert await patient == 4
    assert queue.stats.expired == 0
    await queue.stop()


async def test_a_wrong_number_of_answers_is_nobodys():
    """Who would know whose is missing?"""

    async def short(calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        return [1] * (len(calls) - 1)

    queue = Queue("Test.short", short, batch_max=4)
    answers = await asyncio.gather(queue.call((1,), NEVER), queue.call((2,), NEVER), return_exceptions=True)
    assert all(isinstance(answer, ModelAnswerError) for answer in answers)
    await queue.stop()


async def test_a_stop_leaves_nobody_waiting():
    """Those under way and those that wait are cancelled."""
    model = Model()
    model.gate.clear()
    queue = Queue("Test.double", model.run)
    calls = [asyncio.get_running_loop().create_task(queue.call((number,), NEVER)) for number in range(3)]
    await turns()
    await queue.stop()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*calls, return_exceptions=True)
    )


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.0001, 10)), min_size=1, max_size=40), st.integers(1, 64))
def test_a_cost_is_never_negative_and_never_falls_with_size(runs: list[tuple[int, float]], size: int):
    """Whatever it was fed with."""
    cost = Cost()
    for batch, seconds in runs:
        cost.learn(batch, seconds)
    assert 0 <= cost.of(size) <= cost.of(size + 1) * (1 + 1e-9) + 1e-9


@given(st.floats(0.001, 0.1), st.floats(0.0001, 0.01))
@settings(max_examples=30)
def test_a_line_is_learned(fixed: float, each: float):
    """What a batch takes for itself, and what for each call in it."""
    cost = Cost()
    for size in (1, 4, 9, 2, 16, 3):
        cost.learn(size, fixed + each * size)
    assert cost.of(32) == pytest.approx(fixed + each * 32, rel=1e-6)


@pytest.mark.parametrize("turn", range(1, 6))
async def test_a_stop_leaves_nobody_waiting_whenever_it_comes(turn: int):
    """Also in the turn of the loop between a batch's beginning and its first step."""
    queue = Queue("Test.double", Model().run)
    call = asyncio.get_running_loop().create_task(queue.call((1,), NEVER))
    await turns(turn)
    await queue.stop()
    async with asyncio.timeout(5):
        (answer,) = await asyncio.gather(call, return_exceptions=True)
    assert answer == 2 or isinstance(answer, asyncio.CancelledError)
