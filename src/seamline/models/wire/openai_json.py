"""The JSON of OpenAI's API, as far as it is looked at. What it has besides is passed over."""

from __future__ import annotations

from typing import Any, Final

import msgspec

DONE: Final = b"[DONE]"
"""The data of a stream's last event."""


class Function(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, omit_defaults=True):
    id: str | None = None
    index: int | None = None
    type: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Said(msgspec.Struct):
    """A message of an answer, or a delta."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class Cached(msgspec.Struct):
    cached_tokens: int | None = 0


class Tokens(msgspec.Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    total_tokens: int | None = 0
    prompt_tokens_details: Cached | None = None


class Answer(msgspec.Struct):
    """A whole answer of chat or completions."""

    choices: list[Choice]
    id: str | None = None
    model: str | None = None
    usage: Tokens | None = None


class Piece(msgspec.Struct):
    """One of a stream."""

    choices: list[Choice] = []
    id: str | None = None
    model: str | None = None
    usage: Tokens | None = None
    error: Any = None


class Vector(msgspec.Struct):
    embedding: tuple[float, ...] | str
    """Base64 of little-endian float32, where it was asked for so."""
    index: int = 0


class Vectors(msgspec.Struct):
    data: list[Vector]
    model: str | None = None
    usage: Tokens | None = None


class Place(msgspec.Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class Places(msgspec.Struct):
    results: list[Place]
    model: str | None = None
    usage: Tokens | None = None


class AskedFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None


class AskedTool(msgspec.Struct):
    function: AskedFunction
    type: str = "function"


class AskedMessage(msgspec.Struct):
    role: str
    content: str | list[Any] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class AskedStream(msgspec.Struct):
    include_usage: bool = False


class AskedChat(msgspec.Struct):
    messages: list[AskedMessage]
    model: str = ""
    tools: list[AskedTool] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: AskedStream | None = None


class AskedCompletion(msgspec.Struct):
    prompt: str | list[str]
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: AskedStream | None = None


class AskedVectors(msgspec.Struct):
    input: str | list[str]
    model: str = ""
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


class AskedRanking(msgspec.Struct):
    query: str
    documents: list[str | dict[str, Any]]
    model: str = ""
    top_n: int | None = None
