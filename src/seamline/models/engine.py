"""What the AI gateway asks: an engine elsewhere, or a model of the application."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from seamline.models.chat import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    RerankAnswer,
    RerankRequest,
)


class LanguageEngine(Protocol):
    """Answers what it can; what it cannot raises EngineCannotError.

    Each method raises :class:`~seamline.models.errors.EngineError`: unreachable, refused (with the status and with
    when to come again), malformed. Cancelling a call, or closing a stream, stops the work at the engine.
    """

    provider: str
    """As OpenTelemetry calls it: ``openai``, ``anthropic``, ``seamline``."""

    async def complete(self, request: ChatRequest) -> ChatAnswer: ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]: ...

    async def embed(self, request: EmbedRequest) -> EmbedAnswer: ...

    async def rerank(self, request: RerankRequest) -> RerankAnswer: ...

    async def close(self) -> None: ...
