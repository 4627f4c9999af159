"""Engines that speak OpenAI's API: OpenAI, vLLM, SGLang, Ray Serve, Ollama, LiteLLM, llama.cpp's server and others."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Iterable

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
from seamline.models.wire import openai, openai_lists
from seamline.models.wire.openai_json import DONE


class OpenAiEngine:
    """A :class:`~seamline.models.engine.LanguageEngine` at an OpenAI-compatible address.

    Args:
        client: to the address up to and with the version, such as ``https://host/v1``.
        model: asked for instead of what a request names.
        tokens_field: how the most tokens of an answer are told; ``max_completion_tokens`` for OpenAI itself.
    """

    def __init__(
        self, client: EngineClient, model: str = "", *, provider: str = "openai", tokens_field: str = "max_tokens"
    ) -> None:
        self.provider = provider
        self._client = client
        self._model = model
        self.tokens_field = tokens_field

    @property
    def name(self) -> str:
        """Where it is."""
        return self._client.name

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        body = openai.chat_body(request, model=self._model, tokens_field=self.tokens_field)
        return openai.read_answer(await self._client.ask(_path(request), body))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        body = openai.chat_body(request, model=self._model, stream=True, tokens_field=self.tokens_field)
        last: ChatChunk | None = None
        async with await self._client.open(_path(request), body) as answer:
            parser = SseParser()
            while data := await answer.read():
                for event in parser.feed(data):
                    if event.data == DONE:
                        if last is None:
                            raise cut_short(self.name)
                        await answer.finish()
                        yield last
                        return
                    chunk = openai.read_piece(event.data)
                    if chunk.text or chunk.tool_calls or chunk.refusal:
                        answer.began()
                    if last is not None or chunk.finish:
                        # What it took comes after the end, in an event of its own.
                        last = chunk if last is None else dataclasses.replace(last, usage=chunk.usage or last.usage)
                    else:
                        yield chunk
        if last is None:
            raise cut_short(self.name)
        yield last

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        data = await self._client.ask("/embeddings", openai_lists.embed_body(request, model=self._model))
        return openai_lists.read_vectors(data, len(request.texts))

    async def rerank(self, request: RerankRequest) -> RerankAnswer:
        try:
            data = await self._client.ask("/rerank", openai_lists.rerank_body(request, model=self._model))
        except EngineRefused as error:
            if error.status in (404, 405, 501):
                raise EngineCannotError(f"{self.name} does not rerank", "Ask an engine that does.") from error
            raise
        return openai_lists.read_ranking(data, len(request.documents))

    def raw(
        self, path: str, body: bytes, headers: Iterable[Header] = (), *, streams: bool = True, timed: bool = True
    ) -> Awaitable[RawAnswer]:
        """Ask with bytes, get bytes, whatever the status. ``path`` follows the version: ``/chat/completions``.

        The key is added; ``streams`` says whether ``first_s`` and ``stall_s`` hold, or ``answer_s``; without
        ``timed`` it is the caller who gives up when no answer begins. Raises EngineUnreachable, EngineStalled.
        """
        return self._client.raw(path, body, headers, streams=streams, timed=timed)

    async def refused(self, answer: RawAnswer) -> EngineRefused:
        """What a raw answer with a status of 400 or more says."""
        return await self._client.refused(answer)

    async def close(self) -> None:
        await self._client.close()


def _path(request: ChatRequest) -> str:
    return "/completions" if request.prompt and not request.messages else "/chat/completions"
