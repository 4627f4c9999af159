"""A blocking generator in a thread, read from the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Final

AHEAD_MAX: Final = 16
"""Items that the generator may be ahead of its reader."""


async def iterate(make: Callable[[], Iterator[Any]], threads: Executor) -> AsyncGenerator[Any]:
    """The items of a generator that ``make`` makes in a thread of ``threads``, where it is also closed.

    It is ahead of its reader by a few items at most. When the reader leaves, it goes on to its next item and is closed.
    """
    pump = _Pump(make, asyncio.get_running_loop())
    context = contextvars.copy_context()
    submitted = threads.submit(context.run, pump.run)
    ended = asyncio.wrap_future(submitted)
    ended.add_done_callback(lambda _: pump.news.set())
    try:
        while True:
            await pump.news.wait()
            pump.news.clear()
            while pump.items:
                pump.room.release()
                yield pump.items.popleft()
            if ended.done() and not pump.items:
                break
        ended.result()
    finally:
        pump.stop()
        submitted.cancel()  # if no thread was free for it so far
        # A thread cannot be torn away; whoever waits for its end may be.
        await asyncio.shield(asyncio.wait([ended]))


class _Pump:
    """Runs in the thread, but for ``stop`` and what is read of ``items``."""

    def __init__(self, make: Callable[[], Iterator[Any]], loop: asyncio.AbstractEventLoop) -> None:
        self.items: deque[Any] = deque()
        self.news = asyncio.Event()
        self.room = threading.Semaphore(AHEAD_MAX)
        self._make = make
        self._loop = loop
        self._stopped = False

    def run(self) -> None:
        iterator = self._make()
        try:
            for item in iterator:
                self.room.acquire()
                if self._stopped:
                    return
                self.items.append(item)
                self._loop.call_soon_threadsafe(self.news.set)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def stop(self) -> None:
        self._stopped = True
        self.room.release()
