"""A model: how alike words are."""

from __future__ import annotations

from collections.abc import AsyncIterator

from seamline import Contract, readonly, timeout


class Words(Contract):
    @readonly
    async def letters(self, word: str) -> dict[str, int]: ...

    @readonly
    @timeout(5)
    async def slow(self, seconds: float) -> float: ...

    @readonly
    async def batch_of(self, word: str) -> int: ...

    def spell(self, word: str, fail_at: int = -1) -> AsyncIterator[str]: ...
