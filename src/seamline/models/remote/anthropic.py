"""Engines that speak Anthropic's API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Final

from seamline.kernel.wire.http1_message import Header
from seamline.models.chat import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    RerankAnswer,
    RerankRequest,
)
from seamline.models.errors import EngineCannotError, EngineRefused
from seamline.models.remote.client import EngineClient, RawAnswer, cut_short
from seamline.models.remote.sse import SseParser
from seamline.models.wire.anthropic import Reading, messages_body, read_message

VERSION: Final[Header] = (b"anthropic-version", b"2023-06-01")


class AnthropicEngine:
    """A :class:`~seamline.models.engine.LanguageEngine`: messages, whole and in events.

    Args:
        client: to the address up to and with the version, such as ``https://host/v1``.
        model: asked for instead of what a request names.
    """

    provider = "anthropic"
    tokens_field = "max_tokens"

    def __init__(self, client: EngineClient, model: str = "") -> None:
        self._client = client
        self._model = model

    @property
    def name(self) -> str:
        """Where it is."""
        return self._client.name

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        body = messages_body(request, model=self._model)
        return read_message(await self._client.ask("/messages", body, [VERSION]))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        body = messages_body(request, model=self._model, stream=True)
        async with await self._client.open("/messages", body, [VERSION]) as answer:
            parser, reading = SseParser(), Reading()
            while data := await answer.read():
                for event in parser.feed(data):
                    chunk = reading.feed(event.data)
                    if reading.moved:
                        answer.began()
                    if reading.over:
                        await answer.finish()
                    if chunk is not None:
                        yield chunk
                    if reading.over:
                        return
        raise cut_short(self.name)

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:  # noqa: ARG002  # as the protocol calls it
        raise EngineCannotError(f"{self.name} does not embed", "Ask an engine that does.")

    async def rerank(self, request: RerankRequest) -> RerankAnswer:  # noqa: ARG002  # as the protocol calls it
        raise EngineCannotError(f"{self.name} does not rerank", "Ask an engine that does.")

    def raw(
        self, path: str, body: bytes, headers: Iterable[Header] = (), *, streams: bool = True, timed: bool = True
    ) -> Awaitable[RawAnswer]:
        """Ask with bytes, get bytes, whatever the status. ``path`` follows the version: ``/messages``."""
        given = list(headers)
        if all(name != VERSION[0] for name, _ in given):
            given.append(VERSION)
        return self._client.raw(path, body, given, streams=streams, timed=timed)

    async def refused(self, answer: RawAnswer) -> EngineRefused:
        """What a raw answer with a status of 400 or more says."""
        return await self._client.refused(answer)

    async def close(self) -> None:
        await self._client.close()
