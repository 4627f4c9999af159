"""The transport of a whole application on one cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from confluent_kafka import KafkaException

from seamline.events.brokers.kafka.address import KafkaAddress
from seamline.events.brokers.kafka.cluster import Cluster, reason
from seamline.events.brokers.kafka.producer import KafkaProducer, Outgoing
from seamline.events.brokers.kafka.seeking import move_group
from seamline.events.brokers.kafka.subscription import KafkaSubscription
from seamline.events.cloudevents import to_kafka
from seamline.events.errors import BrokerUrlError, UnknownGroupError
from seamline.events.record import Record, partition_of
from seamline.events.transport import Promises
from seamline.kernel.clock import Clock
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

PUBLISH_TIMEOUT_S = 30.0

PROMISES = Promises(
    name="Apache Kafka",
    durable_when="all in-sync replicas (at least min.insync.replicas) have it in their page cache; they fsync it only "
    "where flush.messages is 1, so that a power failure of all of them at once loses it",
    order="per key, in its partition, also through a relay's retries: what comes first comes in order, repeats follow",
    redelivery="at least once; to another process when a member leaves, or 10 s after it was heard of last",
    replay="from the earliest, the latest, an offset of every partition, a time; the group's processes are stopped",
    limits="a group that nobody is in for a week (offsets.retention.minutes) is a new one; an event that is not due is "
    "held in the memory of the process that has its partition; the lag counts events of every type",
)


class KafkaTransport:
    """``url`` is :meth:`KafkaAddress.parse`'s. Raises BrokerUrlError."""

    relayed = True

    def __init__(self, url: str, app: str, settings: EventsSettings, clock: Clock) -> None:
        address = KafkaAddress.parse(url)
        self.promises = PROMISES
        self._app, self._settings, self._clock = app, settings, clock
        named = {"client.id": f"seamline-{app}"}
        self._producing, self._consuming = named | address.of("producer"), named | address.of("consumer")
        self._cluster = Cluster(named | address.of("admin"))
        self._producer: KafkaProducer | None = None
        self._spent: list[KafkaProducer] = []
        self._subscriptions: list[KafkaSubscription] = []
        self._topics: dict[str, asyncio.Lock] = {}
        self._known: set[str] = set()

    async def start(self) -> None:
        brokers = await asyncio.to_thread(self._cluster.brokers)
        _log.info("Kafka answers with %d brokers; %s", brokers, PROMISES.durable_when)

    async def publish(self, topic: str, records: Sequence[Record]) -> None:
        if not records:
            return
        name = await self._ensure(topic)
        messages = [self._outgoing(record) for record in records]
        await self._current().send(name, messages, PUBLISH_TIMEOUT_S)

    async def subscribe(self, topic: str, group: str, types: frozenset[str], start: Start) -> KafkaSubscription:
        name = await self._ensure(topic)
        try:
            subscription = KafkaSubscription(
                self._consuming,
                self._cluster,
                self._clock,
                module=topic,
                topic=name,
                group=f"{self._app}.{group}",
                types=types,
                start=start,
                partitions=self._settings.partitions,
            )
        except KafkaException as error:
            raise BrokerUrlError(
                f"the consumer refuses the broker's url: {reason(error)}",
                "Properties after the `?` are those of librdkafka's CONFIGURATION.md.",
            ) from None
        await subscription.open()
        self._subscriptions.append(subscription)
        return subscription

    async def seek(self, topic: str, group: str, start: Start) -> None:
        name = await self._ensure(topic)
        partitions = range(self._settings.partitions)
        id_ = f"{self._app}.{group}"
        if not await asyncio.to_thread(self._cluster.committed, id_, name, partitions):
            raise UnknownGroupError(
                f"no group {group!r} has ever read {topic!r}",
                "Groups are named <module>.<group>; `seamline events` lists them.",
            )
        offsets = await asyncio.to_thread(self._cluster.offsets_at, name, partitions, start)
        await asyncio.to_thread(move_group, self._consuming, id_, name, offsets)

    async def close(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        producers, self._spent, self._producer = [*self._spent, self._producer], [], None
        for subscription in subscriptions:
            await subscription.close()
        for producer in producers:
            if producer is not None:
                await producer.close()

    def _current(self) -> KafkaProducer:
        if self._producer is None or self._producer.spent:
            if self._producer is not None:
                self._spent = [self._producer]
            self._producer = KafkaProducer(self._producing)
        return self._producer

    def _outgoing(self, record: Record) -> Outgoing:
        return Outgoing(
            partition_of(record, self._settings.partitions),
            record.key.encode() or None,
            record.data,
            to_kafka(record, self._app),
            record.time_ms,
        )

    async def _ensure(self, topic: str) -> str:
        name = f"{self._app}.{topic}"
        if name in self._known:
            return name
        async with self._topics.setdefault(name, asyncio.Lock()):
            if name not in self._known:
                retention_ms = int(self._settings.retention_s * 1000) or -1
                await asyncio.to_thread(self._cluster.ensure_topic, name, self._settings.partitions, retention_ms)
                durability = await asyncio.to_thread(self._cluster.durability, name)
                self.promises = replace(PROMISES, durable_when=f"{durability} ({PROMISES.durable_when})")
                enough = durability.outlives_a_machine or self._settings.durability == "relaxed"
                remedy = "" if enough else "; set min.insync.replicas to 2 or more, with 3 replicas"
                level = logging.INFO if enough else logging.WARNING
                _log.log(level, "Kafka's topic %s: an event is acknowledged when %s%s", name, durability, remedy)
                self._known.add(name)
        return name
