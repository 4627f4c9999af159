"""Its inside."""

from __future__ import annotations

from collections.abc import AsyncIterator

from chatter.page import Page
from seamline import Module
from seamline.models.chat import ChatRequest, Message
from seamline.models.gateway.pipeline import LanguageModels

module = Module("page", provides=Page)


@module.service
class PageService(Page):
    def __init__(self, models: LanguageModels) -> None:
        self.models = models

    async def ask(self, question: str) -> str:
        return (await self.models.complete(_asked(question))).message.content

    async def listen(self, question: str) -> AsyncIterator[str]:
        async for chunk in self.models.stream(_asked(question)):
            if chunk.text:
                yield chunk.text


def _asked(question: str) -> ChatRequest:
    return ChatRequest(model="small", messages=(Message(role="user", content=question),))
