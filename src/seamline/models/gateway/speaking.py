"""The wires that clients speak, where a call goes on in our own words."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, EmbedRequest, RerankRequest
from seamline.models.gateway import responses
from seamline.models.gateway.keys import Caller
from seamline.models.gateway.passing import Asked, Route
from seamline.models.gateway.pipeline import Pipeline
from seamline.models.remote.sse import encoded
from seamline.models.wire import anthropic_server, openai_lists, openai_server
from seamline.models.wire.openai_json import DONE


class Spoken(Protocol):
    """A request that was understood, and how its answer is told."""

    route: Route
    stream: bool

    async def whole(self, pipeline: Pipeline, who: Caller) -> bytes:
        """The body of the answer. Raises AiGatewayError, EngineError."""
        ...

    def events(self, pipeline: Pipeline, who: Caller) -> AsyncGenerator[bytes]:
        """The answer's events as they travel. Raises the same, and nothing but that before the first one."""
        ...


def speak(asked: Asked) -> Spoken:
    """Raises WireError, BadRequest."""
    route, body = asked.route, asked.whole
    if route.ability == "embeddings":
        return _Vectors(route, *openai_lists.asked_vectors(body))
    if route.ability == "rerank":
        return _Ranking(route, openai_lists.asked_ranking(body))
    if route.wire == "responses":
        return _Responses(route, *responses.asked_response(body))
    if route.wire == "messages":
        told = anthropic_server.asked_messages(body)
        return _Messages(route, told.request, told.stream)
    told = openai_server.asked_completion(body) if route.ability == "completions" else openai_server.asked_chat(body)
    return _Chat(route, told.request, told.stream, usage=asked.usage_wanted)


def told_chat(answer: ChatAnswer) -> bytes:
    """The body of a chat's whole answer."""
    named = answer if answer.id else dataclasses.replace(answer, id=f"chatcmpl-{_new_id()}")
    return openai_server.told_answer(named, created=_now_s())


def _new_id() -> str:
    return f"{random.getrandbits(96):024x}"


def _now_s() -> int:
    return int(datetime.now(UTC).timestamp())


class _Talk:
    """One of the wires on which a language model talks."""

    def __init__(self, route: Route, request: ChatRequest, stream: bool) -> None:
        self.route = route
        self.stream = stream
        self._request = request
        self._id = _new_id()
        self._created = _now_s()

    async def whole(self, pipeline: Pipeline, who: Caller) -> bytes:
        answer = await pipeline.complete(who, self._request)
        return self._told(answer if answer.id else dataclasses.replace(answer, id=self._id))

    async def events(self, pipeline: Pipeline, who: Caller) -> AsyncGenerator[bytes]:
        async with aclosing(pipeline.stream(who, self._request)) as chunks:
            async for chunk in chunks:
                if told := self._piece(chunk):
                    yield told
        if told := self._end():
            yield told

    def _told(self, answer: ChatAnswer) -> bytes:
        raise NotImplementedError

    def _piece(self, chunk: ChatChunk) -> bytes:
        raise NotImplementedError

    def _end(self) -> bytes:
        return b""


class _Chat(_Talk):
    """OpenAI's chat completions, and completions."""

    def __init__(self, route: Route, request: ChatRequest, stream: bool, *, usage: bool) -> None:
        super().__init__(route, request, stream)
        self._completion = route.ability == "completions"
        prefix = "cmpl" if self._completion else "chatcmpl"
        self._id = f"{prefix}-{self._id}"
        self._telling = openai_server.Telling(
            id=self._id, model=request.model, created=self._created, usage=usage, completion=self._completion
        )

    def _told(self, answer: ChatAnswer) -> bytes:
        return openai_server.told_answer(answer, created=self._created, completion=self._completion)

    def _piece(self, chunk: ChatChunk) -> bytes:
        return b"".join([encoded(data) for data in self._telling.feed(chunk)])

    def _end(self) -> bytes:
        return encoded(DONE)


class _Messages(_Talk):
    """Anthropic's messages."""

    def __init__(self, route: Route, request: ChatRequest, stream: bool) -> None:
        super().__init__(route, request, stream)
        self._id = f"msg_{self._id}"
        self._telling = anthropic_server.Telling(id=self._id, model=request.model)

    def _told(self, answer: ChatAnswer) -> bytes:
        return anthropic_server.told_message(answer)

    def _piece(self, chunk: ChatChunk) -> bytes:
        return b"".join([encoded(data, kind) for kind, data in self._telling.feed(chunk)])


class _Responses(_Talk):
    """OpenAI's responses."""

    def __init__(self, route: Route, request: ChatRequest, stream: bool) -> None:
        super().__init__(route, request, stream)
        self._id = f"resp_{self._id}"
        self._telling = responses.Telling(id=self._id, model=request.model, created=self._created)
        self._begun = False

    def _told(self, answer: ChatAnswer) -> bytes:
        return responses.told_response(answer, id=self._id, created=self._created)

    def _piece(self, chunk: ChatChunk) -> bytes:
        begin = b"" if self._begun else self._telling.begin()
        self._begun = True
        return begin + self._telling.feed(chunk)

    def _end(self) -> bytes:
        return self._telling.end()


class _Vectors:
    stream = False

    def __init__(self, route: Route, request: EmbedRequest, packed: bool) -> None:
        self.route = route
        self._request = request
        self._packed = packed

    async def whole(self, pipeline: Pipeline, who: Caller) -> bytes:
        return openai_lists.told_vectors(await pipeline.embed(who, self._request), packed=self._packed)

    def events(self, pipeline: Pipeline, who: Caller) -> AsyncGenerator[bytes]:
        raise NotImplementedError


class _Ranking:
    stream = False

    def __init__(self, route: Route, request: RerankRequest) -> None:
        self.route = route
        self._request = request

    async def whole(self, pipeline: Pipeline, who: Caller) -> bytes:
        return openai_lists.told_ranking(await pipeline.rerank(who, self._request))

    def events(self, pipeline: Pipeline, who: Caller) -> AsyncGenerator[bytes]:
        raise NotImplementedError
