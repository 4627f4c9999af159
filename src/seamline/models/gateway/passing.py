"""Answers passed on as they come, where engine and client speak the same wire and no guardrail has to look inside.

A request is taken apart into its fields and no further, so that of two that are called the same the engine gets the
one that was checked here. Events of a stream are put together anew around the same JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol, cast, runtime_checkable

import msgspec

from seamline.kernel.settings.ai_gateway import Ability
from seamline.kernel.signal.gen_ai import Operation
from seamline.kernel.wire.http1 import Header
from seamline.models.chat import ChatAnswer, Usage
from seamline.models.errors import EngineError, EngineMalformed, EngineRefused, EngineUnreachable
from seamline.models.gateway.errors import BadRequest
from seamline.models.gateway.guardrails import Words
from seamline.models.gateway.peeking import Peek, check_text, whole
from seamline.models.gateway.refusing import Wire
from seamline.models.gateway.targets import Target
from seamline.models.remote.client import RawAnswer
from seamline.models.remote.sse import Event, SseParser, encoded
from seamline.models.wire.openai import read_answer

EVENTS: Final[Header] = (b"content-type", b"text/event-stream; charset=utf-8")
JSON: Final[Header] = (b"content-type", b"application/json")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str | None)
_number = msgspec.json.Decoder(int | None)
_object = msgspec.json.Decoder(dict[str, Any] | None)
_encode = msgspec.json.Encoder().encode
_TRUE: Final = b"true"
_DATA: Final = b"data: "
_PICTURES: Final = (b'"image_url"', b'"input_image"', b'"image"')
_NOTHING: Final = (b"null", b"[]")
_BEGIN_NUMBERS: Final = b"-0123456789n"
_WITH_USAGE: Final = msgspec.Raw(b'{"include_usage":true}')
_BYTES_OF_A_TOKEN: Final = 4
_PASSED_ON: Final = frozenset({b"anthropic-beta", b"anthropic-version", b"openai-beta"})
_TOKENS_OF_CHAT: Final = ("max_completion_tokens", "max_tokens")
_TOKENS: Final = (*_TOKENS_OF_CHAT, "max_output_tokens")
_TOKENS_FIELD: Final[Mapping[Wire, str]] = {"responses": "max_output_tokens", "messages": "max_tokens"}


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One that is a text and nothing else."""

    role: Literal["system", "user", "assistant"]
    content: str


_messages = msgspec.json.Decoder(list[_Message])
_NUMBERS: Final = ("temperature", "top_p", "seed", *_TOKENS_OF_CHAT)
_PLAIN: Final = frozenset({"model", "messages", "user", "stream", *_NUMBERS})


class Route(NamedTuple):
    """What a path of ours is for."""

    path: str
    """At an engine, behind the version."""
    wire: Wire
    ability: Ability
    operation: Operation


@runtime_checkable
class RawEngine(Protocol):
    """An engine elsewhere that can be given bytes."""

    provider: str
    tokens_field: str
    """What it calls the most tokens of an answer."""

    def raw(
        self, path: str, body: bytes, headers: Iterable[Header] = (), *, streams: bool = True, timed: bool = True
    ) -> Awaitable[RawAnswer]: ...

    async def refused(self, answer: RawAnswer) -> EngineRefused: ...


class Asked:
    """A request, taken apart as far as the gateway must know it."""

    __slots__ = (
        "_bodies", "_fields", "_tokens_field", "_tokens_max", "headers", "read", "route", "size", "stream",
        "usage_wanted",
    )  # fmt: skip

    def __init__(self, route: Route, body: bytes, headers: list[Header]) -> None:
        """Raises BadRequest."""
        self.route = route
        self.size = len(body)
        self.headers = [header for header in headers if header[0] in _PASSED_ON]
        self._bodies: dict[tuple[str, str], bytes] = {}
        self.read = False
        """Its answer is read, and not passed on as it is."""
        self._tokens_field = ""
        self._tokens_max = 0
        try:
            check_text(body)
            self._fields = fields = _fields.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"the request is not a JSON object: {error}", "Send what the API describes.") from None
        self.stream = "stream" in fields and bytes(fields["stream"]) == _TRUE
        self.usage_wanted = True
        if self.stream and route.wire == "chat":
            options = fields.get("stream_options")
            told = {} if options is None else self._object(options)
            self.usage_wanted = told.get("include_usage") is True
            fields["stream_options"] = msgspec.Raw(_encode({**told, "include_usage": True})) if told else _WITH_USAGE

    @property
    def whole(self) -> bytes:
        """Each field once."""
        return _encode(self._fields)

    def words(self) -> Words | None:
        """Of a chat of texts alone, that is answered whole and asks for nothing else; otherwise None.

        What they were read from is what the engine will be asked, whatever else the messages said.
        """
        fields = self._fields
        if self.stream or "messages" not in fields or not fields.keys() <= _PLAIN:
            return None
        for name in _NUMBERS:
            if name in fields and bytes(fields[name])[:1] not in _BEGIN_NUMBERS:
                return None
        try:
            messages = _messages.decode(fields["messages"])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        fields["messages"] = msgspec.Raw(_encode(messages))
        self.read = True
        users = [message.content for message in messages if message.role == "user"]
        return Words([message.content for message in messages], users, self.size)

    @property
    def user(self) -> str:
        """For whom it is asked, as the caller calls them. Raises BadRequest."""
        if self.route.wire != "messages":
            return self.text("user")
        told = self._fields.get("metadata")
        found = self._object(told).get("user_id") if told is not None else None
        return found if isinstance(found, str) else ""

    @property
    def shows_pictures(self) -> bool:
        """As far as can be told from the names of fields."""
        told = bytes(self._fields.get("messages", b"")) + bytes(self._fields.get("input", b""))
        return any(name in told for name in _PICTURES)

    def text(self, name: str) -> str:
        """A field that is a text; empty if there is none. Raises BadRequest."""
        raw = self._fields.get(name)
        if raw is None:
            return ""
        try:
            return _text.decode(raw) or ""
        except msgspec.DecodeError:
            raise BadRequest(f"{name!r} is not a text", "Send what the API describes.") from None

    def number(self, *names: str) -> int:
        """The first of these that is a whole number above 0, else 0. Raises BadRequest."""
        fields = self._fields
        for name in names:
            if name in fields:
                try:
                    told = _number.decode(fields[name]) or 0
                except msgspec.DecodeError:
                    raise BadRequest(f"{name!r} is not a whole number", "Send what the API describes.") from None
                if told > 0:
                    return told
        return 0

    def has(self, *names: str) -> bool:
        """Whether one of these is there and says something."""
        fields = self._fields
        return any(name in fields and bytes(fields[name]) not in _NOTHING for name in names)

    @property
    def tokens_max(self) -> int:
        """The most tokens that the answer may have; 0 where that is not said. Raises BadRequest."""
        return self.number(*_TOKENS)

    def bound(self, tokens_max: int) -> None:
        """Ask for no more tokens than that, under the name that the caller used, where it used one."""
        route, self._tokens_max = self.route, tokens_max
        told = [name for name in _TOKENS if self._fields.pop(name, None) is not None]
        if route.wire != "chat":
            self._tokens_field = _TOKENS_FIELD[route.wire]
        elif route.ability != "chat":
            self._tokens_field = "max_tokens"
        elif told and told[0] in _TOKENS_OF_CHAT:
            self._tokens_field = told[0]

    def body(self, model: str, tokens_field: str = "max_tokens") -> bytes:
        """For an engine that calls the model so, and the most tokens of an answer ``tokens_field``."""
        key = model, tokens_field
        body = self._bodies.get(key)
        if body is None:
            fields: dict[str, Any] = {**self._fields, "model": model}
            if self._tokens_max:
                fields[self._tokens_field or tokens_field] = self._tokens_max
            body = self._bodies[key] = _encode(fields)
        return body

    def _object(self, raw: msgspec.Raw) -> dict[str, Any]:
        try:
            return _object.decode(raw) or {}
        except msgspec.DecodeError:
            raise BadRequest("a field is no object that should be one", "Send what the API describes.") from None


class Whole:
    """An answer that came in one piece."""

    __slots__ = ("body", "finish", "pieces", "usage")

    def __init__(self, body: bytes) -> None:
        """Raises EngineMalformed."""
        self.body = body
        self.usage, self.finish = whole(body)
        self.pieces = 0 if self.usage is not None else len(body) // _BYTES_OF_A_TOKEN

    async def aclose(self) -> None:
        """Nothing is open."""


class Read:
    """A whole answer in our own words."""

    __slots__ = ("answer",)

    pieces = 0

    def __init__(self, body: bytes) -> None:
        """Raises EngineMalformed."""
        self.answer: ChatAnswer = read_answer(body)

    @property
    def usage(self) -> Usage:
        return self.answer.usage

    @property
    def finish(self) -> str:
        return self.answer.finish

    async def aclose(self) -> None:
        """Nothing is open."""


class Stream:
    """An answer of which something has come."""

    __slots__ = (
        "_answer", "_engine", "_error", "_held", "_parser", "_passing", "_peek", "_simple", "_usage_wanted", "_wire",
    )  # fmt: skip

    def __init__(self, engine: str, answer: RawAnswer, asked: Asked) -> None:
        self._engine = engine
        self._answer = answer
        self._parser = SseParser()
        self._wire = asked.route.wire
        self._peek = Peek(asked.route.wire)
        self._usage_wanted = asked.usage_wanted
        self._held = b""
        self._passing = False
        self._simple = True
        """So far each piece that came was one event."""
        self._error: EngineError | None = None

    @property
    def usage(self) -> Usage | None:
        return self._peek.usage

    @property
    def finish(self) -> str:
        return self._peek.finish

    @property
    def pieces(self) -> int:
        """So many of the answer's have come: about as many tokens."""
        return self._peek.pieces

    async def begin(self) -> None:
        """Until something of the answer itself is here, which nobody has seen yet. Raises EngineError."""
        kind = self._answer.header(b"content-type") or b""
        if not kind.startswith(b"text/event-stream"):
            raise EngineMalformed(f"{self._engine} answers a stream with {kind!r}", "Is this an engine of this wire?")
        held: list[bytes] = []
        peek = self._peek
        while not peek.begun:
            held.append(self._take(await self._answer.read()))
        self._answer.began()
        self._held = b"".join(held)

    async def next(self) -> bytes:
        """The next events as they travel, ``b""`` at the end. Raises EngineError."""
        self._passing = True
        if self._held:
            held, self._held = self._held, b""
            return held
        peek, answer = self._peek, self._answer
        while not peek.ended:
            if self._error is not None:
                raise self._error
            if more := self._take(await answer.read()):
                return more
        return b""

    def _take(self, data: bytes) -> bytes:
        """What of the next bytes goes on to the client."""
        peek, wire = self._peek, self._wire
        if not data:
            if not peek.finish or wire != "chat":
                raise EngineUnreachable(f"{self._engine} ended in the middle of an answer", "It may be asked again.")
            peek.ended = True
            return b""
        if self._simple:
            if data[:6] == _DATA and data[-2:] == b"\n\n" and data.count(b"\n") == 2 and b"\r" not in data:
                # One event, as nearly all engines send them: it goes on as it is.
                peek.see(data[6:-2])
                if (peek.ended and wire == "chat") or (peek.usage_only and not self._usage_wanted):
                    return b""
                return data
            self._simple = False
        passed: list[bytes] = []
        for event in self._parser.feed(data):
            try:
                peek.see(event.data)
            except EngineError as error:
                if not passed or not self._passing:
                    raise
                self._error = error  # after what came before it
                break
            if peek.ended and wire == "chat":
                break
            if not peek.usage_only or self._usage_wanted:
                passed.append(_again(event))
        return passed[0] if len(passed) == 1 else b"".join(passed)

    async def finished(self) -> None:
        """All was passed on: the connection may serve again."""
        await self._answer.finish()

    async def aclose(self) -> None:
        await self._answer.aclose()


async def begin(asked: Asked, bytes_max: int, target: Target) -> Whole | Read | Stream:
    """Ask ``target``; an answer that has begun. Raises EngineError."""
    engine = cast("RawEngine", target.engine)
    body = asked.body(target.model, engine.tokens_field)
    answer = await engine.raw(asked.route.path, body, asked.headers, streams=asked.stream, timed=False)
    if answer.status != 200:
        raise await engine.refused(answer)
    try:
        if not asked.stream:
            here = answer.here(bytes_max)
            came = await answer.read_all(bytes_max) if here is None else here
            return Read(came) if asked.read else Whole(came)
        stream = Stream(target.name, answer, asked)
        await stream.begin()
    except BaseException:
        await answer.aclose()
        raise
    return stream


def _again(event: Event) -> bytes:
    """The event as it travels. A line break in JSON stands outside of texts, where it is as good as a space."""
    data = event.data.replace(b"\n", b" ") if b"\n" in event.data else event.data
    return encoded(data, "" if event.type == "message" else event.type)
