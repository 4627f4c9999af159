"""A call means the same whether caller and callee share a process or speak over either wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from time import monotonic

import pytest
from tests.mesh.rig import WAYS, Basket, OutOfStock, Rig, StockService, connect, rig

from seamline import DeadlineExceeded, InternalError, InvalidArgument, PermissionDenied
from seamline.module.context import CURRENT, CallContext

pytestmark = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


async def test_arguments_defaults_and_keywords_arrive(made: Rig, way: str):
    """Positional, keyword and default arguments reach the handler alike."""
    stock = await connect(made, way, StockService())
    assert await stock.take("mug", 3) == "mugx3"
    assert await stock.take(sku="mug") == "mugx1"
    assert await stock.blob(bytes(range(256))) == bytes(range(255, -1, -1))


async def test_a_declared_fault_arrives_as_itself(made: Rig, way: str):
    """The fault's class and fields cross the seam."""
    stock = await connect(made, way, StockService())
    with pytest.raises(OutOfStock) as caught:
        await stock.fail("fault")
    assert caught.value == OutOfStock(sku="mug", left=2)


@pytest.mark.parametrize("how", ["undeclared", "key", "nested"])
async def test_anything_else_arrives_as_internal_error(made: Rig, way: str, how: str):
    """An undeclared exception never crosses as itself, and its text stays where it happened."""
    stock = await connect(made, way, StockService())
    with pytest.raises(InternalError) as caught:
        await stock.fail(how)
    assert str(caught.value) == (
        "SL3007: Stock.fail failed with an error that its contract does not declare. See the log of module 'stock'."
    )
    assert caught.value.__cause__ is None


async def test_a_deadline_ends_the_call_and_the_handler(made: Rig, way: str):
    """The method's own timeout (0.2 s) raises DeadlineExceeded and cancels the handler."""
    service = StockService()
    stock = await connect(made, way, service)
    await stock.take("connected")
    async with asyncio.timeout(30):
        while "dawdle" not in service.calls:  # on a busy machine its time may be over before the handler begins
            with pytest.raises(DeadlineExceeded, match=r"Stock\.dawdle did not answer"):
                await stock.dawdle(60)
    await _until(lambda: service.cancelled == service.calls["dawdle"])
    assert await stock.take("mug") == "mugx1"


async def test_a_nested_call_inherits_the_nearer_deadline(made: Rig, way: str):
    """A call made while serving another may not take longer than that one has left."""
    stock = await connect(made, way, StockService())
    began = monotonic()
    deadline = began + 5  # it has ten by itself
    token = CURRENT.set(CallContext("orders", "gateway", deadline=deadline))
    try:
        found = await stock.nested(5)
        assert deadline - 0.01 <= found <= deadline + 0.01 + (monotonic() - began), "a deadline travels as a duration"
    finally:
        CURRENT.reset(token)
    spent = CURRENT.set(CallContext("orders", "gateway", deadline=monotonic() - 1))
    try:
        with pytest.raises(DeadlineExceeded):
            await stock.take("mug")
    finally:
        CURRENT.reset(spent)


async def test_cancelling_the_caller_cancels_the_handler(made: Rig, way: str):
    """A caller that goes away stops the work that was done for it."""
    service = StockService()
    stock = await connect(made, way, service, rules={"timeout_s": 30})
    await stock.take("warm")
    service.gate = asyncio.Event()
    task = asyncio.get_running_loop().create_task(stock.take("mug"))
    await _until(lambda: service.calls["take"] == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: service.cancelled == 1)


async def test_a_stream_comes_in_order_and_ends(made: Rig, way: str):
    """A thousand items arrive one by one; a fault in the middle arrives after the items before it."""
    service = StockService()
    stock = await connect(made, way, service)
    assert [n async for n in stock.count(1000)] == list(range(1000))
    seen: list[int] = []
    with pytest.raises(OutOfStock) as caught:
        async for number in stock.count(10, fail_at=4):
            seen.append(number)  # noqa: PERF401  # what came before the fault counts
    assert seen == [0, 1, 2, 3]
    assert caught.value.sku == "4"


async def test_leaving_a_stream_closes_the_handler(made: Rig, way: str):
    """A reader that stops early ends the producer, which has not run far ahead."""
    service = StockService()
    stock = await connect(made, way, service)
    stream = stock.count(10_000_000)
    assert await anext(stream) == 0
    assert isinstance(stream, AsyncGenerator)
    await stream.aclose()
    await _until(lambda: service.closed == 1)
    assert service.produced < 2_000_000


async def test_streams_of_the_caller_arrive(made: Rig, way: str):
    """Client and bidirectional streams carry every item."""
    stock = await connect(made, way, StockService())

    async def numbers() -> AsyncIterator[int]:
        for number in range(500):
            yield number

    assert await stock.total(1, numbers()) == 1 + sum(range(500))
    assert [n async for n in stock.double(numbers())] == [n * 2 for n in range(500)]


async def test_arguments_that_do_not_fit_are_refused(made: Rig, way: str):
    """Values of the wrong type are refused before the handler runs, wherever there is a codec between."""
    service = StockService()
    stock = await connect(made, way, service)
    if way == "local":  # values are passed as they are; isolation = "copy" shows what would be refused
        assert await stock.take(["as", "it", "is"]) == "['as', 'it', 'is']x1"  # pyright: ignore[reportArgumentType]
        return
    with pytest.raises(InvalidArgument, match=r"Stock\.take"):
        await stock.take(["not", "text"])  # pyright: ignore[reportArgumentType]
    assert "take" not in service.calls


async def test_shared_state_shows_only_without_copies(made: Rig, way: str):
    """Only in one process without copies does the caller see what the handler does to its argument."""
    stock = await connect(made, way, StockService())
    basket = Basket(["mug"])
    assert (await stock.grow(basket)).lines == ["mug", "grown"]
    assert basket.lines == (["mug", "grown"] if way == "local" else ["mug"])


async def test_policy_denies_by_default_and_says_so(made: Rig, way: str):
    """A module that is not permitted is refused with the line to add, before the handler runs."""
    service = StockService()
    only_take = 'permit(principal == Module::"orders", action == Action::"Stock.take", resource);'
    stock = await connect(made, way, service, text=only_take)
    assert await stock.take("mug") == "mugx1"
    with pytest.raises(
        PermissionDenied, match=r"SL3002: module 'orders' may not call 'Stock\.put' of 'stock'"
    ) as caught:
        await stock.put("mug")
    assert "permit(" in caught.value.remedy
    with pytest.raises(PermissionDenied):
        [n async for n in stock.count(3)]
    assert service.calls == {"take": 1}
    assert service.produced == 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
