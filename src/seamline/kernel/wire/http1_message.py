"""HTTP/1.1 messages: limits, a request and its body, response heads, refusals.

Nothing here touches a socket; :mod:`.http1` does.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Header = tuple[bytes, bytes]

GATHER_BYTES = 16_384  # a body up to this size is awaited before its handler starts
BUFFERED_BYTES_MAX = 65_536  # of a body that nobody reads; then the socket is left unread
CHUNK_OVERHEAD = 64  # what a chunk costs beyond its bytes, so that tiny chunks count as well


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client may take. Sizes in bytes, times in seconds."""

    head_bytes_max: int = 32_768
    header_count_max: int = 100
    body_bytes_max: int = 10 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    """The pause allowed before a body's next bytes, on top of one second per ``body_rate_min``."""
    body_rate_min: int = 1024
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    """How long a client may take nothing at all of an answer that waits for it, on top of one second per
    ``write_rate_min`` bytes that it took."""
    write_rate_min: int = 1024
    connections_max: int = 10_000
    connections_per_peer_max: int = 0
    """Of those that ``HttpServer.peer_of`` gives the same name; 0 is any number."""
    pipelined_max: int = 32


class HttpRefusal(Exception):  # an answer, not a fault of this program
    """A request that is answered with an error; a handler may raise it as well."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = list(headers)

    def body(self) -> bytes:
        return json.dumps({"code": self.code, "message": self.message}).encode()


class Disconnected(ConnectionError):  # what happened, not a fault
    """The client went away before the exchange was over."""


class HttpRequest:
    """A request whose head has arrived; the body may still be on its way.

    Header names are lower-case. ``path`` and ``query`` are as sent, not decoded.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_error",
        "_waiter",
        "body_bytes_max",
        "complete",
        "content_length",
        "expects_continue",
        "headers",
        "http_version",
        "keep_alive",
        "method",
        "on_read",
        "path",
        "query",
        "received",
        "target",
        "upgrade",
    )

    def __init__(
        self, method: str, target: bytes, headers: list[Header], http_version: str, body_bytes_max: int
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.http_version = http_version
        self.body_bytes_max = body_bytes_max
        self.content_length: int | None = 0
        """Bytes of body announced; None when it comes in chunks."""
        self.path, _, self.query = target.partition(b"?")
        self.keep_alive = True
        self.upgrade = b""
        self.expects_continue = False
        self.complete = False
        self.received = 0
        self.on_read: Callable[[HttpRequest], None] | None = None
        """Called when a reader waits (``expects_continue``) or has taken what was buffered."""
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

    @property
    def body(self) -> bytes | None:
        """The whole body if it has all arrived and none was read yet, else None."""
        if not self.complete:
            return None
        chunks = self._chunks
        if len(chunks) > 1:
            self._chunks = chunks = [b"".join(chunks)]
        return chunks[0] if chunks else b""

    @property
    def waiting(self) -> bool:
        """A reader awaits bytes that have not come."""
        return self._waiter is not None

    @property
    def full(self) -> bool:
        """More has arrived than may wait for a reader."""
        return self._buffered > BUFFERED_BYTES_MAX

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises HttpRefusal when the body is malformed, too large or too slow, Disconnected when the
        client went away; both are answered by the server if the handler lets them pass.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            if self.expects_continue and self.on_read is not None:
                self.on_read(self)
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if not self.complete and self.on_read is not None:
            self.on_read(self)
        return data

    async def read_all(self, size_max: int | None = None) -> bytes:
        """The rest of the body; HttpRefusal 413 when it is longer than ``size_max``."""
        if size_max is not None and (self.content_length or 0) > size_max:
            raise payload_too_large(size_max)
        parts: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size_max is not None and size > size_max:
                raise payload_too_large(size_max)
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # What the connection calls.

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk) + CHUNK_OVERHEAD
        self.wake()

    def finish(self) -> None:
        self.complete = True
        self.wake()

    def fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self.wake()

    def discard(self) -> None:
        self._chunks.clear()
        self._buffered = 0

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def payload_too_large(size_max: int) -> HttpRefusal:
    return HttpRefusal(413, "payload_too_large", f"the body is larger than {size_max} bytes")


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES: dict[int, bytes] = {status: _status_line(status) for status in range(100, 600)}


def encode_head(status: int, headers: Iterable[Header] | bytes, extra: bytes) -> bytes:
    """The head of a response, ``extra`` being ready-made header lines of our own.

    Raises ValueError when a header could break out of its line.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        raise ValueError(f"{status!r} is not an HTTP status")
    lines = headers if isinstance(headers, bytes) else header_lines(headers)
    return b"%b%b%b\r\n" % (line, lines, extra)


def header_lines(headers: Iterable[Header]) -> bytes:
    """Headers as they travel, each on its line. Raises ValueError when one could break out of it."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    block = b"".join(lines)
    count = len(lines)
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        raise ValueError("a header contains a line break or a NUL")
    return block


def date_line(timestamp: float | None = None) -> bytes:
    when = time.time() if timestamp is None else timestamp
    return f"date: {email.utils.formatdate(when, usegmt=True)}\r\n".encode()
