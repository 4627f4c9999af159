"""Records in. One member of a consumer group, polled by a thread of its own."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from seamline.events.brokers.kafka.cluster import REQUEST_TIMEOUT_S, Cluster, client_log, reason
from seamline.events.brokers.kafka.positions import Positions, Seen
from seamline.events.cloudevents import from_kafka
from seamline.events.errors import BrokerError, CloudEventError, EventsError
from seamline.events.transport import Delivery, Lag
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

_POLL_S = 0.05
"""Also how long an acknowledgement waits for its commit where nothing comes."""
_PAUSED_POLL_S = 0.02
_FULL_S = 1.0
"""For how long the client's own queue may wait before it is told to stop."""
_READY_MAX = 2_000
_HELD_MAX = 20_000
"""Of records that are not due; beyond it the topic waits for them."""
_FINISH_S = 3.0
"""For how long a partition that is taken from us waits for what is being handled."""
_LAST_COMMITS = 3
"""Attempts at the commit of a partition that goes: no later one makes up for it."""
_REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


def member_settings(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Of a client that is a member of the group."""
    return {
        "session.timeout.ms": 10_000,
        "queued.max.messages.kbytes": 8_192,
        **settings,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "logger": client_log,
    }


class KafkaSubscription:
    """Between the client's thread, which polls, commits and is told of rebalances, and the loop, which fetches and
    acknowledges, stands ``_lock``. Only the thread calls the client, and never with the lock: a call waits for the
    client's callbacks, which take it.
    """

    replayed_ms = 0
    claims = 0

    def __init__(
        self,
        settings: Mapping[str, Any],
        cluster: Cluster,
        clock: Clock,
        *,
        module: str,
        topic: str,
        group: str,
        types: frozenset[str],
        start: Start,
        partitions: int,
    ) -> None:
        self._cluster, self._clock = cluster, clock
        self._module, self._topic, self._group = module, topic, group
        self._types, self._partitions = types, range(partitions)
        self._start: Start = start
        self._client = Consumer(
            member_settings(settings, group) | {"on_commit": self._commit_ended, "error_cb": self._heard}
        )
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ready: deque[Delivery] = deque()
        self._held: list[tuple[int, int, Delivery]] = []
        self._ticket = count()
        self._owned: dict[int, Positions] = {}
        self._handed: dict[int, set[int]] = {}
        self._dirty: set[int] = set()
        self._committing = False
        self._arrived = asyncio.Event()
        self._refusal: BrokerError | None = None
        self._passing = False
        self._closing = False
        self._paused = False
        self._thread = threading.Thread(target=self._run, name=f"kafka {group}", daemon=True)

    async def open(self) -> None:
        """Settle where a new group begins, then join it."""
        await asyncio.to_thread(self._settle)
        self._thread.start()

    # On the loop.

    async def fetch(self, records_max: int, wait_s: float) -> Sequence[Delivery]:
        found = self._take(records_max)
        if found or wait_s <= 0:
            return found
        try:
            async with asyncio.timeout(wait_s):
                while not found:
                    self._arrived.clear()
                    found = self._take(records_max)
                    if not found:
                        await self._arrived_or_due()
        except TimeoutError:
            return self._take(records_max)
        return found

    async def _arrived_or_due(self) -> None:
        with self._lock:
            due_ms = self._held[0][0] if self._held else 0
        if not due_ms:
            await self._arrived.wait()
            return
        try:
            async with asyncio.timeout(max(due_ms - now_ms(self._clock), 1) / 1000):
                await self._arrived.wait()
        except TimeoutError:
            return

    def _take(self, records_max: int) -> list[Delivery]:
        at_ms = now_ms(self._clock)
        found: list[Delivery] = []
        expired: list[Delivery] = []
        with self._lock:
            while self._held and self._held[0][0] <= at_ms and len(found) < records_max:
                self._sort(heapq.heappop(self._held)[2], at_ms, found, expired)
            while self._ready and len(found) < records_max:
                self._sort(self._ready.popleft(), at_ms, found, expired)
            for delivery in found:
                self._handed[delivery.partition].add(int(delivery.offset))
            self._done(expired)
            self._changed.notify_all()
            refusal = self._refusal
            if not found and refusal is not None:
                if self._passing:
                    self._refusal = None
                raise refusal
        return found

    @staticmethod
    def _sort(delivery: Delivery, at_ms: int, found: list[Delivery], expired: list[Delivery]) -> None:
        expires_ms = delivery.record.expires_ms
        (expired if expires_ms and expires_ms <= at_ms else found).append(delivery)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            self._done(deliveries)

    async def lag(self) -> Lag:
        return await asyncio.to_thread(self._lag)

    async def close(self) -> None:
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    # With the lock held, on either side.

    def _done(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            # A partition that went to another member is that member's to commit.
            positions = self._owned.get(delivery.partition)
            if positions is None:
                continue
            offset = int(delivery.offset)
            self._handed[delivery.partition].discard(offset)
            if positions.done(offset):
                self._dirty.add(delivery.partition)
        self._changed.notify_all()

    def _places(self, partitions: set[int]) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition, positions.committable, positions.note())
            for partition in partitions
            if (positions := self._owned.get(partition)) is not None
        ]

    # On the client's thread.

    def _run(self) -> None:
        try:
            self._client.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
            while not self._closing:
                self._poll_once()
        except BaseException as error:
            _log.exception("%s: the member ended", self._group)
            self._refuse(f"the member of the group {self._group!r} ended: {error!r}")
        finally:
            self._client.close()

    def _poll_once(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._dirty, timeout=_FULL_S)
            full = not self._has_room() and not self._dirty
        self._commit()
        if full:
            self._keep_alive()
        if not self._has_room():
            return
        taken: list[Delivery] = []
        message = self._poll(_POLL_S)
        while message is not None:
            delivery = self._read(message)
            if delivery is not None:
                taken.append(delivery)
            message = self._poll(0) if len(taken) < _READY_MAX // 4 else None
        self._put(taken)

    def _poll(self, timeout_s: float) -> Message | None:
        try:
            return self._client.poll(timeout_s)
        except KafkaException as error:
            _log.warning("%s: %s", self._group, reason(error))
            return None

    def _has_room(self) -> bool:
        return self._closing or (len(self._ready) < _READY_MAX and len(self._held) < _HELD_MAX)

    def _keep_alive(self) -> None:
        """A member that does not poll is thought dead: poll, but let nothing come."""
        self._paused = True
        while True:
            self._commit()
            self._client.pause(self._client.assignment())
            message = self._poll(_PAUSED_POLL_S)
            if message is not None and (delivery := self._read(message)) is not None:
                self._put([delivery])
            with self._lock:
                if self._has_room():
                    break
        self._paused = False
        self._client.resume(self._client.assignment())

    def _put(self, taken: Sequence[Delivery]) -> None:
        if not taken:
            return
        at_ms = now_ms(self._clock)
        with self._lock:
            for delivery in taken:
                # A rebalance between two polls may have taken the partition of the first.
                if delivery.partition not in self._owned:
                    continue
                if delivery.record.due_ms > at_ms:
                    heapq.heappush(self._held, (delivery.record.due_ms, next(self._ticket), delivery))
                else:
                    self._ready.append(delivery)
            self._refusal = None
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    def _read(self, message: Message) -> Delivery | None:
        """The message as a delivery; None for one that is not to be handed out, which is done at once."""
        if (error := message.error()) is not None:
            self._heard(error)
            return None
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        try:
            record = from_kafka(message.headers() or [], message.value())  # pyright: ignore[reportArgumentType]
        except CloudEventError as error_:
            _log.warning("%s [%d] %d is passed over: %s", self._topic, partition, offset, error_)
            record = None
        with self._lock:
            positions = self._owned.get(partition)
            if positions is None:
                return None
            seen = positions.read(offset, record.time_ms if record else 0)
            if seen is Seen.DONE:
                return None
            if record is None or record.type not in self._types:
                positions.done(offset)
                self._dirty.add(partition)
                return None
        return Delivery(record, self._module, partition, str(offset), redelivered=seen is Seen.OPEN)

    def _heard(self, error: KafkaError) -> None:
        if error.code() in _REFUSED or error.fatal():
            self._refuse(f"Kafka refuses {self._group!r} the topic {self._topic!r}: {error.str()}")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # its public name
            # Told once each time: the client goes on trying, and nothing says so when it succeeds.
            self._tell(BrokerError("Kafka does not answer", "Start it. It is tried again by itself."), passing=True)
        else:
            _log.info("%s: %s", self._group, error.str())  # the client mends it

    def _refuse(self, fact: str) -> None:
        self._tell(BrokerError(fact, "Grant READ on the topic and on the group, or look at the log."), passing=False)

    def _tell(self, error: BrokerError, *, passing: bool) -> None:
        with self._lock:
            self._refusal, self._passing = error, passing
        self._wake()

    def _assigned(self, client: Consumer, places: list[TopicPartition]) -> None:
        """Begin each partition where the group stands. Until that is known there is nothing to do."""
        while not self._closing:
            try:
                self._settle({place.partition for place in places})
                found = client.committed(places, timeout=REQUEST_TIMEOUT_S)
                begins = self._cluster.begins(self._topic, [place.partition for place in found])
                break
            except (EventsError, KafkaException) as error:
                _log.warning("%s: cannot read where the group stands, trying again: %s", self._group, reason(error))
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, timeout=1.0)
        else:
            return
        for place in found:
            if gone := max(begins[place.partition] - place.offset, 0):
                _log.error(
                    "%s: %d events of %s [%d] were deleted by the topic's retention before they were read",
                    self._group, gone, self._topic, place.partition,
                )  # fmt: skip
        with self._lock:
            for place in found:
                self._owned[place.partition] = Positions(max(place.offset, 0), place.metadata or "")
                self._handed[place.partition] = set()
        client.incremental_assign([TopicPartition(self._topic, place.partition, place.offset) for place in found])

    def _revoked(self, _: Consumer, places: list[TopicPartition]) -> None:
        """Stop handing out, let what is being handled end, say how far we came."""
        going = {place.partition for place in places}
        with self._changed:
            self._drop(going)
            self._changed.wait_for(
                lambda: self._closing or not any(self._handed.get(partition) for partition in going), _FINISH_S
            )
        self._commit_now(going)
        self._forget(going)

    def _lost(self, _: Consumer, places: list[TopicPartition]) -> None:
        """Another member has them already: there is nothing to say about them any more."""
        gone = {place.partition for place in places}
        with self._lock:
            self._drop(gone)
        self._forget(gone)

    def _drop(self, partitions: set[int]) -> None:
        self._ready = deque(delivery for delivery in self._ready if delivery.partition not in partitions)
        self._held = [held for held in self._held if held[2].partition not in partitions]
        heapq.heapify(self._held)

    def _forget(self, partitions: set[int]) -> None:
        with self._lock:
            for partition in partitions:
                self._owned.pop(partition, None)
                self._handed.pop(partition, None)
                self._dirty.discard(partition)

    def _commit(self) -> None:
        """One commit is under way at a time, so that many acknowledgements share the next."""
        with self._lock:
            if self._committing or not self._dirty:
                return
            places = self._places(self._dirty)
            self._dirty.clear()
            self._committing = bool(places)
        if not places:
            return
        try:
            self._client.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            self._commit_ended(error.args[0], places)

    def _commit_now(self, partitions: set[int]) -> None:
        with self._lock:
            places = self._places(partitions)
        if not places:
            return
        for attempts_left in reversed(range(_LAST_COMMITS)):
            try:
                self._client.commit(offsets=places, asynchronous=False)
                return
            except KafkaException as error:
                if not attempts_left:
                    _log.warning("%s: what was handled last is handed out again: %s", self._group, reason(error))

    def _commit_ended(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        with self._lock:
            self._committing = False
            if error is not None and not self._closing:
                _log.warning("%s: a commit failed and is repeated with the next: %s", self._group, error.str())
                self._dirty |= {place.partition for place in places} & self._owned.keys()

    # On any thread that may wait.

    def _settle(self, partitions: set[int] | None = None) -> None:
        """Commit ``start`` where the group has committed nothing: what comes from now on is this group's."""
        asked = set(self._partitions) if partitions is None else partitions
        missing = asked - self._cluster.committed(self._group, self._topic, asked).keys()
        if not missing:
            return
        found = self._cluster.offsets_at(self._topic, missing, self._start)
        if not self._cluster.move(self._group, self._topic, found) and partitions is not None:
            self._client.commit(
                offsets=[TopicPartition(self._topic, partition, offset) for partition, offset in found.items()],
                asynchronous=False,
            )

    def _sees(self, partition: int, end: int) -> bool:
        positions = self._owned.get(partition)
        return positions is None or bool(positions.open) or positions.position >= end

    def _lag(self) -> Lag:
        ends = self._cluster.ends(self._topic, self._partitions)
        with self._changed:
            # What is there and not read yet is about to be: then its age is known.
            self._changed.wait_for(lambda: all(self._sees(*end) for end in ends.items()), timeout=_POLL_S * 4)
            own = {partition: (positions.position, positions.open) for partition, positions in self._owned.items()}
            oldest_ms = min((p.oldest_ms for p in self._owned.values() if p.open), default=0)
        others = self._cluster.committed(self._group, self._topic, ends.keys() - own.keys())
        events = sum(max(ends[partition] - position, 0) + open_ for partition, (position, open_) in own.items())
        events += sum(max(ends[partition] - offset, 0) for partition, offset in others.items())
        return Lag(events, max(now_ms(self._clock) - oldest_ms, 0) / 1000 if oldest_ms else 0.0)
