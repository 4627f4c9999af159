"""A broker in memory, shared by runtimes of one test: what it acknowledged it keeps, and it may be down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from seamline.events.errors import BrokerError, EventTooLargeError
from seamline.events.record import Record
from seamline.events.transport import Delivery, Lag, Promises
from seamline.module.module import Start


class Broker:
    """Topics as lists, and how far each group is."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {}
        self.positions: dict[tuple[str, str], int] = {}
        self.down = False
        self.bytes_max = 1_000_000
        self.batches: list[int] = []
        self.lose_answers = 0
        """So many batches are stored, and the publisher is told that they failed."""
        self.arrived = asyncio.Condition()


class BrokerTransport:
    """One process's way to it."""

    promises = Promises(
        name="straw", durable_when="never", order="per topic", redelivery="after close", replay="by offset"
    )
    relayed = True

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def start(self) -> None:
        if self._broker.down:
            raise BrokerError("the broker does not answer", "Wait")

    async def publish(self, topic: str, records: Sequence[Record]) -> None:
        broker = self._broker
        if broker.down:
            raise BrokerError("the broker is down", "Wait")
        if any(len(record.data) > broker.bytes_max for record in records):
            raise EventTooLargeError("an event is larger than the broker takes", "Send less")
        await asyncio.sleep(0)
        broker.topics.setdefault(topic, []).extend(records)
        broker.batches.append(len(records))
        async with broker.arrived:
            broker.arrived.notify_all()
        if broker.lose_answers:
            broker.lose_answers -= 1
            raise BrokerError("the broker's answer was lost", "Wait")

    async def subscribe(self, topic: str, group: str, types: frozenset[str], start: Start) -> BrokerSubscription:
        return BrokerSubscription(self._broker, topic, group, types)

    async def seek(self, topic: str, group: str, start: Start) -> None:
        self._broker.positions[topic, group] = 0 if start == "earliest" else int(str(start))

    async def close(self) -> None: ...


class BrokerSubscription:
    """One reader for each group, which is all that the tests of the relay need."""

    replayed_ms = 0
    claims = 0

    def __init__(self, broker: Broker, topic: str, group: str, types: frozenset[str]) -> None:
        self._broker = broker
        self._topic = topic
        self._group = group
        self._types = types
        self._next = broker.positions.get((topic, group), 0)
        self._done: set[int] = set()

    async def fetch(self, records_max: int, wait_s: float) -> Sequence[Delivery]:
        broker = self._broker
        async with broker.arrived:
            if len(broker.topics.get(self._topic, ())) <= self._next:
                try:
                    async with asyncio.timeout(wait_s):
                        await broker.arrived.wait()
                except TimeoutError:
                    return ()
        records = broker.topics[self._topic][self._next : self._next + records_max]
        first, self._next = self._next, self._next + len(records)
        return [
            Delivery(record, self._topic, 0, str(first + number))
            for number, record in enumerate(records)
            if record.type in self._types
        ]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._done.update(int(delivery.offset) for delivery in deliveries)
        position = self._broker.positions.get((self._topic, self._group), 0)
        while position in self._done:
            position += 1
        self._broker.positions[self._topic, self._group] = position

    async def lag(self) -> Lag:
        return Lag(len(self._broker.topics.get(self._topic, ())) - self._next)

    async def close(self) -> None: ...
