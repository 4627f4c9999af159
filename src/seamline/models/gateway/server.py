"""The AI gateway's HTTP: OpenAI's wire and Anthropic's, straight on the kernel's server."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings.ai_gateway import Ability
from seamline.kernel.settings.auth import loopback
from seamline.kernel.signal import log
from seamline.kernel.signal.trace import TraceContext, Tracer
from seamline.kernel.wire.http1 import Disconnected, Exchange, Header, HttpRefusal
from seamline.models.errors import EngineRefused
from seamline.models.gateway.errors import AiGatewayError, BadRequest, KeyRefused, UnknownModel
from seamline.models.gateway.keys import Caller, Key, caller
from seamline.models.gateway.passing import EVENTS, JSON, Asked, RawEngine, Read, Route, Stream, Whole, begin
from seamline.models.gateway.pipeline import Pipeline
from seamline.models.gateway.race import Race
from seamline.models.gateway.refusing import Refusal, Wire, refusal_of
from seamline.models.gateway.speaking import Spoken, speak, told_chat
from seamline.models.gateway.targets import Model, Target, Wants
from seamline.models.gateway.till import Bill
from seamline.models.wire import openai_lists
from seamline.models.wire.errors import WireError
from seamline.module.context import CURRENT, CallContext, current

_log = log.get("seamline.models")

ROUTES: Final[Mapping[bytes, Route]] = {
    b"/v1/chat/completions": Route("/chat/completions", "chat", "chat", "chat"),
    b"/v1/completions": Route("/completions", "chat", "completions", "text_completion"),
    b"/v1/responses": Route("/responses", "responses", "chat", "chat"),
    b"/v1/messages": Route("/messages", "messages", "chat", "chat"),
    b"/v1/embeddings": Route("/embeddings", "chat", "embeddings", "embeddings"),
    b"/v1/rerank": Route("/rerank", "chat", "rerank", "retrieval"),
}
_WIRE_OF: Final[Mapping[Wire, str]] = {"chat": "openai", "responses": "openai", "messages": "anthropic"}
_CHAT: Final = "/chat/completions"
_GENERATE: Final = ("chat", "completions")
_NOT_THERE: Final = (404, 405, 501)
_GATEWAY: Final = "gateway"
_BEARER: Final = b"bearer "
_OPEN: Final = Key(id="open", name="open")
_ANYTHING: Final = Wants(frozenset())
_LISTED_AT: Final = 1_700_000_000


class Server:
    """Answers requests; what is decided about them is the pipeline's."""

    def __init__(
        self, pipeline: Pipeline, *, bytes_max: int, answer_bytes_max: int, is_open: bool, tracer: Tracer | None = None
    ) -> None:
        self._pipeline = pipeline
        self._bytes_max = bytes_max
        self._answer_bytes_max = answer_bytes_max
        self._is_open = is_open
        self._tracer = tracer
        self._passes = {
            (alias, wire): not pipeline.looks_inside(model) and all(_passes(target, wire) for target in model.targets)
            for alias, model in pipeline.models.items()
            for wire in _WIRE_OF
        }

        self._may_be_clear = frozenset(
            alias
            for alias, model in pipeline.models.items()
            if pipeline.may_be_clear(model) and all(_passes(target, "chat") for target in model.targets)
        )

    async def handle(self, exchange: Exchange) -> None:
        """One request. Raises nothing but cancellation and what the kernel's server answers itself."""
        request = exchange.request
        route = ROUTES.get(request.path)
        wire: Wire
        if route is not None:
            wire = route.wire
        else:
            wire = "messages" if request.header(b"anthropic-version") is not None else "chat"
        try:
            if route is None:
                self._others(exchange, wire)
            elif self._tracer is None:
                await self._post(exchange, route)
            else:
                trace = self._tracer.enter(_trace_of(request.headers))
                token = CURRENT.set(CallContext(_GATEWAY, _GATEWAY, route.operation, trace=trace))
                try:
                    await self._post(exchange, route)
                finally:
                    CURRENT.reset(token)
        except SeamlineError as error:
            _refuse(exchange, wire, _told(error))
        except HttpRefusal as refusal:
            told = Refusal(refusal.status, refusal.code, refusal.message)
            if not exchange.started:
                exchange.respond(told.status, [JSON, *refusal.headers], told.body(wire))
        except Disconnected:
            raise
        except Exception:
            _log.exception("the AI gateway failed at %r", request.path)
            _refuse(exchange, wire, Refusal(500, "internal", "the gateway failed"))

    async def _post(self, exchange: Exchange, route: Route) -> None:
        request = exchange.request
        if request.method != "POST":
            raise HttpRefusal(405, "method_not_allowed", "POST is what is meant", [(b"allow", b"POST")])
        key = self._key(request.headers)
        body = request.body
        if body is None or len(body) > self._bytes_max:
            body = await request.read_all(self._bytes_max)
        asked = Asked(route, body, request.headers)
        alias = asked.text("model")
        model = self._pipeline.models.get(alias)
        if model is None:
            raise UnknownModel(f"there is no model {alias!r}", "GET /v1/models lists them.")
        who = caller(key) if key.user else caller(key, asked.user)
        if self._passes[alias, route.wire]:
            try:
                await self._pass_on(exchange, who, model, asked)
            except EngineRefused as error:
                if route.wire != "responses" or error.status not in _NOT_THERE:
                    raise
                # Of those that speak OpenAI's wire, many do not have this part of it.
                self._passes[alias, route.wire] = False
            else:
                return
        elif alias in self._may_be_clear and route.path == _CHAT and self._is_clear(asked):
            await self._pass_on(exchange, who, model, asked)
            return
        await self._speak(exchange, who, speak(asked))

    def _is_clear(self, asked: Asked) -> bool:
        words, guardrails = asked.words(), self._pipeline.guardrails
        return words is not None and guardrails is not None and guardrails.clear(words)

    def _key(self, headers: list[Header]) -> Key:
        """Raises KeyRefused."""
        presented = b""
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == _BEARER:
                presented = value[7:].strip()
                break
            if name == b"x-api-key":
                presented = value.strip()
                break
        keys = self._pipeline.keys
        if self._is_open and (keys is None or not presented.startswith(b"sk-sl-")):
            if not _from_here(headers):
                raise KeyRefused("a page of another site asks, or by another name", "Ask 127.0.0.1, or with a key.")
            return _OPEN
        if keys is None:
            raise KeyRefused("nobody has a key here", "Give the gateway a file of keys, or say open = true.")
        return keys.find(presented) or keys.admit(presented)

    # As it is.

    async def _pass_on(self, exchange: Exchange, who: Caller, model: Model, asked: Asked) -> None:
        route, pipeline = asked.route, self._pipeline
        tokens_max = asked.tokens_max
        generates = route.ability in _GENERATE
        if generates and (most := model.settings.output_tokens_max) and not 0 < tokens_max <= most:
            asked.bound(most)
            tokens_max = most
        answers = max(asked.number("n"), 1) if generates else 0
        if pipeline.guardrails is not None:
            pipeline.guardrails.check_size(asked.size)
        size, stream = asked.size, asked.stream
        bill = pipeline.till.open_now(who, model, route.operation, size, tokens_max, answers=answers, stream=stream)
        if bill is None:
            bill = await pipeline.till.open(
                who, model, route.operation, size, tokens_max, answers=answers, stream=stream
            )
        if bill.answer_max:
            asked.bound(bill.answer_max)
        failed = "canceled"
        answer: Whole | Read | Stream | None = None
        try:
            wants = _wants(asked, bill, tokens_max) if model.picky or model.settings.sticky else _ANYTHING
            race = Race(
                pipeline.watch, model, wants, partial(begin, asked, self._answer_bytes_max), whole=not stream,
                asking=bill.asked, affordable=bill.affordable, abandoned=bill.abandoned,
            )  # fmt: skip
            target, answer = await race.run()
            bill.answers(target, answer)
            if isinstance(answer, Stream):
                failed = await _relay(exchange, answer, bill, route.wire)
            elif isinstance(answer, Whole):
                bill.close()
                exchange.respond(200, _json_lines(), answer.body)
            else:
                bill.close()
                looked_through = await pipeline.look_through(who, model, answer.answer)
                exchange.respond(200, _json_lines(), told_chat(looked_through))
        except SeamlineError as error:
            failed = error.code
            raise
        finally:
            bill.close(failed)
            if isinstance(answer, Stream):
                await answer.aclose()

    # In our words.

    async def _speak(self, exchange: Exchange, who: Caller, spoken: Spoken) -> None:
        if not spoken.stream:
            exchange.respond(200, _json_lines(), await spoken.whole(self._pipeline, who))
            return
        async with aclosing(spoken.events(self._pipeline, who)) as events:
            first = await anext(events, b"")
            exchange.start(200, [EVENTS, _request_id()])
            try:
                await exchange.write(first)
                async for event in events:
                    await exchange.write(event)
            except SeamlineError as error:
                _break_off(exchange, _told(error), spoken.route.wire)
                return
            exchange.end()

    # Other paths.

    def _others(self, exchange: Exchange, wire: Wire) -> None:
        request = exchange.request
        path = request.path
        if path in (b"/health", b"/healthz"):
            exchange.respond(200, [JSON], b'{"status":"ok"}')
            return
        if path != b"/v1/models" and not path.startswith(b"/v1/models/"):
            raise HttpRefusal(404, "not_found", f"nothing is at {path.decode('latin-1')!r}")
        if request.method != "GET":
            raise HttpRefusal(405, "method_not_allowed", "GET is what is meant", [(b"allow", b"GET")])
        key = self._key(request.headers)
        names = [alias for alias in self._pipeline.models if not key.models or alias in key.models]
        if path == b"/v1/models":
            told = (
                _anthropic_list(names)
                if wire == "messages"
                else openai_lists.told_models(names, owner="seamline", created=_LISTED_AT)
            )
            exchange.respond(200, [JSON], told)
            return
        name = path.removeprefix(b"/v1/models/").decode("latin-1")
        if name not in names:
            raise UnknownModel(f"there is no model {name!r}", "GET /v1/models lists them.")
        one = {"id": name, "object": "model", "created": _LISTED_AT, "owned_by": "seamline"}
        exchange.respond(200, [JSON], msgspec.json.encode(_anthropic_model(name) if wire == "messages" else one))


async def _relay(exchange: Exchange, answer: Stream, bill: Bill, wire: Wire) -> str:
    """Pass a stream on to its end; the code of what it broke off with, if it did."""
    exchange.start(200, [EVENTS, _request_id()])
    try:
        while events := await answer.next():
            await exchange.write(events)
            bill.goes_on()
    except SeamlineError as error:
        _break_off(exchange, _told(error), wire)
        return error.code
    bill.close()
    exchange.end(b"data: [DONE]\n\n" if wire == "chat" else b"")
    await answer.finished()
    return ""


def _break_off(exchange: Exchange, refusal: Refusal, wire: Wire) -> None:
    """Say what happened as the last event: no client takes what it has for the whole answer."""
    if not exchange.disconnected:
        exchange.end(refusal.event(wire))


def _refuse(exchange: Exchange, wire: Wire, refusal: Refusal) -> None:
    if not exchange.started:
        exchange.respond(refusal.status, refusal.headers(), refusal.body(wire))


def _told(error: SeamlineError) -> Refusal:
    if isinstance(error, WireError):
        return refusal_of(BadRequest(error.fact, error.remedy))
    refusal = refusal_of(error)
    if refusal.status >= 500 and not isinstance(error, AiGatewayError):
        _log.warning("%s", error)
    return refusal


def _passes(target: Target, wire: Wire) -> bool:
    engine = target.engine
    return isinstance(engine, RawEngine) and engine.provider == _WIRE_OF[wire]


def _wants(asked: Asked, bill: Bill, tokens_max: int) -> Wants:
    abilities: set[Ability] = {asked.route.ability}
    if asked.has("tools", "functions"):
        abilities.add("tools")
    if asked.has("response_format"):
        abilities.add("json")
    if asked.shows_pictures:
        abilities.add("vision")
    return Wants(frozenset(abilities), bill.tokens + tokens_max, bill.caller.key.id)


def _trace_of(headers: list[Header]) -> TraceContext | None:
    """The trace that a stranger's request says it belongs to."""
    for name, value in headers:
        if name == b"traceparent":
            return TraceContext.from_headers({name: value})
    return None


def _from_here(headers: list[Header]) -> bool:
    """Whether no browser asks for a page from elsewhere, which could else use what is open to whoever is here."""
    for name, value in headers:
        if name in (b"host", b"origin"):
            host = urlsplit(value.decode("latin-1") if name == b"origin" else f"//{value.decode('latin-1')}").hostname
            if host is None or not loopback(host):
                return False
    return True


def _json_lines() -> bytes:
    return b"content-type: application/json\r\nx-request-id: %032x\r\n" % _request_number()


def _request_id() -> Header:
    return b"x-request-id", b"%032x" % _request_number()


def _request_number() -> int:
    """The trace's, where there is one, so that whoever complains can be helped."""
    call = current()
    return random.getrandbits(128) if call is None or call.origin is None else call.origin.trace_id


def _anthropic_model(name: str) -> dict[str, str]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2023-11-14T22:13:20Z"}


def _anthropic_list(names: list[str]) -> bytes:
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return msgspec.json.encode({"data": [_anthropic_model(name) for name in names], "has_more": False, **ends})
