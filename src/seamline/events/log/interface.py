"""What a module's log is to those who use it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.record import Record
from seamline.module.module import Start


class Stored(NamedTuple):
    """A record where it is in the log. Offsets grow and are never used again; those of trimmed records are gaps."""

    offset: int
    partition: int
    record: Record


class Page(list[Stored]):
    """Some records, in order of offset."""

    def __init__(self, records: Iterable[Stored], through: int, *, ended: bool = False) -> None:
        super().__init__(records)
        self.ended = ended
        """It is certain that the log's end was reached: who waits for its next change misses nothing."""
        self.through = through
        """Up to here, whatever was asked for is in the page: go on reading after it."""


class Ends(NamedTuple):
    """The offsets of the oldest record kept and of the newest ever written; ``first > last`` where none is kept."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Damage:
    """What is not as it was written, or was trimmed, set aside or lost because of it."""

    first: int
    """The offsets concerned, from here"""
    last: int
    """to here; 0 where it is not known how far."""
    fact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStats:
    first: int
    last: int
    delayed: int
    """Records that are not due yet."""
    appended: int
    """Records that this process has written since it opened the log."""
    groups: int
    """Commits that this took."""
    refused: int
    """Records that found no room."""


class Log(Protocol):
    """The durable log of one module: its topic, and the outbox of its transactions.

    Records with one key keep the order in which they were appended. A record whose ``due_ms`` lies ahead takes its
    place when it is due; one that has expired is not handed out.
    """

    async def start(self) -> None:
        """Make the tables where they are absent, and begin to look for what other processes append."""
        ...

    async def close(self) -> None:
        """Write what was accepted, and stop."""
        ...

    async def append(self, records: Sequence[Record], connection: AsyncConnection | None = None) -> None:
        """Write records, all or none: with ``connection`` as a part of that transaction of the module's own
        database, without it durable on return.

        Raises:
            LogFullError: there is no room; nothing was accepted.
        """
        ...

    def submit(self, record: Record) -> asyncio.Future[None] | None:
        """As :meth:`append` of one record without a connection, at less cost: what comes back is done when the record
        is on disk. None where it takes :meth:`append`, and nothing was accepted."""
        ...

    async def read(
        self,
        after: int | Sequence[int],
        *,
        types: frozenset[str] | None = None,
        partitions: Iterable[int] | None = None,
        limit: int = 256,
    ) -> Page:
        """Up to ``limit`` records behind ``after``: one offset, or one for each partition.

        Empty only when the log's end was reached.

        Raises:
            DamagedLogError: a record does not have the checksum that it was written with.
        """
        ...

    async def ends(self) -> Ends: ...

    async def offset_at(self, start: Start) -> int:
        """What to read after, to begin at ``start``: everything at or behind it is then read. Of a time, the first
        record that was published then or later, even where clocks have jumped."""
        ...

    async def trim(self, *, older_than_s: float = 0, bytes_max: int = 0) -> int:
        """Drop records that are older, and the oldest while the rest is larger; 0 keeps them. How many were dropped."""
        ...

    async def compact(self, event_type: str) -> int:
        """Of each key's records of a type, keep the newest. How many were dropped."""
        ...

    @property
    def generation(self) -> int:
        """Changes with every append that this process knows of."""
        ...

    async def changed(self, seen: int | None = None) -> int:
        """Wait until ``generation`` is not ``seen`` any more, by default not what it is now. To miss nothing, look at
        ``generation``, then read, then wait."""
        ...

    def poke(self) -> None:
        """Another process has appended."""
        ...

    async def verify(self) -> list[Damage]:
        """Look at every record."""
        ...

    async def set_aside(self) -> list[Damage]:
        """Move what is damaged out of the way of readers, into ``seamline_log_damaged``, and say what it was."""
        ...

    async def stats(self) -> LogStats: ...
