"""A group's share of a topic in this process: what is read, handed out, acknowledged, and due later."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec

from seamline.events.brokers.partitioned import Entry, PartitionedLog, Position, place_of
from seamline.events.errors import EventsError
from seamline.events.transport import Delivery, Fence, Lag
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal import log
from seamline.kernel.store.combine import Combiner

if TYPE_CHECKING:
    from seamline.events.shares import Share

_log = log.get(__name__)

READY_MIN: Final = 64
"""A partition with fewer entries waiting is read on."""
READ_MAX: Final = 256
READ_BYTES: Final = 2 * 1024 * 1024
"""About how much is read from a partition at once."""
PAUSE_FIRST_S: Final = 0.1
PAUSE_LONGEST_S: Final = 2.0
SAVE_EVERY_S: Final = 1.0
"""How long a place that moved without an acknowledgement may stay unwritten, while events come."""
RIPEN_EVERY_S: Final = 1.0
AGAIN_S: Final = 0.2


class Held:
    """A partition that is ours, and where we are in it."""

    def __init__(self, number: int, fence: Fence, position: Position) -> None:
        self.number = number
        self.fence = fence
        self.cursor = position.after
        self.fresh: deque[tuple[str, Entry]] = deque()
        """Read and not handed out yet, each with the cursor before it."""
        self.again: deque[Entry] = deque()
        """To be handed out first: not acknowledged by an earlier holder, or become due."""
        self.reopened = frozenset(position.open)
        self.out: dict[str, int] = {}
        """Handed out and not acknowledged: when each was published."""
        self.later = [(due, offset) for due, offset in position.later]
        heapq.heapify(self.later)
        self.moved = False
        """Its place is not what was last written."""

    def open(self) -> list[str]:
        return sorted([*self.out, *(entry.offset for entry in self.again)], key=place_of)

    def after(self) -> str:
        return self.fresh[0][0] if self.fresh else self.cursor

    def oldest_ms(self) -> int:
        waiting = [entry.record.time_ms for entry in self.again]
        return min([*self.out.values(), *waiting], default=0)


class GroupSubscription:
    """See :class:`seamline.events.transport.Subscription`. Made by a transport; ``begin`` sets it to work."""

    replayed_ms = 0

    def __init__(
        self,
        partitioned: PartitionedLog,
        topic: str,
        group: str,
        types: frozenset[str],
        share: Share,
        *,
        lease: str,
        clock: Clock,
        closed: Callable[[GroupSubscription], None],
    ) -> None:
        self._log = partitioned
        self._topic = topic
        self._group = group
        self._types = types
        self._share = share
        self._lease = lease
        self._clock = clock
        self._closed = closed
        self.claims = 0
        self._holder = uuid4().hex
        self._reader = partitioned.reader(topic)
        self._held: dict[int, Held] = {}
        self._leaving: dict[int, Held] = {}
        """On their way to another process; what is still acknowledged here is written until that one claims them."""
        self._owner = TaskOwner(f"{group} of {topic}")
        self._saving: Combiner[set[int], None] = Combiner(self._save)
        self._saved_at = 0.0
        self._following: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._sown = asyncio.Event()
        self._failure: Exception | None = None
        self._told = False
        self._ended = False
        self._limit = 16
        self._record_bytes = 1024.0
        self._turn = 0

    def begin(self) -> None:
        self._following = self._owner.spawn(self._guarded(self._follow), name="follows its share")
        self._owner.spawn(self._guarded(self._ripen), name="waits for what is due")

    # What a consumer asks for

    async def fetch(self, records_max: int, wait_s: float) -> Sequence[Delivery]:
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            if found := self._take(records_max):
                return found
            if self._failure is not None and not self._told:
                self._told = True
                raise self._failure.with_traceback(None)
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                if self._failure is not None:
                    raise self._failure.with_traceback(None) from None
                return []

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        numbers: set[int] = set()
        for delivery in deliveries:
            held = self._held.get(delivery.partition) or self._leaving.get(delivery.partition)
            # Of a partition that has gone to another, the other's word counts.
            if held is None or held.fence != delivery.fence:
                continue
            if held.out.pop(delivery.offset, None) is not None:
                held.moved = True
            if held.moved:
                numbers.add(delivery.partition)
        if numbers:
            await self._saving.add(numbers)

    async def lag(self) -> Lag:
        places = await self._log.places(self._topic, self._group)
        read = {number: msgspec.json.decode(place, type=Position) for number, place in places.items()}
        read |= {number: self._position(held) for number, held in self._held.items()}
        ahead = await self._log.behind(self._topic, {number: each.after for number, each in read.items()})
        oldest = [each.oldest_ms for each in ahead.values() if each.events]
        for number, each in read.items():
            held = self._held.get(number)
            if held is not None:
                oldest.append(held.oldest_ms())
            elif each.open:
                oldest += [e.record.time_ms for e in await self._log.pick(self._topic, number, each.open[:1])]
        events = sum(each.events for each in ahead.values()) + sum(len(each.open) for each in read.values())
        since_ms = min((time_ms for time_ms in oldest if time_ms), default=0)
        return Lag(events, max(0.0, (now_ms(self._clock) - since_ms) / 1000) if since_ms else 0.0)

    async def close(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._closed(self)
        try:
            await _stopped(self._following)
            await _stopped(self._reading)
            await self._owner.stop()
        finally:
            with contextlib.suppress(EventsError):  # what is not written is handed out again
                await self._saving.add(set(self._held))
            self._held.clear()
            await self._saving.close()
            await self._reader.close()
            await self._share.close()

    # Handing out

    def _take(self, records_max: int) -> list[Delivery]:
        parts = list(self._held.values())
        if not parts:
            return []
        self._turn = (self._turn + 1) % len(parts)
        parts = parts[self._turn :] + parts[: self._turn]
        at_ms = now_ms(self._clock)
        found: list[Delivery] = []
        # First a fair part from each, then whatever there is.
        for quota in (max(1, records_max // len(parts)), records_max):
            for held in parts:
                self._take_from(held, min(quota, records_max - len(found)), at_ms, found)
        if found:
            self._room.set()
        return found

    def _take_from(self, held: Held, quota: int, at_ms: int, found: list[Delivery]) -> None:
        while quota > 0 and (held.again or held.fresh):
            again = bool(held.again)
            entry = held.again.popleft() if again else held.fresh.popleft()[1]
            if 0 < entry.record.expires_ms <= at_ms:
                held.moved = True
                continue
            held.out[entry.offset] = entry.record.time_ms
            redelivered = again and entry.offset in held.reopened
            found.append(Delivery(entry.record, self._topic, held.number, entry.offset, held.fence, redelivered))
            quota -= 1

    # Which partitions are ours

    async def _follow(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            self._share.changed.clear()
            try:
                await self._adopt(self._share.held())
            except EventsError as error:
                self._fail(error)
                # The broker's time is real, whatever clock the application has.
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_LONGEST_S)
            else:
                pause_s = PAUSE_FIRST_S
                await self._share.changed.wait()

    async def _adopt(self, ours: Mapping[int, int]) -> None:
        gone = [number for number, held in self._held.items() if ours.get(number) != held.fence.epoch]
        # Ours again, and nobody else's in between: we know more of them than was written.
        back = [number for number, held in self._leaving.items() if ours.get(number) == held.fence.epoch]
        new = [number for number in ours if number not in back and (number not in self._held or number in gone)]
        if not gone and not new and not back:
            return
        await _stopped(self._reading)
        for number in gone:
            self._leaving[number] = self._held.pop(number)
        for number in back:
            self._held[number] = self._leaving.pop(number)
        try:
            claimed = await self._claimed(new)
            self.claims += bool(claimed)
            for number, place in claimed.items():
                position = msgspec.json.decode(place, type=Position)
                held = Held(number, Fence(f"{self._lease}/{number}", ours[number]), position)
                if position.open:
                    held.again.extend(await self._log.pick(self._topic, number, position.open))
                self._held[number] = held
                self._leaving.pop(number, None)
        finally:
            if not self._ended:
                self._reading = self._owner.spawn(self._guarded(self._read), name="reads")
        self._sown.set()
        self._news.set()

    async def _claimed(self, numbers: Sequence[int]) -> Mapping[int, bytes]:
        return await self._log.claim(self._topic, self._group, numbers, self._holder) if numbers else {}

    # Reading

    async def _read(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            self._room.clear()
            hungry = {number: held.cursor for number, held in self._held.items() if len(held.fresh) < READY_MIN}
            wait = len(hungry) == len(self._held)
            try:
                if hungry:
                    self._keep(await self._reader.read(hungry, self._limit, wait=wait))
                    self._failure = None
                    await self._save_now_and_then()
                pause_s = PAUSE_FIRST_S
            except EventsError as error:
                self._fail(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_LONGEST_S)
                continue
            if not wait or not hungry:
                await self._room.wait()

    def _keep(self, entries: Sequence[tuple[int, Entry]]) -> None:
        at_ms = now_ms(self._clock)
        for number, entry in entries:
            held = self._held.get(number)
            if held is None:
                continue
            record = entry.record
            before, held.cursor = held.cursor, entry.offset
            if record.type not in self._types or 0 < record.expires_ms <= at_ms:
                held.moved = True
            elif record.due_ms > at_ms:
                heapq.heappush(held.later, (record.due_ms, entry.offset))
                held.moved = True
                self._sown.set()
            else:
                held.fresh.append((before, entry))
            self._record_bytes += (len(record.data) + 256 - self._record_bytes) / 16
        if entries:
            # Large events are read few at a time.
            self._limit = max(1, min(2 * self._limit, READ_MAX, int(READ_BYTES / self._record_bytes)))
            self._news.set()

    def _fail(self, error: Exception) -> None:
        self._failure, self._told = error, False
        self._news.set()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            self._fail(error)
            raise

    # What is due later

    async def _ripen(self) -> None:
        while True:
            due_ms = min((held.later[0][0] for held in self._held.values() if held.later), default=0)
            self._sown.clear()
            if not due_ms:
                await self._sown.wait()
                continue
            wait_s = (due_ms - now_ms(self._clock)) / 1000
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    # Now and then, since the machine's clock may be set.
                    async with asyncio.timeout(min(wait_s, RIPEN_EVERY_S)):
                        await self._sown.wait()
                continue
            try:
                for held in list(self._held.values()):
                    await self._ripen_one(held)
            except EventsError as error:
                self._fail(error)
                await asyncio.sleep(PAUSE_LONGEST_S)

    async def _ripen_one(self, held: Held) -> None:
        at_ms = now_ms(self._clock)
        ripe = {offset: None for due_ms, offset in sorted(held.later)[:READ_MAX] if due_ms <= at_ms}
        if not ripe:
            return
        entries = await self._log.pick(self._topic, held.number, list(ripe))
        held.later = [each for each in held.later if each[1] not in ripe]
        heapq.heapify(held.later)
        if len(entries) < len(ripe):
            _log.warning(
                "%s: %d delayed events of %s were no longer retained when they became due",
                self._group, len(ripe) - len(entries), self._topic,
            )  # fmt: skip
            held.moved = True
        held.again.extend(entries)
        self._news.set()

    # Writing places

    def _position(self, held: Held) -> Position:
        return Position(held.after(), held.open(), sorted(held.later))

    async def _save(self, groups: Sequence[set[int]]) -> Sequence[None]:
        """Write the places of these partitions, for all who asked in the meantime."""
        known = self._leaving | self._held
        parts = {number: known[number] for number in set[int]().union(*groups) if number in known}
        for held in parts.values():
            held.moved = False
        places = {number: self._position(held).encode() for number, held in parts.items()}
        try:
            lost = await self._log.save(self._topic, self._group, self._holder, places) if places else ()
        except BaseException:
            for held in parts.values():
                held.moved = True
            raise
        self._saved_at = self._clock.monotonic()
        self._forget(lost)
        return [None] * len(groups)

    async def _save_now_and_then(self) -> None:
        moved = {number for number, held in self._held.items() if held.moved}
        if moved and self._clock.monotonic() - self._saved_at >= SAVE_EVERY_S:
            await self._saving.add(moved)

    def _forget(self, numbers: Iterable[int]) -> None:
        """Somebody else has claimed these. If they are ours all the same, they are claimed again."""
        for number in numbers:
            self._leaving.pop(number, None)
            if self._held.pop(number, None) is not None:
                self._share.changed.set()


async def _stopped(task: asyncio.Task[None] | None) -> None:
    """Cancel and wait; again while it goes on, since `asyncio.wait_for`
    of Python 3.11, which clients use, may lose a cancellation."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
