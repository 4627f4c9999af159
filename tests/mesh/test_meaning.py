"""Handlers and callers that misbehave meet the same end in every way, and no call is left without an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from time import monotonic

import pytest
from tests.mesh.rig import WAYS, OutOfStock, Rig, Stock, StockService, connect, rig

from seamline import DeadlineExceeded, InternalError, InvalidArgument, Overloaded, Unauthenticated
from seamline.mesh import mesh as mesh_module
from seamline.mesh.balance import Endpoint

REMOTE = pytest.mark.parametrize("way", ["frames", "http"])
EVERY = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


class Careless(StockService):
    """Handlers as a tired person writes them."""

    async def take(self, sku: str, count: int = 1) -> str:
        self.calls["take"] = self.calls.get("take", 0) + 1
        if sku == "cancelled":
            own = asyncio.get_running_loop().create_task(asyncio.sleep(60))
            own.cancel()
            await own
        if sku == "large":
            return "x" * count
        if sku == "unfit":
            return object()  # pyright: ignore[reportReturnType]
        raise OutOfStock(sku=object())  # pyright: ignore[reportArgumentType]

    async def dawdle(self, seconds: float) -> str:
        end = monotonic() + seconds
        while monotonic() < end:
            try:
                await asyncio.sleep(end - monotonic())
            except asyncio.CancelledError:
                self.cancelled += 1
        return "late"

    def count(self, upto: int, fail_at: int = -1) -> AsyncIterator[int]:
        if upto == 0:
            raise KeyError(fail_at)
        return self._numbers(upto)

    async def _numbers(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number if number != 2 else "two"  # pyright: ignore[reportReturnType]


@EVERY
async def test_a_cancellation_of_the_handlers_own_is_an_error_and_not_a_silence(made: Rig, way: str):
    """A CancelledError that nobody asked for reaches the caller as InternalError, at once."""
    stock = await connect(made, way, Careless(), rules={"timeout_s": 60})
    async with asyncio.timeout(30):
        with pytest.raises(InternalError):
            await stock.take("cancelled")


@EVERY
async def test_a_streaming_handler_that_fails_before_it_streams(made: Rig, way: str):
    """An exception from the method itself, not from its iterator, is answered too."""
    stock = await connect(made, way, Careless(), rules={"timeout_s": 60})
    async with asyncio.timeout(30):
        with pytest.raises(InternalError):
            [n async for n in stock.count(0)]


@pytest.mark.parametrize("way", ["copy", "frames", "http"])
async def test_an_answer_that_cannot_be_written_is_an_error(made: Rig, way: str):
    """A result, an item or a fault of another type than declared is the handler's failure."""
    stock = await connect(made, way, Careless(), rules={"timeout_s": 60})
    async with asyncio.timeout(30):
        for sku in ("unfit", "fault"):
            with pytest.raises(InternalError):
                await stock.take(sku)
        seen: list[int] = []
        with pytest.raises(InternalError):
            async for number in stock.count(5):
                seen.append(number)  # noqa: PERF401  # what came before the failure counts
    assert seen == [0, 1]


@EVERY
async def test_an_answer_after_the_deadline_is_too_late(made: Rig, way: str):
    """A handler that clings to life past its deadline gives nobody an answer, and the caller's task is unharmed."""
    service = Careless()
    stock = await connect(made, way, service)
    await stock.blob(b"connected")
    async with asyncio.timeout(30):
        while not service.cancelled:  # on a busy machine its time may be over before the handler begins
            with pytest.raises(DeadlineExceeded):
                await stock.dawdle(0.4)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@EVERY
async def test_a_stream_that_never_waits_still_ends_at_its_deadline(made: Rig, way: str):
    """The deadline holds for the whole stream, not only for a wait within it."""
    stock = await connect(made, way, StockService(), rules={"timeout_s": 0.3})
    started = monotonic()
    with pytest.raises(DeadlineExceeded):
        async for _ in stock.count(10**9):
            pass
    assert monotonic() - started < 10


@pytest.mark.parametrize("way", ["copy", "frames", "http"])
async def test_an_item_of_the_caller_that_does_not_fit_is_its_own_mistake(made: Rig, way: str):
    """InvalidArgument, whether it cannot be written or cannot be read."""
    stock = await connect(made, way, StockService())

    async def items(bad: object) -> AsyncIterator[int]:
        yield 1
        yield bad  # pyright: ignore[reportReturnType]

    for bad in ("text", object()):
        with pytest.raises(InvalidArgument, match=r"an item of the stream given to Stock\.total does not fit"):
            await stock.total(0, items(bad))


@EVERY
async def test_an_error_in_the_callers_own_stream_is_seen(made: Rig, way: str):
    """As itself, and never as a stream that was merely short."""
    stock = await connect(made, way, StockService())

    async def items() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stock.total(0, items())


@REMOTE
async def test_what_ran_is_not_run_again_because_its_answer_is_too_long(made: Rig, way: str):
    """A result that does not fit into a frame is an error of a call that happened: no retry."""
    service = Careless()
    stock = await connect(made, way, service, frame_bytes_max=10_000)
    with pytest.raises(InternalError, match="frame_bytes_max"):
        await stock.take("large", 20_000)
    assert service.calls["take"] == 1


@REMOTE
async def test_whatever_was_not_begun_is_tried_elsewhere(made: Rig, way: str):
    """Calls and streams of every kind find the live replica beside a dead address; nothing runs twice."""
    service = StockService()
    _, endpoint = await made.serve(service)
    client = made.mesh("orders", wire=way, rules={"outlier_failures": 10**6, "circuit_calls_min": 10**6})
    client.set_endpoints({"stock": [endpoint, Endpoint("127.0.0.1", 1)]})
    stock = client.stub(Stock, "orders")

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    for _ in range(12):
        assert await stock.take("mug") == "mugx1"
        assert [n async for n in stock.count(3)] == [0, 1, 2]
        assert await stock.total(0, numbers()) == 3
        assert [n async for n in stock.double(numbers())] == [2, 4]
    assert service.calls["take"] == 12


@REMOTE
async def test_moving_lets_calls_under_way_end(made: Rig, way: str):
    """The endpoint leaves while calls are under way there: they are answered, later ones go to the new place."""
    old, new = StockService("old"), StockService("new")
    old.gate = asyncio.Event()
    (_, first), (_, second) = await made.serve(old), await made.serve(new)
    client = made.mesh("orders", wire=way, rules={"retries": 0, "timeout_s": 30})
    client.set_endpoints({"stock": [first]})
    stock = client.stub(Stock, "orders")
    waiting = [asyncio.get_running_loop().create_task(stock.take("mug")) for _ in range(5)]
    async with asyncio.timeout(30):
        while old.calls.get("take", 0) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    client.set_endpoints({"stock": [second]})
    assert await stock.take("mug") == "mugx1new"
    old.gate.set()
    assert await asyncio.gather(*waiting) == ["mugx1old"] * 5


async def test_a_move_while_connecting_is_no_cancellation(made: Rig):
    """Calls that wait for a connection to a place that is given up go on to the new one."""
    with _silent_listener() as silent:
        _, endpoint = await made.serve(StockService())
        client = made.mesh("orders", rules={"timeout_s": 30})
        client.set_endpoints({"stock": [silent]})
        stock = client.stub(Stock, "orders")
        waiting = [asyncio.get_running_loop().create_task(stock.take("mug")) for _ in range(3)]
        await asyncio.sleep(0.05)
        client.set_endpoints({"stock": [endpoint]})
        assert await asyncio.gather(*waiting) == ["mugx1"] * 3


async def test_changing_rules_under_calls_keeps_the_count_of_places(made: Rig):
    """A call gives its place back in the limit in which it took it."""
    service = StockService()
    service.gate = asyncio.Event()
    server, endpoint = await made.serve(service, rules={"concurrency_max": 3})
    client = made.mesh("orders", rules={"retries": 0, "timeout_s": 30, "priority": "critical"})
    client.set_endpoints({"stock": [endpoint]})
    stock = client.stub(Stock, "orders")
    waiting = [asyncio.get_running_loop().create_task(stock.take("mug")) for _ in range(3)]
    async with asyncio.timeout(30):
        while service.calls.get("take", 0) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    entry = server.services.entries["Stock.take"]
    server.override({"Stock": {"timeout_s": 20}})
    with pytest.raises(Overloaded):
        await stock.take("fourth")
    server.override({"Stock": {"concurrency_max": 5}})
    service.gate.set()
    await asyncio.gather(*waiting)
    assert entry.limit is not None
    assert entry.limit.inflight == 0


async def test_a_shadow_that_does_not_keep_up_gets_fewer(made: Rig, monkeypatch: pytest.MonkeyPatch):
    """Mirrored calls under way are bounded."""
    monkeypatch.setattr(mesh_module, "MIRRORED_MAX", 4)
    live, shadow = StockService("live"), StockService("shadow")
    shadow.gate = asyncio.Event()
    (_, first), (_, second) = await made.serve(live), await made.serve(shadow)
    client = made.mesh("orders", rules={"canary": {"live": 1}, "mirror_percent": 100, "mirror_to": "shadow"})
    client.set_endpoints({"stock": [first, second]})
    stock = client.stub(Stock, "orders")
    for _ in range(30):
        assert await stock.take("mug") == "mugx1live"
    assert shadow.calls.get("take", 0) <= 4
    assert client.mirror_failures == 26
    shadow.gate.set()


async def test_a_slow_answer_costs_a_replica_also_when_it_never_comes(made: Rig):
    """A deadline that passed counts as latency, so that a replica which hangs gets fewer calls."""
    service = StockService()
    _, endpoint = await made.serve(service)
    client = made.mesh("orders", rules={"retries": 0})
    client.set_endpoints({"stock": [endpoint]})
    await client.stub(Stock, "orders").take("connected")
    client.override({"Stock": {"timeout_s": 0.2}})
    service.gate = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await client.stub(Stock, "orders").take("mug")
    replica = client._replicas["stock"]._all[endpoint]  # pyright: ignore[reportPrivateUsage]
    assert replica.latency_s >= 0.05
    assert replica.inflight == 0


async def test_a_module_without_a_certificate_gets_an_error_of_calls(made: Rig):
    """What the identity says crosses as Unauthenticated, and not as an error of another room."""
    _, endpoint = await made.serve(StockService())
    client = made.mesh("orders", rules={"retries": 0})
    client.set_endpoints({"stock": [endpoint]})
    with pytest.raises(Unauthenticated, match="'stranger' has no certificate here"):
        await client.stub(Stock, "stranger").take("mug")


@contextlib.contextmanager
def _silent_listener() -> Generator[Endpoint]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Endpoint("127.0.0.1", listener.getsockname()[1])
