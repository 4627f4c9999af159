"""A tunnel changes nothing: the bytes on the public socket are the same with and without it."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Annotated

import msgspec
import pytest
from fastapi import Depends, FastAPI, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.gateway.asgi import AsgiApp, Receive, Scope, Send
from seamline.gateway.errors import TunnelError
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route
from seamline.gateway.tunnel import TunnelApp, serve_tunnel
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.module.errors import InternalError, Unavailable


def make_shop() -> FastAPI:
    app = FastAPI()

    async def page_size(size: int = 10) -> int:
        return size

    @app.get("/", response_class=HTMLResponse)
    async def home(request: Request):
        response = HTMLResponse("<h1>shop</h1>" + "x" * 3000)
        response.set_cookie("a", "1")
        response.set_cookie("b", request.headers.get("cookie", "none"))
        return response

    @app.get("/items/{number}")
    async def item(number: int, size: Annotated[int, Depends(page_size)]):
        return {"number": number, "size": size}

    @app.post("/cart")
    async def cart(product: Annotated[str, Form()], quantity: Annotated[int, Form()]):
        return RedirectResponse(f"/cart/{product}/{quantity}", status_code=303)

    @app.put("/raw")
    async def raw(request: Request):
        return Response(await request.body(), media_type="application/octet-stream")

    @app.get("/events")
    async def events():
        async def stream():
            for number in range(5):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/large")
    async def large():
        return Response(b"0123456789" * 20_000, media_type="image/png")

    @app.get("/empty", status_code=204)
    async def empty():
        return None

    @app.get("/raise")
    async def fail():
        raise RuntimeError("no")

    return app


FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
ASKED = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: c=1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /items/7?size=3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /items/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /cart HTTP/1.1\r\nHost: localhost\r\n" + FORM + b"Content-Length: 22\r\n\r\nproduct=mug&quantity=2",
    b"PUT /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + bytes(range(250)) * 400,
    b"PUT /raw HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /empty HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /raise HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /items/7 HTTP/1.0\r\n\r\n",
]


class QueueDuplex:
    """One end of a pair of queues."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.peer = self

    async def send(self, message: bytes, /) -> None:
        self.peer.inbox.put_nowait(message)

    async def receive(self) -> bytes | None:
        return await self.inbox.get()

    async def end(self) -> None:
        self.peer.inbox.put_nowait(None)

    def cancel(self) -> None:
        self.inbox.put_nowait(None)
        self.peer.inbox.put_nowait(None)


def pair() -> tuple[QueueDuplex, QueueDuplex]:
    near, far = QueueDuplex(), QueueDuplex()
    near.peer, far.peer = far, near
    return near, far


async def _transcript(app: AsgiApp, raw: bytes) -> bytes:
    gateway = Gateway(GatewaySettings(), [Route(module="shop")], lambda _: app)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await gateway.serve(sock)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = raw.replace(b"\r\n", b"\r\nX-Request-Id: same\r\nConnection: close\r\n", 1)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await gateway.stop()
    return re.sub(rb"\r\ndate: [^\r]*", b"", answer)


def _content(answer: bytes) -> bytes:
    """Head without framing, and the body without chunk lines: how a stream is cut is nobody's business."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return head + body
    parts: list[bytes] = []
    while body and not body.startswith(b"0\r\n"):
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return head + b"".join(parts)


@pytest.mark.parametrize("raw", ASKED, ids=lambda raw: raw.split(b" HTTP")[0].decode())
async def test_the_answer_is_the_same_byte_for_byte(raw: bytes):
    """Status, headers in their order, cookies and body."""
    runners = Runners()
    shop = make_shop()

    async def open_stream(_: Scope) -> QueueDuplex:
        near, far = pair()
        runners.start(serve_tunnel(far, shop))
        return near

    direct = await _transcript(shop, raw)
    tunnelled = await _transcript(TunnelApp(open_stream), raw)
    await runners.stop()
    assert len(direct) > 20
    assert _content(tunnelled) == _content(direct)


async def test_a_module_that_cannot_be_reached_is_503():
    """And one whose process dies before it answers; the request's id is there to ask about."""

    async def refuse(_: Scope) -> QueueDuplex:
        raise Unavailable("no endpoint")

    async def dies(__: Scope) -> QueueDuplex:
        near, _ = pair()

        async def broken(message: bytes, /) -> None:
            raise ConnectionResetError("gone")

        near.send = broken
        return near

    for opening in (refuse, dies):
        answer = await _transcript(TunnelApp(opening), ASKED[0])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"request_id": "same"' in answer


message = st.dictionaries(
    st.sampled_from(["type", "headers", "body", "path", "client", "status", "more_body"]),
    st.none()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.lists(st.binary(max_size=3), max_size=3)
    | st.integers(-9, 999),
)
wire = st.binary(max_size=60) | message.map(msgspec.msgpack.encode)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(wire, min_size=1, max_size=4))
def test_nonsense_from_the_other_end_is_a_tunnel_error(messages: list[bytes]):
    """Neither end raises anything else, or hangs, whatever the other sends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def go() -> None:
        near, far = pair()
        for data in messages:
            await near.send(data)
        await near.end()
        try:
            async with asyncio.timeout(5):
                await serve_tunnel(far, app)
        except TunnelError:
            pass
        for data in messages:
            near.inbox.put_nowait(data)
        near.inbox.put_nowait(None)

        async def open_stream(_: Scope) -> QueueDuplex:
            return near

        async def nothing() -> dict[str, object]:
            await asyncio.Event().wait()
            raise AssertionError

        async def sink(message: object) -> None: ...

        try:
            async with asyncio.timeout(5):
                await TunnelApp(open_stream)({"type": "http", "path": "/"}, nothing, sink)
        except (TunnelError, Unavailable, InternalError):
            pass

    asyncio.run(go())


async def test_the_scope_arrives_as_asgi_has_it():
    """Tuples are tuples, bytes are bytes; nothing that is local to the gateway's process is sent."""
    seen: list[Scope] = []
    runners = Runners()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def open_stream(_: Scope) -> QueueDuplex:
        near, far = pair()
        runners.start(serve_tunnel(far, app))
        return near

    gateway = Gateway(GatewaySettings(), [Route(module="shop")], lambda _: TunnelApp(open_stream))
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await gateway.serve(sock)
    pool = HttpPool("127.0.0.1", port)
    assert (await pool.request("GET", "/a?b", timeout_s=10)).status == 200
    (scope,) = seen
    assert isinstance(scope["client"], tuple)
    assert all(isinstance(header, tuple) and isinstance(header[0], bytes) for header in scope["headers"])
    assert (scope["query_string"], scope["raw_path"], scope["state"]) == (b"b", b"/a", {})
    await pool.close()
    await gateway.stop()
    await runners.stop()
