"""FastStream apps in a Seamline application, on the brokers that both know and on FastStream's own for tests."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import textwrap
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from faststream import Context, StreamMessage
from faststream.confluent import KafkaBroker
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.redis import RedisBroker
from tests.events.kafka_mock import KafkaMock
from tests.events.servers import Nats, Redis
from tests.events.shop import OWNERS, Process, Sold, running, shop, until, write

from seamline import Event
from seamline.events.bridges import faststream
from seamline.events.bridges.faststream import FastStreamBridge
from seamline.events.errors import EventDecodeError
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.module.wiring import Wiring

TestNatsBroker.__test__ = False  # pyright: ignore[reportAttributeAccessIssue]  # it is no test, whatever its name


class Billed(Event, key="sku"):
    """Of module ``books``, told by a FastStream app."""

    sku: str
    number: int


class OrderPlaced(Event, key="order_id"):
    """Of module ``shop``, in the documentation's example."""

    order_id: str


class InvoicePaid(Event, key="order_id"):
    """Of module ``billing``, in the documentation's example."""

    order_id: str


class Shelf:
    """One place to publish to and to subscribe at, in the words of one broker."""

    def __init__(self, broker: Any, word: str, options: dict[str, Any], *, real: bool = True) -> None:
        self.broker, self._word, self._options, self.real = broker, word, options, real

    def publisher(self, place: str) -> Any:
        return self.broker.publisher(**{self._word: place})

    def subscriber(self, place: str) -> Any:
        if self._word == "topic":
            return self.broker.subscriber(place, group_id=f"ledger.{place}", **self._options)
        return self.broker.subscriber(**{self._word: place}, **self._options)

    async def publish(self, place: str, key: str, body: Any) -> None:
        keyed = {"key": key.encode()} if self._word == "topic" else {}
        await self.broker.publish(body, **{self._word: place}, **keyed)


@pytest.fixture(
    params=[
        pytest.param("nats", marks=pytest.mark.needs_server),
        pytest.param("redis", marks=pytest.mark.needs_server),
        "kafka-mock",
        "nats-in-memory",
    ]
)
async def shelf(request: pytest.FixtureRequest) -> AsyncGenerator[Shelf]:
    with ExitStack() as stack:
        if request.param == "nats-in-memory":
            yield Shelf(NatsBroker(), "subject", {}, real=False)
        elif request.param == "kafka-mock":
            kafka = KafkaMock()
            stack.callback(kafka.close)
            for topic in ("shop.sold", "books.billed"):
                kafka.topic(topic, 4)
            options = {"auto_offset_reset": "earliest"}
            broker = KafkaBroker(kafka.servers, allow_auto_create_topics=False)
            yield Shelf(broker, "topic", options)
        else:
            server = Nats if request.param == "nats" else Redis
            if not server.installed():
                pytest.skip(f"{server.program} is not installed")
            url = stack.enter_context(server()).url()
            yield Shelf(NatsBroker(url), "subject", {}) if server is Nats else Shelf(RedisBroker(url), "stream", {})


@asynccontextmanager
async def hosted(folder: Path, books: Module, broker: Any) -> AsyncGenerator[Process]:
    """The module's process, with the hooks that the host runs."""
    async with running(folder, shop(), books, owners={**OWNERS, Billed: "books"}) as process:
        wiring = Wiring(books, {}, process._platform())
        for hook in books.startups:
            await wiring.build(hook)
        try:
            yield process
        finally:
            for hook in books.shutdowns:
                await wiring.build(hook)


async def test_events_go_out_and_come_in(shelf: Shelf, tmp_path: Path) -> None:
    """A FastStream subscriber gets a module's events, typed; what its publisher says reaches @module.on handlers."""
    books = Module("books")
    bridge = FastStreamBridge(books, shelf.broker, app="test")
    bridge.send(Sold, shelf.publisher("shop.sold"))
    bridge.receive(Billed, shelf.subscriber("books.billed"))
    heard: list[tuple[Sold, dict[str, Any]]] = []

    @shelf.subscriber("shop.sold")
    async def bill(sold: Sold, message: Annotated[StreamMessage[Any], Context("message")]) -> None:
        heard.append((sold, message.headers))
        await shelf.publish("books.billed", sold.sku, {"sku": sold.sku, "number": sold.number * 10})

    @books.on(Billed)
    async def enter(event: Billed, db: Database) -> None:
        await write(db, event.sku, event.number)

    async with AsyncExitStack() as stack:
        if not shelf.real:
            await stack.enter_async_context(TestNatsBroker(shelf.broker))
        process = await stack.enter_async_context(hosted(tmp_path, books, shelf.broker))
        await until(process.joined)
        for number in range(5):
            await process.events.publish(Sold(sku="mug", number=number))
        await until(lambda: process.rows_are([("mug", 10 * number) for number in range(5)]))
    assert [sold for sold, _ in heard] == [Sold(sku="mug", number=number) for number in range(5)]
    prefix = "ce_" if isinstance(shelf.broker, KafkaBroker) else "ce-"
    headers = heard[0][1]
    assert headers[f"{prefix}type"] == "test.shop.Sold"
    assert headers[f"{prefix}source"] == "/test/shop"
    assert headers[f"{prefix}partitionkey"] == "mug"
    assert headers[f"{prefix}id"]


async def test_message_that_comes_again_is_one_event(tmp_path: Path) -> None:
    """A CloudEvent that FastStream delivers twice is published once; one without an id cannot be told apart."""
    broker = NatsBroker()
    books = Module("books")
    FastStreamBridge(books, broker, app="test").receive(Billed, broker.subscriber("billed"))

    @books.on(Billed)
    async def enter(event: Billed, db: Database) -> None:
        await write(db, event.sku, event.number)

    async with TestNatsBroker(broker), hosted(tmp_path, books, broker) as process:
        headers = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/erp", "ce-type": "billed"}
        for _ in range(3):
            await broker.publish({"sku": "mug", "number": 1}, "billed", headers=headers)
        await broker.publish({"sku": "mug", "number": 2}, "billed", headers=headers | {"ce-id": "8"})
        for _ in range(2):
            await broker.publish({"sku": "mug", "number": 3}, "billed")
        await until(lambda: process.rows_are([("mug", 1), ("mug", 2), ("mug", 3), ("mug", 3)]))


async def test_message_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """FastStream hears which field is wrong, and nothing is published."""
    broker = NatsBroker()
    books = Module("books")
    FastStreamBridge(books, broker, app="test").receive(Billed, broker.subscriber("billed"))
    async with TestNatsBroker(broker), hosted(tmp_path, books, broker) as process:
        with pytest.raises(EventDecodeError, match="number"):
            await broker.publish({"sku": "mug", "number": "many"}, "billed")
        assert await process.runtime.logs["books"].ends() == (1, 0)


async def test_message_before_the_start_is_an_error() -> None:
    """Where somebody else runs the broker, the module is not there to publish: FastStream hears so."""
    broker = NatsBroker()
    FastStreamBridge(Module("books"), broker, app="test").receive(Billed, broker.subscriber("billed"))
    async with TestNatsBroker(broker):
        with pytest.raises(EventDecodeError, match="before the module was started"):
            await broker.publish({"sku": "mug", "number": 1}, "billed")


async def test_example_runs(tmp_path: Path) -> None:
    """What the bridge's documentation shows works as it stands, with FastStream's broker for tests around it."""

    names: dict[str, Any] = {"Module": Module, "OrderPlaced": OrderPlaced, "InvoicePaid": InvoicePaid}
    text = (faststream.__doc__ or "").split("::\n", 1)[1].split("\nMessages are", 1)[0]
    exec(textwrap.dedent(text), names)  # our own documentation
    billing, broker = names["billing"], names["broker"]
    paid: list[str] = []

    @billing.on(InvoicePaid, outside=True)
    async def note(event: InvoicePaid) -> None:
        paid.append(event.order_id)

    orders = Module("shop")
    owners: dict[type[Event], str] = {OrderPlaced: "shop", InvoicePaid: "billing"}
    async with TestNatsBroker(broker), running(tmp_path, orders, billing, owners=owners) as process:
        wiring = Wiring(billing, {}, process._platform())
        for hook in billing.startups:
            await wiring.build(hook)
        await until(process.joined)
        await process.events.publish(OrderPlaced(order_id="o-1"))
        await until(lambda: paid == ["o-1"])
