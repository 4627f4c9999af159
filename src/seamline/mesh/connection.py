"""The caller's end of a ``seamline/1`` connection: many calls at once, frames written together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from time import monotonic
from typing import cast

from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import Ahead, CallHead, FrameError, FrameReader
from seamline.mesh.flow import Incoming, Outgoing
from seamline.mesh.identity import explain_tls_failure
from seamline.mesh.outcome import deadline_exceeded, error_of, overloaded
from seamline.module.context import NO_DEADLINE, CallContext
from seamline.module.contract import MethodSpec
from seamline.module.errors import (
    CallError,
    InternalError,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from seamline.module.values import Fault

TICK_S, TICK_S_MAX = 0.005, 0.5
"""How often deadlines are looked at."""

_LAST_STREAM = 0xFFFF_FFF0
_LARGE_BYTES = 65_536


OnLoad = Callable[[float, int, Ahead | None], None]


class RemoteFailure(Exception):
    """A FAULT frame; the caller turns its body into the contract's error."""

    def __init__(self, body: frames.ErrorBody) -> None:
        self.body = body


class _Call:
    """A call under way on a connection."""

    __slots__ = ("deadline", "future", "incoming", "name", "outgoing")

    def __init__(self, name: str, deadline: float, future: asyncio.Future[bytes] | None) -> None:
        self.name = name
        self.deadline = deadline
        self.future = future
        self.incoming: Incoming | None = None
        self.outgoing: Outgoing | None = None

    def fail(self, error: Exception) -> None:
        if self.outgoing is not None:
            self.outgoing.close()
        if self.incoming is not None:
            self.incoming.end(error)
        elif self.future is not None and not self.future.done():
            self.future.set_exception(error)


class ClientConnection(asyncio.Protocol):
    """One connection as one module to one workload.

    Args:
        peer: how errors name the other side.
        payload_bytes_max: the longest frame payload sent or accepted.
        on_closed: called once when it is of no more use for new calls.
        on_load: called with the time, how many calls are under way in the peer's process, and what is ahead of one
            more, when it says so.
    """

    def __init__(
        self, peer: str, *, payload_bytes_max: int, credit: int, keepalive_s: float, inflight_max: int,
        on_closed: Callable[[ClientConnection], None], on_load: OnLoad,
    ) -> None:  # fmt: skip
        self.peer = peer
        self.draining = False
        self.closed = False
        self.opened = monotonic()
        self._max = payload_bytes_max
        self._credit = credit
        self._keepalive_s = keepalive_s
        self._inflight_max = inflight_max
        self._on_closed = on_closed
        self._on_load = on_load
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._out: list[bytes] = []
        self._reader = FrameReader(self._frame, self._oversize, payload_bytes_max)
        self._last_heard = monotonic()
        self._ticking: asyncio.TimerHandle | None = None
        self._next_look = 0.0
        self._writable = asyncio.Event()
        self._writable.set()
        self.verdict: Unauthenticated | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._loop = asyncio.get_running_loop()
        self.transport = transport
        self._alive = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def data_received(self, data: bytes) -> None:
        self._last_heard = monotonic()
        try:
            self._reader.feed(data)
        except FrameError as error:
            self._lose(Unavailable(f"{self.peer} sent something else than frames: {error}"))

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        # In TLS 1.3 a client hears only now that its certificate was refused.
        why = f": {explain_tls_failure(exc)}" if exc is not None else ""
        self._lose(self.verdict or Unavailable(f"the connection to {self.peer} was lost{why}"))

    def _lose(self, error: Exception, *, abruptly: bool = True) -> None:
        if self.closed:
            return
        self.closed = True
        self._alive.cancel()
        if self._ticking is not None:
            self._ticking.cancel()
        self._writable.set()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(error)
        self._on_closed(self)
        if abruptly:
            self.transport.abort()
        else:
            self.transport.close()

    # Frames.

    def _frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == frames.RESULT:
            call = self._calls.pop(stream, None)
            if call is None:
                return
            if call.incoming is not None:
                call.fail(self._other_kind(call, "one result", "a stream"))
            elif call.outgoing is not None:
                call.outgoing.close()
            if call.future is not None and not call.future.done():
                call.future.set_result(payload)
            if self.draining:
                self._close_if_idle()
            return
        if kind == frames.PING:
            self._send(frames.frame(frames.PONG, 0, payload))
        elif kind == frames.GOAWAY:
            if payload:
                reason = frames.read_error(payload).message
                self.verdict = Unauthenticated(
                    f"{self.peer} refused this module: {reason}", "Compare trust domain and application of both."
                )
            self.drain()
        elif kind != frames.PONG:
            self._stream_frame(kind, stream, payload)
        elif stream or not payload:
            self._on_load(self._last_heard, stream, frames.read_ahead(payload))

    def _stream_frame(self, kind: int, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        if kind == frames.ITEM and call.incoming is not None:
            call.incoming.push(payload)
        elif kind == frames.CREDIT and call.outgoing is not None:
            call.outgoing.granted(frames.read_credit(payload))
        elif kind == frames.END and call.incoming is not None:
            del self._calls[stream]
            if call.outgoing is not None:
                call.outgoing.close()
            call.incoming.end()
        elif kind == frames.FAULT:
            del self._calls[stream]
            call.fail(RemoteFailure(frames.read_error(payload)))
        elif kind in (frames.ITEM, frames.END):
            del self._calls[stream]
            call.fail(self._other_kind(call, "a stream", "one result"))
            self._send(frames.frame(frames.CANCEL, stream))
        elif kind != frames.CREDIT:
            raise FrameError(f"a frame of type {kind} does not belong to call {call.name}")
        if self.draining:
            self._close_if_idle()

    def _other_kind(self, call: _Call, theirs: str, ours: str) -> Unimplemented:
        return Unimplemented(
            f"{self.peer} answers {call.name} with {theirs}, and the contract here says {ours}",
            "Bring both modules to one version of the contract.",
        )

    def _oversize(self, kind: int, stream: int, length: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None and kind in (frames.RESULT, frames.ITEM, frames.FAULT):
            call.fail(too_long(call.name, length))
            self._send(frames.frame(frames.CANCEL, stream))

    def _send(self, data: bytes) -> None:
        if self.closed:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.closed and out:
            self.transport.write(b"".join(out) if len(out) > 1 else out[0])

    # Time.

    def _keep_alive(self) -> None:
        silent = monotonic() - self._last_heard
        if silent > 3 * self._keepalive_s:
            self._lose(Unavailable(f"{self.peer} has not been heard of for {silent:.0f} s"))
            return
        if silent > self._keepalive_s / 2:
            self._send(frames.frame(frames.PING, 0, b"seamline"))
        self._alive = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def _tick(self) -> None:
        """Fail the calls whose deadline has passed: one timer for all of them."""
        self._ticking = None
        now = monotonic()
        late = [(s, c) for s, c in self._calls.items() if c.deadline <= now]
        for stream, call in late:
            del self._calls[stream]
            call.fail(deadline_exceeded(call.name))
            self._send(frames.frame(frames.CANCEL, stream))
        if self._calls and not self.closed:
            self._look_in(min(max(min(c.deadline for c in self._calls.values()) - now, TICK_S), TICK_S_MAX))
        elif self.draining:
            self._close_if_idle()

    def _look_in(self, delay_s: float) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self._next_look = monotonic() + delay_s
        self._ticking = self._loop.call_later(delay_s, self._tick)

    # The caller's side.

    @property
    def inflight(self) -> int:
        return len(self._calls)

    def drain(self) -> None:
        """Take no new calls; close when those under way have ended."""
        if not self.draining:
            self.draining = True
            self._on_closed(self)
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._calls and not self.closed:
            self._loop.call_soon(self._drained)

    def _drained(self) -> None:
        if not self._calls:
            self._flush()
            self._lose(Unavailable(f"the connection to {self.peer} was drained"), abruptly=False)

    async def _until_writable(self, method: str, deadline: float) -> None:
        """Wait while the peer does not read what was sent. Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(None if deadline == NO_DEADLINE else max(deadline - monotonic(), 0.0)):
                while not self._writable.is_set():
                    await self._writable.wait()
        except TimeoutError:
            raise deadline_exceeded(method) from None

    def _open(self, spec: MethodSpec, body: bytes, context: CallContext, proof: str | None, call: _Call) -> int:
        if len(body) > self._max - 1024:
            raise InvalidArgument(
                f"the arguments of {spec.full_name} have {len(body)} bytes, more than frame_bytes_max = {self._max}",
                "Send less, stream it, or raise `frame_bytes_max` in [mesh].",
            )
        if len(self._calls) >= self._inflight_max:
            raise overloaded(spec.full_name, f"{len(self._calls)} calls are under way on the connection")
        deadline = context.deadline
        timeout_ms = 0 if deadline == NO_DEADLINE else max(int((deadline - monotonic()) * 1000), 1)
        trace = context.origin
        head = CallHead(
            spec.full_name, timeout_ms, context.priority,
            trace.to_bytes(context.span_id()) if trace is not None else None, context.idempotency_key, proof,
        )  # fmt: skip
        return self._begin(call, head, body)

    def _begin(self, call: _Call, head: CallHead, body: bytes) -> int:
        if self.closed or self.draining:
            if self.verdict is not None:
                raise fresh(self.verdict)
            error = Unavailable(f"the connection to {self.peer} was lost before the call was sent")
            error.started = False
            raise error
        stream = self._next_stream
        self._next_stream = stream + 1
        self._calls[stream] = call
        self._send(frames.call_frame(stream, head, body))
        if len(body) > _LARGE_BYTES:
            self._flush()  # so that the transport says now when it has enough
        if self._ticking is None:
            self._look_in(TICK_S)
        elif call.deadline < self._next_look:
            self._look_in(max(call.deadline - monotonic(), 0.0))
        if stream >= _LAST_STREAM:
            self.drain()  # numbers are never used again: a late answer must not reach another call
        return stream

    async def unary(
        self, spec: MethodSpec, faults: Mapping[str, type[Fault]], body: bytes, context: CallContext,
        upstream: AsyncIterator[bytes] | None, proof: str | None = None,
    ) -> bytes:  # fmt: skip
        """Make a call with one result. ``proof`` is of on whose behalf. Raises the contract's faults and CallError."""
        if not self._writable.is_set():
            await self._until_writable(spec.full_name, context.deadline)
        future: asyncio.Future[bytes] = self._loop.create_future()
        call = _Call(spec.full_name, context.deadline, future)
        stream = self._open(spec, body, context, proof, call)
        pump: asyncio.Task[None] | None = None
        if upstream is not None:
            pump = self._pump(stream, call, upstream)
        try:
            return await future
        except RemoteFailure as failure:
            raise error_of(failure.body, spec.full_name, faults) from None
        except CallError as error:
            raise fresh(error) from None
        finally:
            if self._calls.pop(stream, None) is not None:
                self._send(frames.frame(frames.CANCEL, stream))
                if self.draining:
                    self._close_if_idle()
            if pump is not None:
                await _end(pump)

    async def stream(
        self, spec: MethodSpec, faults: Mapping[str, type[Fault]], body: bytes, context: CallContext,
        upstream: AsyncIterator[bytes] | None, proof: str | None = None,
    ) -> AsyncGenerator[bytes]:  # fmt: skip
        """Make a call whose result is a stream; yields the encoded items."""
        if not self._writable.is_set():
            await self._until_writable(spec.full_name, context.deadline)
        call = _Call(spec.full_name, context.deadline, None)
        stream = 0

        def grant(amount: int) -> None:
            self._send(frames.frame(frames.CREDIT, stream, frames.CREDIT_AMOUNT.pack(amount)))

        incoming = call.incoming = Incoming(self._credit, grant)
        stream = self._open(spec, body, context, proof, call)
        pump: asyncio.Task[None] | None = None
        if upstream is not None:
            pump = self._pump(stream, call, upstream)
        try:
            while (item := await incoming.next()) is not None:
                yield item
        except RemoteFailure as failure:
            raise error_of(failure.body, spec.full_name, faults) from None
        except CallError as error:
            raise fresh(error) from None
        finally:
            self.forget(stream)
            if pump is not None:
                await _end(pump)

    def duplex(self, method: str, trace: TraceContext | None, proof: str | None = None) -> ClientDuplex:
        """Open a raw stream of byte messages."""
        call = _Call(method, NO_DEADLINE, None)
        head = CallHead(method, 0, 1, trace.to_bytes(trace.span_id) if trace is not None else None, None, proof)
        stream = self._begin(call, head, b"")
        return ClientDuplex(self, stream, call, self._credit)

    async def send_item(self, stream: int, data: bytes) -> None:
        await self._writable.wait()
        if self.closed:
            raise ConnectionResetError(f"the connection to {self.peer} was lost")
        self._send(frames.frame(frames.ITEM, stream, data))

    def send_now(self, data: bytes) -> None:
        self._send(data)

    def forget(self, stream: int) -> None:
        """Nobody waits for the call any more."""
        if self._calls.pop(stream, None) is not None:
            self._send(frames.frame(frames.CANCEL, stream))
        if self.draining:
            self._close_if_idle()

    def _pump(self, stream: int, call: _Call, upstream: AsyncIterator[bytes]) -> asyncio.Task[None]:
        outgoing = call.outgoing = Outgoing(self._credit)
        return self._loop.create_task(self._send_items(stream, call, outgoing, upstream))

    async def _send_items(self, stream: int, call: _Call, outgoing: Outgoing, upstream: AsyncIterator[bytes]) -> None:
        try:
            async for data in upstream:
                if not await outgoing.spend(len(data)):
                    return
                await self._writable.wait()
                self._send(frames.frame(frames.ITEM, stream, data))
            self._send(frames.frame(frames.END, stream))
        except BaseException as error:
            # What the caller's own stream raises ends its call as that error.
            if self._calls.pop(stream, None) is not None:
                self._send(frames.frame(frames.CANCEL, stream))
                call.fail(error if isinstance(error, Exception) else _given_up(call.name))
            if not isinstance(error, Exception):
                raise

    def abort(self) -> None:
        """Close at once."""
        self._lose(Unavailable(f"the connection to {self.peer} was closed"))


class ClientDuplex:
    """The caller's end of a raw stream of byte messages (see ``gateway/tunnel``)."""

    def __init__(self, connection: ClientConnection, stream: int, call: _Call, credit: int) -> None:
        self._connection = connection
        self._stream = stream
        self._incoming = call.incoming = Incoming(credit, self._grant)
        self._outgoing = call.outgoing = Outgoing(credit)
        self.on_closed: Callable[[], None] | None = None

    def _grant(self, amount: int) -> None:
        self._connection.send_now(frames.frame(frames.CREDIT, self._stream, frames.CREDIT_AMOUNT.pack(amount)))

    async def send(self, message: bytes) -> None:
        """Send a message; waits while the other side does not keep up. Raises ConnectionError when it has gone."""
        if not await self._outgoing.spend(len(message)):
            raise ConnectionResetError("the other side of the stream has gone")
        await self._connection.send_item(self._stream, message)

    async def receive(self) -> bytes | None:
        """The next message, or None at the end. Raises CallError when the stream was refused or lost."""
        try:
            return await self._incoming.next()
        except RemoteFailure as failure:
            raise error_of(failure.body, "http", {}) from None

    async def end(self) -> None:
        """Send no more."""
        self._connection.send_now(frames.frame(frames.END, self._stream))

    def cancel(self) -> None:
        """Be done with the stream, whatever is still under way."""
        self._outgoing.close()
        self._connection.forget(self._stream)
        if self.on_closed is not None:
            self.on_closed()
            self.on_closed = None


def fresh(error: CallError) -> CallError:
    """An error of one's own: many calls may fail with the same lost connection."""
    again = type(error)(error.fact, error.remedy, place=error.place)
    again.started = error.started
    return again


def too_long(method: str, length: int) -> InternalError:
    """The handler ran, and what it gave cannot travel."""
    return InternalError(
        f"the answer of {method} has {length} bytes, more than frame_bytes_max",
        "Let it answer with less, stream it, or raise `frame_bytes_max` in [mesh].",
    )


def _given_up(method: str) -> InternalError:
    return InternalError(f"the stream given to {method} was cancelled by its own source")


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
