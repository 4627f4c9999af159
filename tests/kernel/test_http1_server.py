"""The HTTP/1.1 server answers what is right, refuses what is wrong, and bounds what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.wire.http1 import (
    Disconnected,
    Exchange,
    Handler,
    HttpLimits,
    HttpRefusal,
    HttpRequest,
    HttpServer,
)

LIMITS = HttpLimits(head_bytes_max=4096, header_count_max=20, body_bytes_max=300_000)
HOST = b"Host: test\r\n"


@dataclass
class Site:
    server: HttpServer
    port: int
    clock: ManualClock
    clients: list[Client] = field(default_factory=list["Client"])

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, raw: bytes) -> bytes:
        """Send ``raw`` on a connection of its own and read until the server closes it."""
        client = await self.connect()
        client.writer.write(raw)
        return await client.rest()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.server.sweep()


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = raw.rstrip("\r\n").split("\r\n")
        return int(line.split()[1]), dict(item.split(": ", 1) for item in lines)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, await self.chunks()
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return body

    async def rest(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b""

    def shrink(self) -> None:
        """Take as little as possible from the server."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def stop_reading(self) -> None:
        cast("asyncio.Transport", self.writer.transport).pause_reading()


Serve = Callable[..., Awaitable[Site]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners = Runners()
    sites: list[tuple[Site, asyncio.Server]] = []

    async def start(handler: Handler, limits: HttpLimits = LIMITS, **options: object) -> Site:
        clock = ManualClock()
        server = HttpServer(handler, limits, runners=runners, clock=clock, **options)  # pyright: ignore[reportArgumentType]
        listener = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
        site = Site(server, listener.sockets[0].getsockname()[1], clock)
        sites.append((site, listener))
        return site

    yield start
    for site, listener in sites:
        listener.close()
        for client in site.clients:
            client.writer.close()
        await site.server.close()
    await runners.stop()


async def echo(exchange: Exchange) -> None:
    request = exchange.request
    body = await request.read_all()
    exchange.respond(200, [(b"x-method", request.method.encode()), (b"x-path", request.path)], body)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0.002)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# What is right


async def test_a_connection_serves_one_request_after_the_other(serve: Serve):
    """Keep-alive: bodies by length and in chunks are told apart on one connection."""
    client = await (await serve(echo)).connect()
    for _ in range(3):
        client.send(b"POST /a?b=1 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello")
        status, headers, body = await client.answer()
        assert (status, headers["x-path"], body) == (200, "/a", b"hello")
        client.send(b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", b"c"))
        assert (await client.answer())[2] == b"abc"


async def test_pipelined_requests_are_answered_in_order(serve: Serve):
    """The second answer waits for the first, however slow; 500 at once are all answered in order."""
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == b"/0":
            await gate.wait()
        exchange.respond(200, body=exchange.request.path)

    client = await (await serve(handler)).connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(500)))
    asyncio.get_running_loop().call_later(0.05, gate.set)
    for n in range(500):
        assert (await client.answer())[2] == b"/%d" % n


async def test_a_large_body_streams_to_the_handler_with_back_pressure(serve: Serve):
    """While the handler does not read, the server holds a bounded part of the body only."""
    gate = asyncio.Event()
    requests: list[HttpRequest] = []
    seen = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal seen
        requests.append(exchange.request)
        assert exchange.request.body is None
        await gate.wait()
        while chunk := await exchange.request.read():
            seen += len(chunk)
        exchange.respond(200)

    size = 50_000_000
    site = await serve(handler, replace(LIMITS, body_bytes_max=size))
    client = await site.connect()
    client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size)
    client.send(bytes(size))
    await until(lambda: site.server.inflight == 1)
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert requests[0].received < 1_000_000
    gate.set()
    assert (await client.answer())[0] == 200
    assert seen == size


async def test_a_streamed_answer_goes_out_in_chunks_or_by_length(serve: Serve):
    """Without content-length the answer is chunked; HTTP/1.0 gets it until the end of the connection."""

    async def handler(exchange: Exchange) -> None:
        sized = exchange.request.path == b"/sized"
        exchange.start(200, [(b"content-length", b"6")] if sized else [])
        await exchange.write(b"abc")
        await exchange.write(b"")
        exchange.end(b"def")

    site = await serve(handler)
    client = await site.connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    status, headers, body = await client.answer()
    assert (status, headers["transfer-encoding"], body) == (200, "chunked", b"abcdef")
    client.send(b"GET /sized HTTP/1.1\r\n" + HOST + b"\r\n")
    status, headers, body = await client.answer()
    assert "transfer-encoding" not in headers
    assert body == b"abcdef"
    head, _, body = (await site.ask(b"GET / HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert body == b"abcdef"


async def test_a_body_shorter_than_promised_breaks_the_connection(serve: Serve):
    """The client cannot mistake a truncated answer for a whole one."""

    async def handler(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-length", b"10")])
        exchange.end(b"short")

    client = await (await serve(handler)).connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    await client.head()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.reader.readexactly(10)


async def test_head_and_bodiless_statuses_carry_no_body(serve: Serve):
    """HEAD tells the length of the body it does not send; 204 has neither."""

    async def handler(exchange: Exchange) -> None:
        exchange.respond(204 if exchange.request.path == b"/204" else 200, body=b"four")

    client = await (await serve(handler)).connect()
    client.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\nGET /204 HTTP/1.1\r\n" + HOST + b"\r\n")
    status, headers = await client.head()
    assert (status, headers["content-length"]) == (200, "4")
    status, headers = await client.head()
    assert status == 204
    assert "content-length" not in headers


async def test_100_continue_is_sent_when_the_body_is_wanted(serve: Serve):
    """A handler that reads asks for the body; one that does not spares the client sending it."""

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == b"/no":
            raise HttpRefusal(401, "unauthenticated", "who are you")
        await echo(exchange)

    site = await serve(handler)
    client = await site.connect()
    client.send(b"POST /yes HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"ok")
    assert (await client.answer())[2] == b"ok"
    client.send(b"POST /no HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (401, "close")


async def test_an_upgrade_hands_the_raw_bytes_over(serve: Serve):
    """Bytes sent right behind the head belong to the new protocol."""

    async def handler(exchange: Exchange) -> None:
        assert exchange.request.upgrade == b"shout"
        raw = exchange.upgrade()
        await raw.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while data := await raw.receive():
            await raw.send(data.upper())

    client = await (await serve(handler)).connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: shout\r\n\r\nfirst")
    assert (await client.head())[0] == 101
    assert await client.reader.readexactly(5) == b"FIRST"
    client.send(b"more")
    assert await client.reader.readexactly(4) == b"MORE"


@pytest.mark.parametrize(
    "body", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"body")]
)
async def test_an_upgrade_that_nobody_takes_is_an_ordinary_request(serve: Serve, body: bytes):
    """Java's client offers h2c on every first request; its body must not be lost, nor what follows."""
    client = await (await serve(echo)).connect()
    client.send(b"POST /1 HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + body)
    assert (await client.answer())[2] == b"body"
    client.send(
        b"GET /2 HTTP/1.1\r\n"
        + HOST
        + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET /3 HTTP/1.1\r\n"
        + HOST
        + b"\r\n"
    )
    assert (await client.answer())[1]["x-path"] == "/2"
    assert (await client.answer())[1]["x-path"] == "/3"


async def test_the_connection_state_is_shared_by_its_requests(serve: Serve):
    """What on_connect stores is there in every exchange; when it raises, the client is cut off."""

    def on_connect(transport: asyncio.Transport, state: dict[str, object]) -> None:
        if site.server.connections > 1:
            raise PermissionError("one is enough")
        state["peer"] = transport.get_extra_info("peername")[0]

    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, body=exchange.connection_state["peer"].encode())

    site = await serve(handler, on_connect=on_connect)
    client = await site.connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (await client.answer())[2] == b"127.0.0.1"
    assert await site.ask(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") == b""


# What is wrong


CL, TE = b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"

REFUSED = {
    "length and chunks": (400, b"POST / HTTP/1.1\r\n" + HOST + CL + TE + b"\r\n0\r\n\r\n"),
    "chunks and length": (400, b"POST / HTTP/1.1\r\n" + HOST + TE + CL + b"\r\n0\r\n\r\n"),
    "two lengths": (400, b"POST / HTTP/1.1\r\n" + HOST + CL + b"Content-Length: 6\r\n\r\nhello!"),
    "signed length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello"),
    "list of lengths": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 5\r\n\r\nhello"),
    "endless length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n"),
    "unknown coding": (501, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "disguised chunks": (501, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunks in 1.0": (400, b"POST / HTTP/1.0\r\n" + TE + b"\r\n0\r\n\r\n"),
    "folded header": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n"),
    "space before colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n"),
    "bare line feeds": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare carriage return": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rB: c\r\n\r\n"),
    "NUL": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    "chunk size overflow": (400, b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\nfffffffffffffffff\r\nx"),
    "chunk size no number": (400, b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\nxyz\r\nhello\r\n"),
    "tls to a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)),
    "garbage": (400, b"\x00\xff\xfe garbage\r\n\r\n"),
    "target with control": (400, b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target no path": (400, b"GET ftp://x/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "unknown method": (501, b"BREW /pot HTTP/1.1\r\n" + HOST + b"\r\n"),
    "proxy request": (501, b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "version 2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "version 0.9": (505, b"GET /\r\n\r\n"),
    "version 3": (505, b"GET / HTTP/3.0\r\n\r\n"),
    "other expectation": (417, b"POST / HTTP/1.1\r\n" + HOST + CL + b"Expect: tea\r\n\r\nhello"),
    "large by length": (413, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 300001\r\n\r\n"),
    "large by chunks": (413, b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n50000\r\n" + bytes(0x50000)),
    "long target": (414, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "long header": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 5000 + b"\r\n\r\n"),
    "many headers": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 20 + b"\r\n"),
    "endless header name": (431, b"GET / HTTP/1.1\r\n" + HOST + b"x" * 100_000),
    "endless header value": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 100_000),
    "endless line ends": (431, b"\r\n" * 100_000),
    "endless chunk extension": (400, b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n5;" + b"x" * 100_000),
    "endless trailers": (400, b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n0\r\n" + b"x" * 100_000),
    "many trailers": (431, b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n0\r\n" + b"X: y\r\n" * 50),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_request_is_refused_and_nothing_after_it_is_served(serve: Serve, name: str):
    """The answer has the right status and a JSON body, and the connection is over."""
    status, raw = REFUSED[name]
    site = await serve(echo)
    answer = await site.ask(raw + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"connection: close" in head
    assert set(json.loads(body)) == {"code", "message"}
    assert b"smuggled" not in answer
    await until(lambda: site.server.connections == 0)
    assert site.server.inflight == 0


async def test_a_bad_request_behind_good_ones_is_answered_last(serve: Serve):
    """Refusals keep their place in the pipeline."""
    good = b"GET /good HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await (await serve(echo)).ask(good + good + b"nonsense\r\n\r\n" + good)
    assert [line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1")] == [b"200", b"200", b"400"]


async def test_a_handler_that_fails_is_answered_with_500_and_no_detail(serve: Serve, caplog: pytest.LogCaptureFixture):
    """What went wrong stands in the log, not in the answer; the connection goes on."""

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == b"/raise":
            raise RuntimeError("secret")

    client = await (await serve(handler)).connect()
    for path in (b"/raise", b"/silent"):
        client.send(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        status, _, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (500, "internal")
        assert b"secret" not in body
    assert "secret" in caplog.text


async def test_a_response_header_cannot_break_out_of_its_line(serve: Serve, caplog: pytest.LogCaptureFixture):
    """A line break in a header value is an error of the handler, not a second header."""

    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, [(b"location", b"/a\r\nset-cookie: evil=1")])

    client = await (await serve(handler)).connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    status, headers, _ = await client.answer()
    assert status == 500
    assert "set-cookie" not in headers
    assert "line break" in caplog.text


# Time, and clients that take it


async def test_a_head_that_trickles_is_given_up(serve: Serve):
    """Slowloris: bytes now and then do not extend the time for a head."""
    site = await serve(echo)
    client = await site.connect()
    client.send(b"GET / HTTP/1.1\r\n")
    for _ in range(4):
        await asyncio.sleep(0.01)
        site.pass_time(3)
        client.send(b"X-A: b\r\n")
    assert (await client.answer())[0] == 408
    assert await client.rest() == b""


async def test_a_body_that_trickles_is_given_up(serve: Serve):
    """One byte now and then does not hold a handler for ever; it hears of it while it reads."""
    site = await serve(echo, replace(LIMITS, body_timeout_s=5))
    for length in (b"Content-Length: 100\r\n\r\n", b"Content-Length: 100000\r\n\r\n"):
        client = await site.connect()
        client.send(b"POST / HTTP/1.1\r\n" + HOST + length)
        for _ in range(4):
            client.send(b"x")
            await asyncio.sleep(0.01)
            site.pass_time(2)
        assert (await client.answer())[0] == 408
        await until(lambda: site.server.inflight == 0)


async def test_an_idle_connection_is_closed(serve: Serve):
    """Keep-alive ends without a word after the idle time."""
    site = await serve(echo)
    client = await site.connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    await client.answer()
    site.pass_time(74)
    site.pass_time(2)
    assert await client.rest() == b""


async def test_a_slow_handler_is_not_taken_for_a_slow_client(serve: Serve):
    """However long the handler thinks before it reads, the client has its time."""
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        await echo(exchange)

    site = await serve(handler)
    client = await site.connect()
    client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\n\r\n" + bytes(100_000))
    await until(lambda: site.server.inflight == 1)
    for _ in range(100):
        site.pass_time(10)
    gate.set()
    client.send(bytes(100_000))
    status, _, body = await client.answer()
    assert (status, len(body)) == (200, 200_000)


async def test_a_client_that_never_reads_is_cut_off(serve: Serve):
    """The writer waits with a bounded buffer, then hears that the client is gone."""
    written = 0
    ended: list[BaseException] = []

    async def handler(exchange: Exchange) -> None:
        nonlocal written
        exchange.start(200)
        try:
            while True:
                await exchange.write(bytes(65_536))
                written += 65_536
        except Disconnected as error:
            ended.append(error)

    site = await serve(handler, cancel_on_disconnect=False)
    client = await site.connect()
    client.shrink()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    client.stop_reading()
    before = -1
    while before != written:
        before = written
        await asyncio.sleep(0.05)
    assert written < 20_000_000
    for _ in range(5):
        site.pass_time(10)
    await until(lambda: bool(ended))
    assert site.server.inflight == 0


async def test_a_client_that_pipelines_and_never_reads_fills_no_memory(serve: Serve):
    """Requests behind an unread answer are not run."""
    runs = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal runs
        runs += 1
        exchange.respond(200, body=bytes(100_000))

    site = await serve(handler)
    client = await site.connect()
    client.shrink()
    client.stop_reading()
    client.send((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 5000)
    before = -1
    while before != runs:
        before = runs
        await asyncio.sleep(0.05)
    assert runs < 200
    for _ in range(5):
        site.pass_time(10)
    await until(lambda: site.server.connections == 0)


async def test_more_connections_than_allowed_are_told_so(serve: Serve):
    """The one too many gets 503, the others go on."""
    site = await serve(echo, replace(LIMITS, connections_max=2))
    clients = [await site.connect() for _ in range(2)]
    await until(lambda: site.server.connections == 2)
    assert (await site.ask(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")).startswith(b"HTTP/1.1 503 ")
    clients[0].send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (await clients[0].answer())[0] == 200


async def test_a_handler_hears_that_its_client_has_gone(serve: Serve):
    """Either it is cancelled, or it watches by itself."""
    heard: list[str] = []
    arrived = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        arrived.set()
        try:
            await exchange.wait_disconnected()
            heard.append("watched")
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    for cancel in (True, False):
        arrived.clear()
        site = await serve(handler, cancel_on_disconnect=cancel)
        client = await site.connect()
        client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await arrived.wait()
        client.writer.transport.abort()
        await until(lambda site=site: site.server.inflight == 0)
    assert heard == ["cancelled", "watched"]


async def test_a_truncated_request_ends_its_handler(serve: Serve):
    """A body that breaks off is an error for who reads it, not an end of the body."""
    ended: list[BaseException] = []

    async def handler(exchange: Exchange) -> None:
        try:
            await exchange.request.read_all()
        except Disconnected as error:
            ended.append(error)
            raise

    site = await serve(handler, cancel_on_disconnect=False)
    client = await site.connect()
    client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\nhalf")
    await until(lambda: site.server.inflight == 1)
    client.writer.close()
    await until(lambda: site.server.inflight == 0)
    assert len(ended) == 1


# Drain


async def test_drain_answers_what_is_under_way_and_what_still_comes(serve: Serve):
    """No keep-alive client loses a request: a late one is answered with ``connection: close``."""
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == b"/slow":
            await gate.wait()
        exchange.respond(200)

    site = await serve(handler)
    slow, late, idle = [await site.connect() for _ in range(3)]
    slow.send(b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n")
    for client in (late, idle):
        client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert "connection" not in (await client.answer())[1]
    async with asyncio.TaskGroup() as group:
        drained = group.create_task(site.server.drain(10))
        await asyncio.sleep(0)
        site.pass_time(1)
        late.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await late.answer())[1]["connection"] == "close"
        site.pass_time(1.5)
        assert await idle.rest() == b""
        assert site.server.connections == 1
        gate.set()
        status, headers, _ = await slow.answer()
        assert (status, headers["connection"]) == (200, "close")
    assert drained.result() is True


async def test_drain_cuts_off_who_does_not_end(serve: Serve):
    """At the deadline the rest is cut off, and drain says so."""

    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        await asyncio.Event().wait()

    site = await serve(handler)
    client = await site.connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    await client.head()
    assert await site.server.drain(0.05) is False
    assert site.server.connections == 0
    await until(lambda: site.server.inflight == 0)
