"""Each rule of ``[mesh]`` acts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest
from tests.mesh.rig import Rig, Stock, StockService, connect, rig

from seamline import DeadlineExceeded, InternalError, Overloaded, Unavailable
from seamline.mesh import edge as edge_room
from seamline.mesh import mesh as mesh_room
from seamline.mesh.balance import Endpoint
from seamline.mesh.edge import Edge
from seamline.mesh.mesh import Mesh
from seamline.mesh.outcome import Refusal


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


def edge_of(mesh: Mesh, method: str) -> Edge:
    return next(e for edges in mesh._edges.values() for e in edges if e.spec.name == method)  # pyright: ignore[reportPrivateUsage]


async def client_of(made: Rig, *services: StockService, **options: object) -> tuple[Mesh, Stock]:
    """A caller, and one process for each service, named as its version."""
    endpoints = [(await made.serve(service))[1] for service in services]
    client = made.mesh("orders", **options)  # pyright: ignore[reportArgumentType]
    client.set_endpoints({"stock": endpoints})
    return client, client.stub(Stock, "orders")


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the time pass by which callers leave callees alone."""
    for room in (edge_room, mesh_room):
        monkeypatch.setattr(room, "monotonic", lambda: monotonic() + seconds)


def unavailable(times: int, *, started: bool = True):
    """Fails the first calls as a callee that cannot serve now."""
    left = [times]

    def failing(_: str) -> BaseException | None:
        if left[0] <= 0:
            return None
        left[0] -= 1
        error = Unavailable("the handler's process is going away")
        error.started = started
        return Refusal(error)

    return failing


async def test_an_idempotent_method_is_retried(made: Rig):
    """Two failures, then success: the caller sees success."""
    service = StockService()
    service.failing = unavailable(2)
    client, stock = await client_of(made, service)
    assert await stock.put("mug") == 3
    assert edge_of(client, "put").stats.retries == 2


async def test_a_method_that_may_have_happened_is_not_retried(made: Rig):
    """Without @idempotent a call whose handler may have run fails at once."""
    service = StockService()
    service.failing = unavailable(1)
    _, stock = await client_of(made, service)
    with pytest.raises(Unavailable):
        await stock.take("mug")
    assert service.calls["take"] == 1


async def test_a_call_that_certainly_never_began_is_retried(made: Rig):
    """A refusal before the handler ran may be tried again, whatever the method."""
    service = StockService()
    service.failing = unavailable(1, started=False)
    _, stock = await client_of(made, service)
    assert await stock.take("mug") == "mugx1"


async def test_retries_stop_at_their_number_and_their_budget(made: Rig):
    """``retries`` bounds one call, the budget bounds them all: an outage is not multiplied."""
    service = StockService()
    service.failing = unavailable(10**9)
    rules = {
        "retry_budget_ratio": 0.1,
        "retry_budget_min_per_s": 0,
        "circuit_calls_min": 10**6,
        "outlier_failures": 10**6,
    }
    _, stock = await client_of(made, service, rules=rules)
    for _ in range(100):
        with pytest.raises(Unavailable):
            await stock.put("mug")
    assert 100 < service.calls["put"] <= 112


async def test_the_circuit_opens_and_closes_again(made: Rig, monkeypatch: pytest.MonkeyPatch):
    """After too many failures the callee is left in peace; a probe brings it back."""
    service = StockService()
    service.failing = unavailable(20)
    rules = {"retries": 0, "circuit_calls_min": 20, "circuit_open_s": 600, "outlier_failures": 10**6}
    _, stock = await client_of(made, service, rules=rules)
    for _ in range(20):
        with pytest.raises(Unavailable):
            await stock.take("mug")
    with pytest.raises(Unavailable, match="is not called for a while"):
        await stock.take("mug")
    assert service.calls["take"] == 20
    later(monkeypatch, 601)
    assert await stock.take("mug") == "mugx1"
    assert await stock.take("mug") == "mugx1"


async def test_an_outlier_is_ejected_and_comes_back(made: Rig, monkeypatch: pytest.MonkeyPatch):
    """A replica that fails in a row gets no calls for a while; the other serves them."""
    bad, good = StockService("bad"), StockService("good")
    bad.failing = unavailable(10**9)
    rules = {"outlier_failures": 3, "outlier_eject_s": 600, "retries": 2, "circuit_calls_min": 10**6}
    _, stock = await client_of(made, bad, good, rules=rules)
    for _ in range(60):
        assert await stock.look("mug") == "muggood"
    assert bad.calls["look"] <= 6
    bad.failing = lambda _: None
    later(monkeypatch, 601)
    answers = Counter([await stock.look("mug") for _ in range(60)])
    assert answers["mugbad"] > 0


async def test_the_faster_replica_gets_more_calls(made: Rig):
    """Power of two choices on peak-EWMA latency prefers the replica that answers sooner."""
    fast, left = StockService("fast"), set(range(8))

    class Slow(StockService):
        """Answers when the other has given twenty answers, or when all wait here: slow, however busy the machine is."""

        waiting = 0

        async def look(self, sku: str) -> str:
            self.waiting += 1
            until = fast.calls.get("look", 0) + 20
            while fast.calls.get("look", 0) < until and self.waiting < len(left):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            self.waiting -= 1
            return await super().look(sku)

    slow = Slow("slow")
    _, stock = await client_of(made, slow, fast)

    async def shopper(number: int) -> list[str]:
        found = [await stock.look("mug") for _ in range(40)]
        left.discard(number)
        return found

    answers = Counter(a for found in await asyncio.gather(*map(shopper, tuple(left))) for a in found)
    assert answers["mugfast"] > 3 * answers["mugslow"]
    assert answers["mugslow"] > 0


async def test_a_replica_that_answers_nobody_is_left_to_itself_by_those_who_gave_up(made: Rig):
    """Each caller gives up before the deadline would: how long they waited counts, and the other is asked."""
    stuck, quick = StockService("stuck"), StockService("quick")
    stuck.gate, quick.slow_s = asyncio.Event(), 0.005
    _, stock = await client_of(made, stuck, quick)
    patience_s = 0.1
    for _ in range(16):
        began = monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                assert await stock.look("mug") == "mugquick"
            patience_s = max(patience_s, 5 * (monotonic() - began))  # however busy the machine is
    assert 0 < stuck.calls["look"] <= 4


async def test_a_hedge_answers_for_a_slow_replica(made: Rig):
    """A @readonly call asks a second replica after ``hedge_after_ms``; others never do."""
    stuck, quick = StockService("stuck"), StockService("quick")
    stuck.gate = asyncio.Event()
    _, stock = await client_of(made, stuck, quick, rules={"hedge_after_ms": 20, "timeout_s": 60})
    assert [await stock.look("mug") for _ in range(10)] == ["mugquick"] * 10
    assert stuck.calls.get("look", 0) > 0


async def test_canary_weights_split_calls_by_version(made: Rig):
    """Nine in ten calls go to the version that has nine tenths of the weight."""
    one, two = StockService("v1"), StockService("v2")
    _, stock = await client_of(made, one, two, rules={"canary": {"v1": 90, "v2": 10}})
    answers = Counter([await stock.look("mug") for _ in range(400)])
    assert 325 <= answers["mugv1"] <= 390
    _, pinned = await client_of(made, one, two, rules={"canary": {"v2": 1}})
    assert {await pinned.look("mug") for _ in range(20)} == {"mugv2"}


async def test_mirrored_calls_reach_the_shadow_and_nobody_waits(made: Rig):
    """The shadow gets a copy; its failure and its slowness stay its own."""
    live, shadow = StockService("live"), StockService("shadow")
    shadow.failing = unavailable(10**9)
    rules = {"canary": {"live": 1}, "mirror_percent": 100, "mirror_to": "shadow"}
    client, stock = await client_of(made, live, shadow, rules=rules)
    assert [await stock.take("mug") for _ in range(10)] == ["mugx1live"] * 10
    async with asyncio.timeout(30):
        while client.mirror_failures < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert shadow.calls["take"] == 10


@pytest.mark.parametrize("way", ["local", "frames"])
async def test_injected_faults_act_in_every_topology(made: Rig, way: str):
    """Delay, error and drop by rule are the same here and there, and go when the rule goes."""
    service = StockService()
    stock = await connect(made, way, service, rules={"retries": 0})
    client = made.meshes[-1]
    client.override({"Stock.take": {"inject_delay_ms": 60, "inject_delay_percent": 100}})
    started = monotonic()
    assert await stock.take("mug") == "mugx1"
    assert monotonic() - started >= 0.06
    client.override({"Stock": {"inject_error": "unavailable", "inject_error_percent": 100}})
    with pytest.raises(Unavailable, match="injected"):
        await stock.look("mug")
    client.override({"Stock.take": {"inject_error": "internal", "inject_error_percent": 100}})
    with pytest.raises(InternalError, match="injected"):
        await stock.take("mug")
    client.override({"Stock.take": {"inject_drop_percent": 100, "timeout_s": 0.1}})
    with pytest.raises(DeadlineExceeded):
        await stock.take("mug")
    client.override({})
    assert await stock.take("mug") == "mugx1"
    assert service.calls["take"] == 2


@pytest.mark.parametrize("way", ["local", "frames", "http"])
async def test_a_fixed_concurrency_limit_refuses_what_is_too_much(made: Rig, way: str):
    """``concurrency_max`` calls are served; the next is refused before it begins."""
    service = StockService()
    service.gate = asyncio.Event()
    rules = {"concurrency_max": 4, "priority": "critical", "retries": 0, "timeout_s": 60}
    stock = await connect(made, way, service, rules=rules)
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(stock.take(str(n))) for n in range(4)]
    async with asyncio.timeout(30):
        while service.calls.get("take", 0) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    with pytest.raises(Overloaded, match="4 calls are under way"):
        await stock.take("fifth")
    service.gate.set()
    assert await asyncio.gather(*waiting) == [f"{n}x1" for n in range(4)]
    assert await stock.take("sixth") == "sixthx1"


async def test_sheddable_work_goes_first(made: Rig):
    """Near the limit sheddable calls are refused while critical ones still pass."""
    service = StockService()
    service.gate = asyncio.Event()
    server, endpoint = await made.serve(service, rules={"concurrency_max": 10})
    assert server.services.entries["Stock.take"].limit is not None
    loop = asyncio.get_running_loop()
    stubs: dict[str, Stock] = {}
    for priority in ("critical", "normal", "sheddable"):
        client = made.mesh("orders", rules={"priority": priority, "retries": 0, "timeout_s": 60})
        client.set_endpoints({"stock": [endpoint]})
        stubs[priority] = client.stub(Stock, "orders")
    waiting = [loop.create_task(stubs["critical"].take(str(n))) for n in range(7)]
    async with asyncio.timeout(30):
        while service.calls.get("take", 0) < 7:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    with pytest.raises(Overloaded):
        await stubs["sheddable"].take("shed")
    waiting += [loop.create_task(stubs["normal"].take(str(n))) for n in range(2)]
    async with asyncio.timeout(30):
        while service.calls["take"] < 9:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    with pytest.raises(Overloaded):
        await stubs["normal"].take("too much")
    waiting.append(loop.create_task(stubs["critical"].take("last")))
    async with asyncio.timeout(30):
        while service.calls["take"] < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    service.gate.set()
    await asyncio.gather(*waiting)


async def test_a_replica_that_dies_is_replaced_by_the_other(made: Rig):
    """Idempotent calls survive the abrupt end of one of two processes."""
    one, two = StockService("one"), StockService("two")
    mesh_one, first = await made.serve(one)
    _, second = await made.serve(two)
    client = made.mesh("orders")
    client.set_endpoints({"stock": [first, second]})
    stock = client.stub(Stock, "orders")
    answers: Counter[str] = Counter()

    async def shopper() -> None:
        for _ in range(50):
            answers[await stock.look("mug")] += 1

    async def killer() -> None:
        await asyncio.sleep(0.02)
        await mesh_one.port.stop()

    await asyncio.gather(killer(), *(shopper() for _ in range(8)))
    assert sum(answers.values()) == 400


async def test_moving_a_module_fails_no_call(made: Rig):
    """New endpoint published, old one drained: every call of every shopper succeeds."""
    servers = [await made.serve(StockService(str(n))) for n in range(6)]
    client = made.mesh("orders", rules={"retries": 0})
    client.set_endpoints({"stock": [servers[0][1]]})
    stock = client.stub(Stock, "orders")
    done = asyncio.Event()
    served: Counter[str] = Counter()

    async def shopper() -> None:
        while not done.is_set():
            served[await stock.take("m")] += 1

    async def mover() -> None:
        for (old, _), (_, new) in pairwise(servers):
            await asyncio.sleep(0.05)
            client.set_endpoints({"stock": [new]})
            assert await old.port.drain(30)
        done.set()

    await asyncio.gather(mover(), *(shopper() for _ in range(16)))
    assert len(served) == 6


async def test_no_endpoint_is_a_clear_error(made: Rig):
    """A module that runs nowhere, and one whose address nobody listens on."""
    client = made.mesh("orders", rules={"retries": 0, "wait_for_ready_s": 0})
    stock = client.stub(Stock, "orders")
    with pytest.raises(Unavailable, match="no workload that hosts module 'stock' is known"):
        await stock.take("mug")
    client.set_endpoints({"stock": [Endpoint("127.0.0.1", 1)]})
    with pytest.raises(Unavailable, match=r"module 'stock' at 127\.0\.0\.1:1 could not be reached"):
        await stock.take("mug")


async def test_a_callee_that_comes_back_is_waited_for(made: Rig):
    """While its process is replaced calls wait, streams too; those beyond ``wait_for_ready_s`` fail."""
    client = made.mesh("orders", rules={"retries": 0, "wait_for_ready_s": 60, "timeout_s": 60})
    stock = client.stub(Stock, "orders")
    loop = asyncio.get_running_loop()

    async def numbers() -> list[int]:
        return [n async for n in stock.count(3)]

    waiting = [loop.create_task(stock.take(str(n))) for n in range(20)]
    streaming = loop.create_task(numbers())
    await asyncio.sleep(0.1)
    client.set_endpoints({"stock": [Endpoint("127.0.0.1", 1)]})
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in (*waiting, streaming))
    _, endpoint = await made.serve(StockService())
    client.set_endpoints({"stock": [endpoint]})
    assert await asyncio.gather(*waiting) == [f"{n}x1" for n in range(20)]
    assert await streaming == [0, 1, 2]
