"""Who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from seamline import Contract


class Page(Contract):
    async def many(self, words: tuple[str, ...]) -> tuple[int, ...]: ...

    def spelled(self, word: str) -> AsyncIterator[str]: ...
