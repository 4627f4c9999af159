"""The memory of what was handled: a row for each event, committed with what its handler wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import LostLeaseError
from seamline.events.fences import check_all, lost_lease, lost_of
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
_SEEN = select(inbox.c.source, inbox.c.event_id).where(
    inbox.c.consumer_group == bindparam("a_group"),
    inbox.c.source.in_(bindparam("sources", expanding=True)),
    inbox.c.event_id.in_(bindparam("ids", expanding=True)),
)


class HandledElsewhereError(Exception):
    """The event was handled meanwhile, by another process: what was done now must not be kept."""


class _Note(NamedTuple):
    """What is written of one attempt."""

    rows: Sequence[tuple[str, str, str, int]]
    fences: AbstractSet[Fence]

    def write(self, sqlite: sqlite3.Connection, lost: AbstractSet[Fence]) -> None:
        """Raises LostLeaseError where one of the fences is among those ``lost``, and HandledElsewhereError."""
        for fence in self.fences & lost:
            raise lost_lease(fence)
        try:
            sqlite.executemany(_INSERT, self.rows)
        except sqlite3.IntegrityError as error:
            raise HandledElsewhereError(str(error)) from None


def _write_alone(sqlite: sqlite3.Connection, notes: Sequence[_Note]) -> list[Exception | None]:
    """Each by itself: what is wrong with one does not concern the others."""
    lost = lost_of(sqlite, set[Fence]().union(*(note.fences for note in notes)))
    return [_outcome_alone(sqlite, note, lost) for note in notes]


def _outcome_alone(sqlite: sqlite3.Connection, note: _Note, lost: AbstractSet[Fence]) -> Exception | None:
    savepoint = len(note.rows) > 1
    if savepoint:
        sqlite.execute("SAVEPOINT note")
    try:
        note.write(sqlite, lost)
    except (HandledElsewhereError, LostLeaseError) as error:
        if savepoint:
            sqlite.execute("ROLLBACK TO note")
        return error
    finally:
        if savepoint:
            sqlite.execute("RELEASE note")
    return None


class Inbox:
    """Of one module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._sqlite = database.path is not None
        self._clock = clock
        self._front: Combiner[_Note, None] = Combiner(self._write, items_max=_ROWS_MAX // 4)

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
            await self._front.put(note)
        else:
            await raw_in(connection, lambda sqlite: note.write(sqlite, lost_of(sqlite, note.fences)))

    async def _write(self, notes: Sequence[_Note]) -> Sequence[Exception | None]:
        return await self._database.raw(lambda sqlite: _write_alone(sqlite, notes))

    async def _settle_server(self, connection: AsyncConnection | None, note: _Note) -> None:
        if connection is None:
            async with self._database.transaction() as own:
                await self._settle_server(own, note)
            return
        await check_all(connection, note.fences)
        try:
            await connection.execute(insert(inbox), [dict(zip(_COLUMNS, row, strict=True)) for row in note.rows])
        except IntegrityError as error:
            raise HandledElsewhereError(str(error.orig)) from None

    async def prune(self, keep_s: float) -> None:
        """Forget what was handled long ago."""
        before_ms = now_ms(self._clock) - int(keep_s * 1000)
        async with self._database.transaction() as connection:
            await connection.execute(delete(inbox).where(inbox.c.handled_ms < before_ms))


def _seen(sqlite: sqlite3.Connection, group: str, asked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [event for event in asked if sqlite.execute(_ASK, (group, *event)).fetchone()]
