"""Readers that wait for something new."""

from __future__ import annotations

import asyncio


class Waking:
    """A counter that can be awaited; a change between looking and waiting is not missed."""

    def __init__(self) -> None:
        self.generation = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        self.generation += 1
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def changed(self, seen: int | None = None) -> int:
        if seen is None or seen == self.generation:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)
        return self.generation
