"""A gateway on a real socket, its apps called directly or through a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from seamline.gateway.asgi import AsgiApp
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route
from seamline.gateway.tunnel import TunnelApp, serve_tunnel
from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.wire.http1_client import HttpPool


class MemoryDuplex:
    """One end of a pair of bounded queues."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue(8)
        self.peer: MemoryDuplex = self
        self.gone = asyncio.Event()

    @classmethod
    def pair(cls) -> tuple[MemoryDuplex, MemoryDuplex]:
        one, other = cls(), cls()
        one.peer, other.peer = other, one
        return one, other

    async def send(self, message: bytes, /) -> None:
        if await self._unless_gone(self.peer.inbox.put(message)) is False:
            raise ConnectionResetError("the other end has gone")

    async def receive(self) -> bytes | None:
        if not self.inbox.empty():
            return self.inbox.get_nowait()
        found = await self._unless_gone(self.inbox.get())
        return None if found is False else found

    async def end(self) -> None:
        await self._unless_gone(self.peer.inbox.put(None))

    def cancel(self) -> None:
        self.gone.set()
        self.peer.gone.set()

    async def _unless_gone(self, awaitable: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(awaitable)
            gone = group.create_task(self.gone.wait())
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            done = work.done()
            gone.cancel()
            if not done:
                work.cancel()
        return work.result() if done else False


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


@pytest.fixture(params=["direct", "tunnel"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def open_gate(way: str) -> AsyncIterator[Open]:
    """Makes a gateway in front of one app (at "/") or of several by module name."""
    async with contextlib.AsyncExitStack() as stack:
        runners = Runners()
        stack.push_async_callback(runners.stop)

        def through_tunnel(app: AsgiApp) -> AsgiApp:
            async def open_stream() -> MemoryDuplex:
                near, far = MemoryDuplex.pair()
                runners.start(serve_tunnel(far, app))
                return near

            return TunnelApp(open_stream)

        async def start(
            apps: AsgiApp | dict[str, AsgiApp],
            routes: list[Route] | None = None,
            host_header: str | None = None,
            **settings: Any,
        ) -> Site:
            known: dict[str, AsgiApp] = {"shop": apps} if callable(apps) else apps
            if way == "tunnel":
                known = {name: through_tunnel(app) for name, app in known.items()}
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
