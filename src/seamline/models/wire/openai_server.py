"""OpenAI's wire, for a server of it: chat and completions. Embeddings and reranking are in :mod:`.openai_lists`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, cast, get_args

import msgspec

from seamline.models.chat import (
    AnswerSchema,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Finish,
    Message,
    Part,
    Role,
    Tool,
    ToolCall,
    Usage,
)
from seamline.models.wire import openai_json as of
from seamline.models.wire.openai import call_json, call_of
from seamline.models.wire.reading import Asked, kept_of, understood, unfit

_encode = msgspec.json.Encoder().encode
_asked_chat = msgspec.json.Decoder(of.AskedChat)
_asked_completion = msgspec.json.Decoder(of.AskedCompletion)

_ROLES: Final = frozenset(get_args(Role))


# What comes.


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
            dataclasses.replace(call_of(call, at), index=at) for at, call in enumerate(asked.tool_calls or ())
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


# What is sent.


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
            said["tool_calls"] = [call_json(call) for call in message.tool_calls]
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
    """A stream of one answer: the data of the events for each chunk. At its end stands ``openai_json.DONE``.

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
