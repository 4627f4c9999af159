"""The log itself: what is the same in every store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import DamagedLogError, LogFullError
from seamline.events.log.facts import keep_partitions
from seamline.events.log.interface import Damage, Ends, LogStats, Page, Stored
from seamline.events.log.rows import Kept, Row, record_of, to_row
from seamline.events.log.store import Entry, Store
from seamline.events.log.upkeep import Upkeep
from seamline.events.log.waking import Waking
from seamline.events.record import Record
from seamline.kernel.clock import Clock, in_step, now_ms
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings.sections import EventsSettings
from seamline.kernel.store import Combiner, Database
from seamline.kernel.store.access import is_full
from seamline.kernel.store.errors import DamagedFileError
from seamline.module.module import Start

LOOK_S: Final = 0.25
"""How often to look for what other processes have appended, if nobody says so."""

ROWS_AT_ONCE: Final = 512
RELAXED_ROWS_MAX: Final = 8_192
"""So many may be acknowledged and not on disk yet, where durability is relaxed."""

_log = logging.getLogger(__name__)


class DurableLog:
    """:class:`~seamline.events.log.interface.Log` over a :class:`Store`."""

    def __init__(
        self, database: Database, store: Store, settings: EventsSettings, clock: Clock, announce: Callable[[], None]
    ) -> None:
        self._module = database.module
        self._database = database
        self._store = store
        self._partitions = settings.partitions
        self._relaxed = settings.durability == "relaxed"
        self._clock = clock
        self._announce = announce
        self._waking = Waking()
        self._front = Combiner(self._write, items_max=ROWS_AT_ONCE)
        self._upkeep = Upkeep(store, database)
        self._owner = TaskOwner(f"log of {database.module}")
        self._on_its_way = 0
        self._failed: BaseException | None = None
        self._due_ms = 0
        self._appended = self._groups = self._refused = 0

    async def start(self) -> None:
        try:
            await self._store.start(self.poke)
            await keep_partitions(self._database, self._partitions)
            self._due_ms = (await self._store.delayed())[1]
        except BaseException:
            await self._store.close()
            raise
        self._owner.spawn(self._look(), name="look for news")

    async def close(self) -> None:
        await self._front.close()
        await self._owner.stop()
        await self._store.close()

    # Writing

    async def append(self, records: Sequence[Record], connection: AsyncConnection | None = None) -> None:
        if not records:
            return
        entry = self._entry(records)
        if connection is not None:
            await self._append_with(connection, entry)
        elif self._relaxed:
            await self._append_relaxed(entry)
        else:
            await self._front.put(entry)

    def submit(self, record: Record) -> asyncio.Future[None] | None:
        if self._relaxed or record.due_ms:
            return None
        return self._front.put(((to_row(record, self._partitions),), ()))

    def _entry(self, records: Sequence[Record]) -> Entry:
        at_ms, partitions = 0, self._partitions
        rows: list[Row] = []
        delayed: list[tuple[int, Row]] = []
        for record in records:
            row = to_row(record, partitions)
            if record.due_ms and record.due_ms > (at_ms := at_ms or now_ms(self._clock)):
                delayed.append((record.due_ms, row))
            else:
                rows.append(row)
        return rows, delayed

    async def _append_with(self, connection: AsyncConnection, entry: Entry) -> None:
        try:
            await self._store.write_with(connection, entry)
        except Exception as error:
            raise self._explained(error, entry) from error
        due_ms = min((due_ms for due_ms, _ in entry[1]), default=0)
        self._database.after_commit(
            connection, lambda: self._arrived(due_ms), lambda error: self._explained(error, entry)
        )

    async def _append_relaxed(self, entry: Entry) -> None:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        outcome = self._front.put(entry)
        count = _count(entry)
        self._on_its_way += count

        def arrived(outcome: asyncio.Future[None]) -> None:
            self._on_its_way -= count
            if not outcome.cancelled() and (error := outcome.exception()) is not None:
                self._failed = error
                _log.error("%s: events that were accepted (durability is relaxed) are lost: %s", self._module, error)

        outcome.add_done_callback(arrived)
        if self._on_its_way > RELAXED_ROWS_MAX:
            await asyncio.wait([outcome])

    async def _write(self, entries: Sequence[Entry]) -> Sequence[BaseException | None]:
        try:
            await self._store.write(entries)
        except Exception as error:
            if len(entries) > 1 and self._store.spoilt_by_one(error):
                return [each for entry in entries for each in await self._write([entry])]
            return [self._explained(error, entry) for entry in entries]
        due_ms = 0
        for rows, delayed in entries:
            self._appended += len(rows) + len(delayed)
            if delayed:
                due_ms = min(due_ms or delayed[0][0], *(each for each, _ in delayed))
        self._groups += 1
        self._arrived(due_ms)
        return [None] * len(entries)

    def _arrived(self, due_ms: int) -> None:
        """Something of ours is on disk."""
        if due_ms:
            self._due_ms = min(self._due_ms or due_ms, due_ms)
        self._waking.wake()
        self._store.written()
        self._announce()

    def _explained(self, error: BaseException, entry: Entry) -> BaseException:
        if not is_full(error):
            return error
        self._refused += _count(entry)
        if isinstance(error, LogFullError):  # what another append of the same transaction made of it
            return error
        full = LogFullError(
            f"there is no room for events ({getattr(error, 'orig', None) or error}); nothing was accepted",
            "Make room on the disk, or lower [events] retention_bytes; events are accepted again as soon as there is",
            place=self._module,
        )
        full.__cause__ = error
        return full

    # Reading

    async def read(
        self,
        after: int | Sequence[int],
        *,
        types: frozenset[str] | None = None,
        partitions: Iterable[int] | None = None,
        limit: int = 256,
    ) -> Page:
        at_ms = now_ms(self._clock)
        if 0 < self._due_ms <= at_ms:
            await self.release_due()
        wanted = set(range(self._partitions)) if partitions is None else set(partitions)
        position = after if isinstance(after, int) else min((after[each] for each in wanted), default=0)
        found: list[Stored] = []
        step = min(max(limit, 64), ROWS_AT_ONCE)
        while wanted and limit > 0:
            try:
                rows = await self._store.after(position, step)
            except DamagedFileError as error:
                raise self._damaged(position + 1, f" ({error.fact})") from error
            for row in rows:
                record = self._sound(row, position, found)
                if record is None:
                    return Page(found, position)
                position = row.position
                if (
                    (partitions is None or row.partition in wanted)
                    and (types is None or record.type in types)
                    and (isinstance(after, int) or row.position > after[row.partition])
                    and not 0 < record.expires_ms <= at_ms
                ):
                    found.append(Stored(row.position, row.partition, record))
                    if len(found) == limit:
                        return Page(found, position)
            if found or len(rows) < step:
                return Page(found, position, ended=len(rows) < step)
        return Page(found, position)

    def _sound(self, row: Kept, before: int, found: Sequence[Stored]) -> Record | None:
        """The row's record; None where it is damaged and what was found before it can be handed out first."""
        record = record_of(row)
        if record is not None and row.position > before:
            return record
        if found:
            return None
        raise self._damaged(row.position)

    def _damaged(self, offset: int, detail: str = "") -> DamagedLogError:
        return DamagedLogError(
            f"the record at offset {offset} is not as it was written{detail}",
            f"Run `seamline events repair {self._module}`: it sets aside what is damaged and says what is lost",
            place=self._module,
        )

    async def ends(self) -> Ends:
        return await self._store.ends()

    async def offset_at(self, start: Start) -> int:
        ends = await self.ends()
        if start == "earliest":
            return ends.first - 1
        if start == "latest":
            return ends.last
        if isinstance(start, int):
            return start - 1
        return await self._upkeep.before_time(int(start.timestamp() * 1000))

    # Waking

    @property
    def generation(self) -> int:
        return self._waking.generation

    async def changed(self, seen: int | None = None) -> int:
        return await self._waking.changed(seen)

    def poke(self) -> None:
        self._waking.wake()

    async def _look(self) -> None:
        """What other processes append, in case nobody tells; and what has become due."""
        troubled = False
        while True:
            pause_s = self._pause_s()
            await (in_step(LOOK_S) if pause_s == LOOK_S else asyncio.sleep(pause_s))
            try:
                if await self._store.news():
                    self._due_ms = (await self._store.delayed())[1]
                    self._waking.wake()
                if 0 < self._due_ms <= now_ms(self._clock):
                    await self.release_due()
                troubled = False
            except Exception as error:
                if not troubled:
                    _log.warning("%s: the log cannot be looked at, trying again: %s", self._module, error)
                troubled = True

    def _pause_s(self) -> float:
        ahead_s = (self._due_ms - now_ms(self._clock)) / 1000 if self._due_ms else LOOK_S
        return min(max(ahead_s, 0.001), LOOK_S)

    async def release_due(self) -> int:
        """Give the records that have become due their place in the log."""
        count = await self._store.release(now_ms(self._clock))
        self._due_ms = (await self._store.delayed())[1]
        if count:
            self._arrived(0)
        return count

    # Upkeep

    async def trim(self, *, older_than_s: float = 0, bytes_max: int = 0) -> int:
        before_ms = now_ms(self._clock) - int(older_than_s * 1000) if older_than_s else 0
        return await self._upkeep.trim(before_ms, bytes_max)

    async def compact(self, event_type: str) -> int:
        return await self._upkeep.compact(event_type)

    async def verify(self) -> list[Damage]:
        return await self._upkeep.verify()

    async def set_aside(self) -> list[Damage]:
        damage = await self._upkeep.set_aside(now_ms(self._clock))
        self._waking.wake()
        return damage

    async def stats(self) -> LogStats:
        ends = await self.ends()
        count, _ = await self._store.delayed()
        return LogStats(
            first=ends.first, last=ends.last, delayed=count,
            appended=self._appended, groups=self._groups, refused=self._refused,
        )  # fmt: skip


def _count(entry: Entry) -> int:
    rows, delayed = entry
    return len(rows) + len(delayed)
