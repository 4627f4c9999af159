"""What changes while calls are under way, without one of them failing: certificates, roots, connections, clocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.mesh.rig import APP, TRUST_DOMAIN, Rig, Stock, StockService, rig

from seamline.kernel.clock import ManualClock
from seamline.mesh.channel import FrameChannel
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.mesh import Mesh

WIRES = pytest.mark.parametrize("wire", ["frames", "http"])


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


async def under_load(stock: Stock, change: Callable[[], Awaitable[None]], callers: int = 16) -> int:
    """Call without a pause while ``change`` runs; any failed call fails the test. The number of calls made."""
    done = asyncio.Event()
    calls = 0

    async def caller() -> None:
        nonlocal calls
        while not done.is_set():
            assert await stock.take("mug") == "mugx1"
            assert [n async for n in stock.count(3)] == [0, 1, 2]
            calls += 2

    async def changer() -> None:
        try:
            await change()
        finally:
            done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(changer())
        for _ in range(callers):
            group.create_task(caller())
    return calls


async def some_calls(service: StockService, count: int = 200) -> None:
    """Wait until that many more calls were served."""
    target = service.calls.get("take", 0) + count
    async with asyncio.timeout(30):
        while service.calls.get("take", 0) < target:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def identity_of(mesh: Mesh) -> WorkloadIdentity:
    assert mesh.identity is not None
    return mesh.identity


@WIRES
async def test_certificates_and_roots_rotate_under_load(made: Rig, wire: str):
    """New certificates, a new root beside the old, everything signed anew, the old root dropped: no call fails.

    Connections are so short-lived here that handshakes happen at every stage.
    """
    service = StockService()
    server, endpoint = await made.serve(service)
    client = made.mesh("orders", wire=wire, connection_age_max_s=0.02, rules={"retries": 0})
    client.set_endpoints({"stock": [endpoint]})
    hosts = {"stock": identity_of(server), "orders": identity_of(client)}

    def install(module: str) -> None:
        key, request = new_key_and_csr()
        hosts[module].install(module, key, made.authority.issue(request, module, 3600))

    async def rotate() -> None:
        await some_calls(service)
        for _ in range(3):
            for module in hosts:
                install(module)
                await some_calls(service, 50)
        made.authority.rotate_root()
        for host in hosts.values():
            host.set_bundle(made.authority.bundle_pem)
            await some_calls(service, 50)
        for module in ("orders", "stock"):
            install(module)
            await some_calls(service, 50)
        newest = made.authority.bundle_pem.split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
        for host in hosts.values():
            host.set_bundle(newest)
            await some_calls(service, 50)
        await some_calls(service)

    assert await under_load(client.stub(Stock, "orders"), rotate) > 1000


async def test_connections_are_replaced_at_their_age_under_load(made: Rig, monkeypatch: pytest.MonkeyPatch):
    """Dozens of connections come and go, no call fails, and none of the old ones stays open."""
    opened: list[object] = []
    original = FrameChannel._open  # pyright: ignore[reportPrivateUsage]

    async def counted(self: FrameChannel) -> object:
        connection = await original(self)
        opened.append(connection)
        return connection

    monkeypatch.setattr(FrameChannel, "_open", counted)
    service = StockService()
    server, endpoint = await made.serve(service)
    client = made.mesh("orders", connection_age_max_s=0.02, rules={"retries": 0})
    client.set_endpoints({"stock": [endpoint]})

    async def wait() -> None:
        async with asyncio.timeout(30):
            while len(opened) < 20:
                await some_calls(service, 20)

    await under_load(client.stub(Stock, "orders"), wait)
    async with asyncio.timeout(30):
        while len(server.port.connections) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert server.port.inflight == 0


async def test_when_the_new_connection_fails_the_old_one_serves_on(made: Rig):
    """An aged connection to a process that accepts no more is better than none."""
    service = StockService()
    server, endpoint = await made.serve(service)
    client = made.mesh("orders", connection_age_max_s=0.01, rules={"retries": 0})
    client.set_endpoints({"stock": [endpoint]})
    stock = client.stub(Stock, "orders")
    assert await stock.take("mug") == "mugx1"
    for listener in server.port._servers:  # pyright: ignore[reportPrivateUsage]
        listener.close()
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert await stock.take("mug") == "mugx1"


@WIRES
@pytest.mark.parametrize("minutes", [-5, 5])
async def test_clocks_five_minutes_apart(made: Rig, wire: str, minutes: int):
    """Certificates of an authority whose clock is off are good, and deadlines travel as durations."""
    clock = ManualClock(datetime.now(UTC) + timedelta(minutes=minutes))
    skewed = CertificateAuthority.load_or_create(made.authority.folder, TRUST_DOMAIN, APP, clock=clock)
    service = StockService()
    server, endpoint = await made.serve(service, rules={"timeout_s": 5})
    client = made.mesh("orders", wire=wire, rules={"retries": 0, "timeout_s": 5})
    for mesh, module in ((server, "stock"), (client, "orders")):
        key, request = new_key_and_csr()
        identity_of(mesh).install(module, key, skewed.issue(request, module, 3600))
    client.set_endpoints({"stock": [endpoint]})
    stock = client.stub(Stock, "orders")
    loop = asyncio.get_running_loop()
    assert await stock.nested(0) == pytest.approx(loop.time() + 5, abs=1)
    assert [n async for n in stock.count(3)] == [0, 1, 2]


async def test_a_drain_is_not_held_up_by_a_call_that_was_cancelled(made: Rig):
    """The last call on a connection that is being drained is cancelled by its caller: the connection closes."""
    service = StockService()
    service.gate = asyncio.Event()
    server, endpoint = await made.serve(service)
    client = made.mesh("orders", rules={"timeout_s": 60})
    client.set_endpoints({"stock": [endpoint]})
    waiting = asyncio.get_running_loop().create_task(client.stub(Stock, "orders").take("mug"))
    async with asyncio.timeout(30):
        while not service.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    draining = asyncio.get_running_loop().create_task(server.port.drain(30))
    await asyncio.sleep(0.02)
    waiting.cancel()
    async with asyncio.timeout(30):
        assert await draining
