"""How often an event was sent in vain, and when it is due again: kept in the module's database, because the pauses
between the tries are longer than processes live."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Column, ColumnElement, Integer, MetaData, String, Table, and_, delete, insert, select

from seamline.events.record import Record
from seamline.kernel.store import Database

AGE_MAX_S = 30 * 86_400
"""What was due so long ago nobody sends any more: its webhook is gone, or its module was."""

METADATA = MetaData()

tries = Table(
    "seamline_webhook_tries",
    METADATA,
    Column("webhook", String, primary_key=True),
    Column("source", String, primary_key=True),
    Column("event_id", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
)


class Tried(NamedTuple):
    """What is known of an event's way to one receiver."""

    number: int = 0
    due_ms: int = 0


class Tries:
    """Of one webhook."""

    def __init__(self, database: Database, webhook: str) -> None:
        self._database = database
        self._webhook = webhook

    async def open(self, at_ms: int) -> None:
        """Make the table, and forget what is too old."""
        await self._database.ensure(METADATA)
        async with self._database.transaction() as connection:
            await connection.execute(delete(tries).where(tries.c.due_ms < at_ms - AGE_MAX_S * 1000))

    async def of(self, record: Record) -> Tried:
        question = select(tries.c.number, tries.c.due_ms).where(self._is(record))
        async with self._database.read() as connection:
            found = (await connection.execute(question)).one_or_none()
        return Tried(*found) if found is not None else Tried()

    async def note(self, record: Record, tried: Tried) -> None:
        """It was sent in vain, for the how-manieth time, and is sent again when it is due."""
        named = {"webhook": self._webhook, "source": record.source, "event_id": record.id}
        async with self._database.transaction() as connection:
            await connection.execute(delete(tries).where(self._is(record)))
            await connection.execute(insert(tries).values(**named, **tried._asdict()))

    async def forget(self, record: Record) -> None:
        """It has arrived, or is given up."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(tries).where(self._is(record)))

    def _is(self, record: Record) -> ColumnElement[bool]:
        c = tries.c
        return and_(c.webhook == self._webhook, c.source == record.source, c.event_id == record.id)
