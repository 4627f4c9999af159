"""The memory of what was handled: a row for each event, committed with what its handler wrote."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import LostLeaseError
from seamline.events.leases import check, lost_of
from seamline.events.record import Record
from seamline.events.tables import inbox
from seamline.events.transport import Delivery, Fence
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.store import Combiner, Database, raw_in

_ROWS_MAX = 256
"""What SQLite does with so many takes less than a millisecond."""

_COLUMNS = ("consumer_group", "source", "event_id", "handled_ms")
_INSERT = "INSERT INTO seamline_inbox (consumer_group, source, event_id, handled_ms) VALUES (?, ?, ?, ?)"
_ASK = "SELECT 1 FROM seamline_inbox WHERE consumer_group = ? AND source = ? AND event_id = ?"
_FORGET = "DELETE FROM seamline_inbox WHERE consumer_group = ? AND source = ? AND event_id = ?"
_SEEN = select(inbox.c.source, inbox.c.event_id).where(
    inbox.c.consumer_group == bindparam("a_group"),
    inbox.c.source.in_(bindparam("sources", expanding=True)),
    inbox.c.event_id.in_(bindparam("ids", expanding=True)),
)
_DELETE = delete(inbox).where(
    inbox.c.consumer_group == bindparam("a_group"),
    inbox.c.source == bindparam("a_source"),
    inbox.c.event_id == bindparam("an_id"),
)


class HandledElsewhereError(Exception):
    """The event was handled meanwhile, by another process: what was done now must not be kept."""


class _Note(NamedTuple):
    """What is written of one attempt."""

    rows: Sequence[tuple[str, str, str, int]]
    fences: set[Fence]

    def write(self, sqlite: sqlite3.Connection) -> Fence | None:
        """The fence that does not hold any more, if there is one; else the rows are written."""
        lost = lost_of(sqlite, self.fences)
        if lost is None:
            try:
                sqlite.executemany(_INSERT, self.rows)
            except sqlite3.IntegrityError as error:
                raise HandledElsewhereError(str(error)) from None
        return lost


def _write_alone(sqlite: sqlite3.Connection, notes: Sequence[_Note]) -> list[Fence | HandledElsewhereError | None]:
    """Each by itself: what is wrong with one does not concern the others."""
    outcomes: list[Fence | HandledElsewhereError | None] = []
    for note in notes:
        savepoint = len(note.rows) > 1
        if savepoint:
            sqlite.execute("SAVEPOINT note")
        try:
            outcomes.append(note.write(sqlite))
        except HandledElsewhereError as error:
            if savepoint:
                sqlite.execute("ROLLBACK TO note")
            outcomes.append(error)
        if savepoint:
            sqlite.execute("RELEASE note")
    return outcomes


class Inbox:
    """Of one module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._sqlite = database.path is not None
        self._clock = clock
        self._front: Combiner[_Note, Fence | None] = Combiner(self._write, items_max=_ROWS_MAX // 4)

    async def seen(self, group: str, records: Sequence[Record]) -> set[tuple[str, str]]:
        """(source, id) of those that ``group`` has handled already."""
        found: set[tuple[str, str]] = set()
        for first in range(0, len(records), _ROWS_MAX):
            asked = [(record.source, record.id) for record in records[first : first + _ROWS_MAX]]
            if self._sqlite:
                found.update(await self._database.raw_read(lambda sqlite, asked=asked: _seen(sqlite, group, asked)))
                continue
            named = {
                "a_group": group,
                "sources": list({source for source, _ in asked}),
                "ids": [event_id for _, event_id in asked],
            }
            async with self._database.read() as connection:
                found.update((source, event_id) for source, event_id in await connection.execute(_SEEN, named))
        return found

    async def settle(self, connection: AsyncConnection | None, group: str, deliveries: Sequence[Delivery]) -> None:
        """Say that these were handled: in the transaction of what was done, or by itself where nothing was written.

        Raises:
            HandledElsewhereError: one of them was, in another transaction.
            LostLeaseError: a partition was taken by another process.
        """
        at_ms = now_ms(self._clock)
        note = _Note(
            [(group, each.record.source, each.record.id, at_ms) for each in deliveries],
            {each.fence for each in deliveries if each.fence is not None},
        )
        if not self._sqlite:
            await self._settle_server(connection, note)
            return
        if connection is None:
            lost = await self._front.put(note)
        else:
            lost = await raw_in(connection, note.write)
        if lost is not None:
            raise LostLeaseError(
                f"{lost.lease!r} was taken by another process since epoch {lost.epoch}, which was ours",
                "Nothing was kept of this attempt; who has the lease now does the work",
            )

    async def _write(self, notes: Sequence[_Note]) -> Sequence[Fence | HandledElsewhereError | None]:
        return await self._database.raw(lambda sqlite: _write_alone(sqlite, notes))

    async def _settle_server(self, connection: AsyncConnection | None, note: _Note) -> None:
        if connection is None:
            async with self._database.transaction() as own:
                await self._settle_server(own, note)
            return
        for fence in note.fences:
            await check(connection, fence)
        try:
            await connection.execute(insert(inbox), [dict(zip(_COLUMNS, row, strict=True)) for row in note.rows])
        except IntegrityError as error:
            raise HandledElsewhereError(str(error.orig)) from None

    async def forget(self, connection: AsyncConnection, group: str, events: Sequence[tuple[str, str]]) -> None:
        """These (source, id) will not be handed out again."""
        for first in range(0, len(events), _ROWS_MAX):
            some = events[first : first + _ROWS_MAX]
            if self._sqlite:
                keys = [(group, *event) for event in some]
                await raw_in(connection, lambda sqlite, keys=keys: sqlite.executemany(_FORGET, keys))
                await asyncio.sleep(0)  # others, too, have work for the event loop
            else:
                rows = [{"a_group": group, "a_source": source, "an_id": event_id} for source, event_id in some]
                await connection.execute(_DELETE, rows)

    async def prune(self, keep_s: float) -> None:
        """Forget what was handled long ago."""
        before_ms = now_ms(self._clock) - int(keep_s * 1000)
        async with self._database.transaction() as connection:
            await connection.execute(delete(inbox).where(inbox.c.handled_ms < before_ms))


def _seen(sqlite: sqlite3.Connection, group: str, asked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [event for event in asked if sqlite.execute(_ASK, (group, *event)).fetchone()]
