"""The mesh port: one TLS listener for both wires, and the callee's end of ``seamline/1``.

The peer's module is proven by its certificate when the connection is made; every call is then checked against
policy, its deadline and the concurrency limit before its handler runs. A handler starts in the very tick in which
its frame arrives; answers of one tick leave in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from seamline.kernel.codec import CodecError
from seamline.kernel.lifetime import Runners, Running
from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import Ahead, CallHead, FrameError, FrameReader
from seamline.mesh.connection import too_long
from seamline.mesh.copies import decoded_items, unfit
from seamline.mesh.doors import Door, Doors
from seamline.mesh.errors import IdentityError
from seamline.mesh.flow import Incoming, Outgoing
from seamline.mesh.identity.revocation import Underway, revoked
from seamline.mesh.local import seen_by_caller
from seamline.mesh.outcome import deadline_exceeded, error_body, overloaded
from seamline.mesh.policy.world import HTTP
from seamline.mesh.refusals import Farewell, Quiet
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import BIDI, CLIENT_STREAM, UNARY
from seamline.module.errors import (
    CallError,
    InternalError,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.mesh.limits import ConcurrencyLimit
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.service import Entry
    from seamline.module.principal import Subject

_log = logging.getLogger("seamline.mesh")

PARTIAL_FRAME_S = 30.0
"""How long a frame may take to arrive."""
TELL_S = 0.1
"""Between two looks at how much is under way, while anything is."""
TELL_AGAIN_S = 1.0
"""After which callers are told what has not changed: what they know is good for :attr:`Replica.OTHERS_S`."""

_LARGE_BYTES = 262_144

UNREAD_FRAMES_MAX = 16
"""Answers that are kept for a peer which does not read, in frames of the greatest length."""

TUNNEL = "http:"
"""Method names that begin with this carry a module's public HTTP as a raw duplex stream."""

Tunnel = Callable[["ServerDuplex"], Coroutine[Any, Any, None]]


class _Stream:
    """A call under way on the callee's side."""

    __slots__ = ("incoming", "outgoing", "running", "timer", "underway", "verdict")

    def __init__(self) -> None:
        self.running: Running | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.verdict: CallError | None = None
        """What the mesh ends it with, whatever its handler makes of that."""
        self.underway: Underway | None = None
        self.incoming: Incoming | None = None
        self.outgoing: Outgoing | None = None


class ServerSide(Protocol):
    """What a connection asks of the port."""

    mesh: Mesh
    runners: Runners
    connections: set[FrameServerConnection]
    draining: bool
    quiet: Quiet

    def has_work(self) -> None:
        """A call is under way that did not end at once."""
        ...


class FrameServerConnection(asyncio.Protocol):
    """The callee's end of one connection."""

    def __init__(self, side: ServerSide, caller: str) -> None:
        self.side = side
        self.caller = caller
        self._mesh = side.mesh
        self._runners = side.runners
        self._doors = Doors(side.mesh, caller)
        settings = side.mesh.settings
        self._credit = settings.stream_credit_bytes
        self._inflight_max = settings.inflight_per_connection_max
        self._streams: dict[int, _Stream] = {}
        self._reader = FrameReader(self._frame, self._oversize, settings.frame_bytes_max)
        self._frame_bytes_max = settings.frame_bytes_max
        self._unread_bytes = 0
        self._unread_bytes_max = settings.frame_bytes_max * UNREAD_FRAMES_MAX
        self._silence_max_s = settings.keepalive_s * 4
        self._out: list[bytes] = []
        self._receiving = False
        self._flushing = False
        self._closed = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._heard = self._partial_since = monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._watch = self._loop.call_later(PARTIAL_FRAME_S / 2, self._check)
        self.side.connections.add(self)
        if self.side.draining:
            self.goaway()

    def data_received(self, data: bytes) -> None:
        self._heard = monotonic()
        self._receiving = True
        try:
            if self._reader.feed(data):
                self._partial_since = self._heard
        except FrameError as error:
            self._give_up(str(error))
        finally:
            self._receiving = False
            if self._out:
                self._flush()

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        # A peer that does not read its answers may not send more calls either.
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._unread_bytes = 0
        self._writable.set()
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol's signature
        self._closed = True
        self._watch.cancel()
        self._writable.set()
        self.side.connections.discard(self)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self._abandon(stream)

    def _check(self) -> None:
        now = monotonic()
        if self._reader.partial and now - self._partial_since > PARTIAL_FRAME_S:
            self._give_up(f"a frame took over {PARTIAL_FRAME_S:g} s")
        elif now - self._heard > self._silence_max_s:
            self._transport.abort()
        else:
            self._watch = self._loop.call_later(PARTIAL_FRAME_S / 2, self._check)

    def _give_up(self, why: str) -> None:
        if self._transport.is_closing():
            return
        self.side.quiet.warning(f"closing the connection of module {self.caller!r}: {why}")
        self._transport.abort()

    @property
    def inflight(self) -> int:
        return len(self._streams)

    def goaway(self) -> None:
        """Ask the caller to begin no new calls here."""
        self._send(frames.frame(frames.GOAWAY, 0))

    @property
    def module(self) -> str:
        """That is called here; empty before the first call."""
        return self._doors.module

    def tell_load(self, under_way: int, ahead: Ahead | None) -> None:
        """Tell the caller how many calls are under way in this process, whoever made them, and what is ahead of one
        more."""
        self._send(frames.told_frame(under_way, ahead))

    def abort(self) -> None:
        self._transport.abort()

    def end_all(self, verdict: CallError) -> None:
        """End every call under way with ``verdict``."""
        for call in list(self._streams.values()):
            _end(call, verdict)

    # Frames.

    def _frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == frames.CALL:
            self._call(stream, payload)
            return
        if kind == frames.PING:
            self._send(frames.frame(frames.PONG, 0, payload))
            return
        call = self._streams.get(stream)
        if call is None:
            return
        if kind == frames.CANCEL:
            del self._streams[stream]
            self._abandon(call)
        elif kind == frames.ITEM and call.incoming is not None:
            call.incoming.push(payload)
        elif kind == frames.END and call.incoming is not None:
            call.incoming.end()
        elif kind == frames.CREDIT and call.outgoing is not None:
            call.outgoing.granted(frames.read_credit(payload))
        elif kind not in (frames.END, frames.ITEM, frames.CREDIT):
            raise FrameError(f"a caller does not send frames of type {kind}")

    def _oversize(self, kind: int, stream: int, length: int) -> None:
        error = InvalidArgument(
            f"a frame of {length} bytes is longer than frame_bytes_max = {self._mesh.settings.frame_bytes_max}",
            "Send less, stream it, or raise `frame_bytes_max` in [mesh].",
        )
        call = self._streams.pop(stream, None)
        if call is not None:
            self._abandon(call)
        if kind == frames.CALL or call is not None:
            self._refuse(stream, error)

    def _abandon(self, call: _Stream) -> None:
        if call.incoming is not None:
            # Not a plain end: a handler that clings to life must not take half a stream for the whole.
            call.incoming.end(Unavailable("the caller has gone"))
        if call.outgoing is not None:
            call.outgoing.close()
        if call.running is not None:
            call.running.cancel()

    def _call(self, stream: int, payload: bytes) -> None:
        head, body = frames.read_call(payload)
        if stream in self._streams:
            raise FrameError(f"stream {stream} is in use")
        door = self._doors.find(head.method)
        if door is None:
            if head.method.startswith(TUNNEL):
                self._tunnel(stream, head)
                return
            self._refuse(stream, self._mesh.unknown_method(head.method))
            return
        entry = door.entry
        # A caller that gives no deadline has the method's own: nothing runs for ever.
        timeout_s = head.timeout_ms / 1000 if head.timeout_ms else entry.rules.timeout_s
        priority = head.priority
        now = monotonic()
        trace = TraceContext.from_bytes(head.trace) if head.trace is not None else None
        priority = priority if 0 <= priority <= 2 else entry.priority
        context = CallContext(
            entry.module, self.caller, entry.name, now + timeout_s, trace, priority, head.key, None, None, 0
        )
        limit = entry.limit
        try:
            arguments = self._admitted(door, context, head.subject, body)
            if limit is not None and not limit.admit(priority):
                why = f"{limit.inflight} calls are under way and the limit is {limit.limit:.0f}"
                raise overloaded(entry.name, why)
        except CallError as error:
            door.refused(error)
            self._refuse(stream, error)
            return
        call = self._streams[stream] = _Stream()
        kind = entry.spec.kind
        if kind == UNARY:
            running = self._runners.start(self._serve(stream, call, door, limit, arguments, context, now))
        else:
            running = self._start_streaming(stream, call, door, limit, arguments, context)
        if not running.done:
            call.running = running
            self.side.has_work()
            if kind in (UNARY, CLIENT_STREAM):  # a timer costs more than a short call: it is set for those that wait
                delay_s = max(context.deadline - monotonic(), 0.0)
                call.timer = self._loop.call_later(delay_s, _expire, call, entry.name)
            if context.subject is not None:
                call.underway = self._mesh.revocations.watch(context.subject, lambda why: _revoke(call, why))

    def _start_streaming(
        self, stream: int, call: _Stream, door: Door, limit: ConcurrencyLimit | None, arguments: tuple[Any, ...],
        context: CallContext,
    ) -> Running:  # fmt: skip
        entry = door.entry
        kind = entry.spec.kind
        if kind in (CLIENT_STREAM, BIDI):
            arguments = (*arguments, self._upstream(stream, call, entry))
        if kind == CLIENT_STREAM:
            return self._runners.start(self._serve(stream, call, door, limit, arguments, context, monotonic()))
        outgoing = call.outgoing = Outgoing(self._credit)
        return self._runners.start(self._serve_stream(stream, call, outgoing, door, limit, arguments, context))

    def _admitted(self, door: Door, context: CallContext, proof: str | None, body: bytes) -> tuple[Any, ...]:
        """The arguments of a call, once it may be made. Raises CallError."""
        entry, decision = door.entry, door.decision
        if proof is not None:
            context.subject = self._mesh.admit(proof, self.caller, entry.module)
        if decision is False:
            raise self._mesh.denied(self.caller, entry.module, entry.spec.permission, context.subject)
        if len(self._streams) >= self._inflight_max:
            raise self._crowded(entry.name)
        try:
            arguments = entry.decode(body)
        except CodecError as error:
            raise unfit(f"the arguments of {entry.name} do", error) from None
        if decision is not True and not decision(context.subject, arguments):
            raise self._mesh.denied(self.caller, entry.module, entry.spec.permission, context.subject, arguments)
        return arguments

    def _crowded(self, method: str) -> CallError:
        return overloaded(method, f"{len(self._streams)} calls are under way on the connection")

    def _upstream(self, stream: int, call: _Stream, entry: Entry) -> AsyncIterator[Any]:
        def grant(amount: int) -> None:
            self._send(frames.frame(frames.CREDIT, stream, frames.CREDIT_AMOUNT.pack(amount)))

        call.incoming = Incoming(self._credit, grant)
        assert entry.spec.item is not None
        return decoded_items(_payloads(call.incoming), entry.spec.item, entry.name)

    async def _serve(
        self, stream: int, call: _Stream, door: Door, limit: ConcurrencyLimit | None, arguments: tuple[Any, ...],
        context: CallContext, started: float,
    ) -> None:  # fmt: skip
        """The hottest code of a callee: few layers, and the deadline is the timer of :meth:`_call`."""
        entry = door.entry
        failure: BaseException | None = None
        try:
            if door.plain:
                token = CURRENT.set(context)
                try:
                    result = await entry.handler(*arguments)
                except BaseException as error:
                    raise seen_by_caller(error, entry, context) from None
                finally:
                    CURRENT.reset(token)
            else:
                result = await self._mesh.serve(entry, arguments, context)
            data = self._encoded(entry, result)
        except (Fault, CallError) as error:
            failure = call.verdict or error
            self._fail(stream, failure)
        except asyncio.CancelledError as error:
            failure = call.verdict or error
            if call.verdict is None:
                raise
            self._fail(stream, failure)
        else:
            failure = call.verdict
            if failure is not None:
                self._fail(stream, failure)
            elif self._streams.pop(stream, None) is not None:
                self._send(frames.HEADER.pack(len(data), frames.RESULT, stream) + data)
        finally:
            seconds = monotonic() - started
            if call.timer is not None:
                call.timer.cancel()
            if call.underway is not None:
                self._mesh.revocations.ended(call.underway)
            if limit is not None:
                limit.release(seconds)
            if stream in self._streams:
                self._fail(stream, InternalError(f"{entry.name} ended without an answer"))
            door.ended(context, started, seconds, failure)

    def _encoded(self, entry: Entry, result: Any) -> bytes:
        try:
            data = entry.encode(result)
        except Exception as error:
            raise self._mesh.crossed(error, entry) from None
        if len(data) > self._frame_bytes_max:
            raise too_long(entry.name, len(data))
        return data

    async def _serve_stream(
        self, stream: int, call: _Stream, outgoing: Outgoing, door: Door, limit: ConcurrencyLimit | None,
        arguments: tuple[Any, ...], context: CallContext,
    ) -> None:  # fmt: skip
        entry = door.entry
        failure: BaseException | None = None
        started = monotonic()
        try:
            async with aclosing(self._mesh.serve_stream(entry, arguments, context)) as items:
                async for item in items:
                    data = self._encoded(entry, item)
                    if not await outgoing.spend(len(data)):
                        return
                    await self._writable.wait()
                    self._send(frames.frame(frames.ITEM, stream, data))
            if self._streams.pop(stream, None) is not None:
                self._send(frames.frame(frames.END, stream))
        except (Fault, CallError) as error:
            failure = call.verdict or error
            self._fail(stream, failure)
        except asyncio.CancelledError as error:
            failure = call.verdict or error
            if call.verdict is None:
                raise
            self._fail(stream, failure)
        finally:
            if call.underway is not None:
                self._mesh.revocations.ended(call.underway)
            if limit is not None:
                limit.release(None)
            if stream in self._streams:
                self._fail(stream, InternalError(f"{entry.name} ended without an answer"))
            door.ended(context, started, monotonic() - started, failure)

    def _tunnel(self, stream: int, head: CallHead) -> None:
        module = head.method.removeprefix(TUNNEL)
        tunnel = self._mesh.tunnels.get(module)
        if tunnel is None:
            self._refuse(stream, Unimplemented(f"module {module!r} has no public HTTP face here"))
            return
        if not self._mesh.policy.may(self.caller, module, "", HTTP):  # the face asks again, about the request
            self._refuse(stream, self._mesh.denied(self.caller, module, ("", HTTP)))
            return
        if len(self._streams) >= self._inflight_max:
            self._refuse(stream, self._crowded(head.method))
            return
        subject: Subject | None = None
        if head.subject is not None:
            try:
                subject = self._mesh.admit(head.subject, self.caller, module)
            except CallError as error:
                self._refuse(stream, error)
                return
        call = self._streams[stream] = _Stream()
        trace = TraceContext.from_bytes(head.trace) if head.trace is not None else None
        duplex = ServerDuplex(self, stream, call, self._credit, subject, trace)
        running = self._runners.start(self._serve_tunnel(stream, tunnel, duplex))
        if not running.done:
            call.running = running

    async def _serve_tunnel(self, stream: int, tunnel: Tunnel, duplex: ServerDuplex) -> None:
        try:
            await tunnel(duplex)
        except Exception as error:
            _log.exception("a request through the tunnel failed")
            self._fail(stream, error)
        finally:
            if self._streams.pop(stream, None) is not None:
                self._send(frames.frame(frames.END, stream))

    def _fail(self, stream: int, error: BaseException) -> None:
        """End a call with an error, unless its caller has gone."""
        if self._streams.pop(stream, None) is not None:
            self._refuse(stream, error)

    def _refuse(self, stream: int, error: BaseException) -> None:
        self._send(frames.frame(frames.FAULT, stream, msgspec.json.encode(error_body(error))))

    async def send_item(self, stream: int, data: bytes) -> None:
        await self._writable.wait()
        self._send(frames.frame(frames.ITEM, stream, data))

    def send_now(self, data: bytes) -> None:
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._closed:
            return
        self._out.append(data)
        if not self._receiving and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if not out or self._closed:
            return
        data = b"".join(out) if len(out) > 1 else out[0]
        if len(data) < _LARGE_BYTES:
            self._write(data)
            return
        for one in out:  # a TLS transport notices only between two writes that the peer does not keep up
            self._write(one)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)
        if not self._writable.is_set():
            self._unread_bytes += len(data)
            if self._unread_bytes > self._unread_bytes_max:
                self._give_up("it does not read its answers")


def _expire(call: _Stream, method: str) -> None:
    _end(call, deadline_exceeded(method))


def _revoke(call: _Stream, why: str) -> None:
    _end(call, revoked(why, started=True))


def _end(call: _Stream, verdict: CallError) -> None:
    if call.verdict is None:
        call.verdict = verdict
    if call.running is not None:
        call.running.cancel()


class ServerDuplex:
    """The callee's end of a raw stream of byte messages (see ``gateway/tunnel``)."""

    def __init__(
        self,
        connection: FrameServerConnection,
        stream: int,
        call: _Stream,
        credit: int,
        subject: Subject | None,
        trace: TraceContext | None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._incoming = call.incoming = Incoming(credit, self._grant)
        self._outgoing = call.outgoing = Outgoing(credit)
        self.caller = connection.caller
        self.subject = subject
        """On whose behalf the request is made."""
        self.trace = trace
        """The trace that it belongs to."""

    def _grant(self, amount: int) -> None:
        self._connection.send_now(frames.frame(frames.CREDIT, self._stream, frames.CREDIT_AMOUNT.pack(amount)))

    async def send(self, message: bytes) -> None:
        """Send a message; waits while the other side does not keep up. Raises ConnectionError when it has gone."""
        if not await self._outgoing.spend(len(message)):
            raise ConnectionResetError("the other side of the stream has gone")
        await self._connection.send_item(self._stream, message)

    async def receive(self) -> bytes | None:
        """The next message, or None at the end, also when the other side has gone."""
        try:
            return await self._incoming.next()
        except Unavailable:
            return None

    async def end(self) -> None:
        """Send no more."""
        self._connection.send_now(frames.frame(frames.END, self._stream))

    def cancel(self) -> None:
        self._outgoing.close()


async def _payloads(incoming: Incoming) -> AsyncIterator[bytes]:
    while (data := await incoming.next()) is not None:
        yield data


class _AlpnShell(asyncio.Protocol):
    """Knows after the handshake which wire the client speaks, and hands the connection over."""

    def __init__(self, port: MeshPort) -> None:
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        protocol = self._port.protocol_for(transport)
        if protocol is None:
            transport.abort()
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class MeshPort:
    """The listening side of a process: accepts, proves who calls, serves both wires, drains."""

    def __init__(self, mesh: Mesh, http: Callable[[], asyncio.Protocol] | None) -> None:
        self.mesh = mesh
        self.runners = Runners()
        self.connections: set[FrameServerConnection] = set()
        self.draining = False
        self._http = http
        self.quiet = Quiet()
        self._stopped = False
        self._servers: list[asyncio.Server] = []
        self._telling: asyncio.TimerHandle | None = None
        self._told = 0
        self._told_at = 0.0

    def has_work(self) -> None:
        """Callers are told now and then how much is under way, so that each knows what the others ask for."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        under_way, told, now = self.inflight, self._told, monotonic()
        self._telling = None
        if under_way:
            self.has_work()
        changed = abs(under_way - told) >= max(2, told // 4) or (told and not under_way)
        everybody = bool(changed or (told and now - self._told_at > TELL_AGAIN_S))
        if everybody:
            self._told, self._told_at = under_way, now
        # What is ahead changes while the same calls go on.
        ahead = {module: self.mesh.services.ahead(module) for module in self.mesh.services.counts}
        if everybody or ahead:
            for connection in self.connections:
                if everybody or connection.module in ahead:
                    connection.tell_load(under_way, ahead.get(connection.module))

    async def listen(self, sock: Any) -> None:
        """Accept on a bound socket."""
        identity = self.mesh.identity
        assert identity is not None
        identity.on_refused = self._refused
        server = await asyncio.get_running_loop().create_server(
            lambda: _AlpnShell(self), sock=sock, ssl=identity.server_context(), ssl_handshake_timeout=10, backlog=1024
        )
        self._servers.append(server)

    def _refused(self, reason: str) -> None:
        self.mesh.audit_refusal("", reason)
        self.quiet.warning(f"refused a connection: {reason}")

    def protocol_for(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """The wire that the client chose, or None when there is nothing to say to it."""
        identity = self.mesh.identity
        assert identity is not None
        if self._stopped:  # a handshake that ended after the end
            return None
        ssl_object = transport.get_extra_info("ssl_object")
        try:
            caller = identity.authenticate(ssl_object)
        except Exception as error:
            self._refused(str(error))
            alpn = ssl_object.selected_alpn_protocol() if ssl_object is not None else None
            return Farewell(error.fact, alpn) if isinstance(error, IdentityError) else None
        if ssl_object.selected_alpn_protocol() == frames.ALPN:
            return FrameServerConnection(self, caller)
        return self._http() if self._http is not None else None

    def set_apart(self) -> None:
        """End what is under way for modules that are quarantined now; what they begin next is refused."""
        for connection in list(self.connections):
            reason = self.mesh.revocations.refuses_module(connection.caller)
            if reason is not None:
                connection.end_all(PermissionDenied(f"module {connection.caller!r} is quarantined: {reason}"))

    @property
    def inflight(self) -> int:
        return sum(c.inflight for c in self.connections)

    async def drain(self, timeout_s: float) -> bool:
        """Accept no more, ask callers to go elsewhere, finish what is under way. False when time ran out."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.goaway()
        end = monotonic() + timeout_s
        while self.connections and monotonic() < end:  # noqa: ASYNC110  # many to wait for
            await asyncio.sleep(0.01)
        return not self.connections

    async def stop(self) -> None:
        self._stopped = True
        if self._telling is not None:
            self._telling.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abort()
        await self.runners.stop()
