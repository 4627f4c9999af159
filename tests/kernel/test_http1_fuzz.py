"""Whatever bytes come, in whatever pieces: the server answers or closes, and never raises or hangs."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import httptools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.wire.http1 import Exchange, HttpConnection, HttpLimits, HttpServer

LIMITS = HttpLimits(head_bytes_max=600, header_count_max=8, body_bytes_max=2000, pipelined_max=4)
BUDGET = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, connection: HttpConnection) -> None:
        super().__init__()
        self.connection = connection
        self.written = bytearray()
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.closed
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close


class Answers:
    """Reads what the server wrote with a parser of its own; raises if it is not HTTP."""

    def __init__(self, written: bytes) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(written)

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_headers_complete(self) -> None:
        self.statuses.append(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body


async def _handle(exchange: Exchange) -> None:
    request = exchange.request
    path = request.path
    if path.startswith(b"/upgrade") and request.upgrade:
        await exchange.upgrade().send(b"")  # the connection ends with its handler
        return
    if path.startswith(b"/lazy"):
        exchange.respond(200, body=b"unread")
        return
    body = await request.read_all()
    if path.startswith(b"/stream"):
        exchange.start(200)
        await exchange.write(body)
        exchange.end()
        return
    exchange.respond(200, body=path + b" " + body)


async def _converse(pieces: list[bytes]) -> tuple[bytes, bool]:
    """What the server writes, and whether it has closed, after all pieces and all timeouts."""
    loop = asyncio.get_running_loop()
    raised: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    clock = ManualClock()
    runners = Runners()
    server = HttpServer(_handle, LIMITS, runners=runners, clock=clock)
    connection = server.protocol()
    pipe = Pipe(connection)
    connection.connection_made(pipe)
    for piece in pieces:
        for _ in range(100):
            if pipe.reading or pipe.closed:
                break
            await asyncio.sleep(0)
        if pipe.closed:
            break
        assert pipe.reading, "the server stopped reading for good"
        connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    for _ in range(20):
        clock.advance(20)
        server.sweep()
        await asyncio.sleep(0)
    closed = pipe.closed or connection.closing
    pipe.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.inflight == 0
    assert server.connections == 0
    assert not raised, raised
    await runners.stop()
    return bytes(pipe.written), closed


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


token = st.sampled_from([b"GET", b"POST"] * 8 + [b"HEAD", b"PUT", b"CONNECT", b"BREW", b"", b"get", b"\xff"])
target = st.sampled_from(
    [b"/", b"/a?b", b"/lazy", b"/stream", b"/upgrade", b"*", b"http://h/x", b"x", b"/" + b"a" * 700]
)
version = st.sampled_from([b"HTTP/1.1"] * 16 + [b"HTTP/1.0", b"HTTP/2.0", b"", b"RTSP/1.0"])
header = st.sampled_from([
    b"Host: a", b"Accept: a", b"Accept: b", b"Content-Length: 3", b"Content-Length: 0",
    b"Content-Length: -1", b"Content-Length: 9999", b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue", b"Expect: x",
    b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: websocket",
    b"Upgrade: h2c", b"X: " + b"y" * 300, b" folded", b"no colon", b": empty", b"X : y", b"X: \0", b"X: a\rb",
])  # fmt: skip
line_end = st.sampled_from([b"\r\n"] * 60 + [b"\n", b"\r", b""])
body = st.sampled_from(
    [
        b"",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nT: x\r\n\r\n",
        b"zz\r\n",
        b"ffffffffff\r\n",
        b"0\r\n\r\n",
        b"1;e=v\r\nx\r\n" * 9,
        b"x" * 3000,
    ]
)


@st.composite
def message(draw: st.DrawFn) -> bytes:
    lines = [b" ".join((draw(token), draw(target), draw(version))), b"Host: a", *draw(st.lists(header, max_size=4))]
    head = b"".join(line + draw(line_end) for line in lines)
    return head + draw(line_end) + draw(body)


@BUDGET
@given(st.lists(message() | st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_bytes_are_answered_or_end_the_connection(messages: list[bytes], cuts: list[int]):
    """After all bytes and all timeouts the connection is over, and all that was written is HTTP."""
    written, closed = asyncio.run(_converse(_cut(b"".join(messages), cuts)))
    assert closed
    heads = [b"HEAD" in raw for raw in messages]
    if not any(heads):  # the parser cannot know which answer belongs to a HEAD
        answers = Answers(written)
        assert all(status in {100, 200, 400, 408, 413, 414, 417, 431, 500, 501, 505} for status in answers.statuses)


good_body = st.binary(max_size=400)


@BUDGET
@given(
    st.lists(st.tuples(good_body, st.booleans()), min_size=1, max_size=8), st.lists(st.integers(0, 10_000), max_size=20)
)
def test_good_requests_are_served_however_they_are_cut(bodies: list[tuple[bytes, bool]], cuts: list[int]):
    """Order and bodies survive any fragmentation and pipelining, with both kinds of body."""
    raw = bytearray()
    for number, (content, in_chunks) in enumerate(bodies):
        raw += b"POST /%d HTTP/1.1\r\nHost: a\r\n" % number
        if in_chunks:
            middle = len(content) // 2
            parts = [part for part in (content[:middle], content[middle:]) if part]
            raw += b"Transfer-Encoding: chunked\r\n\r\n"
            raw += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        else:
            raw += b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
    written, _ = asyncio.run(_converse(_cut(bytes(raw), cuts)))
    answers = Answers(written)
    assert answers.statuses == [200] * len(bodies)
    assert answers.bodies == [b"/%d " % number + content for number, (content, _) in enumerate(bodies)]
