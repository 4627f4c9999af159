"""Its inside."""

from __future__ import annotations

from collections.abc import AsyncIterator

from chatter.talk import Talk
from seamline import Module
from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest
from seamline.models.runtimes.scripted import Rule, Scripted

module = Module("talk", provides=Talk)

_SCRIPT = (
    Rule(pattern="count to (\\d)", answer="one two three four five six seven eight nine"),
    Rule(pattern="slowly", answer="and on " * 150),
    Rule(pattern="for ever", answer="and on " * 5_000),
    Rule(answer="I do not know"),
)


@module.model(Talk, version="scripted-1", runs_in="loop")
class ScriptedTalk:
    def __init__(self) -> None:
        self.model = Scripted(_SCRIPT, tokens_per_s=200)
        self.said = 0

    async def made(self) -> int:
        return self.said

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        return await self.model.complete(request)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        async for chunk in self.model.stream(request):
            self.said += 1
            yield chunk
