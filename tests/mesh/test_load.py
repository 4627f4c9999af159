"""Replicas tell how much they have to do, so that callers in several processes do not all choose the same one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest
from tests.mesh.rig import Stock, StockService, rig

from seamline import Unavailable
from seamline.kernel.settings import MeshRules
from seamline.kernel.wire.frames import Ahead
from seamline.mesh import server
from seamline.mesh.balance import Endpoint, Replica
from seamline.mesh.mesh import Mesh


def known(mesh: Mesh, endpoint: Endpoint) -> Replica:
    """What ``mesh`` knows of a replica of ``stock``."""
    replica = mesh.named_replica("stock", endpoint.workload)
    assert replica is not None
    return replica


def others(mesh: Mesh, endpoint: Endpoint) -> int:
    """What ``mesh`` knows of others' calls there."""
    return known(mesh, endpoint)._others  # pyright: ignore[reportPrivateUsage]


async def until(mesh: Mesh, endpoint: Endpoint, wanted: range) -> None:
    async with asyncio.timeout(20):
        while others(mesh, endpoint) not in wanted:  # noqa: ASYNC110  # what comes over the wire tells nobody
            await asyncio.sleep(0.005)


async def test_a_caller_hears_what_others_ask_of_a_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Calls and streams alike, while they last; then it hears that they are over. Its own calls are not counted."""
    monkeypatch.setattr(server, "TELL_S", 0.01)
    monkeypatch.setattr(server, "TELL_AGAIN_S", 0.05)
    async with rig(tmp_path) as made:
        service = StockService("a")
        service.gate = asyncio.Event()
        _, endpoint = await made.serve(service)
        busy, quiet = (made.mesh("orders", rules={"timeout_s": 60}) for _ in range(2))
        for mesh in (busy, quiet):
            mesh.set_endpoints({"stock": [endpoint]})
        loop = asyncio.get_running_loop()
        own = loop.create_task(quiet.stub(Stock, "orders").take("mug"))
        calls = [loop.create_task(busy.stub(Stock, "orders").take("mug")) for _ in range(12)]
        stream = cast("AsyncGenerator[int]", busy.stub(Stock, "orders").count(1000000))
        assert await anext(stream) == 0
        await until(quiet, endpoint, range(13, 14))
        await until(busy, endpoint, range(1, 2))
        await stream.aclose()
        service.gate.set()
        await asyncio.gather(own, *calls)
        await until(quiet, endpoint, range(1))


class Talker(StockService):
    """Makes its answers token by token."""

    ahead: Ahead | None = None

    def seamline_ahead(self) -> Ahead | None:
        return self.ahead


async def hears(mesh: Mesh, endpoint: Endpoint, ahead: Ahead | None) -> None:
    async with asyncio.timeout(20):
        while known(mesh, endpoint).ahead != ahead:  # noqa: ASYNC110  # what comes over the wire tells nobody
            await asyncio.sleep(0.005)


async def test_a_caller_hears_what_is_ahead_and_goes_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Though more calls are under way there. It is told while anything is under way, of the module that is called, and
    forgotten when nothing is, or when the connection is lost."""
    monkeypatch.setattr(server, "TELL_S", 0.01)
    monkeypatch.setattr(Replica, "OTHERS_S", 1000.0)
    async with rig(tmp_path) as made:
        long, short = Talker("long"), Talker("short")
        long.ahead, short.ahead = Ahead(5.0, 0.5, 0.01), Ahead(0.1, 0.5, 0.01)
        caller, loop = made.mesh("orders", rules={"timeout_s": 60}), asyncio.get_running_loop()
        hosts, endpoints = zip(*[await made.serve(each) for each in (long, short)], strict=True)
        calls: list[asyncio.Task[str]] = []
        for service, endpoint, count in ((long, endpoints[0], 1), (short, endpoints[1], 4)):
            caller.set_endpoints({"stock": endpoints[: endpoints.index(endpoint) + 1]})
            await caller.stub(Stock, "orders").blob(b"")
            known(caller, endpoint).observe(loop.time(), 1.0)  # so that the next goes to the other
            service.gate = asyncio.Event()
            busy = made.mesh("orders", rules={"timeout_s": 60})
            busy.set_endpoints({"stock": [endpoint]})
            calls += [loop.create_task(busy.stub(Stock, "orders").take("mug")) for _ in range(count)]
        for service, endpoint in zip((long, short), endpoints, strict=True):
            await hears(caller, endpoint, service.ahead)
        await until(caller, endpoints[1], range(4, 5))
        by_calls = [known(caller, endpoint).cost(loop.time()) for endpoint in endpoints]
        assert by_calls[0] < by_calls[1]
        assert caller.pick("stock", MeshRules(), []).endpoint is endpoints[1]
        short.ahead = Ahead(50.0, 0.5, 0.01)
        await hears(caller, endpoints[1], short.ahead)
        assert caller.pick("stock", MeshRules(), []).endpoint is endpoints[0]
        assert short.gate is not None
        short.gate.set()
        await asyncio.gather(*calls[1:])
        await hears(caller, endpoints[1], None)
        assert known(caller, endpoints[0]).ahead is not None
        await hosts[0].stop()
        await hears(caller, endpoints[0], None)
        await asyncio.wait(calls)
        assert isinstance(calls[0].exception(), Unavailable)
