"""The work on a log that is not appending and reading: what is too old, too much or superseded, and what is damaged.

All of it goes in small steps, between which appenders have their turn.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from seamline.events.log.facts import compactions, count_compaction
from seamline.events.log.interface import Damage
from seamline.events.log.rows import Outline, record_of
from seamline.events.log.store import Store
from seamline.kernel.store import Database
from seamline.kernel.store.errors import DamagedFileError

SEGMENT_ROWS: Final = 2_048
ROWS_AT_ONCE: Final = 512


@dataclass(slots=True)
class Segment:
    """Some neighbouring rows, in short."""

    first: int
    last: int
    oldest_ms: int
    newest_ms: int
    size: int


class Upkeep:
    """Remembers the log's outline, so that only what is new has to be looked at.

    Clocks jump, so the times of records need not grow with their offsets; a segment knows its extremes.
    """

    def __init__(self, store: Store, database: Database) -> None:
        self._store = store
        self._database = database
        self._segments: deque[Segment] = deque()
        self._compactions = 0
        self._lock = asyncio.Lock()

    async def _survey(self) -> None:
        """Bring the outline up to date."""
        done = await compactions(self._database)
        if done != self._compactions:
            self._compactions = done
            self._segments.clear()
        first, _ = await self._store.ends()
        while self._segments and self._segments[0].last < first:
            self._segments.popleft()
        if self._segments and self._segments[0].first < first:
            await self._look_again(self._segments[0])
        while True:
            after = self._segments[-1].last if self._segments else 0
            rows = await self._store.outlines(after, SEGMENT_ROWS)
            self._add(rows)
            if len(rows) < SEGMENT_ROWS:
                return

    async def _look_again(self, segment: Segment) -> None:
        """After some of its rows have gone."""
        after, sizes, times = segment.first - 1, 0, [segment.newest_ms]
        segment.first = segment.last
        while rows := await self._store.outlines(after, ROWS_AT_ONCE):
            here = [row for row in rows if row.position <= segment.last]
            if here:
                segment.first = min(segment.first, here[0].position)
            sizes += sum(row.size for row in here)
            times += [row.time_ms for row in here]
            after = rows[-1].position
            if len(here) < len(rows) or after >= segment.last:
                break
        segment.size, segment.oldest_ms = sizes, min(times)

    def _add(self, rows: Sequence[Outline]) -> None:
        if not rows:
            return
        times = [row.time_ms for row in rows]
        new = Segment(rows[0].position, rows[-1].position, min(times), max(times), sum(row.size for row in rows))
        last = self._segments[-1] if self._segments else None
        if last is not None and (last.last - last.first) + (new.last - new.first) < SEGMENT_ROWS:
            last.last = new.last
            last.oldest_ms, last.newest_ms = min(last.oldest_ms, new.oldest_ms), max(last.newest_ms, new.newest_ms)
            last.size += new.size
        else:
            self._segments.append(new)

    async def before_time(self, time_ms: int) -> int:
        """The offset before the first record of ``time_ms`` or later."""
        async with self._lock:
            last = (await self._store.ends()).last  # before the survey: what comes meanwhile must not be passed over
            await self._survey()
            for segment in self._segments:
                if segment.newest_ms < time_ms:
                    continue
                after = segment.first - 1
                while rows := await self._store.outlines(after, ROWS_AT_ONCE):
                    for row in rows:
                        if row.time_ms >= time_ms:
                            return row.position - 1
                    after = rows[-1].position
                    if after >= segment.last:
                        break
            return last

    async def trim(self, before_ms: int, bytes_max: int) -> int:
        async with self._lock:
            await self._survey()
            count = await self._trim_time(before_ms) if before_ms else 0
            return count + (await self._trim_size(bytes_max) if bytes_max else 0)

    async def _trim_time(self, before_ms: int) -> int:
        count = 0
        for segment in list(self._segments):
            if segment.oldest_ms >= before_ms:
                continue
            count += await self._store.delete_older(segment.first, segment.last, before_ms)
            if segment.newest_ms < before_ms:
                self._segments.remove(segment)
            else:
                await self._look_again(segment)
        return count

    async def _trim_size(self, bytes_max: int) -> int:
        """The oldest rows go, until what is left has at most ``bytes_max`` bytes."""
        count, too_much = 0, sum(segment.size for segment in self._segments) - bytes_max
        while too_much > 0 and self._segments:
            segment = self._segments[0]
            rows = await self._store.outlines(segment.first - 1, ROWS_AT_ONCE)
            gone: list[int] = []
            for row in rows:
                if too_much <= 0 or row.position > segment.last:
                    break
                gone.append(row.position)
                too_much -= row.size
                segment.size -= row.size
            count += await self._store.delete(gone)
            if not gone or gone[-1] >= segment.last:
                too_much -= segment.size  # what was set aside, or trimmed by another process
                self._segments.popleft()
            else:
                segment.first = gone[-1] + 1
        return count

    async def compact(self, event_type: str) -> int:
        """From the newest record to the oldest: a key that was seen already has a newer one."""
        seen = Seen()
        count, before = 0, (await self._store.ends()).last + 1
        try:
            while rows := await self._store.before(before, ROWS_AT_ONCE):
                before = rows[-1].position
                keyed = [
                    (row.position, record.key)
                    for row in rows
                    if (record := record_of(row)) is not None and record.type == event_type and record.key
                ]
                superseded = await asyncio.to_thread(seen.again, keyed)
                count += await self._store.delete(superseded)
        finally:
            seen.close()
            if count:
                await count_compaction(self._database)
        return count

    async def verify(self) -> list[Damage]:
        damage: list[Damage] = []
        after = 0
        try:
            damage = await self._store.check_file()
            while rows := await self._store.after(after, ROWS_AT_ONCE):
                damage += [Damage(row.position, row.position, WRONG) for row in rows if record_of(row) is None]
                after = max(after + 1, rows[-1].position)
        except DamagedFileError as error:
            damage.append(Damage(after + 1, 0, error.fact))
        return damage

    async def set_aside(self, now_ms: int) -> list[Damage]:
        async with self._lock:
            lost: list[Damage] = []
            if any(each.last == 0 for each in await self.verify()):
                lost = await self._store.salvage(now_ms)
                self._segments.clear()
            after = 0
            while rows := await self._store.after(after, ROWS_AT_ONCE):
                for row in rows:
                    if record_of(row) is None:
                        await self._store.set_aside(row, WRONG, now_ms)
                        lost.append(Damage(row.position, row.position, WRONG))
                after = rows[-1].position
            return lost


WRONG: Final = "the record does not have the checksum that it was written with"


class Seen:
    """A set of keys of any size: SQLite's temporary file holds what does not fit into its cache."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def again(self, keyed: Sequence[tuple[int, str]]) -> list[int]:
        """The positions whose key was there before."""
        self._connection.execute("BEGIN")
        add = "INSERT OR IGNORE INTO seen VALUES (?)"
        again = [position for position, key in keyed if self._connection.execute(add, (key,)).rowcount == 0]
        self._connection.execute("COMMIT")
        return again

    def close(self) -> None:
        self._connection.close()
