"""The texts in a question: what people and tools wrote, wherever it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from seamline.models.chat import ChatRequest, Message

Change = Callable[[str], str]


def changed(request: ChatRequest, change: Change, in_json: Change) -> ChatRequest:
    """The same question with every text changed; ``in_json`` changes JSON, as tools' arguments are."""
    return dataclasses.replace(
        request,
        prompt=change(request.prompt) if request.prompt else "",
        messages=tuple(_message(message, change, in_json) for message in request.messages),
    )


def _message(message: Message, change: Change, in_json: Change) -> Message:
    return dataclasses.replace(
        message,
        content=change(message.content) if message.content else "",
        parts=tuple(
            dataclasses.replace(part, text=change(part.text)) if part.text else part for part in message.parts
        ),
        tool_calls=tuple(
            dataclasses.replace(call, arguments=in_json(call.arguments)) for call in message.tool_calls
        ),
    )  # fmt: skip


def texts(request: ChatRequest, *, of_others: bool = False) -> Iterator[str]:
    """Every text, or only what neither the application nor the model said: users' and tools'."""
    if request.prompt:
        yield request.prompt
    for message in request.messages:
        if of_others and message.role not in ("user", "tool"):
            continue
        if message.content:
            yield message.content
        for part in message.parts:
            if part.text:
                yield part.text
        if not of_others:
            for call in message.tool_calls:
                yield call.arguments


def pictures(request: ChatRequest) -> Iterator[str]:
    for message in request.messages:
        for part in message.parts:
            if part.image_url:
                yield part.image_url
