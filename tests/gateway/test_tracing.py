"""A public request is a span at the gateway and one at its module, in one process and through a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.gateway.test_websocket import WsClient
from tests.mesh.rig import PERMIT_ALL, rig
from wsproto.events import CloseConnection
from wsproto.events import Request as Upgrade

from seamline import Module
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route as PublicRoute
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.signal.metrics import Flow
from seamline.kernel.signal.trace import Span, TraceContext
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.balance import Endpoint
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module.context import current
from seamline.run.faces import Faces

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C


async def item(request: Request) -> Response:
    trace = current()
    assert trace is not None
    assert trace.trace is not None
    headers = {name.decode(): value.decode() for name, value in trace.trace.to_headers()}
    return PlainTextResponse(request.path_params["name"], headers=headers)


async def broken(_: Request) -> Response:
    raise LookupError("no such shelf")


async def sorry(_: Request) -> Response:
    return PlainTextResponse("no", status_code=503)


async def chat(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


APP = Starlette(
    routes=[
        Route("/items/{name}", item),
        Route("/broken", broken),
        Route("/sorry", sorry),
        Mount("/inner", routes=[Route("/{name}", item)]),
        WebSocketRoute("/chat", chat),
    ]
)


class Shop:
    """A gateway and the face of one module, mounted at ``at``."""

    def __init__(self, pool: HttpPool, port: int, *meshes: Mesh) -> None:
        self.pool = pool
        self.port = port
        self.meshes = meshes

    async def get(self, target: str, **headers: str) -> tuple[int, dict[str, str]]:
        response = await self.pool.request("GET", target, [(k.encode(), v.encode()) for k, v in headers.items()])
        await response.read_all()
        return response.status, {name.decode(): value.decode() for name, value in response.headers}

    def sample(self, share: float) -> None:
        for mesh in self.meshes:
            mesh.tracer.sample = share

    async def spans(self, count: int = 2) -> list[Span]:
        """So many, the gateway's first; a module in another process ends after its answer has arrived."""
        found: list[Span] = []
        for _ in range(4000):
            found += [span for mesh in self.meshes for span in mesh.tracer.take()]
            if len(found) >= count:
                break
            await asyncio.sleep(0)
        return sorted(found, key=lambda span: span.module != "gateway")

    async def counted(self, calls: int) -> dict[str, Flow]:
        """What was counted at the public door, by method and route, once it is so many."""
        found: dict[str, Flow] = {}
        for _ in range(4000):
            for flow in (flow for mesh in self.meshes for flow in mesh.tracer.flows.take()):
                before = found.get(flow.method)
                assert flow.side == "http"
                found[flow.method] = flow if before is None else flow._replace(calls=flow.calls + before.calls)
            if sum(flow.calls for flow in found.values()) >= calls:
                break
            await asyncio.sleep(0)
        return found


@contextlib.asynccontextmanager
async def opened(folder: Path, way: str, at: str) -> AsyncGenerator[Shop]:
    module = Module("shop")
    module.mount(APP, at=at)
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(rig(folder))
        meshes = [made.mesh("gateway", "shop")] if way == "here" else [made.mesh("gateway"), made.mesh("shop")]
        for mesh in meshes:
            mesh.policy = Policy.from_text(PERMIT_ALL, modules={"gateway": {}, "shop": {}}, contracts={})
        faces = [Faces(mesh, lambda contract, caller: None) for mesh in meshes]
        await faces[-1].start(module)
        stack.push_async_callback(faces[-1].stop, module)
        if way == "tunnel":
            meshes[1].tunnels.update(faces[1].tunnels())
            listener = socket.create_server(("127.0.0.1", 0))
            await meshes[1].port.listen(listener)
            meshes[0].set_endpoints({"shop": [Endpoint("127.0.0.1", listener.getsockname()[1], workload="far")]})
        gateway = Gateway(
            GatewaySettings(), [PublicRoute(module="shop", path=at)], faces[0].app, tracer=meshes[0].tracer
        )
        sock = socket.create_server(("127.0.0.1", 0))
        await gateway.serve(sock)
        stack.push_async_callback(gateway.stop)
        port: int = sock.getsockname()[1]
        pool = HttpPool("127.0.0.1", port)
        stack.push_async_callback(pool.close)
        yield Shop(pool, port, *meshes)


@pytest.fixture(params=["here", "tunnel"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def shop(tmp_path: Path, way: str) -> AsyncIterator[Shop]:
    async with opened(tmp_path, way, "/") as it:
        yield it


async def test_a_request_is_a_span_at_the_gateway_and_one_at_its_module(shop: Shop):
    """Named by the route as the framework matched it; neither query nor headers are told."""
    shop.sample(1.0)
    await shop.get("/items/mug?token=secret", cookie="secret")
    gateway, face = await shop.spans()
    assert (gateway.name, gateway.kind, gateway.module, gateway.parent_id) == (
        "GET /items/{name}",
        "server",
        "gateway",
        0,
    )
    assert (face.name, face.kind, face.module, face.peer) == ("GET /items/{name}", "server", "shop", "gateway")
    assert (face.trace_id, face.parent_id) == (gateway.trace_id, gateway.span_id)
    assert gateway.attributes == {
        "http.request.method": "GET", "http.route": "/items/{name}", "url.path": "/items/mug",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert "secret" not in repr((gateway, face))
    assert gateway.duration_ns >= face.duration_ns > 0


async def test_the_trace_of_a_stranger_goes_on_with_what_it_carries(shop: Shop):
    """Its id, its state and its baggage reach what the module calls; its wish to be recorded is only that."""
    status, headers = await shop.get("/items/mug", traceparent=SENT, tracestate="a=1,b=2", baggage="who=me")
    assert status == 200
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["traceparent"].endswith("-00")
    assert (headers["tracestate"], headers["baggage"]) == ("a=1,b=2", "who=me")
    assert await shop.spans(0) == []
    shop.sample(1.0)
    await shop.get("/items/mug", traceparent=SENT, tracestate="a=1")
    gateway, face = await shop.spans()
    assert (gateway.trace_id, gateway.parent_id) == (TRACE_ID, 0xB7AD6B7169203331)
    assert (face.trace_id, face.parent_id, face.trace_state) == (TRACE_ID, gateway.span_id, "a=1")


async def test_what_a_stranger_sends_is_bounded_and_read_with_care(shop: Shop):
    """Malformed, endless or much of it: the request is served, under a trace of our own if need be."""
    for parent in ("", "00-0-0-01", SENT.upper() + "-more" * 50, "ff" + SENT[2:], "00-" + "0" * 32 + SENT[35:]):
        status, headers = await shop.get("/items/mug", traceparent=parent, tracestate="x" * 513, baggage="y" * 8193)
        assert status == 200
        assert not {"tracestate", "baggage"} & headers.keys()
        assert TraceContext.from_traceparent(headers["traceparent"]) is not None


async def test_a_request_that_failed_leaves_its_spans_though_nothing_is_sampled(shop: Shop):
    """Both sides, in one trace, with where in the application's own code it happened."""
    await shop.get("/items/mug")
    assert await shop.spans(0) == []
    status, headers = await shop.get("/broken")
    assert status == 500
    gateway, face = await shop.spans()
    assert (face.trace_id, face.parent_id) == (gateway.trace_id, gateway.span_id)
    assert (gateway.status, face.status) == ("internal", "internal")
    assert headers["x-request-id"] == f"{gateway.trace_id:032x}"
    assert face.events is not None
    ((_, name, said),) = face.events
    assert said is not None
    assert (name, said["exception.type"], said["exception.message"]) == ("exception", "LookupError", "no such shelf")
    last = said["exception.stacktrace"].splitlines()[-1]
    assert last.startswith("tests/gateway/test_tracing.py:")
    assert last.endswith(" broken")


async def test_an_answer_of_failure_is_one_although_nothing_was_raised(shop: Shop):
    """As apps that catch everything give it."""
    await shop.get("/sorry")
    gateway, face = await shop.spans()
    assert (gateway.status, face.status) == ("unavailable", "unavailable")
    assert gateway.trace_id == face.trace_id


async def test_requests_are_counted_by_route_and_class(shop: Shop):
    """Whatever strangers ask for, there are no more counters than routes."""
    for number in range(5):
        await shop.get(f"/items/{number}")
    for number in range(7):
        await shop.get(f"/nothing/{number}")
    await shop.get("/broken")
    counted = await shop.counted(13)
    told = {
        name: (flow.caller, flow.callee, flow.calls, flow.errors > 0, set(flow.codes)) for name, flow in counted.items()
    }
    assert told == {
        "GET /items/{name}": ("gateway", "shop", 5, False, set[str]()),
        "GET /*": ("gateway", "shop", 7, False, {"4xx"}),
        "GET /broken": ("gateway", "shop", 1, True, {"5xx"}),
    }
    assert await shop.counted(0) == {}


async def test_a_websocket_is_a_span_from_its_handshake_to_its_end(shop: Shop):
    """Not counted among the requests, whose latency it would blur."""
    shop.sample(1.0)
    client = WsClient(*await asyncio.open_connection("127.0.0.1", shop.port))
    client.send(Upgrade(host="localhost", target="/chat"))
    while not isinstance(event := await client.take(), CloseConnection):
        pass
    client.send(event.response())
    gateway, face = await shop.spans()
    client.writer.close()
    assert (gateway.name, face.name, face.parent_id) == ("WS /chat", "WS /chat", gateway.span_id)
    assert gateway.attributes is not None
    assert gateway.attributes["http.response.status_code"] == 101
    assert await shop.counted(0) == {}


async def test_a_route_is_told_from_the_root(tmp_path: Path, way: str):
    """With where the module is mounted, and where the framework has mounted others."""
    async with opened(tmp_path, way, "/shop") as shop:
        await shop.get("/shop/inner/mug")
        await shop.get("/shop/items/mug")
        await shop.get("/shop/nowhere")
        await shop.get("/elsewhere")
        told = {(flow.callee, flow.method) for flow in (await shop.counted(4)).values()}
        assert told == {
            ("shop", "GET /shop/inner/{name}"), ("shop", "GET /shop/items/{name}"), ("shop", "GET /shop/*"),
            ("gateway", "GET /*"),
        }  # fmt: skip
