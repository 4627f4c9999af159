"""One request and its answer, as a handler sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from seamline.kernel.wire.http1_message import (
    BUFFERED_BYTES_MAX,
    CHUNK_OVERHEAD,
    Disconnected,
    Header,
    HttpRefusal,
    HttpRequest,
    encode_head,
)

_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_JSON = (b"content-type", b"application/json")
_COALESCE_BYTES = 65_536
_TURN_BYTES = 262_144
"""Written without a pause before others get their turn."""


class Wire(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    state: dict[str, Any]

    def writable(self) -> asyncio.Future[None] | None:
        """A future while the client does not keep up, else None."""
        ...

    def must_close(self, request: HttpRequest) -> bool: ...
    def date(self) -> bytes: ...
    def answered(self, exchange: Exchange, *, close: bool) -> None: ...
    def hijack(self, exchange: Exchange) -> RawStream: ...
    def resume_reading(self) -> None: ...


class Exchange:
    """A request and the way to answer it: :meth:`respond`, or start, write…, end.

    After the client has gone, :meth:`respond` does nothing and :meth:`write` raises Disconnected.
    """

    __slots__ = (
        "_chunked",
        "_close",
        "_gone",
        "_muted",
        "_remaining",
        "_unbroken",
        "_wire",
        "begun",
        "disconnected",
        "ended",
        "request",
        "started",
    )

    def __init__(self, wire: Wire, request: HttpRequest) -> None:
        self._wire = wire
        self.request = request
        self.begun = False
        self.started = False
        self.ended = False
        self.disconnected = False
        self._gone: asyncio.Future[None] | None = None
        self._close = False
        self._chunked = False
        self._muted = False
        self._remaining = -1
        self._unbroken = 0

    @property
    def transport(self) -> asyncio.Transport:
        return self._wire.transport

    @property
    def connection_state(self) -> dict[str, Any]:
        """Shared by all exchanges of the connection."""
        return self._wire.state

    async def wait_disconnected(self) -> None:
        """Return once the client has gone (or the exchange is over, after which it is not watched)."""
        if self.disconnected or self.ended:
            return
        if self._gone is None:
            self._gone = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._gone)

    def respond(
        self, status: int, headers: Iterable[Header] | bytes = (), body: bytes = b"", *, sized: bool = False
    ) -> None:
        """Answer in one write. ``sized`` says that ``headers`` hold the right ``content-length`` already.

        Headers may be given as what ``header_lines`` made of them.
        """
        if self.started:
            raise RuntimeError("the exchange is already answered")
        wire = self._wire
        request = self.request
        close = wire.must_close(request)
        extra = wire.date()
        if status >= 200 and status not in (204, 304):
            if not sized:
                extra = b"content-length: %d\r\n%b" % (len(body), extra)
        else:
            body = b""
        if close:
            extra += _CLOSE
        elif request.http_version == "1.0":
            extra += _KEEP_ALIVE
        head = encode_head(status, headers, extra)
        self.started = self.ended = True
        if self.disconnected:
            return
        if request.method == "HEAD" or not body:
            wire.transport.write(head)
        elif len(body) < _COALESCE_BYTES:
            wire.transport.write(head + body)
        else:
            wire.transport.write(head)
            wire.transport.write(body)
        self._finish(close)

    def refuse(self, refusal: HttpRefusal) -> None:
        self.respond(refusal.status, [_JSON, *refusal.headers], refusal.body())

    def start(self, status: int, headers: Iterable[Header] = ()) -> None:
        """Send the head. Without a ``content-length`` the body goes out in chunks."""
        if self.started:
            raise RuntimeError("the exchange is already answered")
        request = self.request
        kept: list[Header] = []
        close = self._wire.must_close(request)
        for name, value in headers:
            match name.lower():
                case b"content-length":
                    if self._remaining >= 0 or not value.isdigit():
                        raise ValueError("a response has more than one content-length, or one that is no number")
                    self._remaining = int(value)
                case b"transfer-encoding":
                    continue
                case b"connection":
                    close = close or value.strip().lower() == b"close"
                    continue
                case _:
                    pass
            kept.append((name, value))
        self._muted = request.method == "HEAD" or status in (204, 304) or status < 200
        extra = self._wire.date()
        if self._remaining < 0 and not self._muted:
            if request.http_version == "1.0":
                close = True  # the end of the connection is the end of the body
            else:
                self._chunked = True
                extra += _CHUNKED
        if close:
            extra += _CLOSE
        elif request.http_version == "1.0":
            extra += _KEEP_ALIVE
        head = encode_head(status, kept, extra)
        self.started = True
        self._close = close
        if not self.disconnected:
            self._wire.transport.write(head)

    async def write(self, chunk: bytes) -> None:
        """Send body bytes; waits while the client does not keep up."""
        if not self.started or self.ended:
            raise RuntimeError("write belongs between start and end")
        if self.disconnected:
            raise Disconnected("the client has gone")
        if chunk and not self._muted:
            self._send(chunk)
        waiter = self._wire.writable()
        if waiter is not None:
            await waiter
        else:
            self._unbroken += len(chunk) + CHUNK_OVERHEAD
            if self._unbroken < _TURN_BYTES:
                return
            # A handler that never waits would leave the loop no turn in which to hear that the client has gone.
            await asyncio.sleep(0)
        self._unbroken = 0
        if self.disconnected:
            raise Disconnected("the client has gone")

    def end(self, chunk: bytes = b"") -> None:
        """Send the last bytes, if any, and finish."""
        if not self.started or self.ended:
            raise RuntimeError("end belongs after start, once")
        if self.disconnected:
            self.ended = True
            return
        if chunk and not self._muted:
            self._send(chunk, last=True)
        elif self._chunked:
            self._wire.transport.write(b"0\r\n\r\n")
        self.ended = True
        if self._remaining > 0 and not self._muted:
            # Fewer bytes than announced: only a broken connection tells the client so.
            self._wire.transport.abort()
            return
        self._finish(self._close)

    def upgrade(self) -> RawStream:
        """Take the connection over; only where the request asked for it (``request.upgrade``)."""
        if self.started or not self.request.upgrade:
            raise RuntimeError("the exchange cannot be upgraded")
        self.started = self.ended = True
        return self._wire.hijack(self)

    def switch(self, headers: Iterable[Header]) -> RawStream:
        """Answer 101 with these headers, connection and upgrade among them, and take over."""
        head = encode_head(101, headers, b"")
        raw = self.upgrade()
        if not self.disconnected:
            self._wire.transport.write(head)
        self.release()
        return raw

    def lost(self) -> None:
        """Called by the connection when the client has gone."""
        self.disconnected = True
        if not self.request.complete:
            self.request.fail(Disconnected("the client has gone"))
        self.release()

    def release(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _send(self, chunk: bytes, *, last: bool = False) -> None:
        transport = self._wire.transport
        if self._chunked:
            tail = b"\r\n0\r\n\r\n" if last else b"\r\n"
            if len(chunk) < _COALESCE_BYTES:
                transport.write(b"%x\r\n%b%b" % (len(chunk), chunk, tail))
            else:
                transport.write(b"%x\r\n" % len(chunk))
                transport.write(chunk)
                transport.write(tail)
            return
        if self._remaining >= 0:
            if len(chunk) > self._remaining:
                transport.abort()
                raise ValueError("the body is longer than its content-length")
            self._remaining -= len(chunk)
        transport.write(chunk)

    def _finish(self, close: bool) -> None:
        self.release()
        self._wire.answered(self, close=close)


class RawStream:
    """A connection taken over by :meth:`Exchange.upgrade`: bytes both ways."""

    __slots__ = ("_buffer", "_eof", "_waiter", "_wire")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._buffer = bytearray()
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        return len(self._buffer) > BUFFERED_BYTES_MAX

    @property
    def closed(self) -> bool:
        return self._eof

    async def receive(self) -> bytes:
        """The next bytes; ``b""`` once the peer has gone."""
        while not self._buffer:
            if self._eof:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._buffer)
        self._buffer.clear()
        self._wire.resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        """Write; waits while the peer does not keep up. Raises Disconnected."""
        if self._eof:
            raise Disconnected("the client has gone")
        self._wire.transport.write(data)
        waiter = self._wire.writable()
        if waiter is not None:
            await waiter
            if self._eof:
                raise Disconnected("the client has gone")

    def post(self, data: bytes) -> None:
        """Write without waiting: for the few bytes of a control frame."""
        if not self._eof:
            self._wire.transport.write(data)

    def close(self) -> None:
        self._wire.transport.close()

    # What the connection calls.

    def feed(self, data: bytes) -> None:
        self._buffer += data
        self._wake()

    def feed_eof(self) -> None:
        self._eof = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
