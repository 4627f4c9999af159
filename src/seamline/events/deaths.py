"""Events whose handling ends the process: found by care after a death, at no cost while all is well.

A consumer leaves a mark while it runs, and takes it away when it ends in order. One that begins and finds the mark of a
process that has gone, handles its first events one at a time and notes each before its handler is called. If it dies
once more, the note names the event; an event that is noted too often goes to the dead letters.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, delete, insert, select, update

from seamline.events.record import Record
from seamline.events.tables import deaths, marks
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.owner import is_gone
from seamline.kernel.store import Database

AGE_MAX_S = 30 * 86_400
"""A mark or note of which nothing was heard for so long is forgotten: its machine, or what it noted, is gone."""


class Deaths:
    """Of one consumer group on one topic, in this process."""

    def __init__(self, database: Database, group: str, topic: str, owner: str, clock: Clock) -> None:
        self._database = database
        self._group = group
        self._topic = topic
        self._owner = owner
        self._clock = clock

    async def begin(self) -> bool:
        """Leave the mark. Whether a process of this machine died while it consumed."""
        at_ms = now_ms(self._clock)
        mine = and_(marks.c.consumer_group == self._group, marks.c.topic == self._topic)
        async with self._database.transaction() as connection:
            owners = list((await connection.execute(select(marks.c.owner).where(mine))).scalars())
            gone = [owner for owner in owners if is_gone(owner)]
            oldest_ms = at_ms - AGE_MAX_S * 1000
            over = marks.c.owner.in_([*gone, self._owner]) | (marks.c.begun_ms < oldest_ms)
            await connection.execute(delete(marks).where(mine, over))
            await connection.execute(delete(deaths).where(deaths.c.noted_ms < oldest_ms))
            mark = {"consumer_group": self._group, "topic": self._topic, "owner": self._owner, "begun_ms": at_ms}
            await connection.execute(insert(marks).values(mark))
            return bool(gone)

    async def end(self) -> None:
        """Take the mark away; what was broken off now did not end the process."""
        at_work = and_(deaths.c.consumer_group == self._group, deaths.c.owner == self._owner)
        mine = and_(marks.c.consumer_group == self._group, marks.c.topic == self._topic, marks.c.owner == self._owner)
        async with self._database.transaction() as connection:
            await connection.execute(update(deaths).where(at_work).values(number=deaths.c.number - 1, owner=""))
            await connection.execute(delete(marks).where(mine))

    async def note(self, record: Record) -> int:
        """It is about to be handled. How often its process has died of it until now."""
        async with self._database.transaction() as connection:
            number = (await connection.execute(select(deaths.c.number).where(self._is(record)))).scalar()
            note = {"number": (number or 0) + 1, "owner": self._owner, "noted_ms": now_ms(self._clock)}
            if number is None:
                named = {"consumer_group": self._group, "source": record.source, "event_id": record.id}
                await connection.execute(insert(deaths).values(**named, **note))
            else:
                await connection.execute(update(deaths).where(self._is(record)).values(**note))
            return number or 0

    async def clear(self, record: Record) -> None:
        """Its process lives."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(deaths).where(self._is(record)))

    def _is(self, record: Record) -> ColumnElement[bool]:
        c = deaths.c
        return and_(c.consumer_group == self._group, c.source == record.source, c.event_id == record.id)
