"""How a module's log is read by others: a contract that the platform makes for each module, and its service.

Policy is asked for the action ``events`` on the module, once for all of its events.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, cast

import msgspec

from seamline.events.log.interface import Page, Stored
from seamline.kernel.clock import now_ms
from seamline.module.contract import Contract, readonly, timeout

if TYPE_CHECKING:
    from seamline.events.log import Log
    from seamline.kernel.clock import Clock
    from seamline.module.module import Start

FOLLOW_S = 40.0
"""A stream of pages ends after so long, and its reader begins a new one: where the log is, may have changed."""
PAGE_RECORDS = 256
PAGE_BYTES = 1024 * 1024


class LogPage(msgspec.Struct, frozen=True):
    """Some records in the order of the log. All that was asked for, up to ``through``, has been handed out."""

    records: list[Stored]
    through: int


class Behind(msgspec.Struct, frozen=True):
    """How many records lie behind positions, and how old the first of them is."""

    records: int
    oldest_ms: int


class LogReading(Contract):
    """Reads one module's log. ``after`` has a position for each partition."""

    action = "events"

    @timeout(FOLLOW_S + 20)
    def follow(self, after: list[int], partitions: list[int], types: list[str]) -> AsyncIterator[LogPage]: ...

    @readonly
    async def position(self, start: str) -> int: ...

    @readonly
    async def behind(self, after: list[int], types: list[str]) -> Behind: ...


@functools.lru_cache(maxsize=4096)
def log_contract(module: str) -> type[LogReading]:
    """The contract by which the log of ``module`` is read."""
    return cast("type[LogReading]", type(f"{module}_events", (LogReading,), {"__module__": __name__}))


class _Tail:
    """What was read last at the end of a log, for all who follow it there: they wake together and ask for the same."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._reading = asyncio.Lock()
        self._after = 0
        self._generation = -1
        self._page = Page([], 0)

    async def read(self, after: Sequence[int], types: frozenset[str], partitions: frozenset[int]) -> Page:
        """As :meth:`~seamline.events.log.interface.Log.read`, though an empty page need not be the last."""
        position = min(after[each] for each in partitions)
        if not self._knows(position):
            async with self._reading:
                if not self._knows(position):
                    generation = self._log.generation
                    self._page = await self._log.read(position, limit=PAGE_RECORDS)
                    self._after, self._generation = position, generation
        page, at_ms = self._page, now_ms(self._clock)
        wanted = [
            stored
            for stored in page
            if stored.partition in partitions
            and stored.offset > after[stored.partition]
            and stored.record.type in types
            and not 0 < stored.record.expires_ms <= at_ms
        ]
        return Page(wanted, page.through, ended=page.ended)

    def _knows(self, position: int) -> bool:
        """Whether what was read last begins at ``position`` or before, and there is nothing newer."""
        page = self._page
        return (
            self._generation == self._log.generation
            and self._after <= position
            and (page.ended or position < page.through)
        )


class LogService(LogReading):
    """Serves the log of a module that is hosted here."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._tail = _Tail(log, clock)
        self._clock = clock
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Let readers go elsewhere."""
        self._ending.set()
        self._log.poke()

    async def follow(self, after: list[int], partitions: list[int], types: list[str]) -> AsyncIterator[LogPage]:
        wanted, held = frozenset(types), frozenset(partitions)
        cursor, through = list(after), min((after[each] for each in partitions), default=0)
        end, at_end = monotonic() + FOLLOW_S, False
        while not self._ending.is_set() and (left := end - monotonic()) > 0:
            seen = self._log.generation
            if at_end and held:
                page = await self._tail.read(cursor, wanted, held)
            else:
                page = await self._log.read(cursor, types=wanted, partitions=held, limit=PAGE_RECORDS)
                page.ended = page.ended or not page
            records, reached = _cut(page, page.through)
            at_end = page.ended and len(records) == len(page)
            if records or reached > through:
                through = max(reached, through)
                for partition in partitions:
                    cursor[partition] = max(cursor[partition], reached)
                yield LogPage(records, reached)
            if at_end:
                try:
                    async with asyncio.timeout(left):
                        await self._log.changed(seen)
                except TimeoutError:
                    return

    async def position(self, start: str) -> int:
        return await self._log.offset_at(read_start(start))

    async def behind(self, after: list[int], types: list[str]) -> Behind:
        wanted, cursor = frozenset(types), list(after)
        count, oldest_ms = 0, 0
        while page := await self._log.read(cursor, types=wanted, limit=PAGE_RECORDS * 4):
            oldest_ms = oldest_ms or page[0].record.time_ms
            count += len(page)
            cursor = [max(each, page.through) for each in cursor]
        return Behind(count, max(now_ms(self._clock) - oldest_ms, 0) if count else 0)


def _cut(records: list[Stored], through: int) -> tuple[list[Stored], int]:
    """As many as fit into a page, and how far they reach."""
    size = 0
    for number, stored in enumerate(records):
        size += len(stored.record.data)
        if size > PAGE_BYTES and number:
            return records[:number], records[number - 1].offset
    return list(records), through


def written_start(start: Start) -> str:
    """A start as it travels, and as people write it: ``earliest``, ``latest``, an offset or a time."""
    return start.isoformat() if isinstance(start, datetime) else str(start)


def read_start(text: str) -> Start:
    """Raises ValueError."""
    if text in {"earliest", "latest"}:
        return cast("Start", text)
    if text.isdigit():
        return int(text)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.astimezone()
