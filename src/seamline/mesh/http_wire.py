"""The JSON wire: contracts over HTTP/1.1 after the Connect protocol, for curl, other languages and L7 meshes.

    POST /<app>.<Contract>/<method>     application/json            one request, one result
    GET  /<app>.<Contract>/<method>     ?message=<json>&encoding=json      the same, for ``@readonly`` methods
    POST /<app>.<Contract>/<method>     application/connect+json    streams, in Connect's envelopes
    GET  /healthz                       is the process there and not draining

``connect-timeout-ms``, ``traceparent`` and ``idempotency-key`` are honoured. A method that takes a stream reads its
parameters from the first envelope and the items from those that follow.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.kernel.codec import CodecError
from seamline.kernel.lifetime import Runners
from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.wire.http1 import Disconnected, Exchange, HttpLimits, HttpRequest, HttpServer
from seamline.mesh.connect import END_STREAM, HTTP_STATUS, EnvelopeError, EnvelopeReader, envelope, error_json
from seamline.mesh.copies import decoded_items, unfit
from seamline.mesh.doors import Door, Doors
from seamline.mesh.limits import PRIORITIES
from seamline.mesh.outcome import error_body, overloaded, retry_header
from seamline.module.context import CallContext
from seamline.module.contract import UNARY, MethodSpec
from seamline.module.errors import CallError, InvalidArgument, Unimplemented
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.service import Entry

STREAMS_LARGER = 16
"""How many times larger than a message a stream upwards may be."""
_JSON = ((b"content-type", b"application/json"),)
_STREAM = ((b"content-type", b"application/connect+json"),)


class HttpFace:
    """Serves the contracts of one process on the JSON wire."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._prefix = f"/{mesh.app}.".encode()
        self._names: dict[bytes, str] = {}
        """The methods by their path, as far as they were called."""
        self._runners = Runners()
        size = mesh.settings.frame_bytes_max
        self._message_bytes_max = size
        self._server = HttpServer(
            self._handle, HttpLimits(body_bytes_max=size * STREAMS_LARGER), runners=self._runners,
            on_connect=self._connected, scheme="https",
        )  # fmt: skip

    def protocol(self) -> asyncio.Protocol:
        return self._server.protocol()

    def _connected(self, transport: asyncio.Transport, state: dict[str, Any]) -> None:
        assert self._mesh.identity is not None
        caller = self._mesh.identity.authenticate(transport.get_extra_info("ssl_object"))
        state["doors"] = Doors(self._mesh, caller)

    async def drain(self, timeout_s: float) -> bool:
        return await self._server.drain(timeout_s)

    async def stop(self) -> None:
        await self._server.close()
        await self._runners.stop()

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path == b"/healthz":
            draining = self._server.draining
            exchange.respond(503 if draining else 200, _JSON, b'{"draining":true}' if draining else b'{"ready":true}')
            return
        try:
            door, context = self.admitted(request, request.path, exchange.connection_state["doors"])
        except CallError as error:
            answer_error(exchange, error)
            return
        entry = door.entry
        streaming = (request.header(b"content-type") or b"").startswith(b"application/connect+json")
        if streaming != (entry.spec.kind != UNARY):
            wanted = "application/json" if streaming else "application/connect+json"
            answer_error(exchange, InvalidArgument(f"{entry.name} takes content-type {wanted}"), 415)
            return
        limit = entry.limit
        refusal = self._refusal(door, context)
        if refusal is None and limit is not None and not limit.admit(context.priority):
            refusal = overloaded(entry.name, f"{limit.inflight} calls are under way")
        if refusal is not None:
            door.refused(refusal)
            answer_error(exchange, refusal)
            return
        failure: BaseException | None = None
        started = monotonic()
        try:
            if streaming:
                failure = await self._stream(exchange, door, context)
            elif context.subject is None:
                await self._unary(exchange, door, context)
            else:
                with self._mesh.revocations.bound(context.subject):
                    await self._unary(exchange, door, context)
        except (Fault, CallError) as error:
            failure = error
            answer_error(exchange, error)
        except asyncio.CancelledError as error:
            failure = error
            raise
        finally:
            seconds = monotonic() - started
            if limit is not None:
                limit.release(None if streaming else seconds)
            door.ended(context, started, seconds, failure)

    def admitted(self, request: HttpRequest, path: bytes, doors: Doors) -> tuple[Door, CallContext]:
        """The method at ``path``, and the call of it that is made with the request. Raises CallError."""
        door = self._door(path, doors)
        headers = dict(reversed(request.headers))  # of several with one name, the first
        context = self._context(headers, door.entry, doors.caller)
        proof = headers.get(b"seamline-subject")
        if proof is not None:
            context.subject = self._mesh.admit(proof.decode("latin-1"), doors.caller, door.entry.module)
        return door, context

    def _door(self, path: bytes, doors: Doors) -> Door:
        name = self._names.get(path)
        if name is not None and (door := doors.find(name)) is not None:
            return door
        if not path.startswith(self._prefix):
            raise Unimplemented(
                f"there is nothing at {path!r}", f"Contracts are at {self._prefix.decode()}<Contract>/<method>."
            )
        name = path[len(self._prefix) :].replace(b"/", b".", 1).decode("utf-8", "replace")
        door = doors.find(name)
        if door is None:
            raise self._mesh.unknown_method(name)
        if path == self._prefix + name.replace(".", "/", 1).encode():
            self._names[path] = name
        return door

    def _context(self, headers: Mapping[bytes, bytes], entry: Entry, caller: str) -> CallContext:
        timeout = headers.get(b"connect-timeout-ms")
        if timeout is not None:
            if not timeout.isdigit() or len(timeout) > 10:
                raise InvalidArgument(
                    f"connect-timeout-ms is {timeout!r}", "Give whole milliseconds, at most ten digits."
                )
            deadline = monotonic() + int(timeout) / 1000
        else:
            deadline = monotonic() + entry.rules.timeout_s
        ours = headers.get(b"seamline-priority")
        trace = TraceContext.from_headers(headers) if b"traceparent" in headers else None
        if trace is None and ours is None:  # our own callers have cast the lot, here as on the other wire
            trace = self._mesh.tracer.root()
        key = headers.get(b"idempotency-key")
        priority = entry.priority if ours is None else PRIORITIES.get(ours.decode("latin-1"), entry.priority)
        return CallContext(
            entry.module, caller, entry.name, deadline, trace, priority, key.decode("latin-1") if key else None, span=0
        )

    def _refusal(self, door: Door, context: CallContext) -> CallError | None:
        if door.decision is False:
            return self._mesh.denied(context.caller, door.entry.module, door.entry.spec.permission, context.subject)
        return None

    def judged(self, door: Door, context: CallContext, data: bytes) -> tuple[Any, ...]:
        """The arguments, once policy has been asked about them. Raises CallError."""
        entry, decision = door.entry, door.decision
        arguments = _decoded(entry, data)
        if decision is not True and (decision is False or not decision(context.subject, arguments)):
            raise self._mesh.denied(context.caller, entry.module, entry.spec.permission, context.subject, arguments)
        return arguments

    async def _unary(self, exchange: Exchange, door: Door, context: CallContext) -> None:
        request, entry = exchange.request, door.entry
        if request.method == "GET":
            data = message_in_query(entry.spec, request.query)
        elif request.method == "POST":
            body = request.body
            data = body if body is not None else await request.read_all(self._message_bytes_max)
        else:
            exchange.respond(405, ((b"allow", b"GET, POST"),))
            return
        arguments = self.judged(door, context, data or b"{}")
        result = await self._mesh.serve(entry, arguments, context)
        exchange.respond(200, _JSON, self._encoded(entry, result))

    def _encoded(self, entry: Entry, result: Any) -> bytes:
        try:
            return entry.encode(result)
        except Exception as error:
            raise self._mesh.crossed(error, entry) from None

    async def _stream(self, exchange: Exchange, door: Door, context: CallContext) -> BaseException | None:
        """Serve a call with a stream. Gives the error that was told in the stream, if any."""
        entry = door.entry
        messages = self._messages(exchange)
        first = await anext(messages, None)
        arguments = self.judged(door, context, first if first is not None else b"{}")
        if entry.spec.item is not None:
            arguments = (*arguments, decoded_items(messages, entry.spec.item, entry.name))
        exchange.start(200, _STREAM)
        closing: dict[str, Any] = {}
        failure: BaseException | None = None
        try:
            with self._mesh.revocations.bound(context.subject):
                await self._serve_streaming(exchange, entry, arguments, context)
        except Disconnected:
            return None
        except (Fault, CallError) as error:
            failure = error
            closing = {"error": error_json(error_body(error))}
        exchange.end(envelope(msgspec.json.encode(closing), END_STREAM))
        return failure

    async def _serve_streaming(
        self, exchange: Exchange, entry: Entry, arguments: tuple[Any, ...], context: CallContext
    ) -> None:
        if entry.spec.kind in ("server_stream", "bidi"):
            async with aclosing(self._mesh.serve_stream(entry, arguments, context)) as items:
                async for item in items:
                    await exchange.write(envelope(self._encoded(entry, item)))
        else:
            result = await self._mesh.serve(entry, arguments, context)
            await exchange.write(envelope(self._encoded(entry, result)))

    async def _messages(self, exchange: Exchange) -> AsyncIterator[bytes]:
        reader = EnvelopeReader(self._message_bytes_max)
        try:
            while chunk := await exchange.request.read():
                for flags, message in reader.feed(chunk):
                    if flags & END_STREAM:
                        return
                    yield message
        except EnvelopeError as error:
            raise InvalidArgument(f"the body is not a sequence of envelopes: {error}") from None
        if reader.partial:
            raise InvalidArgument("the body ends within an envelope")


def _decoded(entry: Entry, data: bytes) -> tuple[Any, ...]:
    try:
        return entry.decode(data)
    except CodecError as error:
        raise unfit(f"the arguments of {entry.name} do", error) from None


def message_in_query(spec: MethodSpec, query: bytes) -> bytes:
    """The parameters of a call that was made with GET. Raises InvalidArgument."""
    if not spec.readonly:
        raise InvalidArgument(f"{spec.full_name} is not readonly and cannot be called with GET", "Use POST.")
    fields = urllib.parse.parse_qs(query.decode("latin-1"), max_num_fields=10)
    if fields.get("encoding", ["json"]) != ["json"] or "base64" in fields:
        raise InvalidArgument("only encoding=json is spoken here", "Give the parameters as `message=<json>`.")
    return fields.get("message", ["{}"])[0].encode("utf-8")


def answer_error(exchange: Exchange, error: Exception, status: int | None = None) -> None:
    body = error_body(error)
    if not exchange.started and not exchange.disconnected:
        headers = (*_JSON, *retry_header(error))
        exchange.respond(status or HTTP_STATUS.get(body.code, 500), headers, msgspec.json.encode(error_json(body)))
