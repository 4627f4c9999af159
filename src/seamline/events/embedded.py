"""The transport that needs no server: consumers read the producer's log over the mesh.

Which partitions a process reads is settled by leases in the consumer's own database, where the positions are kept
too; so whoever takes a partition over goes on where its effects ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, cast

from seamline.events.errors import LostLeaseError
from seamline.events.fences import lease_of, revoke
from seamline.events.inbox import Inbox
from seamline.events.leases import Leases
from seamline.events.positions import Bookmarks, Positions
from seamline.events.reading import LogPage, LogReading, log_contract, written_start
from seamline.events.record import Record
from seamline.events.shares import Share
from seamline.events.transport import Delivery, Fence, Lag, Promises
from seamline.kernel.clock import now_ms, until_step
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.store import StoreError
from seamline.module.errors import CallError, PermissionDenied

if TYPE_CHECKING:
    from seamline.kernel.clock import Clock
    from seamline.kernel.store import Database
    from seamline.module.module import Start
    from seamline.module.port import CallPort

_log = logging.getLogger("seamline.events")

FLUSH_S = 0.5
"""How long what was handled waits for its position to be written. The inbox remembers it meanwhile."""
IDLE_FLUSH_S = 5.0
"""The same where only records of no interest went by."""
RECORDS_AHEAD = 256
"""A page is taken only while no more than so many wait to be fetched."""
PAUSE_S, PAUSE_S_MAX = 0.05, 2.0


class Home(NamedTuple):
    """Where a consuming module keeps what it must not forget."""

    database: Database
    leases: Leases
    inbox: Inbox
    bookmarks: Bookmarks


class EmbeddedTransport:
    """See the module's docstring."""

    promises = Promises(
        name="embedded",
        durable_when="it is on disk in the publishing module's database (SQLite: WAL, synchronous FULL; PostgreSQL: "
        "its synchronous_commit)",
        order="per key, over all event types of a module",
        redelivery="after a crash and when a partition moves, at once and in order",
        replay="earliest, latest, offset or time, for as long as events are retained",
        limits="readers reach the publishing module over the mesh; it must run for new events to arrive",
    )
    relayed = False

    def __init__(self, port: CallPort, clock: Clock, partitions: int, home: Callable[[str], Home]) -> None:
        self._port = port
        self._clock = clock
        self._partitions = partitions
        self._home = home

    async def start(self) -> None:
        """Nothing is to be reached."""

    async def publish(self, topic: str, records: Sequence[Record]) -> None:
        """Nothing is relayed: the log is where consumers read."""
        raise NotImplementedError

    def _reader(self, topic: str, module: str) -> LogReading:
        return self._port.stub(log_contract(topic), module)

    async def subscribe(self, topic: str, group: str, types: frozenset[str], start: Start) -> EmbeddedSubscription:
        module = group.partition(".")[0]
        home, reader = self._home(module), self._reader(topic, module)
        positions = Positions(home.database, group, topic, self._partitions)
        if not await positions.begun():
            await positions.begin(await reader.position(written_start(start)))
        share = await home.leases.join(_lease(group, topic), self._partitions)
        return EmbeddedSubscription(home, reader, positions, share, topic, group, types, self._clock)

    async def seek(self, topic: str, group: str, start: Start) -> None:
        module = group.partition(".")[0]
        home = self._home(module)
        position = await self._reader(topic, module).position(written_start(start))
        async with home.database.transaction() as connection:
            # Whoever is at work on this group has lost it from here on.
            await revoke(connection, _lease(group, topic))
            await Positions(home.database, group, topic, self._partitions).move(
                connection, position, now_ms(self._clock)
            )
        await home.leases.beat()

    async def close(self) -> None:
        """Nothing is held."""


def _lease(group: str, topic: str) -> str:
    return f"{group}@{topic}"


class _Partition:
    """One that this process has: how far it was read, what is at work, and what was handled."""

    __slots__ = ("done", "epoch", "forget", "moved", "out", "position", "read_to", "written")

    def __init__(self, epoch: int, position: int) -> None:
        self.epoch = epoch
        self.position = position
        """Everything up to here was handled."""
        self.written = position
        self.read_to = position
        self.out: deque[int] = deque()
        self.done: dict[int, tuple[str, str]] = {}
        self.forget: list[tuple[str, str]] = []
        """(source, id) of what need not be remembered once the position is written."""

    def handed_out(self, offset: int) -> None:
        self.out.append(offset)

    def handled(self, offset: int, event: tuple[str, str]) -> None:
        if offset <= self.position:
            return  # it was handed out twice, because we had been taken for dead
        self.done[offset] = event
        while self.out and self.out[0] in self.done:
            self.position = self.out.popleft()
            self.forget.append(self.done.pop(self.position))
        self.settle()

    def settle(self) -> None:
        """With nothing at work, what was passed over counts as handled."""
        if not self.out:
            self.position = max(self.position, self.read_to)


class EmbeddedSubscription:
    """A group's share of a topic in this process."""

    def __init__(
        self, home: Home, reader: LogReading, positions: Positions, share: Share, topic: str, group: str,
        types: frozenset[str], clock: Clock,
    ) -> None:  # fmt: skip
        self._home = home
        self._reader = reader
        self._positions = positions
        self._share = share
        self._lease = _lease(group, topic)
        self._topic = topic
        self._group = group
        self._types = sorted(types)
        self._clock = clock
        self._held: dict[int, _Partition] = {}
        self._ready: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._fetched = asyncio.Event()
        self._owner = TaskOwner(f"{group} reads {topic}")
        self._flushing: asyncio.TimerHandle | None = None
        self._flush_at = 0.0
        self.claims = 0
        self.replayed_ms = 0
        """What is older than this comes again because somebody asked for it."""
        self._reading = self._owner.spawn(self._read(), name="read")
        self._reading.add_done_callback(lambda _: self._arrived.set())

    async def fetch(self, records_max: int, wait_s: float) -> Sequence[Delivery]:
        if not self._ready:
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                return ()
        if self._reading.done():
            self._reading.result()  # which failed
        fetched = [self._ready.popleft() for _ in range(min(records_max, len(self._ready)))]
        self._fetched.set()
        return fetched

    def _is_held(self, delivery: Delivery) -> bool:
        held = self._held.get(delivery.partition)
        return held is not None and delivery.fence is not None and held.epoch == delivery.fence.epoch

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._is_held(delivery):
                record = delivery.record
                self._held[delivery.partition].handled(int(delivery.offset), (record.source, record.id))
        self._flush_within(FLUSH_S)

    async def lag(self) -> Lag:
        behind = await self._reader.behind(await self._positions.all(), self._types)
        return Lag(behind.records, behind.oldest_ms / 1000)

    async def close(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        self._reading.cancel()
        await asyncio.wait([self._reading])
        try:
            await self._flush()
        finally:
            await self._share.close()
            await self._owner.stop()

    # Reading.

    async def _read(self) -> None:
        """Follow the log on the partitions that are ours, until they change."""
        while True:
            self._share.changed.clear()
            await self._adopt()
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._follow()) if self._held else None
                await self._share.changed.wait()
                if following is not None:
                    following.cancel()

    async def _adopt(self) -> None:
        await self._flush()
        held = self._share.held()
        self._held = {partition: kept for partition, kept in self._held.items() if held.get(partition) == kept.epoch}
        new = held.keys() - self._held.keys()
        if new:
            positions = await self._positions.all()
            self.replayed_ms = await self._positions.replayed_ms()
            for partition in new:
                self._held[partition] = _Partition(held[partition], positions[partition])
        self._ready = deque(delivery for delivery in self._ready if self._is_held(delivery))

    async def _follow(self) -> None:
        pause_s, trouble = PAUSE_S, ""
        while True:
            after = [0] * self._positions.partitions
            for partition, held in self._held.items():
                after[partition] = held.read_to
            began = monotonic()
            try:
                followed = cast("AsyncGenerator[LogPage]", self._reader.follow(after, sorted(self._held), self._types))
                async with aclosing(followed) as pages:
                    async for page in pages:
                        await self._take(page)
                        pause_s, trouble = PAUSE_S, ""
                if monotonic() - began > PAUSE_S_MAX:
                    continue  # else whoever served us is about to stop
            except CallError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    level = logging.ERROR if isinstance(error, PermissionDenied) else logging.INFO
                    _log.log(level, "%s cannot read the events of %s now: %s", self._group, self._topic, error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _take(self, page: LogPage) -> None:
        while len(self._ready) > RECORDS_AHEAD:
            self._fetched.clear()
            await self._fetched.wait()
        fences = {each: Fence(lease_of(self._lease, each), held.epoch) for each, held in self._held.items()}
        for offset, partition, record in page.records:
            held = self._held.get(partition)
            if held is not None and offset > held.read_to:
                held.handed_out(offset)
                self._ready.append(Delivery(record, self._topic, partition, str(offset), fences[partition]))
        for held in self._held.values():
            held.read_to = max(held.read_to, page.through)
            held.settle()
        self._flush_within(IDLE_FLUSH_S)
        if self._ready:
            self._arrived.set()

    # Positions.

    def _flush_within(self, seconds: float) -> None:
        """In step with the other groups of the process, so that they share a commit."""
        loop = asyncio.get_running_loop()
        at = loop.time() + until_step(seconds)
        if self._flushing is not None:
            if self._flush_at <= at:
                return
            self._flushing.cancel()
        self._flush_at = at
        self._flushing = loop.call_at(at, self._begin_flush)

    def _begin_flush(self) -> None:
        self._flushing = None
        self._owner.spawn(self._flush_perhaps(), name="write positions")

    async def _flush_perhaps(self) -> None:
        try:
            await self._flush()
        except StoreError as error:
            _log.warning("%s cannot write its positions now: %s", self._group, error)
            self._flush_within(IDLE_FLUSH_S)

    async def _flush(self) -> None:
        """Write how far we are, and forget what lies before."""
        moved = {number: held for number, held in self._held.items() if held.position > held.written}
        if not moved:
            return
        positions = {number: held.position for number, held in moved.items()}
        forget = {number: held.forget for number, held in moved.items()}
        for held in moved.values():
            held.forget = []
        try:
            fences = [Fence(lease_of(self._lease, number), held.epoch) for number, held in moved.items()]
            gone = [event for events in forget.values() for event in events]
            await self._home.bookmarks.write(self._positions.bookmark(fences, positions, gone))
        except LostLeaseError:
            self._share.changed.set()  # look again at what is ours; the rest will be written next time
            for number, held in moved.items():
                held.forget = forget[number] + held.forget
        except BaseException:
            for number, held in moved.items():
                held.forget = forget[number] + held.forget
            raise
        else:
            for number, held in moved.items():
                held.written = positions[number]
