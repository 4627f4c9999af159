"""WebSockets through the gateway, to an app here or behind a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from seamline.gateway.asgi import Receive, Scope, Send

Open = Callable[..., Awaitable[Any]]


class WsClient:
    """A WebSocket client for tests: sends and takes one event at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.wire = WSConnection(ConnectionType.CLIENT)
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.writer.write(self.wire.send(event))

    async def take(self) -> Event:
        async with asyncio.timeout(20):
            while not self.events:
                data = await self.reader.read(65_536)
                self.wire.receive_data(data or None)
                self.events.extend(self.wire.events())
        return self.events.pop(0)

    async def text(self) -> str:
        parts = ""
        while True:
            event = await self.take()
            assert isinstance(event, TextMessage), event
            parts += event.data
            if event.message_finished:
                return parts


Join = Callable[..., Awaitable[WsClient]]


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    clients: list[WsClient] = []

    async def connect(site: Any, target: str = "/", **options: Any) -> WsClient:
        client = WsClient(*await asyncio.open_connection("127.0.0.1", site.port))
        clients.append(client)
        client.send(Request(host="localhost", target=target, **options))
        return client

    yield connect
    for client in clients:
        client.writer.close()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "headers": [(b"x-path", scope["path"].encode())]})
    while (message := await receive())["type"] == "websocket.receive":
        answer = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **answer})


async def test_messages_go_both_ways(open_gate: Open, join: Join):
    """Text and bytes, in pieces or large, come back as they were sent."""
    site = await open_gate(echo)
    client = await join(site, "/ws?x=1")
    accepted = await client.take()
    assert isinstance(accepted, AcceptConnection)
    assert (b"x-path", b"/ws") in accepted.extra_headers
    client.send(TextMessage(data="héllo"))
    assert await client.text() == "héllo"
    client.send(TextMessage(data="a", message_finished=False))
    client.send(TextMessage(data="b"))
    assert await client.text() == "ab"
    client.send(TextMessage(data="x" * 900_000))
    assert await client.text() == "x" * 900_000
    client.send(BytesMessage(data=b"\0\xff"))
    event = await client.take()
    assert isinstance(event, BytesMessage)
    assert event.data == b"\0\xff"
    client.send(CloseConnection(code=1000))
    event = await client.take()
    assert isinstance(event, CloseConnection)
    assert event.code == 1000


async def test_starlette_sockets_work_unchanged(open_gate: Open, join: Join):
    """Subprotocols, JSON, and the disconnect with its code."""
    left: list[int] = []
    done = asyncio.Event()

    async def talk(socket: WebSocket) -> None:
        await socket.accept(subprotocol=socket.scope["subprotocols"][1])
        try:
            while True:
                await socket.send_json({"got": await socket.receive_json()})
        except WebSocketDisconnect as leave:
            left.append(leave.code)
            done.set()

    site = await open_gate(Starlette(routes=[WebSocketRoute("/talk", talk)]))
    client = await join(site, "/talk", subprotocols=["a", "b"])
    accepted = await client.take()
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == "b"
    client.send(TextMessage(data="[1]"))
    assert await client.text() == '{"got":[1]}'
    client.send(CloseConnection(code=4001, reason="bye"))
    await client.take()
    async with asyncio.timeout(10):
        await done.wait()
    assert left == [4001]


async def test_a_refused_socket_is_answered_in_http(open_gate: Open, join: Join):
    """Plain refusal is 403; an app may answer with a response of its own; no route is 404."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/own":
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"log in"})
        elif scope["path"] == "/close":
            await send({"type": "websocket.close"})
        elif scope["path"] == "/fail":
            raise RuntimeError("no")

    site = await open_gate(app)
    for path, status in (("/close", 403), ("/own", 401), ("/fail", 500), ("/silent", 500)):
        event = await (await join(site, path)).take()
        assert isinstance(event, RejectConnection)
        assert event.status_code == status, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"sec-websocket-key", b"c2hvcnQ="), (b"sec-websocket-version", b"13")], 400),
        ([(b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="), (b"sec-websocket-version", b"12")], 426),
        ([(b"sec-websocket-version", b"13")], 400),
    ],
)
async def test_a_bad_handshake_is_refused(open_gate: Open, headers: list[tuple[bytes, bytes]], status: int):
    """Before the app hears of it."""
    site = await open_gate(echo)
    upgrade = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    response = await site.pool.request("GET", "/", upgrade + headers, timeout_s=10)
    assert response.status == status


async def test_pings_are_answered_while_the_app_is_busy(open_gate: Open, join: Join):
    """An app that only sends does not have to read for the connection to live."""
    turn = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await turn.wait()
        await send({"type": "websocket.send", "text": "done"})

    client = await join(await open_gate(app))
    await client.take()
    client.send(Ping(payload=b"?"))
    event = await client.take()
    assert isinstance(event, Pong)
    assert event.payload == b"?"
    turn.set()
    assert await client.text() == "done"
    event = await client.take()
    assert isinstance(event, CloseConnection)
    assert event.code == 1000


async def test_a_client_that_says_nothing_to_a_ping_is_given_up(open_gate: Open, join: Join):
    """A dead peer does not hold an app for ever."""
    left: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        left.append((await receive())["code"])

    site = await open_gate(app)
    client = await join(site)
    await client.take()
    site.pass_time(21)
    assert isinstance(await client.take(), Ping)
    site.pass_time(21)
    async with asyncio.timeout(10):
        while not left:  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0.002)
    assert left == [1006]


async def test_too_large_a_message_ends_the_socket(open_gate: Open, join: Join):
    """However it is cut into frames, no more than the limit is held."""
    site = await open_gate(echo, websocket_message_bytes_max=1000)
    client = await join(site)
    await client.take()
    for _ in range(3):
        client.send(BytesMessage(data=bytes(400), message_finished=False))
    event = await client.take()
    assert isinstance(event, CloseConnection)
    assert event.code == 1009


async def test_garbage_ends_the_socket(open_gate: Open, join: Join):
    """Unmasked and unknown frames are protocol errors."""
    for raw in (b"\x81\x05hello", b"\xff\xff\xff\xff", b"\x83\x80\0\0\0\0"):
        client = await join(await open_gate(echo))
        await client.take()
        client.writer.write(raw)
        event = await client.take()
        assert isinstance(event, CloseConnection)
        assert event.code == 1002


async def test_a_flood_that_the_app_does_not_read_is_held_back(open_gate: Open, join: Join):
    """The socket is left unread, so the client's own buffers fill."""
    turn = asyncio.Event()
    seen = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal seen
        await receive()
        await send({"type": "websocket.accept"})
        await turn.wait()
        while (await receive())["type"] == "websocket.receive":
            seen += 1

    site = await open_gate(app)
    client = await join(site)
    await client.take()
    frame = client.wire.send(BytesMessage(data=bytes(50_000)))
    sent = 0
    for _ in range(600):
        client.writer.write(frame)
        sent += 1
        try:
            async with asyncio.timeout(0.5):
                await client.writer.drain()
        except TimeoutError:
            break
    assert sent < 600
    turn.set()
    async with asyncio.timeout(20):
        while seen < sent:  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0.002)


async def test_drain_asks_sockets_to_come_back(open_gate: Open, join: Join):
    """1012 tells a client that the service restarts; nothing is left after drain."""
    site = await open_gate(echo)
    client = await join(site)
    await client.take()
    async with asyncio.TaskGroup() as group:
        drained = group.create_task(site.gateway.drain(10))
        event = await client.take()
        assert isinstance(event, CloseConnection)
        assert event.code == 1012
        client.send(event.response())
    assert drained.result() is True
    assert site.gateway.stats()["websockets"] == 0


async def test_an_app_that_fails_closes_with_1011(open_gate: Open, join: Join):
    """The client knows that it was the server's fault."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise RuntimeError("no")

    client = await join(await open_gate(app))
    await client.take()
    client.send(TextMessage(data="x"))
    event = await client.take()
    assert isinstance(event, CloseConnection)
    assert event.code == 1011
