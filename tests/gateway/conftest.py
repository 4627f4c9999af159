"""A gateway on a real socket, its apps called directly or through a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.mesh.rig import PERMIT_ALL, rig

from seamline.gateway.asgi import AsgiApp, Scope
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route
from seamline.gateway.tunnel import Duplex, TunnelApp, serve_tunnel
from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.balance import Endpoint
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy


class MemoryDuplex:
    """One end of a pair that holds at most eight messages each way."""

    def __init__(self) -> None:
        self.inbox: deque[bytes | None] = deque()
        self.peer: MemoryDuplex = self
        self.changed = asyncio.Event()
        self.gone = False

    @classmethod
    def pair(cls) -> tuple[MemoryDuplex, MemoryDuplex]:
        one, other = cls(), cls()
        one.peer, other.peer = other, one
        other.changed = one.changed
        return one, other

    async def send(self, message: bytes, /) -> None:
        await self._until(lambda: len(self.peer.inbox) < 8)
        if self.gone:
            raise ConnectionResetError("the other end has gone")
        self.peer.inbox.append(message)
        self.changed.set()

    async def receive(self) -> bytes | None:
        await self._until(lambda: bool(self.inbox))
        self.changed.set()
        return self.inbox.popleft() if self.inbox else None

    async def end(self) -> None:
        self.peer.inbox.append(None)
        self.changed.set()

    def cancel(self) -> None:
        self.gone = self.peer.gone = True
        self.changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self.gone:
            self.changed.clear()
            await self.changed.wait()


def _reached(near: Mesh, module: str) -> AsgiApp:
    tunnel = near.tunnel("gateway", module)
    return TunnelApp(lambda _: tunnel.open())


async def _serve(app: AsgiApp, stream: Duplex) -> None:
    await serve_tunnel(stream, app)


@dataclass
class Site:
    gateway: Gateway
    pool: HttpPool
    port: int
    clock: ManualClock
    counted: list[tuple[str, str, int]]

    async def get(self, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return await self.ask("GET", target, b"", **headers)

    async def ask(
        self, method: str, target: str, body: bytes | AsyncIterator[bytes] = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        response = await self.pool.request(method, target, lines, body, timeout_s=20)
        content = await response.read_all()
        return response.status, {name.decode(): value.decode() for name, value in response.headers}, content

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.gateway.sweep()


Open = Callable[..., Awaitable[Site]]


@pytest.fixture(params=["direct", "tunnel", "mesh"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def open_gate(way: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Makes a gateway in front of one app (at "/") or of several by module name.

    They are called directly, through a tunnel in memory, or through a tunnel over the mesh.
    """
    async with contextlib.AsyncExitStack() as stack:
        runners = Runners()
        made = await stack.enter_async_context(rig(tmp_path))
        stack.push_async_callback(runners.stop)

        def through_tunnel(app: AsgiApp) -> AsgiApp:
            async def open_stream(_: Scope) -> MemoryDuplex:
                near, far = MemoryDuplex.pair()
                runners.start(serve_tunnel(far, app))
                return near

            return TunnelApp(open_stream)

        async def through_mesh(apps: Mapping[str, AsgiApp]) -> dict[str, AsgiApp]:
            far, near = made.mesh(*apps), made.mesh("gateway")
            permits = Policy.from_text(PERMIT_ALL, modules={name: {} for name in ("gateway", *apps)}, contracts={})
            for mesh in (far, near):
                mesh.policy = permits
                mesh.refresh()
            far.tunnels.update({name: partial(_serve, app) for name, app in apps.items()})
            listener = socket.create_server(("127.0.0.1", 0))
            await far.port.listen(listener)
            place = Endpoint("127.0.0.1", listener.getsockname()[1], workload="far")
            near.set_endpoints({name: [place] for name in apps})
            return {name: _reached(near, name) for name in apps}

        async def start(
            apps: AsgiApp | dict[str, AsgiApp],
            routes: list[Route] | None = None,
            host_header: str | None = None,
            **settings: Any,
        ) -> Site:
            known: dict[str, AsgiApp] = {"shop": apps} if callable(apps) else apps
            if way == "tunnel":
                known = {name: through_tunnel(app) for name, app in known.items()}
            if way == "mesh":
                known = await through_mesh(known)
            clock = ManualClock()
            counted: list[tuple[str, str, int]] = []
            gateway = Gateway(
                GatewaySettings(**settings),
                routes or [Route(module="shop")],
                known.__getitem__,
                clock=clock,
                on_request=lambda module, method, status, _: counted.append((module, method, status)),
            )
            sock = socket.create_server(("127.0.0.1", 0))
            await gateway.serve(sock)
            port = sock.getsockname()[1]
            pool = HttpPool("127.0.0.1", port, host_header=host_header)
            stack.push_async_callback(gateway.stop)
            stack.push_async_callback(pool.close)
            return Site(gateway, pool, port, clock, counted)

        yield start
