"""What the gateway must know of an answer that it passes on as it is: that it is JSON, what it used, how it ended.

Everything else in it is between the engine and the client, today's fields and tomorrow's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from seamline.models.chat import Usage
from seamline.models.errors import EngineMalformed
from seamline.models.gateway.refusing import Wire
from seamline.models.wire.openai import refused_midway
from seamline.models.wire.openai_json import DONE

_NOTHING: Final = frozenset({b'""', b"null", b"[]", b"{}"})
_ENDS: Final = frozenset({"message_stop", "response.completed", "response.incomplete"})
_FAILS: Final = frozenset({"error", "response.failed"})


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct, gc=False):
    """OpenAI's names, those of its Responses, and Anthropic's."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    total_tokens: int | None = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None
    input_tokens_details: _Cached | None = None
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0


class _Choice(msgspec.Struct):
    delta: dict[str, msgspec.Raw] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Further(msgspec.Struct, gc=False):
    """A choice of which only the end matters."""

    finish_reason: str | None = None


class _Next(msgspec.Struct, gc=False):
    """An event of a chat that has begun."""

    choices: list[_Further] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Holder(msgspec.Struct):
    usage: _Usage | None = None
    status: str | None = None
    error: Any = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    message: msgspec.Raw = msgspec.Raw()
    response: _Holder | None = None
    delta: msgspec.Raw = msgspec.Raw()


class _Whole(msgspec.Struct):
    usage: _Usage | None = None
    choices: list[_Choice] | None = None
    data: list[msgspec.Raw] | None = None
    results: list[msgspec.Raw] | None = None
    output: list[msgspec.Raw] | None = None
    content: list[msgspec.Raw] | None = None
    status: str | None = None
    stop_reason: str | None = None


_event = msgspec.json.Decoder(_Event)
_next = msgspec.json.Decoder(_Next)
_whole = msgspec.json.Decoder(_Whole)
_holder = msgspec.json.Decoder(_Holder)


class Peek:
    """Sees the events of one streamed answer go by."""

    __slots__ = ("_wire", "begun", "ended", "finish", "pieces", "usage", "usage_only")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.begun = False
        """Something of the answer itself has come."""
        self.ended = False
        """It said that it is whole."""
        self.finish = ""
        self.pieces = 0
        self.usage: Usage | None = None
        self.usage_only = False
        """The last event told the usage and nothing else."""

    def see(self, data: bytes) -> None:
        """One event. Raises EngineMalformed, and EngineRefused for an event that tells of an error."""
        self.usage_only = False
        if data == DONE:
            self.ended = True
            return
        try:
            if not data.isascii():
                check_text(data)
            if self.begun and self._wire == "chat":
                self._further(_next.decode(data))
                return
            event = _event.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineMalformed(f"an event cannot be understood: {error}", "Look at the engine.") from None
        if self._wire == "chat":
            self._chat(event)
        else:
            self._typed(event)

    def _further(self, event: _Next) -> None:
        if event.error is not None:
            raise refused_midway(event.error)
        choices = event.choices
        if event.usage is not None:
            self.usage = _told(event.usage)
            self.usage_only = not choices
        for choice in choices or ():
            if choice.finish_reason:
                self.finish = choice.finish_reason
            else:
                self.pieces += 1

    def _chat(self, event: _Event) -> None:
        if event.error is not None:
            raise refused_midway(event.error)
        choices = event.choices
        if event.usage is not None:
            self.usage = _told(event.usage)
            self.usage_only = not choices
        for choice in choices or ():
            if choice.finish_reason:
                self.finish = choice.finish_reason
            if choice.text or (choice.delta and _says(choice.delta)):
                self.begun = True
                self.pieces += 1
        if self.finish:
            self.begun = True

    def _typed(self, event: _Event) -> None:
        kind = event.type
        if kind in _FAILS:
            raise refused_midway(event.error if event.response is None else event.response.error)
        if kind.endswith("delta") and kind != "message_delta":
            self.begun = True
            self.pieces += 1
        elif kind in _ENDS:
            self.begun = self.ended = True
        holder = event.response
        if kind == "message_start":
            holder = _decoded(event.message)
        elif kind == "message_delta":
            self.finish = _decoded(event.delta).stop_reason or self.finish
        elif kind == "content_block_start":
            self.begun = True
        usage = event.usage if holder is None else holder.usage
        if usage is not None:
            self.usage = _joined(self.usage, _told(usage))
        if holder is not None and holder.status and self.ended:
            self.finish = holder.status


def check_text(data: bytes) -> None:
    """Raises UnicodeDecodeError: what is skipped in decoding JSON is not looked at by whoever decodes it."""
    if not data.isascii():
        data.decode()


def whole(data: bytes) -> tuple[Usage | None, str]:
    """What a whole answer used, and how it ended. Raises EngineMalformed."""
    try:
        check_text(data)
        answer = _whole.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineMalformed(f"an answer cannot be understood: {error}", "Look at the engine.") from None
    if (
        answer.choices is None
        and answer.data is None
        and answer.results is None
        and answer.output is None
        and answer.content is None
    ):
        raise EngineMalformed("an answer holds nothing that answers", "Is this an engine of this wire?")
    finish = answer.status or answer.stop_reason or ""
    if answer.choices:
        finish = answer.choices[0].finish_reason or ""
    return (None if answer.usage is None else _told(answer.usage)), finish


def _decoded(raw: msgspec.Raw) -> _Holder:
    try:
        return _holder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineMalformed(f"an event cannot be understood: {error}", "Look at the engine.") from None


def _says(delta: dict[str, msgspec.Raw]) -> bool:
    return any(name != "role" and bytes(value) not in _NOTHING for name, value in delta.items())


def _told(usage: _Usage) -> Usage:
    asked, output = usage.prompt_tokens or 0, usage.completion_tokens or usage.output_tokens or 0
    details = usage.prompt_tokens_details or usage.input_tokens_details
    cached = details.cached_tokens or 0 if details is not None else 0
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    if usage.input_tokens or read or written:
        # Anthropic does not count what it keeps of a prompt among the input; OpenAI does, and calls it otherwise.
        asked, cached = (usage.input_tokens or 0) + read + written, read or cached
    elif not asked:
        asked = (usage.total_tokens or 0) - max(output, 0)
    if asked < 0 or output < 0 or cached < 0 or written < 0:
        asked, output, cached, written = max(asked, 0), max(output, 0), max(cached, 0), max(written, 0)
    return Usage(input_tokens=asked, output_tokens=output, cached_input_tokens=cached, cache_write_tokens=written)


def _joined(before: Usage | None, now: Usage) -> Usage:
    """Anthropic tells the input first and the output last, each time all so far."""
    if before is None:
        return now
    return Usage(
        input_tokens=max(before.input_tokens, now.input_tokens),
        output_tokens=max(before.output_tokens, now.output_tokens),
        cached_input_tokens=max(before.cached_input_tokens, now.cached_input_tokens),
        cache_write_tokens=max(before.cache_write_tokens, now.cache_write_tokens),
    )
