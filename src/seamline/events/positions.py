"""How far a consumer group is on a topic: a position for each partition, in the consumer's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import LostLeaseError
from seamline.events.fences import check_all, lost_lease, lost_of
from seamline.events.tables import groups, inbox, offsets
from seamline.events.transport import Fence
from seamline.kernel.store import Combiner, Database

_FORGET_MAX = 256
"""What SQLite does with so many takes less than a millisecond."""

_WRITE = (
    update(offsets)
    .where(
        offsets.c.consumer_group == bindparam("a_group"),
        offsets.c.topic == bindparam("a_topic"),
        offsets.c.partition.in_(bindparam("partitions", expanding=True)),
    )
    .values(position=bindparam("a_position"))
)
_FORGET = delete(inbox).where(
    inbox.c.consumer_group == bindparam("a_group"),
    inbox.c.source == bindparam("a_source"),
    inbox.c.event_id.in_(bindparam("ids", expanding=True)),
)
_SQLITE_WRITE = (
    "UPDATE seamline_offsets SET position = ? WHERE consumer_group = ? AND topic = ? "
    "AND partition IN (SELECT value FROM json_each(?))"
)
_SQLITE_FORGET = (
    "DELETE FROM seamline_inbox WHERE consumer_group = ? AND source = ? "
    "AND event_id IN (SELECT value FROM json_each(?))"
)


class Bookmark(NamedTuple):
    """How far a group is on some partitions, and what its inbox need not remember any more."""

    group: str
    topic: str
    fences: Collection[Fence]
    positions: Mapping[int, int]
    forget: Sequence[tuple[str, str]]
    """(source, id) of what lies before the positions."""

    def by_position(self) -> dict[int, list[int]]:
        """The partitions at each position; most are at the same."""
        found: dict[int, list[int]] = {}
        for partition, position in self.positions.items():
            found.setdefault(position, []).append(partition)
        return found

    def by_source(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for source, event_id in self.forget:
            found.setdefault(source, []).append(event_id)
        return found

    def write(self, sqlite: sqlite3.Connection) -> None:
        for position, partitions in self.by_position().items():
            sqlite.execute(_SQLITE_WRITE, (position, self.group, self.topic, _json(partitions)))
        for source, ids in self.by_source().items():
            sqlite.execute(_SQLITE_FORGET, (self.group, source, _json(ids)))


def _json(values: Sequence[int] | Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()


class Bookmarks:
    """Writes how far the groups of one module are; those that say so at once share a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sqlite = database.path is not None
        self._front: Combiner[Bookmark, None] = Combiner(self._write_sqlite)

    async def write(self, mark: Bookmark) -> None:
        """Raises LostLeaseError where a partition was taken by another process; nothing of the mark is kept."""
        if not self._sqlite:
            await self._write_server(mark)
            return
        # Positions first: what is forgotten before its position is written would have its effect again.
        await self._front.add(mark._replace(forget=mark.forget[:_FORGET_MAX]))
        for first in range(_FORGET_MAX, len(mark.forget), _FORGET_MAX):
            await self._front.add(mark._replace(positions={}, forget=mark.forget[first : first + _FORGET_MAX]))

    async def _write_sqlite(self, marks: Sequence[Bookmark]) -> Sequence[LostLeaseError | None]:
        def work(sqlite: sqlite3.Connection) -> list[LostLeaseError | None]:
            lost = lost_of(sqlite, {fence for mark in marks for fence in mark.fences})
            outcomes: list[LostLeaseError | None] = []
            for mark in marks:
                gone = next((fence for fence in mark.fences if fence in lost), None)
                if gone is None:
                    mark.write(sqlite)
                outcomes.append(lost_lease(gone) if gone is not None else None)
            return outcomes

        return await self._database.raw(work)

    async def _write_server(self, mark: Bookmark) -> None:
        named = {"a_group": mark.group, "a_topic": mark.topic}
        async with self._database.transaction() as connection:
            await check_all(connection, mark.fences)
            for position, partitions in mark.by_position().items():
                await connection.execute(_WRITE, {**named, "partitions": partitions, "a_position": position})
            for source, ids in mark.by_source().items():
                await connection.execute(_FORGET, {"a_group": mark.group, "a_source": source, "ids": ids})


def behind_broker(topic: str) -> str:
    """The name under which it is kept that a group was replayed from a broker: since then its positions in the
    module's log say nothing of what it has handled."""
    return f"{topic}@broker"


class Positions:
    """Of one group on one topic."""

    def __init__(self, database: Database, group: str, topic: str, partitions: int) -> None:
        self._database = database
        self._group = group
        self._topic = topic
        self.partitions = partitions

    async def begun(self) -> bool:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(groups.c.topic).where(groups.c.consumer_group == self._group, groups.c.topic == self._topic)
            )
            return found.first() is not None

    async def begin(self, position: int) -> None:
        """Where the group starts, unless another process has said so meanwhile."""
        named = {"consumer_group": self._group, "topic": self._topic}
        try:
            async with self._database.transaction() as connection:
                await connection.execute(insert(groups).values(**named))
                rows = [{**named, "partition": each, "position": position} for each in range(self.partitions)]
                await connection.execute(insert(offsets), rows)
        except IntegrityError:
            return

    async def all(self) -> list[int]:
        """The position of each partition."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select(offsets.c.partition, offsets.c.position).where(
                    offsets.c.consumer_group == self._group, offsets.c.topic == self._topic
                )
            )
            by_partition = {int(partition): int(position) for partition, position in found}
        return [by_partition.get(each, 0) for each in range(self.partitions)]

    async def replayed_ms(self) -> int:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(groups.c.replayed_ms).where(
                    groups.c.consumer_group == self._group, groups.c.topic == self._topic
                )
            )
            return found.scalar() or 0

    def bookmark(
        self, fences: Collection[Fence], positions: Mapping[int, int], forget: Sequence[tuple[str, str]]
    ) -> Bookmark:
        return Bookmark(self._group, self._topic, fences, positions, forget)

    async def move(self, connection: AsyncConnection, position: int, now_ms: int) -> None:
        """Begin again at ``position``."""
        mine = (offsets.c.consumer_group == self._group) & (offsets.c.topic == self._topic)
        await connection.execute(update(offsets).where(mine).values(position=position))
        await connection.execute(
            delete(groups).where(groups.c.consumer_group == self._group, groups.c.topic == behind_broker(self._topic))
        )
        await self.forget(connection, now_ms)

    async def forget(self, connection: AsyncConnection, now_ms: int) -> None:
        """What comes now is a replay, and nothing is remembered as handled."""
        await connection.execute(
            delete(inbox).where(inbox.c.consumer_group == self._group, inbox.c.source == self._topic)
        )
        mine = (groups.c.consumer_group == self._group) & (groups.c.topic == self._topic)
        again = update(groups).where(mine).values(replayed_ms=now_ms, generation=groups.c.generation + 1)
        if (await connection.execute(again)).rowcount == 0:
            named = {"consumer_group": self._group, "topic": self._topic}
            await connection.execute(insert(groups).values(**named, replayed_ms=now_ms, generation=1))
