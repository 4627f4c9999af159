"""What language models are asked and answer: one vocabulary for engines of any make, for modules and for the wire.

The contracts here are to be derived from, one for each model that an application has::

    class ShopTalk(Chat): ...

    module = Module("talk", provides=ShopTalk)

    @module.model(ShopTalk, version="tiny-1")
    class Tiny: ...

Token counts are the engine's own. JSON stands as text where its shape is the user's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Literal

from seamline.module.contract import Contract, readonly

Role = Literal["system", "user", "assistant", "tool"]

Finish = Literal["", "stop", "length", "tool_calls", "refusal"]
"""Why an answer ended; empty while it goes on."""

Kept = Literal["", "5m", "1h"]
"""How long an engine's prompt cache, where it has one that is told, is to keep what is asked up to here."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a message: a text, or a picture by its URL (``data:`` or ``https:``)."""

    text: str = ""
    image_url: str = ""
    cache: Kept = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """What the model asks for. In a chunk, ``index`` says which call a piece of ``arguments`` belongs to."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    """JSON."""
    index: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    content: str = ""
    parts: tuple[Part, ...] = ()
    """Instead of ``content``, where a message is more than a text."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    """Of a message of role ``tool``: what it answers."""
    refusal: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    description: str = ""
    parameters: str = "{}"
    """JSON Schema."""
    strict: bool = False
    cache: Kept = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSchema:
    """The answer has to be JSON, of this JSON Schema if there is one."""

    name: str = "answer"
    schema: str = ""
    strict: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A question to a language model. Zero and None mean what the engine does by default."""

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    """To be continued as it stands, instead of ``messages``."""
    model: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required``, or the name of a tool."""
    answer_schema: AnswerSchema | None = None
    tokens_max: int = 0
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    user: str = ""
    """Whom the answer is for, as the caller calls them."""
    cache_key: str = ""
    """Questions that begin alike say the same, so that one prompt cache of the engine serves them."""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict[str, str])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens. The cached ones are among the input."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    message: Message
    finish: Finish = "stop"
    usage: Usage = Usage()
    model: str = ""
    """That answered."""
    id: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatChunk:
    """A piece of an answer. The last one has ``finish``, and ``usage`` if the engine counts."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str = ""
    finish: Finish = ""
    usage: Usage | None = None
    model: str = ""
    id: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    texts: tuple[str, ...]
    model: str = ""
    dimensions: int = 0
    user: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedAnswer:
    vectors: tuple[tuple[float, ...], ...]
    """One for each text, in order."""
    usage: Usage = Usage()
    model: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    query: str
    documents: tuple[str, ...]
    model: str = ""
    top_n: int = 0
    """Zero is all."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    index: int
    """Of the document in the request."""
    score: float
    """The more, the better it answers; only comparable within one answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RerankAnswer:
    results: tuple[Ranked, ...]
    """The best first."""
    usage: Usage = Usage()
    model: str = ""


class Chat(Contract):
    """A language model: the whole answer, or the answer as it comes."""

    async def complete(self, request: ChatRequest) -> ChatAnswer: ...

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]: ...


class Embeddings(Contract):
    """A model that places texts in a space where what means alike is near."""

    @readonly
    async def embed(self, request: EmbedRequest) -> EmbedAnswer: ...


class Rerank(Contract):
    """A model that orders documents by how well they answer a query."""

    @readonly
    async def rerank(self, request: RerankRequest) -> RerankAnswer: ...
