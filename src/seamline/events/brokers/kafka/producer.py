"""Records out. One producer of librdkafka, whose queue keeps the order of each partition."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from seamline.events.brokers.kafka.cluster import client_log, code, reason
from seamline.events.errors import BrokerError
from seamline.kernel.signal import log

_log = log.get(__name__)

_POLL_S = 0.2
_GIVEN_UP = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001  # their public names
_FULL_PAUSE_S = 0.005


class Outgoing(NamedTuple):
    """A message and where it goes."""

    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    time_ms: int


class KafkaProducer:
    """Sends in order, and is spent after its first failure: what is still in its queue is given up.

    Were the rest of a queue sent after a failure, a key's second event could be there before its first. A producer
    that follows begins again at the first record that was not acknowledged, so that within a partition every record
    is there before its successors, whatever is there twice.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.spent = False
        self._fatal = ""
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

    async def send(self, topic: str, messages: Iterable[Outgoing], timeout_s: float) -> None:
        """Returns when all are acknowledged. Raises BrokerError, after which the producer is spent."""
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
                f"Kafka has not acknowledged {batch.waiting} records for {topic!r} within {timeout_s:g} s",
                "Look at the brokers and at min.insync.replicas. The records stay where they are and are sent again.",
            ) from None
        except KafkaException as error:
            self.abandon()
            if code(error) in _GIVEN_UP:
                raise BrokerError(
                    f"records for {topic!r} were given up after a failure before them", "They are sent again."
                ) from None
            raise BrokerError(
                f"Kafka refuses a record for {topic!r}: {self._fatal or reason(error)}",
                "Where it is too large, raise max.message.bytes of the topic and message.max.bytes in the url.",
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
            self._client.poll(_POLL_S)
        self._client.purge()
        while len(self._client):
            self._client.poll(_POLL_S)

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()
            self.spent = True
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # its public name
            _log.warning("no broker of Kafka answers; records wait until one does")

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
        self.waiting = 1  # until it is complete
        self._loop = loop
        self._lock = threading.Lock()
        self._error: KafkaError | None = None

    def delivered(self) -> Callable[[Any, Message], None]:
        """One more to wait for."""
        with self._lock:
            self.waiting += 1
        return self._one

    def complete(self) -> None:
        """No more will come."""
        self._count(None)

    def _one(self, error: KafkaError | None, _: Message) -> None:
        self._count(error)

    def _count(self, error: KafkaError | None) -> None:
        with self._lock:
            self.waiting -= 1
            self._error = self._error or error
            ended = not self.waiting
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
