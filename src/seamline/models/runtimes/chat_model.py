"""A language model as a module's member: a :class:`~seamline.models.chat.Chat` out of whatever makes tokens.

::

    class ShopTalk(Chat): ...

    @module.model(ShopTalk, version="tiny-1", runs_in="loop", loads="first_call")
    class Tiny(LlamaChat):
        folder = HERE / "weights" / "tiny-1"

That is all; ``temperature``, ``tokens_max`` and the other attributes are what a request gets that does not say.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar, Literal

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Finish, Message, ToolCall, Usage
from seamline.models.errors import EngineUnreachable
from seamline.models.runtimes.prompt import rendered
from seamline.models.runtimes.text import StopStrings
from seamline.models.runtimes.tokens import Sampling, TokenEngine
from seamline.module.models import Artefacts

_CALL, _CALL_END = "<tool_call>", "</tool_call>"
"""How models of the Hermes and Qwen families ask for tools."""


class ChatModel:
    """Derive from it and say how it opens. Its methods run on the event loop, its engine in a thread of its own."""

    provider = "seamline"
    name: ClassVar[str] = ""
    """What it calls itself in answers; the name of the class if empty."""
    temperature: ClassVar[float] = 0.0
    top_p: ClassVar[float] = 1.0
    repetition_penalty: ClassVar[float] = 1.0
    tokens_max: ClassVar[int] = 256
    """Of an answer, unless the request says."""

    _engine: TokenEngine | None = None

    def open(self, artefacts: Artefacts | None) -> TokenEngine:
        """Load it; may block."""
        raise NotImplementedError

    async def load(self, artefacts: Artefacts | None = None) -> None:
        self._engine = await asyncio.to_thread(self.open, artefacts)

    async def unload(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.close)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        text, calls, last = "", list[ToolCall](), ChatChunk()
        async with aclosing(ChatModel.stream(self, request)) as chunks:  # whatever form a subclass gives its own
            async for chunk in chunks:
                text += chunk.text
                calls += chunk.tool_calls
                last = chunk
        return ChatAnswer(
            message=Message(role="assistant", content=text, tool_calls=tuple(calls)),
            finish=last.finish or "stop",
            usage=last.usage or Usage(),
            model=last.model,
            id=last.id,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        engine = self._engine
        if engine is None:
            raise EngineUnreachable(f"{type(self).__name__} is not loaded", "")
        prompt = engine.tokenizer.encode(rendered(request, engine.tokenizer.template, engine.tokenizer.specials))
        name, answer_id = request.model or self.name or type(self).__name__, f"chat-{uuid.uuid4().hex[:12]}"
        calls = _Calls(request)
        finish: Finish = "stop"
        count = cached = 0
        async with aclosing(engine.generate(prompt, self._sampling(request))) as tokens:
            async for token in tokens:
                count += token.id >= 0
                cached = cached or token.cached
                finish = token.finish or finish
                shown = calls.feed(token.text)
                if shown:
                    yield ChatChunk(text=shown, model=name, id=answer_id)
        asked, rest = calls.end()
        if asked:
            finish = "tool_calls"
            yield ChatChunk(tool_calls=asked, model=name, id=answer_id)
        elif rest:
            yield ChatChunk(text=rest, model=name, id=answer_id)
        usage = Usage(input_tokens=len(prompt), output_tokens=count, cached_input_tokens=cached)
        yield ChatChunk(finish=finish, usage=usage, model=name, id=answer_id)

    def _sampling(self, request: ChatRequest) -> Sampling:
        accepts = complete = None
        if request.answer_schema is not None:
            # A schema is rare, and its reader is not small.
            from seamline.models.runtimes.json_shape import JsonShape

            shape = JsonShape.of(request.answer_schema)
            accepts, complete = shape.accepts, shape.complete
        return Sampling(
            tokens_max=request.tokens_max or self.tokens_max,
            temperature=self.temperature if request.temperature is None else request.temperature,
            top_p=self.top_p if request.top_p is None else request.top_p,
            repetition_penalty=self.repetition_penalty,
            seed=request.seed,
            stop=request.stop,
            accepts=accepts,
            complete=complete,
        )


class LlamaChat(ChatModel):
    """A model of the Llama architecture, run here. Its files are those of the registry, if it has some there; else
    ``folder`` (``config.json``, ``tokenizer.json``, ``*.safetensors``) or ``file`` (a ``.gguf``)."""

    folder: ClassVar[Path | str] = ""
    file: ClassVar[Path | str] = ""
    slots: ClassVar[int] = 8
    """Answers that are made at once."""
    context: ClassVar[int] = 0
    """Tokens of a prompt and its answer; the model's own limit if zero. Memory for ``slots`` times as many is kept."""
    waiting_max: ClassVar[int] = 256
    weights: ClassVar[Literal["stored", "float32", "int8", "int4"]] = "stored"
    threads: ClassVar[int] = 1

    def open(self, artefacts: Artefacts | None) -> TokenEngine:
        from seamline.models.runtimes.opening import open_llama  # what it needs is heavy, and an extra

        where = artefacts.folder if artefacts is not None else Path(self.file or self.folder)
        return open_llama(
            where,
            weights=self.weights,
            slots=self.slots,
            context=self.context,
            waiting_max=self.waiting_max,
            threads=self.threads,
        )


class _Calls:
    """Takes calls of tools out of the text, if the request has tools."""

    def __init__(self, request: ChatRequest) -> None:
        self._looks = bool(request.tools) and request.tool_choice != "none"
        self._text = StopStrings((_CALL,) if self._looks else ())
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be shown."""
        if not self._looks:
            return text
        self._held += text
        return self._text.feed(text)

    def end(self) -> tuple[tuple[ToolCall, ...], str]:
        """What was asked for, or the text that was held back since it might have been a call."""
        if not self._looks:
            return (), ""
        if not self._text.stopped:
            return (), self._text.rest()
        behind = self._held[self._held.index(_CALL) :]
        calls: list[ToolCall] = []
        for piece in behind.split(_CALL)[1:]:
            try:
                said = json.loads(piece.partition(_CALL_END)[0])
                name, arguments = str(said["name"]), json.dumps(said.get("arguments", {}), ensure_ascii=False)
            except (ValueError, KeyError, TypeError, AttributeError):
                return (), behind
            calls.append(ToolCall(id=f"call_{len(calls)}", name=name, arguments=arguments, index=len(calls)))
        return tuple(calls), ""
