"""What the gateway does for every app, the same whether the app is here or behind a tunnel."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, UploadFile
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount as StarletteMount
from starlette.routing import Route as StarletteRoute

from seamline.gateway.asgi import AsgiApp, Receive, Scope, Send
from seamline.gateway.routes import Route
from seamline.module.errors import DeadlineExceeded, PermissionDenied, Unavailable

Open = Callable[..., Awaitable[Any]]


def answering(status: int = 200, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"") -> AsgiApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        await send({"type": "http.response.body", "body": body})

    return app


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the scope and the body as they came."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    seen = {key: value for key, value in scope.items() if key in ("path", "root_path", "method", "scheme", "type")}
    seen["headers"] = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen["raw_path"] = scope["raw_path"].decode()
    seen["query"] = scope["query_string"].decode()
    seen["client"] = scope["client"][0]
    seen["size"] = len(body)
    raw = json.dumps(seen).encode()
    await answering(200, [(b"content-type", b"application/json")], raw)(scope, receive, send)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0.002)


# Routes


async def test_the_longest_prefix_of_the_host_wins(open_gate: Open):
    """A route for the host comes before one for all; prefixes end at a segment."""
    routes = [
        Route(module="front"),
        Route(module="cart", path="/cart"),
        Route(module="pay", path="/cart/pay"),
        Route(module="admin", host="admin.test"),
        Route(module="only", path="/only", host="admin.test"),
    ]
    apps = {route.module: answering(body=route.module.encode()) for route in routes}
    site = await open_gate(apps, routes)
    expected = {"/": b"front", "/cart": b"cart", "/cart/x": b"cart", "/cartoon": b"front", "/cart/pay/1": b"pay"}
    for path, module in expected.items():
        assert (await site.get(path))[2] == module
    admin = await open_gate(apps, routes, host_header="ADMIN.test:8443")
    assert (await admin.get("/cart"))[2] == b"admin"
    assert (await admin.get("/only/x"))[2] == b"only"


async def test_no_route_is_a_page_for_people_and_json_for_programs(open_gate: Open):
    """Both name the request by its id."""
    site = await open_gate({"cart": tell}, [Route(module="cart", path="/cart")])
    status, headers, body = await site.get("/elsewhere", accept="text/html,*/*", x_request_id="abc-1")
    assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"abc-1" in body
    status, headers, body = await site.get("/elsewhere")
    assert json.loads(body)["code"] == "not_found"
    assert json.loads(body)["request_id"] == headers["x-request-id"]
    assert site.counted == [("", "GET", 404), ("", "GET", 404)]


async def test_routes_can_be_replaced_while_serving(open_gate: Open):
    """A switch of topology moves paths without closing a connection."""
    site = await open_gate({"old": answering(body=b"old"), "new": answering(body=b"new")}, [Route(module="old")])
    assert (await site.get("/"))[2] == b"old"
    site.gateway.set_routes([Route(module="new")])
    assert (await site.get("/"))[2] == b"new"
    assert site.pool.connections == 1


# What an app is told


async def test_an_app_hears_where_the_request_came_from(open_gate: Open):
    """A stranger cannot say so himself: neither by x-forwarded headers nor by names with underscores."""
    site = await open_gate({"shop": tell}, [Route(module="shop", path="/shop")])
    response = await site.pool.request(
        "POST",
        "/shop/a%20b/%C3%A9?q=1&r=%20",
        [
            (b"X-Forwarded-For", b"6.6.6.6"),
            (b"x_forwarded_for", b"6.6.6.6"),
            (b"Forwarded", b"for=6.6.6.6"),
            (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            (b"Connection", b"x-secret, keep-alive"),
            (b"x-secret", b"hop"),
            (b"x-request-id", b"bad id"),
        ],
        b"hello",
    )
    seen = json.loads(await response.read_all())
    assert seen["path"] == "/shop/a b/é"
    assert (seen["raw_path"], seen["root_path"]) == ("/shop/a%20b/%C3%A9", "/shop")
    assert (seen["query"], seen["method"], seen["size"], seen["client"]) == ("q=1&r=%20", "POST", 5, "127.0.0.1")
    headers = seen["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"]
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")
    assert not {"x_forwarded_for", "forwarded", "x-secret", "connection"} & set(headers)
    assert "6.6.6.6" not in str(seen)
    assert len(headers["x-request-id"]) == 32
    assert response.header(b"x-request-id") == headers["x-request-id"].encode()


async def test_an_app_is_served_unchanged_under_its_mount(open_gate: Open):
    """FastAPI, with its own sub-application, finds its routes below the prefix."""

    async def leaf(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    inner = Starlette(routes=[StarletteRoute("/leaf", leaf)])
    app = FastAPI()

    @app.post("/items/{number}")
    async def item(number: int, request: Request):
        return {"number": number, "url": str(request.url_for("item", number=number).path), "got": await request.json()}

    @app.post("/upload")
    async def upload(file: UploadFile):
        return {"size": len(await file.read()), "name": file.filename}

    app.router.routes.append(StarletteMount("/inner", inner))
    site = await open_gate({"shop": app}, [Route(module="shop", path="/api")])
    status, _, body = await site.ask("POST", "/api/items/7", b'{"a": 1}', content_type="application/json")
    assert (status, json.loads(body)) == (200, {"number": 7, "url": "/api/items/7", "got": {"a": 1}})
    assert (await site.get("/api/inner/leaf"))[2] == b"/api/inner/leaf"
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + bytes(300_000) + b"\r\n--b--\r\n"
    )
    status, _, body = await site.ask("POST", "/api/upload", form, content_type="multipart/form-data; boundary=b")
    assert (status, json.loads(body)) == (200, {"size": 300_000, "name": "f"})
    assert (await site.ask("POST", "/api/items/x", b"{}", content_type="application/json"))[0] == 422


# What the gateway adds


async def test_security_headers_are_there_unless_the_app_says_otherwise(open_gate: Open):
    """The app's own header wins; hop-by-hop headers of the app do not leave."""
    own = [(b"X-Frame-Options", b"DENY"), (b"Connection", b"keep-alive"), (b"Keep-Alive", b"1")]
    site = await open_gate(answering(headers=own))
    _, headers, _ = await site.get("/")
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in headers
    assert not {"connection", "keep-alive"} & set(headers)
    bare = await open_gate(answering(), security_headers=False)
    assert "x-content-type-options" not in (await bare.get("/"))[1]


async def test_other_origins_may_read_only_where_configured(open_gate: Open):
    """Preflights are answered by the gateway; a foreign origin gets nothing; without CORS the app is asked."""
    site = await open_gate(tell, cors_origins=("https://ok.test",), cors_credentials=True)
    ask = {"access_control_request_method": "POST"}
    status, headers, _ = await site.ask("OPTIONS", "/", origin="https://ok.test", **ask)
    assert (status, headers["access-control-allow-origin"]) == (204, "https://ok.test")
    assert "POST" in headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in (await site.ask("OPTIONS", "/", origin="https://no.test", **ask))[1]
    _, headers, _ = await site.get("/", origin="https://ok.test")
    assert headers["access-control-allow-origin"] == "https://ok.test"
    assert headers["access-control-allow-credentials"] == "true"
    assert "origin" in headers["vary"]
    assert "access-control-allow-origin" not in (await site.get("/", origin="https://no.test"))[1]
    plain = await open_gate(tell)
    assert (await plain.ask("OPTIONS", "/", origin="https://ok.test", **ask))[0] == 200


@pytest.mark.parametrize(
    ("accept", "headers", "size", "coded"),
    [
        ("gzip, br", {b"content-type": b"text/html; charset=utf-8"}, 5000, True),
        ("*", {b"content-type": b"application/problem+json"}, 5000, True),
        ("gzip", {b"content-type": b"text/html", b"etag": b'"1"', b"vary": b"cookie"}, 200_000, True),
        ("gzip;q=0, *", {b"content-type": b"text/html"}, 5000, False),
        ("br", {b"content-type": b"text/html"}, 5000, False),
        ("gzip", {b"content-type": b"text/html"}, 500, False),
        ("gzip", {b"content-type": b"image/png"}, 5000, False),
        ("gzip", {b"content-type": b"text/html", b"content-encoding": b"br"}, 5000, False),
        ("gzip", {b"content-type": b"text/html", b"cache-control": b"no-transform"}, 5000, False),
        ("gzip", {}, 5000, False),
    ],
)
async def test_answers_are_compressed_where_it_helps(
    open_gate: Open, accept: str, headers: dict[bytes, bytes], size: int, coded: bool
):
    """Text of some size, for clients that take it; the content is the same."""
    content = b"lorem ipsum " * (size // 12)
    site = await open_gate(
        answering(headers=[*headers.items(), (b"content-length", b"%d" % len(content))], body=content)
    )
    _, got, body = await site.get("/", accept_encoding=accept)
    assert (got.get("content-encoding") == "gzip") is coded
    assert (gzip.decompress(body) if coded else body) == content
    assert int(got.get("content-length", len(body))) == len(body)
    if coded:
        assert "accept-encoding" in got["vary"]
        assert got.get("etag") in (None, 'W/"1"')


async def test_a_compressed_stream_is_not_held_back(open_gate: Open):
    """Each part can be decoded before the next is made; an event stream is not coded at all."""
    turn = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for part in (b"first", b"second"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await turn.wait()
        await send({"type": "http.response.body", "body": b""})

    site = await open_gate(app)
    response = await site.pool.request("GET", "/", [(b"accept-encoding", b"gzip")], timeout_s=10)
    decoder = zlib.decompressobj(31)
    assert decoder.decompress(await response.read()) == b"first"
    turn.set()
    rest = b""
    while chunk := await response.read():
        rest += decoder.decompress(chunk)
    assert rest == b"second"
    assert decoder.eof
    response = await site.pool.request("GET", "/events", [(b"accept-encoding", b"gzip")], timeout_s=10)
    assert response.header(b"content-encoding") is None
    assert await response.read_all() == b"firstsecond"


async def test_the_head_of_a_slow_stream_arrives_at_once(open_gate: Open):
    """A client of server-sent events knows that it is connected before the first event."""
    turn = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await turn.wait()
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})

    site = await open_gate(app)
    response = await site.pool.request("GET", "/", timeout_s=10)
    assert response.status == 200
    turn.set()
    assert await response.read_all() == b"data: 1\n\n"


# Limits


async def test_bodies_are_limited_by_gateway_and_route(open_gate: Open):
    """By length before the app is asked, by chunks while it reads; a route may allow more or less."""
    routes = [Route(module="shop"), Route(module="shop", path="/big", body_bytes_max=500_000)]
    site = await open_gate(tell, routes, body_bytes_max=100_000)

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(10_000)

    assert (await site.ask("POST", "/", bytes(100_001)))[0] == 413
    status, _, body = await site.ask("POST", "/", stream())
    assert (status, json.loads(body)["code"]) == (413, "payload_too_large")
    status, _, body = await site.ask("POST", "/big", stream())
    assert (status, json.loads(body)["size"]) == (200, 200_000)
    assert (await site.ask("POST", "/big", bytes(500_001)))[0] == 413


async def test_a_framework_that_trips_over_a_refused_body_does_not_hide_the_reason(open_gate: Open):
    """FastAPI sees a client that leaves; the client sees 413."""
    app = FastAPI()

    @app.post("/")
    async def take(request: Request):
        return len(await request.body())

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(10_000)

    site = await open_gate(app, body_bytes_max=50_000)
    assert (await site.ask("POST", "/", stream()))[0] == 413


async def test_an_answer_that_does_not_begin_in_time_is_504(open_gate: Open):
    """The app is cancelled; a stream that has begun may take its time; a route may have its own patience."""
    ended: list[str] = []
    begun = asyncio.Event()
    turn = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        try:
            await turn.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        if scope["path"] != "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    routes = [Route(module="shop"), Route(module="shop", path="/patient", timeout_s=600)]
    site = await open_gate(app, routes, request_timeout_s=30)
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(site.get("/slow", accept="text/html"))
        stream = await site.pool.request("GET", "/stream", timeout_s=20)
        patient = group.create_task(site.get("/patient"))
        await begun.wait()
        await until(lambda: site.gateway.stats()["inflight"] == 3)
        site.pass_time(29)
        assert not slow.done()
        site.pass_time(2)
        status, headers, _ = await slow
        assert (status, headers["content-type"]) == (504, "text/html; charset=utf-8")
        turn.set()
    assert await stream.read_all() == b"done"
    assert patient.result()[0] == 200
    assert ("shop", "GET", 504) in site.counted


# Failures


async def test_an_app_that_fails_is_answered_without_detail(open_gate: Open, caplog: pytest.LogCaptureFixture):
    """Each failure has its status; the secret stays in the log; the connection goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/raise":
                raise RuntimeError("secret")
            case "/half":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                raise RuntimeError("secret")
            case "/silent":
                return
            case "/unavailable":
                raise Unavailable("secret")
            case "/late":
                raise DeadlineExceeded("secret")
            case "/forbidden":
                raise PermissionDenied("secret")
            case _:
                await send({"type": "http.response.body", "body": b"too soon"})

    site = await open_gate(app)
    for path, expected in (
        ("/raise", 500),
        ("/unavailable", 503),
        ("/late", 504),
        ("/forbidden", 403),
        ("/odd", 500),
        ("/half", 500),
        ("/silent", 500),
    ):
        status, _, body = await site.get(path)
        assert status == expected, path
        assert b"secret" not in body
        assert "request_id" in json.loads(body)
    assert "secret" in caplog.text


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(open_gate: Open):
    """The connection is broken, so that neither length nor chunks end properly."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken off")

    site = await open_gate(app)
    with pytest.raises(ConnectionError):
        await site.get("/")


async def test_an_app_hears_that_the_client_has_gone(open_gate: Open):
    """By receive, and by send; Starlette's streams end."""
    heard: list[str] = []
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        heard.append((await receive())["type"])
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError:
            heard.append("OSError")
        done.set()

    async def numbers() -> AsyncIterator[str]:
        while True:
            yield "1\n"
            await asyncio.sleep(0.001)

    async def stream(_: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(numbers())

    starlette = Starlette(routes=[StarletteRoute("/", stream)])

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await starlette(scope, receive, send)
        finally:
            done.set()

    for target in (app, watched):
        done.clear()
        site = await open_gate(target)
        response = await site.pool.request("GET", "/", timeout_s=10)
        await response.read()
        await response.aclose()
        async with asyncio.timeout(10):
            await done.wait()
    assert heard == ["http.disconnect", "OSError"]


async def test_head_and_not_modified_keep_their_headers(open_gate: Open):
    """The length of the body that is not sent is the app's own."""
    site = await open_gate(answering(headers=[(b"content-length", b"1234"), (b"content-type", b"text/html")]))
    for _ in range(2):
        _, headers, body = await site.ask("HEAD", "/", accept_encoding="gzip")
        assert (headers["content-length"], body) == ("1234", b"")
    cached = await open_gate(answering(304, [(b"etag", b'"1"')]))
    status, headers, body = await cached.get("/")
    assert (status, headers["etag"], body) == (304, '"1"', b"")


async def test_a_large_answer_flows_with_back_pressure(open_gate: Open):
    """An app that streams faster than its client reads waits."""
    made = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(800):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            made += 1
        await send({"type": "http.response.body", "body": b""})

    site = await open_gate(app)
    response = await site.pool.request("GET", "/", timeout_s=30)
    before = -1
    while before != made:
        before = made
        await asyncio.sleep(0.05)
    assert made < 700
    assert len(await response.read_all()) == 800 * 65_536


# Drain


async def test_drain_loses_no_request(open_gate: Open):
    """New connections are not accepted, what came is answered."""
    turn = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await turn.wait()
        await answering(body=b"done")(scope, receive, send)

    site = await open_gate(app)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(site.get("/"))
        await until(lambda: site.gateway.stats()["inflight"] == 1)
        drained = group.create_task(site.gateway.drain(10))
        await asyncio.sleep(0)
        turn.set()
        status, headers, body = await asked
    assert (status, headers["connection"], body) == (200, "close", b"done")
    assert drained.result() is True
    with pytest.raises(ConnectionError):
        await site.get("/")


async def test_stats_count_by_module(open_gate: Open):
    """Calls and errors (5xx) of each module, for `seamline top`."""
    site = await open_gate(
        {"good": answering(), "bad": answering(503)}, [Route(module="good"), Route(module="bad", path="/bad")]
    )
    for path in ("/", "/", "/bad"):
        await site.get(path)
    await until(lambda: len(site.counted) == 3)
    routes = {row["module"]: (row["calls"], row["errors"]) for row in site.gateway.stats()["routes"]}
    assert routes == {"good": (2, 0), "bad": (1, 1)}


def test_the_room_does_not_depend_on_frameworks():
    """Neither FastAPI nor Starlette is needed to serve."""
    folder = Path(__file__).parents[2] / "src/seamline/gateway"
    sources = "".join(path.read_text() for path in folder.glob("*.py"))
    assert "import fastapi" not in sources
    assert "starlette" not in sources.lower().replace("starlettemount", "")
