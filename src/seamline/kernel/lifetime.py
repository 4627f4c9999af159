"""Who owns a running coroutine, and how it ends.

:class:`Runners` starts short coroutines (the handler of a call) at once, inside a real
:class:`asyncio.Task` that is used again for the next call: creating and scheduling a task costs
about 6 microseconds, resuming a parked one about 1. :class:`TaskOwner` holds background work,
so that no task runs without someone who hears of its failure.
"""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import gc
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Self, cast

_log = logging.getLogger(__name__)

_COLLECT_EVERY = 20_000
"""Objects made and not yet freed; each call in flight holds a few dozen."""


class _Parking:
    """What an idle runner awaits: a future-like that keeps the task's wake-up call.

    A task asks no more of what it awaits than ``get_loop``, ``add_done_callback`` and ``result``
    (the protocol behind ``_asyncio_future_blocking``). Keeping the callback lets us resume the
    task in this very tick of the loop instead of the next one.
    """

    __slots__ = ("_asyncio_future_blocking", "_loop", "wake")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self.wake: Callable[[_Parking], object] | None = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self,
        callback: Callable[[_Parking], object],
        *,
        context: contextvars.Context | None = None,  # noqa: ARG002  # the protocol's signature
    ) -> None:
        self.wake = callback

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002  # the protocol's signature
        # A parked task does nothing that could be cancelled. Whoever still holds it from a past job (a timer, a
        # cancel scope) must not reach the next one: the request is taken, and forgotten when that job begins.
        return True

    def result(self) -> None:
        return None

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self


class Running:
    """A coroutine that was started; ``done`` once it has ended in whichever way."""

    __slots__ = ("begun", "cancelled", "coroutine", "done", "runner")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.coroutine = coroutine
        self.begun = False
        self.cancelled = False
        self.done = False
        self.runner: _Runner | None = None

    def cancel(self) -> None:
        """Raise ``CancelledError`` where the coroutine waits, or will first wait; nothing if it has ended."""
        if self.done or self.runner is None:
            return
        self.cancelled = True
        # A task cancelled before its first step would never run the coroutine, nor what it does in `finally`.
        if self.begun:
            self.runner.task.cancel()


class _Runner:
    __slots__ = ("arithmetic", "context", "job", "parking", "pool", "task")

    def __init__(self, pool: Runners, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.parking = _Parking(loop)
        self.job: Running | None = None
        # An empty context of its own: what a handler sets must not reach the next call. Only the context of
        # decimal arithmetic is there from the start, or the first Decimal that is written would leave it behind.
        self.context = contextvars.Context()
        self.arithmetic = self.context.run(decimal.getcontext)
        self.task = loop.create_task(self._run(), context=self.context)

    async def _run(self) -> None:
        task = self.task
        try:
            while (job := self.job) is not None:
                while task.cancelling():
                    task.uncancel()
                job.begun = True
                if job.cancelled:
                    task.cancel()
                try:
                    await job.coroutine
                except asyncio.CancelledError:
                    if self.pool.stopping:
                        raise
                except Exception:
                    _log.exception("a coroutine given to Runners raised; it should have answered its caller")
                finally:
                    job.done = True
                    job.runner = self.job = None
                # Where a handler left a context variable behind, the task is spent.
                if self._marked() or not self.pool.take_back(self):
                    return
                await self.parking
        finally:
            self.pool.forget(self)

    def wake(self) -> None:
        """Go on at once, in this tick of the loop."""
        parking = self.parking
        wake, parking.wake = parking.wake, None
        if wake is not None:
            self.context.run(wake, parking)

    def _marked(self) -> bool:
        arithmetic, usual = self.arithmetic, decimal.DefaultContext
        return (
            len(self.context) != 1
            or arithmetic.prec != usual.prec
            or arithmetic.rounding != usual.rounding
            or decimal.getcontext() is not arithmetic
        )


class Runners:
    """A pool of parked tasks that start a coroutine in the tick in which it is given to them."""

    def __init__(self, idle_max: int = 512) -> None:
        self._idle: list[_Runner] = []
        self._all: set[_Runner] = set()
        self._idle_max = idle_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Running:
        """Run ``coroutine`` until it first waits; the rest runs as an ordinary task."""
        job = Running(coroutine)
        if self.stopping:
            coroutine.close()
            job.done = True
            return job
        idle = self._idle
        if idle and asyncio.current_task(self._loop) is None:
            runner = idle.pop()
            runner.job = job
            job.runner = runner
            runner.wake()
            return job
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        runner = _Runner(self, loop)
        runner.job = job
        job.runner = runner
        self._all.add(runner)
        return job

    def take_back(self, runner: _Runner) -> bool:
        if len(self._idle) >= self._idle_max or self.stopping:
            return False
        self._idle.append(runner)
        return True

    def forget(self, runner: _Runner) -> None:
        self._all.discard(runner)

    async def stop(self) -> None:
        """End every runner; coroutines still at work are cancelled."""
        self.stopping = True
        tasks = [runner.task for runner in self._all]
        loop = asyncio.get_running_loop()
        for runner in list(self._all):
            if runner.job is None:
                loop.call_soon(runner.wake)
            elif runner.job.runner is not None:
                runner.job.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._idle.clear()


class TaskOwner:
    """Holds background tasks; a failure is logged at once and raised when the owner stops."""

    def __init__(self, name: str = "background") -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: list[BaseException] = []

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._failures.append(error)
            _log.error("%s: task %r failed", self.name, task.get_name(), exc_info=error)

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel what still runs, wait for it, and raise the first failure there was."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                _log.warning("%s: task %r did not end within %s s", self.name, task.get_name(), timeout_s)
        if self._failures:
            failures, self._failures = self._failures, []
            raise cast("Exception", failures[0])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def spare_the_collector() -> None:
    """Tell the garbage collector that what the process has made so far lives as long as the process.

    Call it once, when a process is ready to serve. Modules, types and tables are no longer walked again and again,
    which took a third of the CPU of a small call; and young objects, which calls free by themselves, are looked at
    less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 50)
