"""An HTTP/1.1 client: a pool of kept-alive connections to one host.

Small on purpose: no redirects, cookies or content codings. It exists because pools of general
clients collapse with many requests in flight over TLS.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import httptools

from seamline.kernel.wire.http1_message import BUFFERED_BYTES_MAX, CHUNK_OVERHEAD, Header, header_lines

_log = logging.getLogger("seamline.http")

_WRITE_HIGH_BYTES = 65_536
_COALESCE_BYTES = 65_536
_HEAD_BYTES_MAX = 65_536
_HEADER_COUNT_MAX = 200
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})


class HttpClientError(ConnectionError):
    """No whole answer came.

    ``sent`` tells whether any of the request can have reached the server's handler.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class HttpResponse:
    """The head of an answer, and its body as it comes."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_connection",
        "_deadline",
        "_error",
        "_waiter",
        "complete",
        "headers",
        "status",
    )

    def __init__(self, connection: _ClientConnection, status: int, headers: list[Header]) -> None:
        self.status = status
        self.headers = headers
        self.complete = False
        self._connection: _ClientConnection | None = connection
        self._deadline: float | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end. Raises HttpClientError, TimeoutError."""
        while not self._chunks:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            try:
                if self._deadline is None:
                    await waiter
                else:
                    async with asyncio.timeout_at(self._deadline):
                        await waiter
            except BaseException:
                await self.aclose()
                raise
            finally:
                self._waiter = None
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._connection is not None:
            self._connection.unpause()
        return data

    def here(self) -> bytes | None:
        """The rest of the body if all of it has come, and None otherwise."""
        if not self.complete:
            return None
        chunks, self._chunks = self._chunks, []
        self._buffered = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_all(self, size_max: int | None = None) -> bytes:
        """The rest of the body; raises HttpClientError when it is longer than ``size_max``."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size_max is not None and size > size_max:
                await self.aclose()
                raise HttpClientError(f"the answer is larger than {size_max} bytes")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Let go of the answer; the connection is closed unless all of it has come."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # What the connection and the pool call.

    def until(self, deadline: float | None) -> None:
        self._deadline = deadline

    @property
    def full(self) -> bool:
        return self._buffered > BUFFERED_BYTES_MAX

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk) + CHUNK_OVERHEAD
        self._wake()

    def finish(self) -> None:
        """All has come, so the connection can serve another request before this is read."""
        self.complete = True
        self._wake()
        self._release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _release(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.finished()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _ClientConnection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.lost = False
        self.used = 0
        self._cut_short = False  # a request was not sent to its end
        self.heard = False  # anything of the current answer has come
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._method = ""
        self._head: asyncio.Future[HttpResponse] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._response: HttpResponse | None = None
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._fed = 0
        self._keep_alive = True
        self._paused = False
        self._drain: asyncio.Future[None] | None = None
        self._write_paused = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        if self._head is None and self._response is None:
            self.abort()  # an answer to no question
            return
        self.heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(HttpClientError(f"the answer is not HTTP: {error.__context__ or error}"))
            self.abort()
            return
        if self._head is not None and not self._head.done():
            self._fed += len(data)
            if self._fed > 2 * _HEAD_BYTES_MAX:
                self._fail(HttpClientError("the head of the answer is too large"))
                self.abort()

    def eof_received(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._stop_sending()
        response = self._response
        if response is not None and not response.complete and exc is None and self._until_eof(response):
            self._complete()
        lost = HttpClientError(f"the server closed the connection{f': {exc}' if exc else ''}")
        lost.__cause__ = exc
        self._fail(lost)
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        self._pool.gone(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    # httptools

    def on_message_begin(self) -> None:
        self._headers = []
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _HEAD_BYTES_MAX or len(self._headers) >= _HEADER_COUNT_MAX:
            raise HttpClientError("the head of the answer is too large")
        if self._response is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                raise HttpClientError("the server switches protocols unasked")
            return
        head = self._head
        if head is None or head.done():
            raise HttpClientError("an answer to no question")
        self._keep_alive = self._parser.should_keep_alive()
        self._response = HttpResponse(self, status, self._headers)
        head.set_result(self._response)
        if self._method == "HEAD":
            # The length told is that of a body that does not come; the parser cannot know that.
            self._parser = httptools.HttpResponseParser(self)
            self._complete()

    def on_body(self, chunk: bytes) -> None:
        response = self._response
        if response is None:
            return
        response.feed(chunk)
        if response.full and not self._paused and not self.lost:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._response is not None and not self._response.complete:
            self._complete()

    # The request's side

    async def exchange(
        self,
        method: str,
        target: bytes,
        headers: Iterable[Header] | bytes,
        body: bytes | AsyncIterator[bytes],
        *,
        duplex: bool = False,
    ) -> HttpResponse:
        """Send the request; return when the head of the answer is there."""
        self._method = method
        self.heard = False
        self.used += 1
        self._fed = 0
        self._response = None
        self._head = head = self._loop.create_future()
        try:
            if isinstance(body, bytes):
                self._send_whole(method, target, headers, body)
                return await head
            return await self._exchange_streamed(method, target, headers, body, head, duplex)
        except BaseException:
            self.abort()
            raise

    async def _exchange_streamed(
        self,
        method: str,
        target: bytes,
        headers: Iterable[Header] | bytes,
        body: AsyncIterator[bytes],
        head: asyncio.Future[HttpResponse],
        duplex: bool,
    ) -> HttpResponse:
        self._sender = sender = self._loop.create_task(self._send_stream(method, target, headers, body))
        await asyncio.wait((head, sender), return_when=asyncio.FIRST_COMPLETED)
        if not sender.done() and not (duplex and head.exception() is None and head.result().status == 200):
            # An answer before the request's end is final: stop sending, and the connection ends.
            self._stop_sending()
            await asyncio.wait([sender])
        return await head

    def _send_whole(self, method: str, target: bytes, headers: Iterable[Header] | bytes, body: bytes) -> None:
        extra = b"" if not body and method in _BODILESS else b"content-length: %d\r\n" % len(body)
        head = self._pool.encode_head(method, target, headers, extra)
        if len(body) < _COALESCE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    async def _send_stream(
        self, method: str, target: bytes, headers: Iterable[Header] | bytes, body: AsyncIterator[bytes]
    ) -> None:
        try:
            await self._stream(method, target, headers, body)
        except Exception as error:  # the caller's iterator failed: so does the request
            assert self._head is not None
            if not self._head.done():
                self._head.set_exception(error)
            elif self._response is not None:
                self._response.fail(error)
                self.abort()

    async def _stream(
        self, method: str, target: bytes, headers: Iterable[Header] | bytes, body: AsyncIterator[bytes]
    ) -> None:
        headers = headers if isinstance(headers, bytes) else header_lines(headers)
        sized = b"\ncontent-length:" in b"\n" + headers.lower()
        extra = b"" if sized else b"transfer-encoding: chunked\r\n"
        self.transport.write(self._pool.encode_head(method, target, headers, extra))
        async for chunk in body:
            if not chunk:
                continue
            self.transport.write(chunk if sized else b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if self._write_paused and not self.lost:
                self._drain = self._loop.create_future()
                await self._drain
            if self.lost:
                return
        if not sized:
            self.transport.write(b"0\r\n\r\n")

    # What a response calls.

    def unpause(self) -> None:
        if self._paused and not self.lost:
            self._paused = False
            self.transport.resume_reading()

    def finished(self) -> None:
        """The answer was read to its end: the connection may serve again."""
        self._stop_sending()
        self._response = None
        self._head = None
        self.unpause()
        if self._keep_alive and not self._cut_short and not self.lost and not self.transport.is_closing():
            self._pool.give_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        self._keep_alive = False
        self._stop_sending()
        if not self.lost:
            self.transport.abort()

    def _stop_sending(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None and not sender.done():
            self._cut_short = True
            if sender is not asyncio.current_task(self._loop):
                sender.cancel()

    def _until_eof(self, response: HttpResponse) -> bool:
        """Whether the end of the connection is the end of this body."""
        return response.header(b"content-length") is None and response.header(b"transfer-encoding") is None

    def _complete(self) -> None:
        assert self._response is not None
        if self.lost:
            self._keep_alive = False
        self._response.finish()

    def _fail(self, error: HttpClientError) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # read, so that nobody is told it was not
        if self._response is not None and not self._response.complete:
            self._response.fail(error)


class HttpPool:
    """Kept-alive connections to one host, at most ``connections_max``; waits when all are busy.

    With ``path`` they go to a Unix socket there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ssl: tls.SSLContext | None = None,
        server_hostname: str | None = None,
        connections_max: int = 64,
        *,
        connect_timeout_s: float = 5.0,
        host_header: str | None = None,
        path: Path | None = None,
    ) -> None:
        self._host = host
        self._path = path
        self._port = port
        self._ssl = ssl
        self._server_hostname = (server_hostname or host) if ssl is not None else None
        self._connections_max = connections_max
        self._connect_timeout_s = connect_timeout_s
        authority = host_header or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self._host_line = f"host: {authority}\r\n".encode("ascii")
        self._idle: deque[_ClientConnection] = deque()
        self._all: set[_ClientConnection] = set()
        self._opening = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def connections(self) -> int:
        return len(self._all)

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def request(
        self,
        method: str,
        target: str | bytes,
        headers: Iterable[Header] | bytes = (),
        body: bytes | AsyncIterator[bytes] = b"",
        timeout_s: float | None = None,
        *,
        replayable: bool = False,
        duplex: bool = False,
    ) -> HttpResponse:
        """Send one request; the deadline of ``timeout_s`` holds for the body of the answer too.

        Headers that are the same each time may be given as what ``header_lines`` made of them.

        A kept-alive connection that turns out to be dead before anything of the answer came is
        replaced once, if the request is ``replayable`` (and its body in one piece). Cancelling
        closes the connection. With ``duplex`` a body given in pieces goes on beside an answer that
        has begun with status 200; else such an answer ends it. Raises HttpClientError, TimeoutError,
        OSError, and what the iterator of the body raises.
        """
        if timeout_s is not None:
            deadline = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout_at(deadline):
                response = await self.request(method, target, headers, body, replayable=replayable, duplex=duplex)
            response.until(deadline)
            return response
        if isinstance(target, str):
            target = target.encode("ascii")
        if not isinstance(headers, bytes):
            headers = list(headers)
        connection = self._ready() or await self._take()
        try:
            return await connection.exchange(method, target, headers, body, duplex=duplex)
        except HttpClientError:
            stale = connection.used > 1 and not connection.heard
            if not (stale and replayable and isinstance(body, bytes)):
                raise
            connection = await self._take(fresh=True)
            return await connection.exchange(method, target, headers, body)

    async def close(self) -> None:
        """Close every connection; requests under way fail."""
        self._closed = True
        for connection in list(self._all):
            connection.abort()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        while self._all:  # noqa: ASYNC110  # the loop reports the aborted ones in its next turns
            await asyncio.sleep(0)

    def encode_head(self, method: str, target: bytes, headers: Iterable[Header] | bytes, extra: bytes) -> bytes:
        """Raises ValueError when a part could break out of its line."""
        lines = headers if isinstance(headers, bytes) else header_lines(headers)
        line = b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target)
        if line.count(b"\n") != 1 or line.count(b"\r") != 1 or b" " in target or not target:
            raise ValueError("a part of the request's head contains a line break or a space")
        return b"%b%b%b%b\r\n" % (line, self._host_line, lines, extra)

    def _ready(self) -> _ClientConnection | None:
        """A kept-alive connection, if there is one."""
        while self._idle and not self._closed:
            connection = self._idle.pop()
            if not connection.lost and not connection.transport.is_closing():
                return connection
        return None

    async def _take(self, *, fresh: bool = False) -> _ClientConnection:
        while True:
            if self._closed:
                raise HttpClientError("the pool is closed", sent=False)
            while fresh and self._idle:
                connection = self._idle.pop()
                connection.abort()  # as stale, most likely, as the one that failed
                self._all.discard(connection)
            if (ready := self._ready()) is not None:
                return ready
            if len(self._all) + self._opening < self._connections_max:
                return await self._open()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def _open(self) -> _ClientConnection:
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._connect()
        except TimeoutError as error:
            raise HttpClientError(f"no connection to {self._host}:{self._port} in time", sent=False) from error
        except OSError as error:
            raise HttpClientError(f"no connection to {self._host}:{self._port}: {error}", sent=False) from error
        finally:
            self._opening -= 1
            self._wake_one()
        self._all.add(connection)
        return connection

    async def _connect(self) -> _ClientConnection:
        loop = asyncio.get_running_loop()
        made = _ClientConnection(self)
        if self._path is not None:
            await loop.create_unix_connection(lambda: made, str(self._path))
        else:
            await loop.create_connection(
                lambda: made, self._host, self._port, ssl=self._ssl, server_hostname=self._server_hostname
            )
        return made

    def give_back(self, connection: _ClientConnection) -> None:
        if self._closed:
            connection.abort()
            return
        self._idle.append(connection)
        self._wake_one()

    def gone(self, connection: _ClientConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
