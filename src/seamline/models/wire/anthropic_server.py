"""Anthropic's wire, a server's side: what ``/messages`` is asked, and how it is answered, whole and in events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, cast

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
from seamline.models.errors import EngineMalformed
from seamline.models.wire.reading import Asked, kept_of, understood, unfit

_encode = msgspec.json.Encoder().encode

_STOPS: Final[dict[Finish, str | None]] = {
    "": None,
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "refusal": "refusal",
}


class AskedTurn(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class AskedTool(msgspec.Struct):
    name: str
    input_schema: Any = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    cache_control: Any = None


class AskedMetadata(msgspec.Struct):
    user_id: str | None = None


class AskedMessages(msgspec.Struct):
    messages: list[AskedTurn]
    max_tokens: int
    model: str = ""
    system: str | list[dict[str, Any]] | None = None
    tools: list[AskedTool] | None = None
    tool_choice: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    metadata: AskedMetadata | None = None
    output_config: dict[str, Any] | None = None
    stream: bool | None = None


_asked = msgspec.json.Decoder(AskedMessages)


def asked_messages(data: bytes) -> Asked:
    """The body of ``/messages``. Raises WireError."""
    asked = understood(_asked, data)
    system = _messages("system", asked.system) if asked.system else ()
    request = ChatRequest(
        messages=(*system, *(message for turn in asked.messages for message in _of_turn(turn))),
        model=asked.model,
        tools=tuple(_tool_of(tool) for tool in asked.tools or ()),
        tool_choice=_choice_of(asked.tool_choice),
        answer_schema=_schema_of(asked.output_config),
        tokens_max=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=tuple(asked.stop_sequences or ()),
        user=(asked.metadata.user_id or "") if asked.metadata is not None else "",
    )
    return Asked(request, bool(asked.stream), usage=True)


def _of_turn(turn: AskedTurn) -> Iterator[Message]:
    if turn.role not in ("user", "assistant"):
        raise unfit("messages", f"{turn.role!r} is no role", "Write user or assistant; system stands by itself.")
    return iter(_messages(cast("Role", turn.role), turn.content))


def _messages(role: Role, content: str | list[dict[str, Any]]) -> tuple[Message, ...]:
    """What tools answered, each as a message; then the rest as one."""
    if isinstance(content, str):
        return (Message(role=role, content=content),)
    results: list[Message] = []
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for block in content:
        match block:
            case {"type": "tool_result", "tool_use_id": str(call_id)}:
                results.append(_result(call_id, block.get("content") or "", kept_of(block.get("cache_control"))))
            case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
                given = _encode(block.get("input") or {}).decode()
                calls.append(ToolCall(id=call_id, name=name, arguments=given, index=len(calls)))
            case {"type": "thinking" | "redacted_thinking"}:
                pass  # for the model that thought it; no other reads it
            case _:
                parts.append(_part_of(block))
    if not parts and not calls and results:
        return tuple(results)
    plain = len(parts) == 1 and not parts[0].image_url and not parts[0].cache
    rest = Message(
        role=role,
        content=parts[0].text if plain else "",
        parts=() if plain else tuple(parts),
        tool_calls=tuple(calls),
    )
    return (*results, rest)


def _result(call_id: str, content: str | list[dict[str, Any]], kept: Kept) -> Message:
    if isinstance(content, str):
        if kept:
            return Message(role="tool", parts=(Part(text=content, cache=kept),), tool_call_id=call_id)
        return Message(role="tool", content=content, tool_call_id=call_id)
    parts = tuple(_part_of(block) for block in content)
    if kept and parts:
        parts = (*parts[:-1], dataclasses.replace(parts[-1], cache=kept))
    if len(parts) == 1 and not parts[0].image_url and not parts[0].cache:
        return Message(role="tool", content=parts[0].text, tool_call_id=call_id)
    return Message(role="tool", parts=parts, tool_call_id=call_id)


def _part_of(block: dict[str, Any]) -> Part:
    kept = kept_of(block.get("cache_control"))
    match block:
        case {"type": "text", "text": str(text)}:
            return Part(text=text, cache=kept)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return Part(image_url=url, cache=kept)
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            return Part(image_url=f"data:{kind};base64,{data}", cache=kept)
        case _:
            raise unfit("messages", f"a block of type {block.get('type')!r} is not served", "Send texts and pictures.")


def _tool_of(tool: AskedTool) -> Tool:
    if tool.type not in (None, "custom"):
        raise unfit("tools", f"the tool {tool.name!r} of type {tool.type!r} is not served", "Give tools of your own.")
    schema = _encode({} if tool.input_schema is None else tool.input_schema).decode()
    return Tool(
        name=tool.name,
        description=tool.description or "",
        parameters=schema,
        strict=bool(tool.strict),
        cache=kept_of(tool.cache_control),
    )


def _choice_of(choice: dict[str, Any] | None) -> str:
    match choice:
        case None | {"type": "auto"}:
            return "auto"
        case {"type": "none"}:
            return "none"
        case {"type": "any"}:
            return "required"
        case {"type": "tool", "name": str(name)}:
            return name
        case _:
            raise unfit("tool_choice", f"{choice!r} is no choice of a tool", "Write auto, any, none or a tool.")


def _schema_of(config: dict[str, Any] | None) -> AnswerSchema | None:
    match config:
        case {"format": {"type": "json_schema", "schema": schema}}:
            return AnswerSchema(schema=_encode(schema).decode())
        case _:
            return None


# What is sent.


def told_message(answer: ChatAnswer) -> bytes:
    """The body of a whole answer. Raises EngineMalformed where arguments for a tool are no JSON."""
    message = answer.message
    said = message.content or message.refusal
    content: list[dict[str, Any]] = [{"type": "text", "text": said}] if said else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in message.tool_calls
    ]
    return _encode(
        _head(answer.id, answer.model)
        | {
            "content": content,
            "stop_reason": _STOPS[answer.finish],
            "stop_sequence": None,
            "usage": told_usage(answer.usage),
        }
    )


def _head(id: str, model: str) -> dict[str, Any]:  # noqa: A002  # the wire's name
    return {"id": id, "type": "message", "role": "assistant", "model": model}


def _input(call: ToolCall) -> Any:
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        raise EngineMalformed(f"the arguments for the tool {call.name!r} are not JSON", "Ask again.") from None


def told_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": max(usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens, 0),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }


class Telling:
    """A stream of one answer, for a server: type and data of the events for each chunk; the last chunk ends it.

    Args:
        input_tokens: what is known of them when it begins.
    """

    def __init__(self, *, id: str, model: str, input_tokens: int = 0) -> None:  # noqa: A002  # the wire's name
        self._message = _head(id, model)
        self._input_tokens = input_tokens
        self._begun = False
        self._block = -1
        self._kind = ""
        """Of the block that is open: ``text``, the index of a call, or none."""

    def feed(self, chunk: ChatChunk) -> list[tuple[str, bytes]]:
        """Raises nothing: what a model says is passed on as it says it."""
        events = [] if self._begun else [self._start()]
        if text := chunk.text or chunk.refusal:
            if self._kind != "text":
                events += self._open("text", {"type": "text", "text": ""})
            events.append(self._delta({"type": "text_delta", "text": text}))
        for call in chunk.tool_calls:
            if self._kind != str(call.index):
                block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
                events += self._open(str(call.index), block)
            if call.arguments:
                events.append(self._delta({"type": "input_json_delta", "partial_json": call.arguments}))
        if chunk.finish:
            events += self._close()
            events += self._end(chunk.finish, chunk.usage or Usage())
        return events

    def _start(self) -> tuple[str, bytes]:
        self._begun = True
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        message = self._message | empty | {"usage": told_usage(Usage(input_tokens=self._input_tokens))}
        return _event({"type": "message_start", "message": message})

    def _open(self, kind: str, block: dict[str, Any]) -> list[tuple[str, bytes]]:
        closed = self._close()
        self._kind = kind
        self._block += 1
        return [*closed, _event({"type": "content_block_start", "index": self._block, "content_block": block})]

    def _delta(self, delta: dict[str, Any]) -> tuple[str, bytes]:
        return _event({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _close(self) -> list[tuple[str, bytes]]:
        if not self._kind:
            return []
        self._kind = ""
        return [_event({"type": "content_block_stop", "index": self._block})]

    def _end(self, finish: Finish, usage: Usage) -> list[tuple[str, bytes]]:
        delta = {"stop_reason": _STOPS[finish], "stop_sequence": None}
        return [
            _event({"type": "message_delta", "delta": delta, "usage": told_usage(usage)}),
            _event({"type": "message_stop"}),
        ]


def _event(told: dict[str, Any]) -> tuple[str, bytes]:
    return told["type"], _encode(told)
