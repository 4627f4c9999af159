"""OpenAI's wire, both sides: chat and completions.

A client of an engine uses ``chat_body``, ``read_answer`` and ``read_piece``; a server of the wire ``asked_chat``,
``told_answer`` and :class:`Telling`. Embeddings and reranking are in :mod:`.openai_lists`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, TypeVar, cast, get_args

import msgspec

from seamline.models.chat import (
    AnswerSchema,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Finish,
    Kept,
    Message,
    Part,
    Role,
    Tool,
    ToolCall,
    Usage,
)
from seamline.models.errors import EngineMalformed, EngineRefused
from seamline.models.wire import openai_json as of
from seamline.models.wire.errors import WireError

T = TypeVar("T")

DONE: Final = b"[DONE]"
"""The data of a stream's last event."""

_encode = msgspec.json.Encoder().encode
_answer = msgspec.json.Decoder(of.Answer)
_piece = msgspec.json.Decoder(of.Piece)
_asked_chat = msgspec.json.Decoder(of.AskedChat)
_asked_completion = msgspec.json.Decoder(of.AskedCompletion)

_FINISHES: Final[dict[str | None, Finish]] = {
    None: "",
    "": "",
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
}
_ROLES: Final = frozenset(get_args(Role))


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and how the answer is wanted."""

    request: ChatRequest
    stream: bool = False
    usage: bool = False
    """At the end of a stream."""


# What a client sends.


def chat_body(
    request: ChatRequest, *, model: str = "", stream: bool = False, tokens_field: str = "max_tokens"
) -> bytes:
    """The body for ``/chat/completions``, or for ``/completions`` where a prompt is to be continued.

    Args:
        model: instead of the request's.
        tokens_field: ``max_completion_tokens`` is what OpenAI's own newer models want.
    """
    body: dict[str, Any] = {"model": model or request.model}
    if request.messages or not request.prompt:
        body["messages"] = [_message_json(each) for each in request.messages]
        _add_tools(body, request)
    else:
        body["prompt"] = request.prompt
        tokens_field = "max_tokens"
    given: dict[str, Any] = {
        tokens_field: request.tokens_max or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "user": request.user or None,
        "prompt_cache_key": request.cache_key or None,
        "metadata": request.metadata or None,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return _encode(body)


def _add_tools(body: dict[str, Any], request: ChatRequest) -> None:
    if request.tools:
        body["tools"] = [_tool_json(tool) for tool in request.tools]
    if request.tool_choice in ("none", "required") or (request.tools and request.tool_choice != "auto"):
        choice = request.tool_choice
        body["tool_choice"] = (
            choice if choice in ("none", "required") else {"type": "function", "function": {"name": choice}}
        )
    schema = request.answer_schema
    if schema is not None and not schema.schema:
        body["response_format"] = {"type": "json_object"}
    elif schema is not None:
        described = {"name": schema.name, "schema": json_of(schema.schema, "schema"), "strict": schema.strict}
        body["response_format"] = {"type": "json_schema", "json_schema": described}


def _message_json(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.parts:
        told["content"] = [_part_json(part) for part in message.parts]
    elif not message.content and (message.tool_calls or message.refusal):
        told["content"] = None
    if message.tool_calls:
        told["tool_calls"] = [_call_json(call) for call in message.tool_calls]
    if message.tool_call_id:
        told["tool_call_id"] = message.tool_call_id
    if message.refusal:
        told["refusal"] = message.refusal
    return told


def _part_json(part: Part) -> dict[str, Any]:
    if part.image_url:
        return {"type": "image_url", "image_url": {"url": part.image_url}}
    return {"type": "text", "text": part.text}


def _call_json(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool_json(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": json_of(tool.parameters, "parameters")}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def json_of(text: str, what: str) -> Any:
    """The value of a JSON text that a user wrote. Raises WireError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        refused = WireError(f"{what!r} is not JSON: {error}", "Write a JSON Schema.")
        refused.param = what
        raise refused from None


# What a client reads.


def read_answer(data: bytes) -> ChatAnswer:
    """Raises EngineMalformed."""
    answer = decoded(_answer, data)
    if not answer.choices:
        raise EngineMalformed("the answer has no choices", "Is this an engine of this wire?")
    choice = answer.choices[0]
    said = choice.message or of.Said(content=choice.text)
    message = Message(
        role="assistant",
        content=said.content or "",
        tool_calls=tuple(_call_of(call, at) for at, call in enumerate(said.tool_calls or ())),
        refusal=said.refusal or "",
    )
    return ChatAnswer(
        message=message,
        finish=_finish(choice.finish_reason, message.refusal) or "stop",
        usage=usage_of(answer.usage),
        model=answer.model or "",
        id=answer.id or "",
    )


def read_piece(data: bytes) -> ChatChunk:
    """One event of a stream. Raises EngineMalformed, and EngineRefused where it tells of an error."""
    piece = decoded(_piece, data)
    if piece.error is not None:
        raise _refused_midway(piece.error)
    choice = piece.choices[0] if piece.choices else None
    said = (choice.delta if choice is not None else None) or of.Said(content=choice.text if choice else None)
    refusal = said.refusal or ""
    return ChatChunk(
        text=said.content or "",
        tool_calls=tuple(_call_of(call, at) for at, call in enumerate(said.tool_calls or ())),
        refusal=refusal,
        finish=_finish(choice.finish_reason, refusal) if choice is not None else "",
        usage=usage_of(piece.usage) if piece.usage is not None else None,
        model=piece.model or "",
        id=piece.id or "",
    )


def usage_of(told: of.Tokens | None) -> Usage:
    if told is None:
        return Usage()
    cached = told.prompt_tokens_details
    total, output = told.total_tokens or 0, told.completion_tokens or 0
    return Usage(
        input_tokens=told.prompt_tokens or max(total - output, 0),
        output_tokens=output,
        cached_input_tokens=(cached.cached_tokens or 0) if cached is not None else 0,
    )


def decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Raises EngineMalformed."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineMalformed(f"an answer cannot be understood: {error}", "Is this an engine of this wire?") from None


def _call_of(call: of.Call, at: int) -> ToolCall:
    return ToolCall(
        id=call.id or "",
        name=call.function.name or "",
        arguments=call.function.arguments or "",
        index=at if call.index is None else call.index,
    )


def _finish(reason: str | None, refusal: str) -> Finish:
    finish = _FINISHES.get(reason, "stop")
    return "refusal" if refusal and finish == "stop" else finish


def _refused_midway(told: Any) -> EngineRefused:
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {"message": told}
    error = EngineRefused(f"the engine gave up: {str(fields.get('message'))[:300]}", "Ask another, or later.")
    error.kind = str(fields.get("code") or fields.get("type") or "server_error")
    error.status = 500
    return error


# What a server reads.


def asked_chat(data: bytes) -> Asked:
    """The body of ``/chat/completions``. Raises WireError."""
    asked = understood(_asked_chat, data)
    _only_one(asked.n)
    request = ChatRequest(
        messages=tuple(_message_of(each) for each in asked.messages),
        model=asked.model,
        tools=tuple(_tool_of(tool) for tool in asked.tools or ()),
        tool_choice=_choice_of(asked.tool_choice),
        answer_schema=_schema_of(asked.response_format),
        tokens_max=asked.max_completion_tokens or asked.max_tokens or 0,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=_stops(asked.stop),
        seed=asked.seed,
        user=asked.user or "",
        cache_key=asked.prompt_cache_key or "",
        metadata=asked.metadata or {},
    )
    return Asked(request, bool(asked.stream), asked.stream_options is not None and asked.stream_options.include_usage)


def asked_completion(data: bytes) -> Asked:
    """The body of ``/completions``. Raises WireError."""
    asked = understood(_asked_completion, data)
    _only_one(asked.n)
    prompt = asked.prompt if isinstance(asked.prompt, str) else asked.prompt[0] if len(asked.prompt) == 1 else None
    if prompt is None:
        raise unfit("prompt", "more than one prompt in a request is not served", "Send one request for each.")
    request = ChatRequest(
        prompt=prompt,
        model=asked.model,
        tokens_max=asked.max_tokens or 0,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=_stops(asked.stop),
        seed=asked.seed,
        user=asked.user or "",
    )
    return Asked(request, bool(asked.stream), asked.stream_options is not None and asked.stream_options.include_usage)


def understood(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Raises WireError."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _, _, where = str(error).partition(" - at `$.")
        raise unfit(
            where.rstrip("`"), f"the request cannot be understood: {error}", "Send what the API describes."
        ) from None


def unfit(param: str, fact: str, remedy: str) -> WireError:
    error = WireError(fact, remedy)
    error.param = param
    return error


def _only_one(n: int | None) -> None:
    if n not in (None, 1):
        raise unfit("n", f"{n!r} answers to one request are not served", "Send one request for each.")


def _stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _message_of(asked: of.AskedMessage) -> Message:
    role = "system" if asked.role == "developer" else asked.role
    if role not in _ROLES:
        raise unfit("messages", f"{asked.role!r} is no role", "Write system, user, assistant or tool.")
    return Message(
        role=cast("Role", role),
        content=asked.content if isinstance(asked.content, str) else "",
        parts=tuple(_part_of(part) for part in asked.content) if isinstance(asked.content, list) else (),
        tool_calls=tuple(
            dataclasses.replace(_call_of(call, at), index=at) for at, call in enumerate(asked.tool_calls or ())
        ),
        tool_call_id=asked.tool_call_id or "",
        refusal=asked.refusal or "",
    )


def _part_of(part: Any) -> Part:
    match part:
        case {"type": "text", "text": str(text), "cache_control": told}:
            # Not OpenAI's, but what its clients say where the engine may be of Anthropic's wire.
            return Part(text=text, cache=kept_of(told))
        case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return Part(text=text)
        case {"type": "refusal", "refusal": str(text)}:
            return Part(text=text)
        case {"type": "image_url", "image_url": {"url": str(url)}} | {"type": "input_image", "image_url": str(url)}:
            return Part(image_url=url)
        case _:
            kind: Any = cast("dict[str, Any]", part).get("type") if isinstance(part, dict) else part
            raise unfit("messages", f"a part of type {kind!r} is not served", "Send texts and pictures.")


def kept_of(told: Any) -> Kept:
    """What ``cache_control`` says."""
    match told:
        case {"type": "ephemeral", "ttl": "1h"}:
            return "1h"
        case {"type": "ephemeral"}:
            return "5m"
        case _:
            return ""


def _tool_of(tool: of.AskedTool) -> Tool:
    function = tool.function
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=_encode({} if function.parameters is None else function.parameters).decode(),
        strict=bool(function.strict),
    )


def _choice_of(choice: Any) -> str:
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return choice
        case {"function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
        case _:
            raise unfit(
                "tool_choice", f"{choice!r} is no choice of a tool", "Write auto, none, required or a function."
            )


def _schema_of(wanted: dict[str, Any] | None) -> AnswerSchema | None:
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return AnswerSchema()
        case {"type": "json_schema"}:
            described = cast("dict[str, Any]", wanted.get("json_schema") or wanted)
            schema = described.get("schema")
            return AnswerSchema(
                name=str(described.get("name") or "answer"),
                schema=_encode(schema).decode() if schema is not None else "",
                strict=described.get("strict") is not False,
            )
        case _:
            raise unfit("response_format", f"{wanted!r} is no format", "Write text, json_object or json_schema.")


# What a server sends.


def told_answer(answer: ChatAnswer, *, created: int, completion: bool = False) -> bytes:
    """The body of a whole answer, of ``/completions`` with ``completion``."""
    message = answer.message
    choice: dict[str, Any] = {"index": 0}
    if completion:
        choice["text"] = message.content
    else:
        said: dict[str, Any] = {
            "role": "assistant",
            "content": message.content or (None if message.tool_calls or message.refusal else ""),
            "refusal": message.refusal or None,
        }
        if message.tool_calls:
            said["tool_calls"] = [_call_json(call) for call in message.tool_calls]
        choice["message"] = said
    choice |= {"logprobs": None, "finish_reason": told_finish(answer.finish, message.refusal)}
    return _encode(
        {
            "id": answer.id,
            "object": "text_completion" if completion else "chat.completion",
            "created": created,
            "model": answer.model,
            "choices": [choice],
            "usage": told_usage(answer.usage),
        }
    )


def told_finish(finish: Finish, refusal: str) -> str | None:
    if finish == "refusal":
        return "stop" if refusal else "content_filter"
    return finish or None


def told_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
    }


class Telling:
    """A stream of one answer, for a server: the data of the events for each chunk, and at the end :data:`DONE`.

    Args:
        usage: whether the client wants to know it at the end.
    """

    def __init__(self, *, id: str, model: str, created: int, usage: bool = False, completion: bool = False) -> None:  # noqa: A002  # the wire's name
        self._head: dict[str, Any] = {
            "id": id,
            "object": "text_completion" if completion else "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._completion = completion
        self._usage = usage
        self._begun = completion
        self._refused = False
        self._told_calls: set[int] = set()

    def feed(self, chunk: ChatChunk) -> list[bytes]:
        """The data of each event that says this."""
        events: list[bytes] = []
        self._refused = self._refused or bool(chunk.refusal)
        delta = self._delta(chunk)
        if delta or chunk.finish:
            finish = told_finish(chunk.finish, "refused" if self._refused else "")
            events.append(self._event([self._choice(delta, finish)]))
        if chunk.usage is not None and self._usage:
            events.append(self._event([], told_usage(chunk.usage)))
        return events

    def _delta(self, chunk: ChatChunk) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": ""}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.refusal:
            delta["refusal"] = chunk.refusal
        if chunk.tool_calls:
            delta["tool_calls"] = [self._call(call) for call in chunk.tool_calls]
        return delta

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function: dict[str, Any] = {"arguments": call.arguments}
        told: dict[str, Any] = {"index": call.index, "function": function}
        if call.name:
            function["name"] = call.name
        if call.id:
            told["id"] = call.id
        if call.index not in self._told_calls:
            self._told_calls.add(call.index)
            told["type"] = "function"
        return told

    def _choice(self, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        if self._completion:
            return {"index": 0, "text": delta.get("content", ""), "logprobs": None, "finish_reason": finish}
        return {"index": 0, "delta": delta, "finish_reason": finish}

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        return _encode({**self._head, "choices": choices, **({"usage": usage} if usage else {})})
