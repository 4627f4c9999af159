"""A model of the kind that nobody wants in their own process."""

from __future__ import annotations

from collections.abc import AsyncIterator

from seamline import Contract, Fault, idempotent, readonly, timeout


class NoSuchWord(Fault):
    """No such word."""

    word: str


class Shaky(Contract):
    @readonly
    async def pid(self) -> int: ...

    @readonly
    async def double(self, number: int) -> int: ...

    @idempotent
    @timeout(20)
    async def crash(self, how: str, times: int, where: str) -> int: ...

    async def crash_once(self, how: str) -> int: ...

    @readonly
    async def grow(self, megabytes: int) -> int: ...

    @readonly
    @timeout(0.3)
    async def spin(self, seconds: float) -> float: ...

    @readonly
    async def look_up(self, word: str) -> str: ...

    def count(self, to: int, die_at: int = -1) -> AsyncIterator[int]: ...
