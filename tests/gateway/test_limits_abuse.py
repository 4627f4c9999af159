"""The public port under abuse: too many connections and requests, slow readers, smuggling, answers that would split."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from seamline.gateway.asgi import AsgiApp, Receive, Scope, Send
from seamline.gateway.gateway import Gateway
from seamline.gateway.limits.limiter import Limiter
from seamline.gateway.routes import Route
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import GatewaySettings, LimitsSettings, RateSettings


class Place:
    """A gateway in front of one app, and raw sockets to it."""

    def __init__(self, gateway: Gateway, port: int, clock: ManualClock, audit: list[dict[str, str]]) -> None:
        self.gateway = gateway
        self.port = port
        self.clock = clock
        self.audit = audit
        self.served: list[str] = []

    async def ask(self, raw: bytes) -> bytes:
        """All that comes until the connection is over."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def get(self, path: str = "/", *lines: str) -> tuple[int, dict[str, str]]:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "Connection: close", "", ""])
        answer = (await self.ask(head.encode())).partition(b"\r\n\r\n")[0].decode().split("\r\n")
        return int(answer[0].split()[1]), dict(line.split(": ", 1) for line in answer[1:])


Make = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    started: list[Gateway] = []

    async def start(
        app: AsgiApp | None = None, rates: tuple[RateSettings, ...] = (), per_address: int = 0, **settings: Any
    ) -> Place:
        clock = ManualClock()
        audit: list[dict[str, str]] = []
        served: list[str] = []

        async def hello(scope: Scope, receive: Receive, send: Send) -> None:
            served.append(scope["path"])
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"got " + body})

        def record(decision: str, **more: str) -> None:
            audit.append({"decision": decision, **more})

        gateway = Gateway(
            GatewaySettings(**settings),
            [Route(module="shop")],
            lambda _: app or hello,
            clock=clock,
            audit=record,
            limiter=Limiter(LimitsSettings(rates=rates), clock) if rates else None,
            connections_per_address_max=per_address,
        )
        sock = socket.create_server(("127.0.0.1", 0))
        await gateway.serve(sock)
        started.append(gateway)
        place = Place(gateway, sock.getsockname()[1], clock, audit)
        place.served = served
        return place

    yield start
    for gateway in started:
        await gateway.stop()


def answering(status: int, headers: list[tuple[bytes, bytes]], *parts: bytes) -> AsgiApp:
    """An app that sends just this."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1] if parts else b""})

    return app


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0.01)


# Rates


async def test_who_asks_too_much_hears_429_and_when_to_come_back(make: Make):
    """With the headers of the draft on each answer, a line in the audit, and no work for the app."""
    place = await make(rates=(RateSettings(name="all", by="address", requests=2, period_s=10),))
    got = [await place.get() for _ in range(4)]
    assert [status for status, _ in got] == [200, 200, 429, 429]
    assert got[0][1]["ratelimit"] == '"all";r=1;t=5'
    assert got[2][1]["ratelimit-policy"] == '"all";q=2;w=10'
    assert got[2][1]["retry-after"] == "5"
    assert len(place.served) == 2
    assert [line["decision"] for line in place.audit] == ["refuse", "refuse"]
    place.clock.advance(5)
    assert (await place.get())[0] == 200


async def test_a_header_does_not_buy_a_new_limit(make: Make):
    """Only a trusted proxy says where a request comes from; behind one each client has its own limit."""
    rate = RateSettings(name="all", by="address", requests=1, period_s=100)
    place = await make(rates=(rate,))
    got = [(await place.get("/", f"X-Forwarded-For: 9.9.9.{n}", f"X-Real-IP: 9.9.9.{n}"))[0] for n in range(5)]
    assert got == [200, 429, 429, 429, 429]
    place = await make(rates=(rate,), trusted_proxies=("127.0.0.1",))
    got = [(await place.get("/", f"X-Forwarded-For: {n}.1.1.1, 9.9.9.{n % 2}"))[0] for n in range(5)]
    assert got == [200, 200, 429, 429, 429]


# Connections


class Socket:
    """What the gateway sees of a connection from elsewhere."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 1) if name == "peername" else None


async def test_whom_a_connection_counts_for(make: Make):
    """Its address, or the /64 of IPv6; this machine and trusted proxies bring many people's."""
    gateway = (await make(trusted_proxies=("10.0.0.0/8",))).gateway
    peer_of = gateway._peer_of
    names = [peer_of(cast("Any", Socket(address))) for address in ("9.9.9.9", "2001:db8::5", "127.0.0.1", "10.1.1.1")]
    assert names == ["9.9.9.9", "2001:db8::/64", None, None]


async def test_one_address_cannot_take_all_connections(make: Make, monkeypatch: pytest.MonkeyPatch):
    """It hears 429 beyond its share and is let in again when it has closed one; others are served meanwhile."""
    place = await make(per_address=3)
    peers = ["greedy"] * 5 + ["other"] + ["greedy"]

    def peer_of(transport: asyncio.Transport) -> str:
        return peers.pop(0)

    monkeypatch.setattr(place.gateway._server, "_peer_of", peer_of)
    held = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(3)]
    for reader, writer in held:  # they are served, so they have been let in
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"got ")
    for _ in range(2):
        assert (await place.get())[0] == 429
    assert (await place.get())[0] == 200, "somebody else"
    held[0][1].close()
    await held[0][1].wait_closed()
    await until(lambda: place.gateway.stats()["connections"] == 2)
    assert (await place.get())[0] == 200
    for _, writer in held[1:]:
        writer.close()
        await writer.wait_closed()


# Slow clients


async def test_a_client_that_sips_its_answer_is_cut_off(make: Make):
    """A few bytes now and then do not keep a connection: what waits must be taken at 1024 bytes a second."""
    place = await make(answering(200, [], *[bytes(65_536)] * 200))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", place.port))
    await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server = place.gateway._server
    await until(lambda: any(each._write_paused for each in server.open_connections))
    for _ in range(40):
        if not server.open_connections:
            break
        await loop.sock_recv(sock, 512)
        place.clock.advance(10)
        server.sweep()
        await asyncio.sleep(0)
    await until(lambda: not server.open_connections)
    sock.close()


# Smuggling


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
INSIDE = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLED = {
    "CL.TE": HEAD + b"Content-Length: 6\r\n" + TE + b"\r\n0\r\n\r\nG",
    "TE.CL": HEAD + TE + b"Content-Length: 4\r\n\r\n5c\r\n" + INSIDE + b"\r\n0\r\n\r\n",
    "CL.TE of nothing": HEAD + b"Content-Length: 0\r\n" + TE + b"\r\n0\r\n\r\n",
    "TE.TE": HEAD + TE + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "TE.TE the other way": HEAD + b"Transfer-Encoding: identity\r\n" + TE + b"\r\n0\r\n\r\n",
    "TE twice": HEAD + TE + TE + b"\r\n0\r\n\r\n",
    "TE in a list": HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "TE with a comma": HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "TE with a parameter": HEAD + b"Transfer-Encoding: chunked;a=1\r\n\r\n0\r\n\r\n",
    "TE in quotes": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE behind a vertical tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "TE before a tab": HEAD + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "TE on a folded line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "TE before a space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE behind a bare line feed": HEAD + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE behind a bare return": HEAD + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE behind NUL": HEAD + b"X: y\0Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE empty": HEAD + b"Transfer-Encoding:\r\n\r\n",
    "TE misspelt": HEAD + b"Transfer-Encoding: chunke\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "one length twice": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "length in hex": HEAD + b"Content-Length: 0x0\r\n\r\n",
    "length signed": HEAD + b"Content-Length: +0\r\n\r\n",
    "length negative": HEAD + b"Content-Length: -1\r\n\r\n",
    "length with an underscore": HEAD + b"Content-Length: 0_0\r\n\r\n",
    "length with a space": HEAD + b"Content-Length: 0 0\r\n\r\n",
    "length listed": HEAD + b"Content-Length: 0, 0\r\n\r\n",
    "length empty": HEAD + b"Content-Length:\r\n\r\n",
    "length in a trailer": HEAD + TE + b"\r\n0\r\nContent-Length: 44\r\n\r\n",
    "chunk size behind a plus": HEAD + TE + b"\r\n+0\r\n\r\n",
    "chunk size with a prefix": HEAD + TE + b"\r\n0x0\r\n\r\n",
    "chunk size before a space": HEAD + TE + b"\r\n0 \r\n\r\n",
    "chunk size too large": HEAD + TE + b"\r\n1000000000000000000000\r\n",
    "chunk size and a bare line feed": HEAD + TE + b"\r\n0\n\r\n",
    "chunk data and a bare line feed": HEAD + TE + b"\r\n1\r\nx\n0\r\n\r\n",
    "chunk longer than said": HEAD + TE + b"\r\n1\r\nxyz\r\n0\r\n\r\n",
    "extension with a bare line feed": HEAD + TE + b"\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
    "extension with NUL": HEAD + TE + b"\r\n1;a=\0\r\nx\r\n0\r\n\r\n",
    "end by a bare line feed": b"GET / HTTP/1.1\r\nHost: localhost\r\n\n",
    "end by a bare return": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\r",
    "name without a name": HEAD + b": x\r\n\r\n",
    "name with NUL": HEAD + b"X\0: x\r\n\r\n",
    "name above ASCII": HEAD + b"X\xff: x\r\n\r\n",
    "header before the first": b"POST / HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n",
    "line with a tab": b"GET\t/\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    "line with a tail": b"GET / HTTP/1.1 x\r\nHost: localhost\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "TE in 1.0": b"POST / HTTP/1.0\r\nHost: localhost\r\n" + TE + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_nothing_is_smuggled(make: Make, name: str, cut: int):
    """One refusal, the connection is over, and what stands behind is served to nobody, however the bytes are cut."""
    place = await make()
    raw = SMUGGLED[name] + INSIDE
    if not cut:
        answer = await place.ask(raw)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        for start in range(0, len(raw), cut):
            if writer.is_closing():
                break
            writer.write(raw[start : start + cut])
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 413 ")), answer[:100]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "/smuggled" not in place.served


async def test_what_chunks_and_lengths_hold_is_a_body_and_never_a_request(make: Make):
    """Also where an extension, a trailer or a body looks like one."""
    place = await make()
    size = b"%x" % len(INSIDE)
    chunks = HEAD + TE + b"\r\n" + size + b";GET=smuggled\r\n" + INSIDE + b"\r\n0\r\nX: GET /smuggled\r\n\r\n"
    length = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(INSIDE) + INSIDE
    answer = await place.ask(chunks + length)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"got " + INSIDE) == 2
    assert place.served == ["/", "/"]


# Answers


@pytest.mark.parametrize(
    "header",
    [
        (b"location", b"/a\r\nset-cookie: session=evil"),
        (b"location", b"/a\nset-cookie: session=evil"),
        (b"location", b"/a\rset-cookie: session=evil"),
        (b"x", b"\r\n\r\n<script>"),
        (b"x\r\nset-cookie", b"session=evil"),
        (b"x\nset-cookie", b"session=evil"),
        (b"x", b"a\0b"),
        (b"x\0", b"a"),
    ],
)
@pytest.mark.parametrize("parts", [(b"body",), (b"in ", b"parts")])
async def test_an_answer_cannot_be_split_by_a_header(
    make: Make, header: tuple[bytes, bytes], parts: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
):
    """What an app lets a stranger write into a header is an error of the app; the client hears 500."""
    place = await make(answering(200, [header], *parts))
    answer = await place.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"evil" not in answer
    assert b"<script>" not in answer
    assert "line break or a NUL" in caplog.text


@pytest.mark.parametrize("parts", [(b"12345",), (b"123", b"45")])
@pytest.mark.parametrize("told", [(b"5", b"7"), (b"7", b"5"), (b"+5",), (b"5 ",), (b"-1",), (b"",)])
async def test_an_answer_has_one_length(make: Make, told: tuple[bytes, ...], parts: tuple[bytes, ...]):
    """Two, or one that is no number, would have the client's proxy end the answer elsewhere than we do."""
    place = await make(answering(200, [(b"content-length", each) for each in told], *parts))
    answer = await place.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert answer.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 200 "))
    assert head.count(b"content-length:") == 1
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    assert int(length) == len(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("status", [100, 101, 103])
async def test_an_app_ends_no_answer_with_1xx(make: Make, status: int):
    """The next answer on the connection would be taken for its end."""
    place = await make(answering(status, [], b""))
    assert (await place.get())[0] == 500
