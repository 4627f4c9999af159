"""The few facts about a log that are kept beside it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from seamline.events.errors import EventsError
from seamline.events.log.tables import facts
from seamline.kernel.store import Database

_PARTITIONS: Final = "partitions"
_COMPACTIONS: Final = "compactions"


async def keep_partitions(database: Database, partitions: int) -> None:
    """Remember how many partitions the log was begun with; records of one key must stay in one.

    Raises:
        EventsError: it was another number.
    """
    begun = await _value(database, _PARTITIONS)
    if begun is None:
        try:
            async with database.transaction() as tx:
                begin = [{"name": _PARTITIONS, "value": partitions}, {"name": _COMPACTIONS, "value": 0}]
                await tx.execute(insert(facts), begin)
            return
        except IntegrityError:  # another process was first
            begun = await _value(database, _PARTITIONS)
    if begun != partitions:
        raise EventsError(
            f"the log has {begun} partitions, and the settings say {partitions}",
            f"Write `partitions = {begun}` into [events]: events of one key would lose their order",
            place=database.module,
        )


async def compactions(database: Database) -> int:
    """How often the log was compacted, by any process."""
    return await _value(database, _COMPACTIONS) or 0


async def count_compaction(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(facts).where(facts.c.name == _COMPACTIONS).values(value=facts.c.value + 1))


async def _value(database: Database, name: str) -> int | None:
    async with database.read() as connection:
        return (await connection.execute(select(facts.c.value).where(facts.c.name == name))).scalar_one_or_none()
