"""Many small writes as few large ones: what is asked for while one is on its way to disk goes with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from seamline.kernel.lifetime import TaskOwner

T = TypeVar("T")
R = TypeVar("R")


class Combiner(Generic[T, R]):
    """Gathers items from many tasks for ``flush``, of which one runs at a time.

    Args:
        flush: writes the items, in order, and gives one outcome for each: its result, or the exception it failed
            with alone. When it raises, all of them fail.
        items_max: how many go with one flush.
    """

    def __init__(
        self, flush: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]], *, items_max: int = 512
    ) -> None:
        self._flush = flush
        self._items_max = items_max
        self._items: list[T] = []
        self._outcomes: list[asyncio.Future[R]] = []
        self._owner = TaskOwner("combined writes")
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: T) -> R:
        """Wait until ``item`` was written. A caller that is cancelled leaves its item to be written."""
        return await self.put(item)

    def put(self, item: T) -> asyncio.Future[R]:
        """As :meth:`add`, for a caller that waits later."""
        outcome: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._items.append(item)
        self._outcomes.append(outcome)
        if self._task is None:
            # In nobody's context: what belongs to many is part of no caller's unit of work, nor of its trace.
            self._task = Context().run(self._owner.spawn, self._work(), name="combined writes")
        return outcome

    async def _work(self) -> None:
        try:
            while True:
                # Tasks that are ready to run may have something to add, those that were just answered above all: a
                # turn of the loop makes a larger group.
                await asyncio.sleep(0)
                if not self._items:
                    return
                items, outcomes = self._take()
                try:
                    results = await self._flush(items)
                except Exception as error:
                    results = [error] * len(items)
                for outcome, result in zip(outcomes, results, strict=True):
                    if outcome.done():
                        continue
                    if isinstance(result, BaseException):
                        outcome.set_exception(result)
                    else:
                        outcome.set_result(result)
        finally:
            self._task = None

    def _take(self) -> tuple[list[T], list[asyncio.Future[R]]]:
        items, outcomes, most = self._items, self._outcomes, self._items_max
        self._items, self._outcomes = items[most:], outcomes[most:]
        return items[:most], outcomes[:most]

    async def close(self) -> None:
        """Wait until all that was given is written."""
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._owner.stop(5.0)
