"""A bad network between two processes: what a socket has received is given on later, in order, as TCP would.

A :class:`Shaper` stands between a transport and its protocol only while a drill runs.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any, Protocol, cast


class Shapeable(Protocol):
    """A connection whose transport can be given another protocol."""

    transport: asyncio.Transport

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class Shaper(asyncio.Protocol):
    """Holds back what comes.

    Args:
        inner: whose transport it is.
        delay_s: of each piece, or of one that was lost, until it is sent again.
        share: of pieces that are delayed; what comes after them waits behind them.
    """

    def __init__(self, inner: Shapeable, delay_s: float, share: float, dice: random.Random) -> None:
        self._inner = inner
        self._delay_s = delay_s
        self._share = share
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._held: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._inner.transport.set_protocol(self)

    def end(self) -> None:
        """Give on what is held, and stand aside."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._inner.transport.is_closing():
            self._inner.transport.set_protocol(cast("Any", self._inner))
        while self._held:
            self._inner.data_received(self._held.popleft()[1])

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        at = now
        while self._dice.random() < self._share:
            at += self._delay_s
            if self._share >= 1.0:
                break
        self._free_at = max(at, self._free_at)
        if self._free_at <= now:
            self._inner.data_received(data)
            return
        self._held.append((self._free_at, data))
        if self._timer is None:
            self._timer = self._loop.call_at(self._free_at, self._give_on)

    def _give_on(self) -> None:
        self._timer = None
        while self._held and self._held[0][0] <= self._loop.time() + 0.0005:
            self._inner.data_received(self._held.popleft()[1])
        if self._held:
            self._timer = self._loop.call_at(self._held[0][0], self._give_on)

    def eof_received(self) -> bool | None:
        self._flush()
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._flush()
        self._inner.connection_lost(exc)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held:
            self._inner.data_received(self._held.popleft()[1])
