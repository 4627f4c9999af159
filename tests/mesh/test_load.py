"""Replicas tell how much they have to do, so that callers in several processes do not all choose the same one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest
from tests.mesh.rig import Stock, StockService, rig

from seamline.mesh import server
from seamline.mesh.balance import Endpoint
from seamline.mesh.mesh import Mesh


def others(mesh: Mesh, endpoint: Endpoint) -> int:
    """What ``mesh`` knows of others' calls at a replica of ``stock``."""
    replica = mesh.named_replica("stock", endpoint.workload)
    assert replica is not None
    return replica._others  # pyright: ignore[reportPrivateUsage]


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
        busy, quiet = made.mesh("orders"), made.mesh("orders")
        for mesh in (busy, quiet):
            mesh.set_endpoints({"stock": [endpoint]})
        long = asyncio.get_running_loop().create_task(quiet.stub(Stock, "orders").dawdle(0.15))
        loop = asyncio.get_running_loop()
        calls = [loop.create_task(busy.stub(Stock, "orders").take("mug")) for _ in range(12)]
        stream = cast("AsyncGenerator[int]", busy.stub(Stock, "orders").count(1000000))
        assert await anext(stream) == 0
        await until(quiet, endpoint, range(12, 14))
        await until(busy, endpoint, range(2))
        await stream.aclose()
        service.gate.set()
        await asyncio.gather(*calls)
        await asyncio.wait([long])
        await until(quiet, endpoint, range(1))
