"""Anthropic's wire, a client's side: what ``/messages`` is sent, whole and in events, and what it answers."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Finish, Kept, Message, Part, Tool, ToolCall, Usage
from seamline.models.errors import EngineCannotError, EngineMalformed, EngineRefused
from seamline.models.wire.reading import decoded, json_of

TOKENS_MAX: Final = 4096
"""What is asked for where a request does not say; the wire wants a number."""

_encode = msgspec.json.Encoder().encode


class Taken(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Block(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None


class Answer(msgspec.Struct):
    content: list[Block]
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: Taken = msgspec.field(default_factory=Taken)


class Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Told(msgspec.Struct):
    """One event."""

    type: str
    message: Answer | None = None
    index: int = 0
    content_block: Block | None = None
    delta: Delta | None = None
    usage: Taken | None = None
    error: Any = None


_answer = msgspec.json.Decoder(Answer)
_told = msgspec.json.Decoder(Told)

FINISHES: Final[dict[str | None, Finish]] = {
    None: "",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


# What is sent.


def messages_body(request: ChatRequest, *, model: str = "", stream: bool = False) -> bytes:
    """The body for ``/messages``. Raises EngineCannotError, WireError."""
    asked = request.messages or (Message(role="user", content=request.prompt),)
    system = [part for message in asked if message.role == "system" for part in _texts(message)]
    body: dict[str, Any] = {
        "model": model or request.model,
        "max_tokens": request.tokens_max or TOKENS_MAX,
        "messages": list(_turns([message for message in asked if message.role != "system"])),
    }
    if system:
        body["system"] = system[0]["text"] if len(system) == 1 and len(system[0]) == 2 else system
    _add_tools(body, request)
    given: dict[str, Any] = {
        "temperature": None if request.temperature is None else min(request.temperature, 1.0),
        "top_p": request.top_p,
        "stop_sequences": list(request.stop) or None,
        "metadata": {"user_id": request.user} if request.user else None,
        "stream": stream or None,
    }
    return _encode(body | {name: value for name, value in given.items() if value is not None})


def _add_tools(body: dict[str, Any], request: ChatRequest) -> None:
    if request.tools:
        body["tools"] = [_tool_json(tool) for tool in request.tools]
        choice = request.tool_choice
        kinds: dict[str, dict[str, Any]] = {"auto": {}, "none": {"type": "none"}, "required": {"type": "any"}}
        if told := kinds.get(choice, {"type": "tool", "name": choice}):
            body["tool_choice"] = told
    schema = request.answer_schema
    if schema is not None and not schema.schema:
        raise EngineCannotError("Anthropic's wire has no JSON without a schema", "Give the schema of the answer.")
    if schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": json_of(schema.schema, "schema")}}


def _tool_json(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name, "input_schema": json_of(tool.parameters, "parameters")}
    if tool.description:
        told["description"] = tool.description
    if tool.strict:
        told["strict"] = True
    return told | _cached(tool.cache)


def _turns(messages: list[Message]) -> Iterator[dict[str, Any]]:
    """One for each message, but what several tools answered is one turn of the user's."""
    results: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            answered = [_part_json(part) for part in message.parts] if message.parts else message.content
            results.append({"type": "tool_result", "tool_use_id": message.tool_call_id, "content": answered})
            continue
        if results:
            yield {"role": "user", "content": results}
            results = []
        yield {"role": message.role, "content": _content(message)}
    if results:
        yield {"role": "user", "content": results}


def _content(message: Message) -> Any:
    if not message.parts and not message.tool_calls:
        return message.content or message.refusal
    blocks = [_part_json(part) for part in message.parts] or _texts(message)
    for call in message.tool_calls:
        given = json_of(call.arguments or "{}", "arguments")
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
    return blocks


def _texts(message: Message) -> list[dict[str, Any]]:
    if message.parts:
        return [_part_json(part) for part in message.parts if part.text]
    return [{"type": "text", "text": message.content}] if message.content else []


def _part_json(part: Part) -> dict[str, Any]:
    cached = _cached(part.cache)
    if not part.image_url:
        return {"type": "text", "text": part.text} | cached
    if not part.image_url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": part.image_url}} | cached
    kind, _, data = part.image_url.removeprefix("data:").partition(";base64,")
    try:
        base64.b64decode(data, validate=True)
    except ValueError:
        raise EngineCannotError("a picture's data: address is not base64", "Write data:image/png;base64,...") from None
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}} | cached


def _cached(kept: Kept) -> dict[str, Any]:
    if not kept:
        return {}
    return {"cache_control": {"type": "ephemeral", "ttl": "1h"} if kept == "1h" else {"type": "ephemeral"}}


# What comes.


def read_message(data: bytes) -> ChatAnswer:
    """Raises EngineMalformed."""
    answer = decoded(_answer, data)
    calls = [block for block in answer.content if block.type == "tool_use"]
    return ChatAnswer(
        message=Message(
            role="assistant",
            content="".join(block.text for block in answer.content if block.type == "text"),
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.name, arguments=_encode(call.input or {}).decode(), index=at)
                for at, call in enumerate(calls)
            ),
        ),
        finish=FINISHES.get(answer.stop_reason, "stop") or "stop",
        usage=_usage(answer.usage),
        model=answer.model,
        id=answer.id,
    )


class Reading:
    """A stream of one answer: each event's data to a chunk, or to nothing."""

    def __init__(self) -> None:
        self.over = False
        """The last event has come."""
        self.moved = False
        """The last event was a piece of the answer, seen or not, and no mere sign of life."""
        self._taken = Taken()
        self._model = ""
        self._id = ""
        self._finish: Finish = ""
        self._calls: dict[int, int] = {}

    def feed(self, data: bytes) -> ChatChunk | None:
        """Raises EngineMalformed, and EngineRefused where the event tells of an error."""
        told = decoded(_told, data)
        self.moved = told.type == "content_block_delta"
        match told.type:
            case "content_block_delta" if told.delta is not None:
                return self._piece(told.index, told.delta)
            case "content_block_start" if told.content_block is not None:
                return self._block(told.index, told.content_block)
            case "message_start" if told.message is not None:
                self._id, self._model = told.message.id, told.message.model
                self._take(told.message.usage)
            case "message_delta":
                self._finish = FINISHES.get(told.delta.stop_reason, "stop") if told.delta is not None else ""
                if told.usage is not None:
                    self._take(told.usage)
            case "message_stop":
                self.over = True
                return dataclasses.replace(self._chunk(), finish=self._finish or "stop", usage=_usage(self._taken))
            case "error":
                raise _refused_midway(told.error)
            case _:
                pass  # "Handle unknown event types gracefully", says the wire; ping is one of those known
        return None

    def _piece(self, index: int, delta: Delta) -> ChatChunk | None:
        if delta.text and delta.type == "text_delta":
            return dataclasses.replace(self._chunk(), text=delta.text)
        if delta.type == "input_json_delta":
            if index not in self._calls:
                raise EngineMalformed("a piece of a tool call came before the call", "Is this an engine of this wire?")
            call = ToolCall(arguments=delta.partial_json, index=self._calls[index])
            return dataclasses.replace(self._chunk(), tool_calls=(call,)) if delta.partial_json else None
        return None

    def _block(self, index: int, block: Block) -> ChatChunk | None:
        if block.type == "text" and block.text:
            return dataclasses.replace(self._chunk(), text=block.text)
        if block.type != "tool_use":
            return None
        self._calls[index] = len(self._calls)
        call = ToolCall(id=block.id, name=block.name, index=self._calls[index])
        return dataclasses.replace(self._chunk(), tool_calls=(call,))

    def _chunk(self) -> ChatChunk:
        return ChatChunk(model=self._model, id=self._id)

    def _take(self, more: Taken) -> None:
        """Counts add up within the engine: each one told is the newest."""
        for name in Taken.__struct_fields__:
            if (count := getattr(more, name)) is not None:
                setattr(self._taken, name, count)


def _usage(taken: Taken) -> Usage:
    """Here the cached tokens are among the input; there they are not."""
    read, written = taken.cache_read_input_tokens or 0, taken.cache_creation_input_tokens or 0
    return Usage(
        input_tokens=(taken.input_tokens or 0) + read + written,
        output_tokens=taken.output_tokens or 0,
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def _refused_midway(told: Any) -> EngineRefused:
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    error = EngineRefused(f"the engine gave up: {str(fields.get('message'))[:300]}", "Ask another, or later.")
    error.kind = str(fields.get("type") or "api_error")
    error.status = 529 if error.kind == "overloaded_error" else 500
    return error
