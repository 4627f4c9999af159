"""Calls of one method wait here until a slot is free, and go as a batch.

A batch goes when it is full; when a slot is free and nobody more is expected; when it has waited as long as it may; or
when its tightest deadline leaves no more time. While all slots are busy, what comes is put together anyhow, so that
the size of batches follows the load (adaptive batching, as in Clipper: D. Crankshaw et al., NSDI 2017). A call whose
deadline has passed, or whose caller has gone, costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal.measures import Histogram
from seamline.models.errors import ModelAnswerError
from seamline.models.serving.cost import Cost
from seamline.module.errors import DeadlineExceeded, Overloaded

Run = Callable[[Sequence[tuple[Any, ...]]], Awaitable[Sequence[Any]]]
"""Answers some calls, by their arguments; a result may be an exception."""

_SIZE_MEMORY: Final = 0.3
_SIZES: Final = tuple(2.0**power for power in range(11))
_SECONDS: Final = tuple(0.001 * 2.0**power for power in range(14))


@dataclass(slots=True)
class Stats:
    """Since the start; the histograms since they were taken."""

    calls: int = 0
    batches: int = 0
    waited_s: float = 0.0
    busy_s: float = 0.0
    refused: int = 0
    expired: int = 0
    left: int = 0
    """Calls whose callers went away before they began."""
    given_up: int = 0
    """Batches that nobody waited for any more, and that were stopped."""
    sizes: Histogram = field(default_factory=lambda: Histogram(_SIZES))
    waits: Histogram = field(default_factory=lambda: Histogram(_SECONDS))


class _Waiting:
    __slots__ = ("answer", "arguments", "deadline", "since")

    def __init__(self, arguments: tuple[Any, ...], deadline: float, since: float, answer: asyncio.Future[Any]) -> None:
        self.arguments = arguments
        self.deadline = deadline
        self.since = since
        self.answer = answer


class Queue:
    """The calls of one method.

    Args:
        name: for errors, ``Similar.embed``.
        run: answers a batch. When it raises for several, they are run again in halves, so that the one that cannot be
            answered does not spoil the others'.
        slots: batches under way at once.
        batch_max: calls in one batch.
        wait_s: how long a batch waits for calls that are expected, in seconds.
        waiting_max: beyond it, calls are refused with Overloaded, which says when to come again.
        open: False where nothing begins before :meth:`open`.
        abandoned_s: how long a batch goes on that nobody waits for any more, in seconds, before it is cancelled; None
            lets it go on to its end.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        slots: int = 1,
        batch_max: int = 1,
        wait_s: float = 0.0,
        waiting_max: int = 1000,
        open: bool = True,  # noqa: A002  # what it is
        abandoned_s: float | None = None,
    ) -> None:
        self.name = name
        self.cost = Cost()
        self.stats = Stats()
        self._run = run
        self._slots = slots
        self._batch_max = batch_max
        self._wait_s = wait_s
        self._waiting_max = waiting_max
        self._open = open
        self._abandoned_s = abandoned_s
        self.opens_at = 0.0
        """When it is expected to open, in seconds of the loop's clock, while it is closed."""
        self._waiting: deque[_Waiting] = deque()
        self._under_way = 0
        self._usual = 1.0
        """How large batches were of late."""
        self._timer: asyncio.Handle | None = None
        self._goes_at = 0.0
        """When the timer rings."""
        self._owner = TaskOwner(f"batches of {name}")

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Batches."""
        return self._under_way

    async def call(self, arguments: tuple[Any, ...], deadline: float) -> Any:
        """The answer of one call. ``deadline`` is in seconds of the loop's clock.

        Raises:
            DeadlineExceeded: it passed before the call began.
            Overloaded: too many wait.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if deadline <= now:
            self.stats.expired += 1
            raise _expired(self.name)
        if len(self._waiting) >= self._waiting_max and not self._swept():
            self.stats.refused += 1
            raise self._overloaded(now)
        waiting = _Waiting(arguments, deadline, now, loop.create_future())
        self._waiting.append(waiting)
        if self._open and self._under_way < self._slots:
            self._consider(loop, now)
        return await waiting.answer

    def open(self) -> None:
        """What waits may begin."""
        self._open = True
        if self._waiting:
            self._go()

    def close(self) -> None:
        """Nothing more begins until it is opened again; calls wait."""
        self._open = False

    def fail(self, error: Exception) -> None:
        """Who waits is answered with an error."""
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if not each.answer.done():
                each.answer.set_exception(error)

    async def stop(self) -> None:
        """Who still waits is told that nobody answers any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for each in self._waiting:
            each.answer.cancel()
        self._waiting.clear()
        await self._owner.stop()

    def again_in_s(self, now: float) -> float:
        """When there should be room again, as far as is known."""
        batches = (len(self._waiting) + self._batch_max) / self._batch_max
        opens_s = 0.0 if self._open else max(self.opens_at - now, 0.0)
        return max(opens_s + batches * self.cost.of(self._batch_max) / self._slots, 0.1)

    def _swept(self) -> bool:
        """Whether there is room when those are forgotten whose callers have gone."""
        before = len(self._waiting)
        self._waiting = deque(each for each in self._waiting if not each.answer.done())
        self.stats.left += before - len(self._waiting)
        return len(self._waiting) < self._waiting_max

    def _overloaded(self, now: float) -> Overloaded:
        after_s = self.again_in_s(now)
        error = Overloaded(
            f"{self.name} has {len(self._waiting)} calls waiting",
            f"Try again in {after_s:.1f} s, or give the model more replicas.",
        )
        error.retry_after_s = after_s
        return error

    # Batches.

    def _consider(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Begin a batch, or say when one begins. A slot is free and somebody waits."""
        if len(self._waiting) >= self._batch_max:
            self._go()
        elif self._timer is None:
            oldest = self._waiting[0].since
            self._go_at(loop, now, min(oldest + self._wait_s, self._patience(now, self._waiting)))
        elif self._goes_at > now:
            self._go_at(loop, now, min(self._goes_at, self._patience(now, (self._waiting[-1],))))

    def _patience(self, now: float, newcomers: Iterable[_Waiting]) -> float:
        """Until when more calls are waited for: while fewer are here than usual, and for half of the time that the
        newcomers' deadlines leave, since nobody knows how punctual this process is."""
        size = len(self._waiting)
        if not self._wait_s or size >= self._usual - 0.5:
            return now
        tightest = min(each.deadline for each in newcomers)
        return now + max(tightest - self.cost.of(size) - now, 0.0) / 2

    def _go_at(self, loop: asyncio.AbstractEventLoop, now: float, at: float) -> None:
        if self._timer is not None:
            if at >= self._goes_at:
                return
            self._timer.cancel()
        self._goes_at = at
        # Also without a pause: what is called in this very turn of the loop goes along.
        self._timer = loop.call_at(at, self._go) if at > now else loop.call_soon(self._go)

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._open and self._under_way < self._slots and (batch := self._take()):
            self._under_way += 1
            task = self._owner.spawn(self._answer(batch), name=f"batch of {self.name}")
            task.add_done_callback(partial(_settled, batch))

    def _take(self) -> list[_Waiting]:
        """The next batch: as many as there are, and as can be answered before the tightest of their deadlines."""
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        tightest = float("inf")
        while self._waiting and len(batch) < self._batch_max:
            each = self._waiting[0]
            if each.answer.done():
                self.stats.left += 1
                self._waiting.popleft()
                continue
            if each.deadline <= now:
                self._waiting.popleft()
                self.stats.expired += 1
                each.answer.set_exception(_expired(self.name))
                continue
            tightest = min(tightest, each.deadline)
            if batch and now + self.cost.of(len(batch) + 1) > tightest:
                break
            batch.append(self._waiting.popleft())
            self.stats.waited_s += now - each.since
            self.stats.waits.add(now - each.since)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        self._usual += _SIZE_MEMORY * (len(batch) - self._usual)
        self.stats.batches += 1
        self.stats.calls += len(batch)
        self.stats.sizes.add(len(batch))
        began = loop.time()
        try:
            await self._settle(batch)
        finally:
            self.stats.busy_s += loop.time() - began
            self._under_way -= 1
            if self._waiting and self._open:
                self._consider(loop, loop.time())

    async def _settle(self, batch: list[_Waiting]) -> None:
        """Answer each. Where several together could not be answered, each half for itself."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            results = self._checked(await self._ran(batch), len(batch))
        except Exception as error:
            if len(batch) == 1 or isinstance(error, ModelAnswerError):
                _fail(batch, error)
                return
            middle = len(batch) // 2
            await self._settle(batch[:middle])
            await self._settle(batch[middle:])
            return
        self.cost.learn(len(batch), loop.time() - began)
        for each, result in zip(batch, results, strict=True):
            if each.answer.done():
                continue
            if isinstance(result, Exception):
                each.answer.set_exception(result)
            else:
                each.answer.set_result(result)

    def _checked(self, results: Sequence[Any], calls: int) -> Sequence[Any]:
        if len(results) != calls:
            raise ModelAnswerError(
                f"{self.name} gave {len(results)} results for {calls} calls",
                "Return a list with one result for each call.",
            )
        return results

    async def _ran(self, batch: list[_Waiting]) -> Sequence[Any]:
        """The results of a batch. This task is cancelled when nobody waits for them any more."""
        calls = [each.arguments for each in batch]
        if self._abandoned_s is None:
            return await self._run(calls)
        loop, task, after_s = asyncio.get_running_loop(), asyncio.current_task(), self._abandoned_s
        timer: asyncio.TimerHandle | None = None

        def stop() -> None:
            self.stats.given_up += 1
            assert task is not None
            task.cancel()

        def gone(_: asyncio.Future[Any]) -> None:
            nonlocal timer
            if timer is None and all(each.answer.done() for each in batch):
                timer = loop.call_later(after_s, stop)

        for each in batch:
            each.answer.add_done_callback(gone)
        try:
            return await self._run(calls)
        finally:
            for each in batch:
                each.answer.remove_done_callback(gone)
            if timer is not None:
                timer.cancel()


def _settled(batch: Sequence[_Waiting], task: asyncio.Task[None]) -> None:
    """Nobody waits for ever for a batch that was cancelled, perhaps before its first step."""
    if task.cancelled():
        for each in batch:
            each.answer.cancel()


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for each in batch:
        if not each.answer.done():
            each.answer.set_exception(error)


def _expired(name: str) -> DeadlineExceeded:
    error = DeadlineExceeded(f"{name} was not begun before its deadline", "Allow more time, or add replicas.")
    error.started = False
    return error
