"""One HTTP/1.1 client: parse, queue pipelined requests, run one handler after the other."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from seamline.kernel.lifetime import Running
from seamline.kernel.wire.http1_again import KnownHead
from seamline.kernel.wire.http1_exchange import Exchange, RawStream
from seamline.kernel.wire.http1_message import (
    GATHER_BYTES,
    Disconnected,
    Header,
    HttpLimits,
    HttpRefusal,
    HttpRequest,
    encode_head,
    payload_too_large,
)

_log = logging.getLogger("seamline.http")

_SLICE_BYTES = 16_384  # parsed at a time, which bounds how many requests one read can queue
_WRITE_HIGH_BYTES = 65_536
_LINGER_S = 1.0  # how long a refused client is still read, so that it sees the answer and not a reset
_HEADS_LEARNED = 4  # of a client whose heads are never the same no more are remembered
_CHUNKING_OVERHEAD = 16  # bytes of chunk heads allowed per byte of body
_METHODS: dict[bytes, str] = {
    name.encode(): name
    for name in (
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY", "SEARCH",
        "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT",
    )
}  # fmt: skip
_SPECIAL = frozenset({b"host", b"transfer-encoding", b"content-length", b"expect", b"upgrade"})
_AUTHORITY_END = re.compile(rb"[/?#]")
_REQUEST_LINE = re.compile(rb"^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) \S+ HTTP/1\.[01]\r$", re.MULTILINE)


class ServerSide(Protocol):
    """What a connection needs of its server."""

    limits: HttpLimits
    now: float
    date: bytes
    draining: bool
    cancel_on_disconnect: bool

    @property
    def connections(self) -> int: ...
    @property
    def on_connect(self) -> Callable[[asyncio.Transport, dict[str, Any]], None] | None: ...
    @property
    def on_refused(self) -> Callable[[dict[str, Any], HttpRefusal], None] | None: ...
    def begin(self, connection: HttpConnection, exchange: Exchange) -> Running: ...
    def joined(self, connection: HttpConnection) -> None: ...
    def left(self, connection: HttpConnection) -> None: ...
    def crowded(self, connection: HttpConnection) -> bool: ...
    def grace_over(self, now: float, idle_since: float) -> bool: ...
    def later(self, callback: Callable[[], object]) -> None: ...
    def close_later(self, transport: asyncio.Transport, delay_s: float) -> None: ...
    def new_future(self) -> asyncio.Future[None]: ...


class HttpConnection(asyncio.Protocol):
    """One client. Made by :meth:`HttpServer.protocol`; a shell may call ``connection_made`` itself."""

    __slots__ = (
        "_content_length", "_count", "_current", "_discarding", "_expects", "_fed", "_head_bytes", "_headers",
        "_hijacker", "_host", "_hosts", "_ignored_upgrade", "_in_head", "_known", "_last", "_learned",
        "_parser", "_paused", "_pumping", "_queue", "_raw", "_reading", "_running", "_server", "_since",
        "_synthetic", "_transfer_encoding", "_unparsed", "_upgrade", "_upgrading", "_url", "_write_paused",
        "_write_seen", "_write_since", "_writers", "closing", "peer", "state", "transport",
    )  # fmt: skip

    def __init__(self, server: ServerSide) -> None:
        self._server = server
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.state: dict[str, Any] = {}
        self.peer: str | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[HttpRequest | HttpRefusal] = deque()
        self._current: Exchange | None = None
        self._running: Running | None = None
        self._raw: RawStream | None = None
        self._hijacker: Exchange | None = None
        self._reading: HttpRequest | None = None  # its body is still arriving
        self._unparsed: bytes | memoryview = b""
        self._paused = False
        self._write_paused = False
        self._writers: list[asyncio.Future[None]] = []
        self._pumping = False
        self._last = False  # no further request will be taken from this client
        self._discarding = False
        self.closing = False
        self._synthetic = False
        self._ignored_upgrade: HttpRequest | None = None
        self._since = server.now
        self._write_since = server.now
        self._write_seen = 0
        self._fed = 0
        self._in_head = False
        self._upgrading = False
        self._known: KnownHead | None = None
        self._learned = -1  # the first request of a connection is often the only one
        self._clear_head()

    def _clear_head(self) -> None:
        self._url = b""
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._count = 0
        self._host = b""
        self._hosts = 0
        self._content_length: int | None = 0
        self._transfer_encoding: bytes | None = None
        self._expects = b""
        self._upgrade = b""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        server = self._server
        server.joined(self)
        try:
            if server.on_connect is not None:
                server.on_connect(self.transport, self.state)
        except Exception as error:  # whatever it is, this client is not let in
            _log.warning("connection refused: %s", error)
            self._last = self._discarding = True
            self.transport.abort()
            return
        if server.connections > server.limits.connections_max:
            self._refuse(HttpRefusal(503, "unavailable", "too many connections"))
            self._pump()
        elif server.crowded(self):
            self._refuse(HttpRefusal(429, "resource_exhausted", "too many connections from one address"))
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closing = self._last = self._discarding = True
        self._server.left(self)
        self._queue.clear()
        self._unparsed = b""
        if self._reading is not None:
            self._reading.fail(Disconnected("the client has gone"))
        exchange = self._current
        if exchange is not None:
            exchange.lost()
            if self._server.cancel_on_disconnect and exchange.begun and self._running is not None:
                self._running.cancel()
        if self._raw is not None:
            self._raw.feed_eof()
        self._wake_writers()

    def eof_received(self) -> None:
        """A client that has sent its last byte is taken as gone; the transport closes."""

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
            if self._raw.full:
                self._pause()
        elif self._discarding:
            return
        elif self._unparsed or self._upgrading:
            self._unparsed = bytes(self._unparsed) + data
        elif len(data) > _SLICE_BYTES:
            self._unparsed = memoryview(data)
            self._parse_slices()
        else:
            self._take(data)
            self._pump()
            if len(self._queue) >= self._server.limits.pipelined_max:
                self._pause()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._write_since = self._server.now
        self._write_seen = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writers()
        if self._queue and self._current is None:
            self._server.later(self._resume)

    # Parsing: what httptools calls.

    def on_message_begin(self) -> None:
        if not self._synthetic:
            self._clear_head()
            self._fed = 0
            self._in_head = True
            self._since = self._server.now

    def on_url(self, url: bytes) -> None:
        if self._synthetic:
            return
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > self._server.limits.head_bytes_max:
            raise HttpRefusal(414, "uri_too_long", "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._synthetic:
            return
        limits = self._server.limits
        self._head_bytes += len(name) + len(value) + 4
        self._count += 1
        if self._head_bytes > limits.head_bytes_max or self._count > limits.header_count_max:
            raise _head_too_large(limits)
        if self._reading is not None:
            return  # a trailer: counted, not used
        name = name.lower()
        self._headers.append((name, value))
        if name in _SPECIAL:
            self._special(name, value)

    def _special(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._host = value
            self._hosts += 1
        elif name == b"content-length":
            self._content_length = int(value)
        elif name == b"transfer-encoding":
            # Two of them are joined as one list, which is not a coding that is known.
            told = value.strip().lower()
            self._transfer_encoding = told if self._transfer_encoding is None else self._transfer_encoding + b"," + told
        elif name == b"expect":
            self._expects = value.strip().lower()
        else:
            self._upgrade = value.strip().lower()

    def on_headers_complete(self) -> None:
        if self._synthetic:
            return
        self._in_head = False
        parser = self._parser
        version = parser.get_http_version()
        method = _METHODS.get(parser.get_method())
        self._check_head(version, method)
        limits = self._server.limits
        request = HttpRequest(
            cast("str", method), _origin_form(self._url, self._host), self._headers, version, limits.body_bytes_max
        )
        request.content_length = length = self._content_length
        request.keep_alive = parser.should_keep_alive()
        if length is not None and length > limits.body_bytes_max:
            raise payload_too_large(limits.body_bytes_max)
        if self._expects:
            request.expects_continue = length != 0
        if parser.should_upgrade():
            if length == 0 and method == "GET":
                request.upgrade = self._upgrade
            self._ignored_upgrade = request
        self._reading = request
        self._fed = 0
        if length is None or length > GATHER_BYTES or request.expects_continue:
            request.on_read = self._on_read
            self._queue.append(request)
        if not request.keep_alive:
            self._last = True

    def _check_head(self, version: str, method: str | None) -> None:
        if version not in ("1.1", "1.0"):
            raise HttpRefusal(505, "http_version_not_supported", "use HTTP/1.1")
        if method is None:
            raise HttpRefusal(501, "not_implemented", "the method is not known here")
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise HttpRefusal(400, "bad_request", "exactly one host header is needed")
        if self._transfer_encoding is not None:
            if self._transfer_encoding != b"chunked":
                raise HttpRefusal(501, "not_implemented", "the only transfer-encoding known is chunked")
            if version == "1.0" or self._content_length:
                raise HttpRefusal(400, "bad_request", "transfer-encoding does not belong here")
            self._content_length = None
        if self._expects and self._expects != b"100-continue":
            raise HttpRefusal(417, "expectation_failed", "the only expectation known is 100-continue")

    def on_body(self, chunk: bytes) -> None:
        request = self._reading
        if request is None or self._discarding:
            return
        request.received += len(chunk)
        request.expects_continue = False
        if request.received > request.body_bytes_max:
            raise payload_too_large(request.body_bytes_max)
        if self._current is not None and self._current.request is request and self._current.ended:
            return
        request.feed(chunk)
        if request.full:
            self._pause()

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None or (self._ignored_upgrade is request and request.content_length != 0):
            return
        self._reading = None
        self._since = self._server.now
        if request.on_read is None:
            self._queue.append(request)
        request.finish()

    def _take(self, data: bytes) -> None:
        """Parse what came, unless it is the same again."""
        if self._reading is not None or self._in_head or self._last:
            self._parse(data)
            return
        request = self._known.read(data) if self._known is not None else None
        queue = self._queue
        if request is not None:
            self._since = self._server.now
            queue.append(request)
            return
        queued = len(queue)
        self._parse(data)
        if self._learned < _HEADS_LEARNED and len(queue) == queued + 1 and self._reading is None:
            self._learn(queue[-1], data)

    def _learn(self, request: HttpRequest | HttpRefusal, data: bytes) -> None:
        """Remember the head of the one request that ``data`` was, if it asks for nothing besides an answer."""
        self._learned += 1
        usual = not (self._in_head or self._last or self._expects or self._upgrade or self._ignored_upgrade)
        if self._learned and usual and isinstance(request, HttpRequest) and request.http_version == "1.1":
            self._known = KnownHead.of(request, data)

    def _parse(self, data: bytes | memoryview) -> None:
        reading = self._reading
        before = reading.received if reading is not None else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[cast("int", upgrade.args[0]) :])
            return
        except httptools.HttpParserError as error:
            # What follows the last request of a connection is noise, not a request.
            if not self._last or self._reading is not None:
                self._refuse(_refusal_of(error, data))
            return
        self._fed += len(data)
        allowed = self._server.limits.head_bytes_max + _SLICE_BYTES
        now_reading = self._reading
        if now_reading is None:
            # httptools holds a header back until it is whole: count what it was fed.
            if self._fed > allowed:
                self._refuse(_head_too_large(self._server.limits))
            return
        self._fed -= now_reading.received - (before if now_reading is reading else 0)
        if self._fed > allowed + _CHUNKING_OVERHEAD * now_reading.received:
            self._refuse(HttpRefusal(400, "bad_request", "too much framing for so little body"))

    def _parse_slices(self) -> None:
        while self._unparsed and not self._held():
            part = self._unparsed[:_SLICE_BYTES]
            self._unparsed = self._unparsed[_SLICE_BYTES:]
            self._parse(part)
            self._pump()
        if self._unparsed or self._held():
            self._pause()

    def _held(self) -> bool:
        """Whether what has arrived must be dealt with before more is parsed."""
        if self._discarding:
            self._unparsed = b""
            return False
        reading = self._reading
        return (
            self._upgrading
            or len(self._queue) >= self._server.limits.pipelined_max
            or (reading is not None and reading.full)
        )

    def _after_upgrade(self, rest: bytes | memoryview) -> None:
        """The parser stopped behind a head that asked for another protocol."""
        request = self._ignored_upgrade
        self._ignored_upgrade = None
        assert request is not None
        self._parser = httptools.HttpRequestParser(self)
        if request.upgrade:
            self._upgrading = True
            self._unparsed = rest
            self._pause()
            return
        if request.content_length != 0:
            # The body of a request whose upgrade is ignored: bring a new parser to where it starts.
            length = request.content_length
            framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
            self._synthetic = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._synthetic = False
        if rest:
            self._parse(rest)

    def _refuse(self, refusal: HttpRefusal) -> None:
        """End the dialogue: the request being read, or the next answer, is ``refusal``."""
        self._last = self._discarding = True
        if self._server.on_refused is not None:
            self._server.on_refused(self.state, refusal)
        reading = self._reading
        self._reading = None
        if reading is not None and reading.on_read is not None:
            reading.fail(refusal)
        else:
            self._queue.append(refusal)

    # Running: one handler after the other.

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        queue = self._queue
        while queue and self._current is None and not self._write_paused and not self.closing:
            item = queue.popleft()
            if isinstance(item, HttpRefusal):
                self._answer_refusal(item)
            else:
                self._current = exchange = Exchange(self, item)
                self._running = self._server.begin(self, exchange)
        self._pumping = False

    def _resume(self) -> None:
        """Go on after something was held back."""
        if self.closing or self._raw is not None:
            return
        self._pump()
        if self._unparsed:
            self._parse_slices()
        if self._paused and not self._unparsed and not self._held():
            self._unpause()

    def _answer_refusal(self, refusal: HttpRefusal) -> None:
        body = refusal.body()
        extra = b"content-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n"
        self.transport.write(encode_head(refusal.status, refusal.headers, extra % (len(body), self.date())) + body)
        self._shut(linger=True)

    def _shut(self, *, linger: bool) -> None:
        self.closing = self._last = self._discarding = True
        self._queue.clear()
        self._unparsed = b""
        self._write_since = self._server.now
        self._write_seen = self.transport.get_write_buffer_size()
        if not linger:
            self.transport.close()
            return
        self._unpause()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._server.close_later(self.transport, _LINGER_S)

    def _on_read(self, request: HttpRequest) -> None:
        if request.expects_continue:
            request.expects_continue = False
            if self._current is not None and not self._current.started:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self._paused:
            self._server.later(self._resume)

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _unpause(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, []
        for waiter in writers:
            if not waiter.done():
                waiter.set_result(None)

    # What an exchange calls.

    def writable(self) -> asyncio.Future[None] | None:
        if not self._write_paused:
            return None
        waiter = self._server.new_future()
        self._writers.append(waiter)
        return waiter

    def must_close(self, request: HttpRequest) -> bool:
        if not request.keep_alive or not request.complete:
            return True
        return self._server.draining and not self._queue and not self._unparsed

    def date(self) -> bytes:
        return self._server.date

    def answered(self, exchange: Exchange, *, close: bool) -> None:
        request = exchange.request
        self._current = None
        self._since = self._server.now
        if close or not request.complete:
            self._shut(linger=not request.complete)
            return
        self._upgrading = False
        if self._paused or self._unparsed or (self._queue and not self._pumping):
            self._server.later(self._resume)

    def hijack(self, exchange: Exchange) -> RawStream:
        self._raw = raw = RawStream(self)
        self._hijacker = exchange
        self._current = None
        self._last = True
        self._upgrading = False
        if exchange.disconnected:
            raw.feed_eof()
        if self._unparsed:
            raw.feed(bytes(self._unparsed))
            self._unparsed = b""
        self._unpause()
        return raw

    def resume_reading(self) -> None:
        self._unpause()

    def handled(self, exchange: Exchange) -> None:
        """The handler ended; with what it left undone the connection ends as well."""
        if exchange.disconnected:
            return
        if exchange.ended:
            if self._hijacker is exchange:
                self.transport.close()
            return
        if exchange.started:
            self.transport.abort()
        else:
            exchange.refuse(HttpRefusal(500, "internal", "the request was not answered"))

    # Timeouts.

    def sweep(self, now: float, elapsed_s: float) -> None:
        limits = self._server.limits
        if self._write_paused or self.closing:
            size = self.transport.get_write_buffer_size()
            taken = max(0, self._write_seen - size)
            if not size:
                self._write_since = now
            elif now - self._write_since > limits.write_timeout_s + taken / limits.write_rate_min:
                self.transport.abort()  # also who takes a byte now and then
                return
        if self._raw is not None or self.closing:
            return
        reading = self._reading
        if reading is not None:
            if reading.on_read is not None and not reading.waiting:
                self._since += elapsed_s  # the handler takes its time, not the client
            elif now - self._since > limits.body_timeout_s + reading.received / limits.body_rate_min:
                self._refuse(HttpRefusal(408, "request_timeout", "the body came too slowly"))
                self._pump()
        elif self._current is None and not self._queue:
            self._sweep_idle(now, limits)

    def _sweep_idle(self, now: float, limits: HttpLimits) -> None:
        waited = now - self._since
        if self._in_head:
            if waited > limits.head_timeout_s:
                self._refuse(HttpRefusal(408, "request_timeout", "the head came too slowly"))
                self._pump()
        elif waited > limits.idle_timeout_s or self._server.grace_over(now, self._since):
            self.closing = True
            self.transport.close()


def _head_too_large(limits: HttpLimits) -> HttpRefusal:
    message = f"the head is limited to {limits.head_bytes_max} bytes and {limits.header_count_max} headers"
    return HttpRefusal(431, "request_header_fields_too_large", message)


def _origin_form(target: bytes, host: bytes) -> bytes:
    """``http://host/path`` as ``/path``, where both ways to name the host agree."""
    if target.startswith(b"/") or target == b"*":
        return target
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
        if authority.lower() != host.strip().lower():
            raise HttpRefusal(400, "bad_request", "the request target names another host than the host header")
        path = rest[len(authority) :]
        return path if path.startswith(b"/") else b"/" + path
    raise HttpRefusal(400, "bad_request", "the request target is not a path")


def _refusal_of(error: httptools.HttpParserError, data: bytes | memoryview) -> HttpRefusal:
    cause = error.__context__
    if isinstance(cause, HttpRefusal):
        return cause
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        if any(match[1] not in _METHODS for match in _REQUEST_LINE.finditer(data)):
            return HttpRefusal(501, "not_implemented", "the method is not known here")
        return HttpRefusal(400, "bad_request", "this is not HTTP")
    reason = str(error)
    if reason in ("Invalid HTTP version", "Pause on PRI/Upgrade"):
        return HttpRefusal(505, "http_version_not_supported", "use HTTP/1.1")
    return HttpRefusal(400, "bad_request", reason or "malformed request")
