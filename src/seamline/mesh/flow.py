"""Flow control of one stream of items: neither side runs further ahead than the credit that the other gave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import FrameError


class Incoming:
    """A stream of items from the peer, with the credit that keeps it from running ahead."""

    __slots__ = ("_credit", "_grant", "_items", "_waiter", "ended", "error")

    def __init__(self, credit: int, grant: Callable[[int], None]) -> None:
        self._items: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._credit = credit
        self._grant = grant
        self.ended = False
        self.error: Exception | None = None

    def push(self, item: bytes) -> None:
        """An item came. Raises FrameError when the peer sends beyond its credit."""
        if self._credit <= 0:
            raise FrameError("the peer sent items beyond its credit")
        self._credit -= len(item) + frames.HEADER_BYTES
        self._items.append(item)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        self.ended = True
        self.error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes | None:
        """The next item, or None at the end; raises what ended the stream."""
        while not self._items:
            if self.ended:
                if self.error is not None:
                    raise self.error
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        item = self._items.popleft()
        if not self.ended:
            size = len(item) + frames.HEADER_BYTES
            self._credit += size
            self._grant(size)
        return item


class Outgoing:
    """The credit of a stream of items to the peer."""

    __slots__ = ("_credit", "_waiter", "closed")

    def __init__(self, credit: int) -> None:
        self._credit = credit
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    def granted(self, amount: int) -> None:
        self._credit += amount
        self._wake()

    def close(self) -> None:
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def spend(self, size: int) -> bool:
        """Wait until something may be sent; False when nobody listens any more."""
        while self._credit <= 0 and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._credit -= size + frames.HEADER_BYTES
        return not self.closed
