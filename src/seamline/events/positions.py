"""How far a consumer group is on a topic: a position for each partition, in the consumer's database."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.tables import groups, inbox, offsets
from seamline.kernel.store import Database, raw_in

_WRITE = (
    update(offsets)
    .where(
        offsets.c.consumer_group == bindparam("a_group"),
        offsets.c.topic == bindparam("a_topic"),
        offsets.c.partition == bindparam("a_partition"),
    )
    .values(position=bindparam("a_position"))
)

_SQLITE_WRITE = "UPDATE seamline_offsets SET position = ? WHERE consumer_group = ? AND topic = ? AND partition = ?"


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

    async def write(self, connection: AsyncConnection, positions: Mapping[int, int]) -> None:
        if self._database.path is not None:
            mine = [(position, self._group, self._topic, partition) for partition, position in positions.items()]
            await raw_in(connection, lambda sqlite: sqlite.executemany(_SQLITE_WRITE, mine))
            return
        rows = [
            {"a_group": self._group, "a_topic": self._topic, "a_partition": partition, "a_position": position}
            for partition, position in positions.items()
        ]
        await connection.execute(_WRITE, rows)

    async def move(self, connection: AsyncConnection, position: int, now_ms: int) -> None:
        """Begin again at ``position``."""
        await self.write(connection, dict.fromkeys(range(self.partitions), position))
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
