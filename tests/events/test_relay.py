"""From the outbox to a broker: in order, nothing lost, and what comes twice has one effect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec
import pytest
from tests.events.shop import Process, Sold, running, shop, until, write
from tests.events.straw_broker import Broker, BrokerSubscription, BrokerTransport

from seamline.events.errors import BrokerError
from seamline.kernel.store import Database
from seamline.module import Module


def books() -> Module:
    module = Module("books")

    @module.on(Sold)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    return module


def sold(first: int, last: int) -> list[Sold]:
    return [Sold(sku="mug", number=number) for number in range(first, last)]


def numbers(broker: Broker) -> list[int]:
    """Of the events that the broker has, in its order."""
    return [msgspec.json.decode(record.data)["number"] for record in broker.topics.get("shop", ())]


async def test_the_outbox_goes_to_the_broker_in_order_and_in_batches(tmp_path: Path):
    """And from there to the handler."""
    broker = Broker()
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all(sold(0, 1000))
        async with process.databases["shop"].transaction():
            await process.events.publish_all(sold(1000, 1200))
        await until(lambda: process.rows_are([("mug", n) for n in range(1200)]))
    assert len(broker.batches) < 20
    assert numbers(broker) == list(range(1200))


async def test_the_relay_goes_on_where_it_was(tmp_path: Path):
    """After a stop, and after the broker was down; what it was told in the meantime is kept."""
    broker = Broker()
    for turn in range(3):
        async with running(tmp_path, shop(), transport=BrokerTransport(broker)) as process:
            broker.down = turn == 1
            await process.events.publish_all(sold(turn * 10, turn * 10 + 10))
            if broker.down:
                await asyncio.sleep(0.15)
                assert len(numbers(broker)) == 10
                broker.down = False
            await until(lambda turn=turn: len(numbers(broker)) == turn * 10 + 10)
    assert numbers(broker) == list(range(30))


async def test_a_process_that_starts_while_the_broker_is_away_comes_up_and_goes_on_when_it_is_back(tmp_path: Path):
    """What is published meanwhile waits in the log; relay and consumers begin by themselves."""
    broker = Broker()
    broker.down = True
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all(sold(0, 20))
        assert numbers(broker) == []
        broker.down = False
        await until(lambda: process.count_is(20))
    assert numbers(broker) == list(range(20))


async def test_what_reaches_the_broker_twice_has_one_effect(tmp_path: Path):
    """The broker stored it, and its answer was lost, as when the relay is killed just then."""
    broker = Broker()
    broker.lose_answers = 2
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all(sold(0, 50))
        await until(lambda: len(numbers(broker)) == 150)
        await process.events.publish_all(sold(50, 60))
        await until(lambda: process.count_is(60))
        assert await process.rows() == [("mug", n) for n in range(60)]


async def test_one_process_relays_at_a_time_and_another_takes_over(tmp_path: Path):
    """No batch is sent by both."""
    broker = Broker()
    first = Process(tmp_path, [shop()], transport=BrokerTransport(broker))
    second = Process(tmp_path, [shop()], transport=BrokerTransport(broker))
    await first.start()
    await second.start()
    try:
        await first.events.publish_all(sold(0, 20))
        await second.events.publish_all(sold(20, 40))
        await until(lambda: len(numbers(broker)) == 40)
        relayed = [process.runtime.stats()["relays"][0]["relayed"] for process in (first, second)]
        assert sorted(relayed) == [0, 40]
        busy, idle = (first, second) if relayed[0] else (second, first)
        await busy.stop()
        await idle.events.publish_all(sold(40, 60))
        await until(lambda: len(numbers(broker)) == 60)
    finally:
        for process in (first, second):
            with contextlib.suppress(Exception):
                await process.stop()


async def test_what_the_broker_never_takes_goes_aside_and_holds_up_nothing(tmp_path: Path):
    """The dead letter is the publishing module's."""
    broker = Broker()
    broker.bytes_max = 200
    async with running(tmp_path, shop(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all([*sold(0, 5), Sold(sku="x" * 300, number=5), *sold(6, 9)])
        await until(lambda: numbers(broker) == [0, 1, 2, 3, 4, 6, 7, 8])
        (letter,) = await process.runtime.admin("dead list", {"module": "shop"})
        assert (letter["group"], letter["type"]) == ("relay/shop", "Sold")
        assert letter["reason"].startswith("SL7211")


async def test_moving_to_a_broker_and_back_repeats_no_effect(tmp_path: Path):
    """The log is relayed from its beginning, of which the group has handled a part; and new events get through."""
    broker = Broker()
    async with running(tmp_path, shop(), books()) as process:
        await process.events.publish_all(sold(0, 20))
        await until(lambda: process.count_is(20))
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all(sold(20, 30))
        await until(lambda: numbers(broker) == list(range(30)))
        await until(lambda: process.count_is(30))
    async with running(tmp_path, shop(), books()) as process:
        await process.events.publish_all(sold(30, 40))
        await until(lambda: process.count_is(40))
        assert await process.rows() == [("mug", n) for n in range(40)]


async def test_moving_to_a_broker_after_a_replay_repeats_no_effect(tmp_path: Path):
    """What was replayed from the log is handled as well; and the broker's own replay still hands everything out."""
    broker = Broker()
    async with running(tmp_path, shop(), books()) as process:
        await process.events.publish_all(sold(0, 20))
        await until(lambda: process.count_is(20))
        await process.runtime.admin("replay", {"module": "books", "group": "enter", "start": "earliest"})
        await until(lambda: process.count_is(40))
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all(sold(20, 21))
        await until(lambda: numbers(broker) == list(range(21)))
        await until(lambda: process.count_is(41))
        assert (await process.rows())[-1] == ("mug", 20)
        await process.runtime.admin("replay", {"module": "books", "group": "enter", "start": "earliest"})
        await until(lambda: process.count_is(62))


async def test_a_group_behind_a_broker_is_replayed_too(tmp_path: Path):
    """Its inbox forgets, so that the effects happen again."""
    broker = Broker()
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(broker)) as process:
        await process.events.publish_all(sold(0, 10))
        await until(lambda: process.count_is(10))
        await process.runtime.admin("replay", {"module": "books", "group": "enter", "start": "4"})
        await until(lambda: process.count_is(16))
        assert (await process.rows())[10:] == [("mug", n) for n in range(4, 10)]


async def test_a_broker_that_takes_no_acknowledgement_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Not once for each event; the effects are there all the same."""

    async def away(_subscription: BrokerSubscription, _deliveries: object) -> None:
        raise BrokerError("the broker does not answer", "Wait")

    monkeypatch.setattr(BrokerSubscription, "acknowledge", away)
    caplog.set_level(logging.WARNING, "seamline.events")
    async with running(tmp_path, shop(), books(), transport=BrokerTransport(Broker())) as process:
        await process.events.publish_all(sold(0, 20))
        await until(lambda: process.count_is(20))
    assert sum("could not acknowledge" in record.message for record in caplog.records) == 1
