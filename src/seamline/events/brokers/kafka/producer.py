"""Records out. One producer of librdkafka, whose queue keeps the order of each partition."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from seamline.events.brokers.kafka.cluster import client_log, code, reason
from seamline.events.errors import BrokerError, EventTooLargeError

_POLL_S = 0.2
_MESSAGE_BYTES_MAX = 1_000_000
"""What librdkafka takes unless the url says otherwise."""
_OVERHEAD_BYTES = 512
_GIVEN_UP = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001  # their public names
_FULL_PAUSE_S = 0.005


class Outgoing(NamedTuple):
    """A message and where it goes."""

    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    time_ms: int

    def size(self) -> int:
        """Not less than what it has on the wire."""
        headers = sum(len(name) + len(value) + 10 for name, value in self.headers)
        return _OVERHEAD_BYTES + len(self.key or b"") + len(self.value) + headers


class KafkaProducer:
    """Sends in order, and is spent after its first failure: what is still in its queue is given up.

    Were the rest of a queue sent after a failure, a key's second event could be there before its first. A producer
    that follows begins again at the first record that was not acknowledged, so that within a partition every record
    is there before its successors, whatever is there twice.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.spent = False
        self._bytes_max = int(settings.get("message.max.bytes", _MESSAGE_BYTES_MAX))
        self._fatal = ""
        self._away = False
        self._client = Producer(
            {
                "linger.ms": 0,
                **settings,
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "message.timeout.ms": 0,  # or the first of two messages could be given up and the second not
                "error_cb": self._error,
                "logger": client_log,
            }
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._thread.start()

    async def send(self, topic: str, messages: Sequence[Outgoing], timeout_s: float) -> None:
        """Returns when all are acknowledged. Raises BrokerError, after which the producer is spent, and
        EventTooLargeError, before which nothing is sent."""
        for message in messages:
            if message.size() > self._bytes_max:
                raise EventTooLargeError(
                    f"an event for {topic!r} has {len(message.value)} bytes; with its headers that is over "
                    f"{self._bytes_max}",
                    "Raise max.message.bytes of the topic and ?message.max.bytes in [events] broker, or publish a "
                    "reference to where the data is.",
                )
        batch = _Batch(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    for message in messages:
                        await self._produce(topic, message, batch.delivered())
                finally:
                    batch.complete()
                await batch.done
        except TimeoutError:
            self.abandon()
            raise BrokerError(
                f"Kafka has not acknowledged {batch.sent} records for {topic!r} within {timeout_s:g} s",
                "Look at the brokers and at min.insync.replicas. The records stay where they are and are sent again.",
            ) from None
        except KafkaException as error:
            self.abandon()
            if self._away:
                raise BrokerError(
                    f"Kafka does not answer: {batch.sent} records for {topic!r} are not acknowledged",
                    "Start it, or correct [events] broker. The records stay where they are and are sent again.",
                ) from None
            if code(error) in _GIVEN_UP:
                raise BrokerError(
                    f"records for {topic!r} were given up after a failure before them", "They are sent again."
                ) from None
            raise BrokerError(
                f"Kafka refuses a record for {topic!r}: {self._fatal or reason(error)}",
                "Look at the topic's max.message.bytes and its ACLs. The records are kept and sent again.",
            ) from None

    async def _produce(self, topic: str, message: Outgoing, delivered: Callable[[Any, Message], None]) -> None:
        while True:
            if self.spent:
                raise KafkaException(KafkaError(KafkaError._PURGE_QUEUE))  # noqa: SLF001  # its public name
            try:
                self._client.produce(
                    topic,
                    message.value,
                    message.key,
                    message.partition,
                    on_delivery=delivered,
                    timestamp=message.time_ms,
                    headers=message.headers,  # pyright: ignore[reportArgumentType]  # their list is invariant
                )
                return
            except BufferError:  # the local queue is full
                await asyncio.sleep(_FULL_PAUSE_S)

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._poll_once()
        while len(self._client):
            self._client.purge()  # each time: a sender that did not know of it yet may have added to the queue
            self._poll_once()

    def _poll_once(self) -> None:
        try:
            self._client.poll(_POLL_S)
        except KafkaException as error:  # a fatal one, which every poll repeats until the client is gone
            self._fatal = self._fatal or reason(error)
            self.abandon()

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()
            self.abandon()
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and len(self._client):  # noqa: SLF001  # its public name
            self._away = True
            self.abandon()

    def abandon(self) -> None:
        """Give up what is still in the queue: its senders hear of it."""
        self.spent = True
        self._closing.set()

    async def close(self) -> None:
        self.abandon()
        await asyncio.to_thread(self._thread.join)


class _Batch:
    """Counts acknowledgements on the client's thread and wakes its sender once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.sent = 0
        self._waiting = 1  # until it is complete
        self._loop = loop
        self._lock = threading.Lock()
        self._error: KafkaError | None = None

    def delivered(self) -> Callable[[Any, Message], None]:
        """One more to wait for."""
        with self._lock:
            self.sent += 1
            self._waiting += 1
        return self._one

    def complete(self) -> None:
        """No more will come."""
        self._count(None)

    def _one(self, error: KafkaError | None, _: Message) -> None:
        self._count(error)

    def _count(self, error: KafkaError | None) -> None:
        with self._lock:
            self._waiting -= 1
            self._error = self._error or error
            ended = not self._waiting
        if ended and not self._loop.is_closed():  # a loop that is closed has nobody who waits
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self.done.done():
            return
        if self._error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(KafkaException(self._error))
            self.done.exception()  # its sender may have failed already
