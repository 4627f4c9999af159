"""Time as a dependency, so that tests move it instead of waiting for it."""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final, Protocol, runtime_checkable

_GOLDEN_RATIO: Final = 0.6180339887498949


@runtime_checkable
class Clock(Protocol):
    """What a module asks for when it needs the time. Wired by type."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock, moved by ``offset_s`` when a test says so; who sleeps until then wakes."""

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._sleepers: dict[asyncio.Future[None], tuple[float, asyncio.TimerHandle]] = {}

    @property
    def offset_s(self) -> float:
        return self._offset_s

    @offset_s.setter
    def offset_s(self, value: float) -> None:
        self._offset_s = value
        for waiter, (until, timer) in list(self._sleepers.items()):
            timer.cancel()
            self._sleepers[waiter] = (until, self._timer(waiter, until))

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._offset_s)

    def monotonic(self) -> float:
        return time.monotonic() + self._offset_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        until = self.monotonic() + seconds
        self._sleepers[waiter] = (until, self._timer(waiter, until))
        try:
            await waiter
        finally:
            _, timer = self._sleepers.pop(waiter)
            timer.cancel()

    def _timer(self, waiter: asyncio.Future[None], until: float) -> asyncio.TimerHandle:
        return waiter.get_loop().call_later(max(until - self.monotonic(), 0.0), _wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def in_step(period_s: float) -> None:
    """Sleep until a time that is the same for all who name this period: what many modules look after now and then
    wakes the process once."""
    await asyncio.sleep(until_step(period_s))


def until_step(period_s: float) -> float:
    """The seconds that :func:`in_step` would sleep now."""
    phase_s = os.getpid() * _GOLDEN_RATIO % 1.0  # processes of one machine, born one after the other, are far apart
    return period_s - (asyncio.get_running_loop().time() + phase_s) % period_s


def now_ms(clock: Clock) -> int:
    """Milliseconds since the epoch."""
    if type(clock) is SystemClock:
        return int((time.time() + clock.offset_s) * 1000)
    return int(clock.now().timestamp() * 1000)


class ManualClock:
    """A clock that stands still until :meth:`advance` moves it; sleepers wake in order."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ticket = count()

    def now(self) -> datetime:
        return self._now + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._ticket), waiter))
        await waiter

    def advance(self, seconds: float) -> None:
        """Move time on by ``seconds`` and wake every sleeper whose time has come."""
        self._elapsed_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            _, _, waiter = heapq.heappop(self._sleepers)
            _wake(waiter)
