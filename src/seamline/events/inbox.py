"""The memory of what was handled: a row for each event, committed with what its handler wrote."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.record import Record
from seamline.events.tables import inbox
from seamline.kernel.clock import Clock
from seamline.kernel.store import Database

_ASK_MAX = 256

_INSERT = insert(inbox)
_DELETE = delete(inbox).where(
    inbox.c.consumer_group == bindparam("a_group"),
    inbox.c.source == bindparam("a_source"),
    inbox.c.event_id == bindparam("an_id"),
)


class HandledElsewhereError(Exception):
    """The event was handled meanwhile, by another process: what was done now must not be kept."""


class Inbox:
    """Of one module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
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

    async def note(self, connection: AsyncConnection, group: str, records: Sequence[Record]) -> None:
        """Say that these were handled, in the transaction of what was done.

        Raises:
            HandledElsewhereError: one of them was, in another transaction.
        """
        now_ms = int(self._clock.now().timestamp() * 1000)
        rows = [
            {"consumer_group": group, "source": record.source, "event_id": record.id, "handled_ms": now_ms}
            for record in records
        ]
        try:
            await connection.execute(_INSERT, rows if len(rows) > 1 else rows[0])
        except IntegrityError as error:
            raise HandledElsewhereError(str(error.orig)) from None

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
