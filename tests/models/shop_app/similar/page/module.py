"""Its inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from seamline import Module
from similar.page import Page
from similar.words import Words

module = Module("page", provides=Page)


@module.service
class PageService(Page):
    def __init__(self, words: Words) -> None:
        self.words = words

    async def many(self, words: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(await asyncio.gather(*(self.words.batch_of(word) for word in words)))

    async def spelled(self, word: str) -> AsyncIterator[str]:
        async for letter in self.words.spell(word):
            yield letter
