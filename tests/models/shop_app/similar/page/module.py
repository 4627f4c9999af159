"""Its inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from seamline import Module, use
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


async def face(scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Whatever is asked for, a word is thought about for a while."""
    if scope["type"] != "http":
        return
    words = await use(Words)()
    seconds = await words.slow(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(seconds).encode()})


module.mount(face, at="/")
