"""The client pool keeps connections alive, lets go of broken ones, and bounds what it holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from seamline.kernel.lifetime import Runners
from seamline.kernel.wire.http1 import Exchange, Handler, HttpLimits, HttpServer
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool

Serve = Callable[[Handler], Awaitable[tuple[HttpServer, HttpPool]]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:
        runners = Runners()
        stack.push_async_callback(runners.stop)

        async def start(handler: Handler) -> tuple[HttpServer, HttpPool]:
            server = HttpServer(handler, HttpLimits(body_bytes_max=10**9), runners=runners)
            listener = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
            pool = HttpPool("127.0.0.1", listener.sockets[0].getsockname()[1])
            stack.push_async_callback(server.close)
            stack.push_async_callback(pool.close)
            stack.callback(listener.close)
            return server, pool

        yield start


@contextlib.asynccontextmanager
async def scripted(*scripts: Script) -> AsyncGenerator[HttpPool]:
    """A server whose n-th connection follows the n-th script."""
    remaining = list(scripts)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await remaining.pop(0)(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    pool = HttpPool("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield pool
    finally:
        await pool.close()
        server.close()


def answers(*replies: bytes, stay: bool = False) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        if stay:
            await reader.read()

    return script


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0.002)


async def echo(exchange: Exchange) -> None:
    body = await exchange.request.read_all()
    headers = [(b"x-target", exchange.request.target), (b"x-host", exchange.request.header(b"host") or b"")]
    exchange.respond(200, headers, body)


async def test_requests_share_kept_alive_connections(serve: Serve):
    """One hundred requests in a row use one connection; in parallel at most the allowed number."""
    server, pool = await serve(echo)
    for number in range(100):
        response = await pool.request("POST", f"/{number}?x", body=b"b" * number)
        assert response.status == 200
        assert response.header(b"x-target") == b"/%d?x" % number
        assert await response.read_all() == b"b" * number
    assert server.connections == 1

    async def one(number: int) -> bytes:
        async with await pool.request("POST", "/", body=b"%d" % number) as response:
            return await response.read_all()

    assert await asyncio.gather(*map(one, range(500))) == [b"%d" % number for number in range(500)]
    assert server.connections <= 64
    assert pool.connections == pool.idle


async def test_a_streamed_request_and_answer_hold_little(serve: Serve):
    """Both directions flow with back-pressure and arrive whole."""
    produced = 0

    async def handler(exchange: Exchange) -> None:
        size = 0
        while chunk := await exchange.request.read():
            size += len(chunk)
        exchange.start(200, [(b"x-size", b"%d" % size)])
        nonlocal produced
        for _ in range(400):
            await exchange.write(bytes(65_536))
            produced += 1
        exchange.end()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield bytes(65_536)

    _, pool = await serve(handler)
    response = await pool.request("POST", "/", body=body())
    assert response.header(b"x-size") == b"%d" % (300 * 65_536)
    before = -1
    while before != produced:
        before = produced
        await asyncio.sleep(0.02)
    assert produced < 390
    assert len(await response.read_all()) == 400 * 65_536
    assert pool.idle == 1


async def test_a_stale_connection_is_replaced_once_if_the_caller_allows(serve: Serve):
    """A server that closed the kept-alive connection costs a replayable request nothing."""

    async def forgetful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(OK)(reader, writer)
        await reader.readuntil(b"\r\n\r\n")  # and closes without an answer

    for replayable in (True, False):
        async with scripted(forgetful, answers(OK)) as pool:
            await (await pool.request("GET", "/")).read_all()
            if replayable:
                assert await (await pool.request("GET", "/", replayable=True)).read_all() == b"ok"
            else:
                with pytest.raises(HttpClientError):
                    await pool.request("GET", "/")


async def test_a_fresh_connection_that_dies_is_not_tried_again():
    """The server may have run the request; only a stale connection excuses a second try."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with scripted(die, answers(OK)) as pool:
        with pytest.raises(HttpClientError):
            await pool.request("GET", "/", replayable=True)


@pytest.mark.parametrize(
    "reply",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"",
    ],
)
async def test_a_broken_answer_is_an_error(reply: bytes):
    """Truncated, malformed and endless answers raise; the connection is not used again."""
    async with scripted(answers(reply)) as pool:
        with pytest.raises(HttpClientError):
            await (await pool.request("GET", "/", timeout_s=10)).read_all()
        assert pool.idle == 0


async def test_bytes_nobody_asked_for_end_the_connection():
    """A second answer to one request must never be taken for the answer to the next."""
    async with scripted(answers(OK + OK, stay=True), answers(OK.replace(b"ok", b"no"))) as pool:
        assert await (await pool.request("GET", "/")).read_all() == b"ok"
        assert await (await pool.request("GET", "/")).read_all() == b"no"


async def test_an_answer_without_length_ends_with_the_connection():
    """HTTP/1.0 servers end a body by closing."""
    async with scripted(answers(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as pool:
        assert await (await pool.request("GET", "/")).read_all() == b"all of it"


async def test_head_answers_have_no_body(serve: Serve):
    """The connection is free again although the answer tells a length."""
    server, pool = await serve(echo)
    for _ in range(3):
        response = await pool.request("HEAD", "/")
        assert (response.header(b"content-length"), await response.read_all()) == (b"0", b"")
    async with scripted(answers(*[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"] * 2)) as other:
        for _ in range(2):
            assert await (await other.request("HEAD", "/")).read_all() == b""
    assert server.connections == 1


async def test_interim_answers_are_skipped():
    """100 and 103 come before the answer, not instead of it."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with scripted(answers(interim + OK)) as pool:
        response = await pool.request("GET", "/")
        assert (response.status, response.header(b"link"), await response.read_all()) == (200, None, b"ok")


async def test_the_deadline_holds_for_head_and_body(serve: Serve):
    """A server that stalls anywhere is given up, and its connection closed."""

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == b"/body":
            exchange.start(200)
        await exchange.wait_disconnected()

    server, pool = await serve(handler)
    with pytest.raises(TimeoutError):
        await pool.request("GET", "/head", timeout_s=0.02)
    response = await pool.request("GET", "/body", timeout_s=0.1)
    with pytest.raises(TimeoutError):
        await response.read()
    await until(lambda: not server.connections)


async def test_cancelling_closes_the_connection(serve: Serve):
    """The server hears of it; the pool opens a new one for the next request."""
    arrived = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == b"/ok":
            exchange.respond(200)
            return
        arrived.set()
        await exchange.wait_disconnected()

    server, pool = await serve(handler)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.request("GET", "/wait"))
        await arrived.wait()
        task.cancel()
    await until(lambda: not server.inflight)
    assert (await pool.request("GET", "/ok")).status == 200


async def test_an_early_answer_stops_the_request(serve: Serve):
    """A refused upload is not sent to its end, and its connection is not used again."""

    async def handler(exchange: Exchange) -> None:
        exchange.respond(413)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)

    _, pool = await serve(handler)
    response = await pool.request("POST", "/", body=endless(), timeout_s=10)
    assert response.status == 413
    await response.read_all()
    assert pool.idle == 0


async def test_a_body_that_fails_fails_the_request(serve: Serve):
    """What the caller's iterator raises is what the caller gets."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("no more")

    server, pool = await serve(echo)
    with pytest.raises(LookupError):
        await pool.request("POST", "/", body=broken())
    await until(lambda: not server.inflight)


@pytest.mark.parametrize("target", ["/a\r\nx: y", "/a b", ""])
async def test_a_request_line_cannot_be_broken(serve: Serve, target: str):
    """Targets and headers with line breaks or spaces are refused before anything is sent."""
    _, pool = await serve(echo)
    with pytest.raises(ValueError, match="line break"):
        await pool.request("GET", target)
    with pytest.raises(ValueError, match="line break"):
        await pool.request("GET", "/", [(b"x", b"a\r\nb: c")])


async def test_too_large_an_answer_is_refused(serve: Serve):
    """read_all stops at its limit."""
    _, pool = await serve(echo)
    response = await pool.request("POST", "/", body=bytes(1000))
    with pytest.raises(HttpClientError, match="larger"):
        await response.read_all(999)


async def test_a_closed_port_says_where(serve: Serve):
    """The message names host and port; ``sent`` tells that nothing was."""
    _, pool = await serve(echo)
    dead = HttpPool("127.0.0.1", 1)
    with pytest.raises(HttpClientError, match=r"127\.0\.0\.1:1") as raised:
        await dead.request("GET", "/")
    assert raised.value.sent is False
    await pool.close()
    with pytest.raises(HttpClientError, match="closed"):
        await pool.request("GET", "/")
