"""One process and many are equal: every test here runs in each topology, and its transcript must be the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from kiosk.stock import Basket, OutOfStock, Stock
from kiosk.till import Sale, SoldOut, Till
from seamline import PermissionDenied, Unavailable
from seamline.testing import NotHereError, Transcript
from seamline.testing.app import TopologyApp

pytestmark = pytest.mark.seamline(
    app="tests/testing/kiosk_app", topologies=["local", "copy", "processes", "processes+http", "duo", "monolith"]
)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def test_results_and_faults(topology_app: TopologyApp, transcript: Transcript):
    """Values, defaults, declared faults with their fields: the same bytes."""
    stock = topology_app.stub(Stock)
    await transcript.call("take", stock.take("pen", count=2))
    await transcript.call("take one", stock.take("pen"))
    await transcript.call("count", stock.count("pen"))
    await transcript.call("too many", stock.take("pen", 1000))
    await transcript.call("fault", stock.fail("fault"))
    await transcript.call("sold", topology_app.stub(Till).sell("pen"))
    await transcript.call("sold out", topology_app.stub(Till).sell("boat"))


async def test_an_undeclared_exception_does_not_cross(topology_app: TopologyApp, transcript: Transcript):
    """It arrives as InternalError, and nothing of it leaks."""
    await transcript.call("undeclared", topology_app.stub(Stock).fail("undeclared"))
    assert b"SL3007" in transcript.content
    assert b"hunter2" not in transcript.content


@pytest.mark.parametrize("how", ["undeclared", "foreign", "cancelled"])
async def test_what_a_handler_must_not_raise(topology_app: TopologyApp, transcript: Transcript, how: str):
    """Whatever it raises that the contract does not declare is an InternalError; a caller is not cancelled by it."""
    await transcript.call(how, topology_app.stub(Stock).fail(how))
    assert b"SL3007" in transcript.content


async def test_a_fault_does_not_cross_two_seams(topology_app: TopologyApp, transcript: Transcript):
    """What the till lets through of the stock's faults is not the till's own."""
    await transcript.call("oversell", topology_app.stub(Till).oversell("pen"))
    assert b"SL3007" in transcript.content


@pytest.mark.seamline(topologies=["copy", "processes", "processes+http", "duo", "monolith"])
async def test_values_that_do_not_fit(topology_app: TopologyApp, transcript: Transcript):
    """Arguments and results of other types are refused where values are copied or sent; local passes them on."""
    stock = topology_app.stub(Stock)
    await transcript.call("argument", stock.take("pen", "many"))  # pyright: ignore[reportArgumentType]
    await transcript.call("missing", stock.take(None))  # pyright: ignore[reportArgumentType]
    await transcript.call("result", stock.fail("not a str"))
    assert b"SL3001" in transcript.content
    assert b"SL3007" in transcript.content


async def test_arguments_are_not_shared(topology_app: TopologyApp):
    """What the callee does to an argument is not seen by the caller, except in local, which is quicker for it."""
    basket = Basket(["mug"])
    grown = await topology_app.stub(Stock).grow(basket)
    assert grown.lines == ["mug", "grown"]
    assert (basket.lines == ["mug"]) == (topology_app.topology != "local")


async def test_a_deadline_passes(topology_app: TopologyApp, transcript: Transcript):
    """The method's own 0.3 s end the call, wherever the callee dawdles."""
    await transcript.call("dawdle", topology_app.stub(Stock).dawdle())
    assert b"SL3004" in transcript.content


async def test_cancelling_reaches_the_handler(topology_app: TopologyApp):
    """A caller that goes away stops the work, also across processes."""
    stock = topology_app.stub(Stock)
    before = await stock.cancelled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await stock.hang()
    async with asyncio.timeout(5):
        while await stock.cancelled() == before:  # noqa: ASYNC110  # it tells when asked
            await asyncio.sleep(0.01)
    assert await stock.cancelled() == before + 1


async def test_streams(topology_app: TopologyApp, transcript: Transcript):
    """From the callee, to it, both ways, and ended by a fault in the middle."""
    stock = topology_app.stub(Stock)
    await transcript.stream("countdown", stock.countdown(4))
    await transcript.stream("fault in the middle", stock.countdown(4, fault_at=2))
    await transcript.call("total", stock.total(numbers(100)))
    await transcript.stream("doubled", stock.doubled(numbers(5)))
    async for number in stock.countdown(1_000_000):
        transcript.add("the first of many", number)
        break


async def test_a_caller_has_one_deadline_for_all_it_calls(topology_app: TopologyApp, transcript: Transcript):
    """The till's 0.3 s end the stock's work too, which alone had 10."""
    before = await topology_app.stub(Stock).cancelled()
    await transcript.call("hurry", topology_app.stub(Till).hurry())
    assert b"SL3004" in transcript.content
    async with asyncio.timeout(5):
        while await topology_app.stub(Stock).cancelled() == before:  # noqa: ASYNC110  # it tells when asked
            await asyncio.sleep(0.01)


async def test_a_stream_that_is_left_is_closed(topology_app: TopologyApp):
    """The handler's own clean-up runs, wherever it is."""
    stock = topology_app.stub(Stock)
    before = await stock.streams_closed()
    items = stock.countdown(1_000_000)
    assert await anext(items) == 1_000_000
    await items.aclose()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    async with asyncio.timeout(5):
        while await stock.streams_closed() == before:  # noqa: ASYNC110  # it tells when asked
            await asyncio.sleep(0.01)


async def test_policy_denies_the_same(topology_app: TopologyApp, transcript: Transcript):
    """Who may not call is refused with the same words, whoever judges; who may, may."""
    await transcript.call("test may", topology_app.stub(Stock).who())
    await transcript.call("till may", topology_app.stub(Stock, caller="till").count("nothing"))
    await transcript.call("till may not", topology_app.stub(Stock, caller="till").who())
    await transcript.call("desk may not", topology_app.stub(Stock, caller="desk").count("nothing"))
    await transcript.stream("desk may not stream", topology_app.stub(Stock, caller="desk").countdown(3))
    await transcript.call("an inner call may not", topology_app.stub(Till).peek())
    assert transcript.content.count(b"SL3002") == 3


@pytest.mark.seamline(policy='permit(principal == Module::"desk", action == Action::"Stock.who", resource);')
async def test_a_policy_of_the_test(topology_app: TopologyApp, transcript: Transcript):
    """Cedar text in the marker holds in this test's application only."""
    await transcript.call("desk may here", topology_app.stub(Stock, caller="desk").who())
    assert b"desk asks stock" in transcript.content


async def test_the_public_side(topology_app: TopologyApp, transcript: Transcript):
    """Status, headers and bodies through the gateway; cookies, redirects, forms and streams."""
    http = topology_app.http
    transcript.add("sell", await http.post("/sell", form={"sku": "pen"}))
    transcript.add("sold out", await http.post("/sell", form={"sku": "boat"}))
    transcript.add("nothing", await http.get("/nowhere"))
    transcript.add("not followed", await http.get("/again"))
    transcript.add("followed", await http.get("/again", follow=True))
    assert http.cookies == {"seen": "yes"}
    async with http.stream("GET", "/count") as response:
        transcript.add("streamed", {"status": response.status, "body": b"".join([part async for part in response])})


async def test_the_public_is_refused_the_same(topology_app: TopologyApp, transcript: Transcript):
    """A face that policy does not show to the public is shown nowhere, be it in the gateway's process or not."""
    answer = await topology_app.http.get("/shelf")
    assert answer.status == 403
    transcript.alias(answer.json()["request_id"], "the request")
    transcript.add("refused", answer)


@pytest.mark.seamline(
    policy='permit(principal == Module::"gateway", action == Action::"http", resource);',
    topologies=["local", "copy", "processes", "duo", "monolith"],
)
async def test_the_public_is_let_in_the_same(topology_app: TopologyApp, transcript: Transcript):
    """And with a permit it is shown everywhere. (Faces elsewhere are reached in frames only.)"""
    transcript.add("shown", await topology_app.http.get("/shelf"))
    assert b"the shelf" in transcript.content


class FewStock(Stock):
    """A shelf with one thing on it."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def take(self, sku: str, count: int = 1) -> int:
        self.taken.append(sku)
        if len(self.taken) > 1:
            raise OutOfStock(sku=sku)
        return 41

    async def count(self, sku: str) -> int:
        return 42

    async def grow(self, basket: Basket) -> Basket:
        return basket

    async def fail(self, how: str) -> str:
        message = "of the fake"
        raise RuntimeError(message)

    async def dawdle(self) -> str:
        return ""

    async def hang(self) -> None: ...

    async def cancelled(self) -> int:
        return 0

    async def streams_closed(self) -> int:
        return 0

    async def who(self) -> str:
        return "a fake"

    async def countdown(self, start: int, fault_at: int = -1) -> AsyncIterator[int]:
        yield start

    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    async def doubled(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item


async def test_a_fake_stands_in(topology_app: TopologyApp, transcript: Transcript):
    """Modules and the test call the fake while it stands in, under the same policy, and the real one after it."""
    till, stock = topology_app.stub(Till), topology_app.stub(Stock)
    with topology_app.fake(Stock, FewStock()) as few:
        await transcript.call("sold from the fake", till.sell("unicorn"))
        await transcript.call("then none", till.sell("unicorn"))
        await transcript.call("streamed", stock.countdown(3).__anext__())
        await transcript.call("its own mistakes stay inside", stock.fail("x"))
        await transcript.call("policy holds", topology_app.stub(Stock, caller="desk").count("mug"))
        assert few.taken == ["unicorn", "unicorn"]
    await transcript.call("the real one again", till.sell("unicorn"))
    await transcript.call("who", stock.who())


class EmptyTill(Till):
    """Has sold nothing but air."""

    async def sell(self, sku: str) -> Sale:
        raise SoldOut(sku=f"fake {sku}")

    async def sales(self) -> list[str]:
        return ["air"]

    async def wait(self, seconds: float) -> datetime:
        raise NotImplementedError

    async def peek(self) -> str:
        return ""

    async def oversell(self, sku: str) -> int:
        return 0

    async def hurry(self) -> None: ...


async def test_a_fake_of_a_neighbour(topology_app: TopologyApp, transcript: Transcript):
    """A module that shares the gateway's process in some topologies is replaced there too, and comes back."""
    http = topology_app.http
    with topology_app.fake(Till, EmptyTill()):
        transcript.add("sales of the fake", await http.get("/sales"))
        transcript.add("its fault", await http.post("/sell", form={"sku": "pen"}))
    sales = await http.get("/sales")
    assert sales.status == 200
    assert "air" not in sales.text


async def test_injected_faults(topology_app: TopologyApp, transcript: Transcript):
    """Errors and drops between modules and from the test, for a method or a contract; gone after the block."""
    till, stock = topology_app.stub(Till), topology_app.stub(Stock)
    with topology_app.inject(Stock.take, error="unavailable"):
        await transcript.call("inner", till.sell("pen"))
        await transcript.call("outer", stock.take("pen", 0))
        await transcript.call("another method", stock.count("boat"))
        with topology_app.inject(Stock, error="resource_exhausted"):
            await transcript.call("both rules", stock.count("boat"))
    with topology_app.inject("Stock.dawdle", drop=True):
        await transcript.call("dropped", stock.dawdle())
    with topology_app.inject(Stock.count, delay_ms=300):
        began = asyncio.get_running_loop().time()
        await transcript.call("delayed", stock.count("boat"))
        assert asyncio.get_running_loop().time() - began >= 0.29
    await transcript.call("over", stock.count("boat"))


async def test_the_clock_is_the_tests(topology_app: TopologyApp, transcript: Transcript):
    """It stands still, moves when told, and wakes who sleeps; every module sees the same."""
    till, clock = topology_app.stub(Till), topology_app.clock
    transcript.add("before", (await till.sell("pen")).at)
    clock.advance(3600)
    sold = await till.sell("pen")
    transcript.add("after an hour", sold.at)
    assert sold.at == clock.now()
    waiting = asyncio.get_running_loop().create_task(till.wait(5))
    for _ in range(5):  # calls overtake nobody: when they have come back, the one before them is asleep
        await till.sales()
    clock.advance(4)
    assert not waiting.done()
    clock.advance(1)
    async with asyncio.timeout(5):
        transcript.add("woken", await waiting)


async def test_what_was_written_survives_a_restart(topology_app: TopologyApp, transcript: Transcript):
    """The same data directory, new hosts."""
    await topology_app.stub(Till).sell("mug")
    before = await topology_app.stub(Till).sales()
    topology_app.restart()
    after = await topology_app.stub(Till).sales()
    assert after == before
    transcript.add("last sale", after[-1])
    transcript.add("over HTTP", (await topology_app.http.get("/sales")).status)


@pytest.mark.seamline(fresh=True)
async def test_a_fresh_application_has_fresh_data(topology_app: TopologyApp, transcript: Transcript):
    """Marked fresh, a test starts with nothing sold, at the beginning of time."""
    transcript.add("sales", await topology_app.stub(Till).sales())
    transcript.add("now", topology_app.clock.now())
    assert transcript.content.startswith(b'{"call":"sales","value":[]}')


async def test_kill_and_crash_where_there_are_processes(topology_app: TopologyApp):
    """Where there are processes one can die and comes back; in one process the kit refuses, and says so."""
    stock = topology_app.stub(Stock)
    if topology_app.one_process:
        with pytest.raises(NotHereError):
            topology_app.kill("stock")
        with pytest.raises(NotHereError), topology_app.inject(Stock.take, crash=True):
            pass
        return
    await stock.take("mug")
    topology_app.kill("stock")
    topology_app.wait_ready()
    assert await stock.count("mug") == 5  # the shelf is memory, and its process is a new one
    with topology_app.inject(Stock.take, crash=True), pytest.raises(Unavailable):
        await stock.take("mug")
    topology_app.wait_ready()
    assert await stock.take("mug") == 4


def test_a_test_without_an_event_loop(topology_app: TopologyApp):
    """The application has a loop of its own, so that any test can run one."""
    assert asyncio.run(topology_app.stub(Stock).count("boat")) == 0
    with pytest.raises(PermissionDenied):
        asyncio.run(topology_app.stub(Stock, caller="desk").count("boat"))
