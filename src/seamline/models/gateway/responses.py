"""OpenAI's Responses, for a server of that wire: https://platform.openai.com/docs/api-reference/responses

Nothing of a conversation is kept here, so ``previous_response_id`` is refused: send the conversation.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from seamline.models.chat import (
    AnswerSchema,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Message,
    Part,
    Role,
    Tool,
    ToolCall,
    Usage,
)
from seamline.models.gateway.errors import BadRequest

_encode = msgspec.json.Encoder().encode
_ROLES: Final[dict[str, Role]] = {
    "user": "user", "assistant": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
_KEPT_ELSEWHERE: Final = ("previous_response_id", "conversation", "background")


class _Asked(msgspec.Struct):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    text: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None


_asked = msgspec.json.Decoder(_Asked)


def asked_response(data: bytes) -> tuple[ChatRequest, bool]:
    """The body of ``/responses``, and whether its answer is to be streamed. Raises BadRequest."""
    try:
        asked = _asked.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(f"the request cannot be understood: {error}") from None
    for name in _KEPT_ELSEWHERE:
        if getattr(asked, name):
            raise _bad(f"{name!r} is not served: nothing is kept here")
    messages = [Message(role="system", content=asked.instructions)] if asked.instructions else []
    if isinstance(asked.input, str):
        messages.append(Message(role="user", content=asked.input))
    else:
        messages += [_message(item) for item in asked.input]
    request = ChatRequest(
        messages=_together(messages),
        model=asked.model,
        tools=tuple(_tool(tool) for tool in asked.tools or ()),
        tool_choice=_choice(asked.tool_choice),
        answer_schema=_schema((asked.text or {}).get("format")),
        tokens_max=asked.max_output_tokens or 0,
        temperature=asked.temperature,
        top_p=asked.top_p,
        user=asked.user or "",
        metadata=asked.metadata or {},
    )
    return request, bool(asked.stream)


def told_response(answer: ChatAnswer, *, id: str, created: int) -> bytes:  # noqa: A002  # the wire's name
    """The body of a whole answer."""
    message = answer.message
    output: list[dict[str, Any]] = []
    if message.content or message.refusal or not message.tool_calls:
        output.append(_item(id, message.content, message.refusal))
    output += [_called(id, call) for call in message.tool_calls]
    return _encode(_response(id, created, answer.model, answer.finish, output, answer.usage))


class Telling:
    """The events of one streamed answer, as they travel."""

    def __init__(self, *, id: str, model: str, created: int) -> None:  # noqa: A002  # the wire's name
        self._id = id
        self._model = model
        self._created = created
        self._number = 0
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, ToolCall] = {}
        self._places: dict[int, int] = {}
        self._message_place = -1
        self._finish = ""
        self._usage = Usage()

    def begin(self) -> bytes:
        response = _response(self._id, self._created, self._model, "", [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def feed(self, chunk: ChatChunk) -> bytes:
        events: list[bytes] = []
        if chunk.text or chunk.refusal:
            if self._message_place < 0:
                self._message_place = len(self._places)
                self._places[-1] = self._message_place
                item: dict[str, Any] = {**_item(self._id, "", ""), "status": "in_progress", "content": []}
                events.append(self._event("response.output_item.added", output_index=self._message_place, item=item))
                part = _part("", "" if chunk.text else chunk.refusal)
                events.append(self._event("response.content_part.added", **self._at(), part=part))
            if chunk.text:
                self._text.append(chunk.text)
                events.append(self._event("response.output_text.delta", **self._at(), delta=chunk.text, logprobs=[]))
            if chunk.refusal:
                self._refusal.append(chunk.refusal)
                events.append(self._event("response.refusal.delta", **self._at(), delta=chunk.refusal))
        for call in chunk.tool_calls:
            events += self._call(call)
        self._finish = chunk.finish or self._finish
        self._usage = chunk.usage or self._usage
        return b"".join(events)

    def end(self) -> bytes:
        events: list[bytes] = []
        output: dict[int, dict[str, Any]] = {}
        if self._message_place >= 0:
            text, refusal = "".join(self._text), "".join(self._refusal)
            item = output[self._message_place] = _item(self._id, text, refusal)
            part = item["content"][0]
            if refusal:
                events.append(self._event("response.refusal.done", **self._at(), refusal=refusal))
            else:
                events.append(self._event("response.output_text.done", **self._at(), text=text, logprobs=[]))
            events.append(self._event("response.content_part.done", **self._at(), part=part))
            events.append(self._event("response.output_item.done", output_index=self._message_place, item=item))
        for index, call in self._calls.items():
            place = self._places[index]
            item = output[place] = _called(self._id, call)
            at = {"item_id": item["id"], "output_index": place}
            events.append(self._event("response.function_call_arguments.done", **at, arguments=call.arguments))
            events.append(self._event("response.output_item.done", output_index=place, item=item))
        items = [output[place] for place in sorted(output)]
        response = _response(self._id, self._created, self._model, self._finish or "stop", items, self._usage)
        events.append(self._event(f"response.{response['status']}", response=response))
        return b"".join(events)

    def _call(self, piece: ToolCall) -> list[bytes]:
        events: list[bytes] = []
        known = self._calls.get(piece.index)
        if known is None:
            place = self._places[piece.index] = len(self._places)
            known = ToolCall(id=piece.id, name=piece.name, index=piece.index)
            item = {**_called(self._id, known), "status": "in_progress"}
            events.append(self._event("response.output_item.added", output_index=place, item=item))
        call = self._calls[piece.index] = ToolCall(
            id=known.id or piece.id,
            name=known.name or piece.name,
            arguments=known.arguments + piece.arguments,
            index=piece.index,
        )
        if piece.arguments:
            at = {"item_id": _called(self._id, call)["id"], "output_index": self._places[piece.index]}
            events.append(self._event("response.function_call_arguments.delta", **at, delta=piece.arguments))
        return events

    def _at(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self._id}", "output_index": self._message_place, "content_index": 0}

    def _event(self, kind: str, **told: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **told}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(event))


def _bad(fact: str) -> BadRequest:
    return BadRequest(fact, "Send what the API describes.")


def _message(item: dict[str, Any]) -> Message:
    match item:
        case {"type": "function_call", "call_id": str(id), "name": str(name), "arguments": str(arguments)}:
            return Message(role="assistant", tool_calls=(ToolCall(id=id, name=name, arguments=arguments),))
        case {"type": "function_call_output", "call_id": str(id), "output": output}:
            return Message(role="tool", tool_call_id=id, content=_text_of(output))
        case {"role": str(role), "content": content} if role in _ROLES and item.get("type", "message") == "message":
            if isinstance(content, str):
                return Message(role=_ROLES[role], content=content)
            if isinstance(content, list):
                parts = tuple(_part_of(part) for part in cast("list[Any]", content))
                if all(not part.image_url for part in parts):
                    return Message(role=_ROLES[role], content="".join(part.text for part in parts))
                return Message(role=_ROLES[role], parts=parts)
        case _:
            pass
    raise _bad(f"an item of type {item.get('type', 'message')!r} is not served in this form")


def _text_of(output: Any) -> str:
    if isinstance(output, list):
        return "".join(_part_of(part).text for part in cast("list[Any]", output))
    return output if isinstance(output, str) else _encode(output).decode()


def _part_of(part: Any) -> Part:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return Part(text=text)
        case {"type": "refusal", "refusal": str(text)}:
            return Part(text=text)
        case {"type": "input_image", "image_url": str(url)}:
            return Part(image_url=url)
        case _:
            raise _bad("a part of a message is neither a text nor a picture by its URL")


def _together(messages: list[Message]) -> tuple[Message, ...]:
    """Calls that were made at once are one message."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is not None and message.tool_calls and last.role == "assistant":
            calls = tuple(
                ToolCall(id=call.id, name=call.name, arguments=call.arguments, index=at)
                for at, call in enumerate((*last.tool_calls, *message.tool_calls))
            )
            joined[-1] = Message(role="assistant", content=last.content, parts=last.parts, tool_calls=calls)
        else:
            joined.append(message)
    return tuple(joined)


def _tool(tool: dict[str, Any]) -> Tool:
    if tool.get("type", "function") != "function" or not isinstance(tool.get("name"), str):
        raise _bad(f"a tool of type {tool.get('type')!r} is not served: functions are")
    return Tool(
        name=tool["name"],
        description=str(tool.get("description") or ""),
        parameters=_encode(tool.get("parameters") or {}).decode(),
        strict=bool(tool.get("strict")),
    )


def _choice(choice: Any) -> str:
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return cast("str", choice)
        case {"type": "function", "name": str(name)}:
            return name
        case _:
            raise _bad(f"{choice!r} is no choice of a tool")


def _schema(wanted: Any) -> AnswerSchema | None:
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return AnswerSchema()
        case {"type": "json_schema", "schema": dict()}:
            told = cast("dict[str, Any]", wanted)
            schema: Any = told["schema"]
            name, strict = str(told.get("name") or "answer"), told.get("strict") is not False
            return AnswerSchema(name=name, schema=_encode(schema).decode(), strict=strict)
        case _:
            raise _bad(f"{wanted!r} is no format of a text")


def _part(text: str, refusal: str) -> dict[str, Any]:
    if refusal:
        return {"type": "refusal", "refusal": refusal}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(id: str, text: str, refusal: str) -> dict[str, Any]:  # noqa: A002
    return {
        "type": "message", "id": f"msg_{id}", "role": "assistant", "status": "completed",
        "content": [_part(text, refusal)],
    }  # fmt: skip


def _called(id: str, call: ToolCall) -> dict[str, Any]:  # noqa: A002
    return {
        "type": "function_call", "id": f"fc_{id}_{call.index}", "call_id": call.id, "name": call.name,
        "arguments": call.arguments, "status": "completed",
    }  # fmt: skip


def _response(
    id: str,  # noqa: A002
    created: int,
    model: str,
    finish: str,
    output: list[dict[str, Any]],
    usage: Usage | None,
) -> dict[str, Any]:
    cut = {"length": "max_output_tokens", "refusal": "content_filter"}.get(finish, "")
    if finish == "refusal" and any(part["type"] == "refusal" for item in output for part in item.get("content", ())):
        cut = ""
    return {
        "id": id, "object": "response", "created_at": created, "model": model, "output": output,
        "status": "in_progress" if not finish else "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None, "error": None, "instructions": None, "metadata": {},
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": None, "top_p": None,
        "usage": None if usage is None else {
            "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip
