"""The memory of what was handled: a row for each event, committed with what its handler wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.leases import check
from seamline.events.record import Record
from seamline.events.tables import inbox
from seamline.events.transport import Delivery, Fence
from seamline.kernel.clock import Clock
from seamline.kernel.store import Database, raw_in

_ASK_MAX = 256

_COLUMNS = ("consumer_group", "source", "event_id", "handled_ms")
_INSERT = "INSERT INTO seamline_inbox (consumer_group, source, event_id, handled_ms) VALUES (?, ?, ?, ?)"
_EPOCH = "SELECT epoch FROM seamline_leases WHERE lease = ?"
_DELETE = delete(inbox).where(
    inbox.c.consumer_group == bindparam("a_group"),
    inbox.c.source == bindparam("a_source"),
    inbox.c.event_id == bindparam("an_id"),
)


class HandledElsewhereError(Exception):
    """The event was handled meanwhile, by another process: what was done now must not be kept."""


def _settle(sqlite: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], fences: Iterable[Fence]) -> Fence | None:
    """The fence that does not hold any more, if there is one; else the rows are written."""
    for fence in fences:
        if sqlite.execute(_EPOCH, (fence.lease,)).fetchone() != (fence.epoch,):
            return fence
    try:
        sqlite.executemany(_INSERT, rows)
    except sqlite3.IntegrityError as error:
        raise HandledElsewhereError(str(error)) from None
    return None


class Inbox:
    """Of one module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._sqlite = database.path is not None
        self._clock = clock

    async def seen(self, group: str, records: Sequence[Record]) -> set[tuple[str, str]]:
        """(source, id) of those that ``group`` has handled already."""
        found: set[tuple[str, str]] = set()
        for first in range(0, len(records), _ASK_MAX):
            ids = [record.id for record in records[first : first + _ASK_MAX]]
            question = select(inbox.c.source, inbox.c.event_id).where(
                inbox.c.consumer_group == group, inbox.c.event_id.in_(ids),
                inbox.c.source.in_({record.source for record in records}),
            )  # fmt: skip
            async with self._database.read() as connection:
                found.update((source, event_id) for source, event_id in await connection.execute(question))
        return found

    async def settle(self, connection: AsyncConnection, group: str, deliveries: Sequence[Delivery]) -> None:
        """Say that these were handled, in the transaction of what was done.

        Raises:
            HandledElsewhereError: one of them was, in another transaction.
            LostLeaseError: a partition was taken by another process.
        """
        now_ms = int(self._clock.now().timestamp() * 1000)
        rows = [(group, each.record.source, each.record.id, now_ms) for each in deliveries]
        fences = {each.fence for each in deliveries if each.fence is not None}
        if not self._sqlite:
            for fence in fences:
                await check(connection, fence)
            try:
                await connection.execute(insert(inbox), [dict(zip(_COLUMNS, row, strict=True)) for row in rows])
            except IntegrityError as error:
                raise HandledElsewhereError(str(error.orig)) from None
            return
        lost = await raw_in(connection, lambda sqlite: _settle(sqlite, rows, fences))
        if lost is not None:
            await check(connection, lost)  # which says so

    async def forget(self, connection: AsyncConnection, group: str, events: Sequence[tuple[str, str]]) -> None:
        """These (source, id) will not be handed out again."""
        if events:
            rows = [{"a_group": group, "a_source": source, "an_id": event_id} for source, event_id in events]
            await connection.execute(_DELETE, rows)

    async def prune(self, keep_s: float) -> None:
        """Forget what was handled long ago."""
        before_ms = int((self._clock.now().timestamp() - keep_s) * 1000)
        async with self._database.transaction() as connection:
            await connection.execute(delete(inbox).where(inbox.c.handled_ms < before_ms))
