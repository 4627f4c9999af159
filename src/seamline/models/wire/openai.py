"""OpenAI's wire, for whoever asks an engine of it: chat and completions.

The server's side is in :mod:`.openai_server`, embeddings and reranking in :mod:`.openai_lists`.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from seamline.models.chat import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Finish,
    Message,
    Part,
    Tool,
    ToolCall,
    Usage,
)
from seamline.models.errors import EngineMalformed, EngineRefused
from seamline.models.wire import openai_json as of
from seamline.models.wire.reading import decoded, json_of

_encode = msgspec.json.Encoder().encode
_answer = msgspec.json.Decoder(of.Answer)
_piece = msgspec.json.Decoder(of.Piece)

_FINISHES: Final[dict[str | None, Finish]] = {
    None: "",
    "": "",
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
}


# What is sent.


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
        told["tool_calls"] = [call_json(call) for call in message.tool_calls]
    if message.tool_call_id:
        told["tool_call_id"] = message.tool_call_id
    if message.refusal:
        told["refusal"] = message.refusal
    return told


def _part_json(part: Part) -> dict[str, Any]:
    if part.image_url:
        return {"type": "image_url", "image_url": {"url": part.image_url}}
    return {"type": "text", "text": part.text}


def call_json(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool_json(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": json_of(tool.parameters, "parameters")}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


# What comes.


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
        tool_calls=tuple(call_of(call, at) for at, call in enumerate(said.tool_calls or ())),
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
        raise refused_midway(piece.error)
    choice = piece.choices[0] if piece.choices else None
    said = (choice.delta if choice is not None else None) or of.Said(content=choice.text if choice else None)
    refusal = said.refusal or ""
    return ChatChunk(
        text=said.content or "",
        tool_calls=tuple(call_of(call, at) for at, call in enumerate(said.tool_calls or ())),
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


def call_of(call: of.Call, at: int) -> ToolCall:
    return ToolCall(
        id=call.id or "",
        name=call.function.name or "",
        arguments=call.function.arguments or "",
        index=at if call.index is None else call.index,
    )


def _finish(reason: str | None, refusal: str) -> Finish:
    finish = _FINISHES.get(reason, "stop")
    return "refusal" if refusal and finish == "stop" else finish


def refused_midway(told: Any) -> EngineRefused:
    """What a stream says that breaks off with an error."""
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {"message": told}
    error = EngineRefused(f"the engine gave up: {str(fields.get('message'))[:300]}", "Ask another, or later.")
    error.kind = str(fields.get("code") or fields.get("type") or "server_error")
    error.status = 500
    return error
