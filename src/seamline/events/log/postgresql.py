"""The log in a module's PostgreSQL schema.

Positions come from a sequence, so that they follow the order in which events were said, row locks included. Commits
come in another order: position 7 may be there to see while 6 is still on its way. A reader that took 7 for the end
would lose 6. So each transaction holds, from before its first position until its end, a shared advisory lock whose
key says where the sequence was; what lies behind the lowest key held is final, and readers go no further. Nobody waits
for such a lock, and other modules' or unrelated long transactions hold nobody up.
"""

# ruff: noqa: S608  # statements are put together from constants of this file

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.log.interface import Damage, Ends
from seamline.events.log.line import Line
from seamline.events.log.rows import Kept, Outline, Row
from seamline.events.log.store import Entry
from seamline.events.log.tables import metadata
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.store import Database

NOTIFY_PAUSE_S: Final = 0.005
DELETED_AT_ONCE: Final = 5_000
RELEASED_AT_ONCE: Final = 500

_LOW_BITS: Final = 44
_LOW_MAX: Final = (1 << _LOW_BITS) - 1

_SEQUENCE: Final = "(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM seamline_log_position_seq)"
_HELD: Final = (
    # Once per transaction: setting and lock both end with it, or with the savepoint that took them.
    "held AS MATERIALIZED (SELECT CASE WHEN coalesce(current_setting('seamline.appending', true), '') = '' THEN "
    "set_config('seamline.appending', 'yes', true) || pg_advisory_xact_lock_shared({tag} | low)::text END "
    f"FROM {_SEQUENCE} AS sequence(low))"
)
_INSERT: Final = (
    "WITH " + _HELD + " INSERT INTO seamline_log (partition, time_ms, checksum, body) "
    "SELECT partition, time_ms, checksum, body FROM held, unnest($1::smallint[], $2::bigint[], $3::bigint[], "
    "$4::bytea[]) WITH ORDINALITY AS row(partition, time_ms, checksum, body, number) ORDER BY number"
)
_INSERT_DELAYED: Final = (
    "INSERT INTO seamline_log_delayed (due_ms, partition, time_ms, checksum, body) "
    "SELECT due_ms, partition, time_ms, checksum, body FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], "
    "$4::bigint[], $5::bytea[]) WITH ORDINALITY AS row(due_ms, partition, time_ms, checksum, body, number) "
    "ORDER BY number"
)
_RELEASE: Final = (
    "WITH " + _HELD + ", due AS (DELETE FROM seamline_log_delayed WHERE number IN "
    "(SELECT number FROM seamline_log_delayed WHERE due_ms <= $1 ORDER BY due_ms, number LIMIT $2) RETURNING *) "
    "INSERT INTO seamline_log (partition, time_ms, checksum, body) "
    "SELECT partition, time_ms, checksum, body FROM held, due ORDER BY due_ms, number"
)
_FINAL: Final = (
    # The rows are those of the statement's beginning, the locks those of now: what began before is in either.
    "SELECT (SELECT min(position) FROM seamline_log), (SELECT max(position) FROM seamline_log), "
    "(SELECT min(key & {low_max}) FROM (SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND mode = 'ShareLock' AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database())) AS lock "
    "WHERE key & ~{low_max}::bigint = {tag})"
)
_KEPT: Final = "SELECT position, partition, time_ms, checksum, body FROM seamline_log "


class PostgresqlStore:
    """:class:`Store` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._line = Line(database)
        self._channel = f"seamline_log_{database.module}"
        tag = (zlib.crc32(database.module.encode()) & 0x7FFFF) << _LOW_BITS
        self._turn = tag | _LOW_MAX
        self._insert = _INSERT.format(tag=tag)
        self._release = _RELEASE.format(tag=tag)
        self._final = _FINAL.format(tag=tag, low_max=_LOW_MAX)
        self._first = 1
        self._last = 0
        self._noticed = 0
        self._tasks = TaskOwner("log notices")
        self._notice: asyncio.Task[None] | None = None
        self._notice_wanted = False

    async def start(self, woken: Callable[[], None]) -> None:
        await self._database.ensure(metadata)
        await self._line.start(self._channel, woken)
        await self.ends()

    async def close(self) -> None:
        if self._notice is not None:
            await asyncio.wait([self._notice])
        await self._tasks.stop()
        await self._line.close()

    # Writing

    async def write(self, entries: Sequence[Entry]) -> None:
        rows = [row for rows, _ in entries for row in rows]
        delayed = [row for _, delayed in entries for row in delayed]
        statements: list[tuple[str, Sequence[Any]]] = []
        if rows:
            statements.append((self._insert, _columns(rows)))
        if delayed:
            statements.append((_INSERT_DELAYED, _delayed_columns(delayed)))
        await self._line.run(statements)

    async def write_with(self, connection: AsyncConnection, entry: Entry) -> None:
        rows, delayed = entry
        if rows:
            await connection.exec_driver_sql(self._insert, _columns(rows))
        if delayed:
            await connection.exec_driver_sql(_INSERT_DELAYED, _delayed_columns(delayed))

    def written(self) -> None:
        """Notices are not sent in the transactions themselves, whose commits they would put in a row."""
        self._notice_wanted = True
        if self._notice is None:
            self._notice = self._tasks.spawn(self._notify(), name="notify")

    async def _notify(self) -> None:
        try:
            while self._notice_wanted:
                self._notice_wanted = False
                await self._line.notify(self._channel)
                await asyncio.sleep(NOTIFY_PAUSE_S)
        finally:
            self._notice = None

    def spoilt_by_one(self, error: BaseException) -> bool:
        return self._line.refused_value(error)

    # Reading

    async def news(self) -> bool:
        await self.ends()
        changed, self._noticed = self._last != self._noticed, self._last
        return changed

    async def ends(self) -> Ends:
        first, newest, lowest = (await self._rows(self._final))[0]
        if newest is None:
            newest = (await self._rows(f"SELECT {_SEQUENCE}"))[0][0]
            lowest = (await self._rows(self._final))[0][2]
        final = newest if lowest is None else min(newest, lowest)
        self._last = max(self._last, final)
        return Ends(self._last + 1 if first is None else min(first, self._last + 1), self._last)

    async def after(self, position: int, limit: int) -> list[Kept]:
        sql = _KEPT + "WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3"
        rows: list[Kept] = []
        final = self._last  # another task may find out meanwhile that more is final
        if position < final:
            rows = [Kept(*row) for row in await self._rows(sql, position, final, limit)]
        if len(rows) < limit:
            begin = max(position, final)
            final = (await self.ends()).last
            if begin < final:
                rest = await self._rows(sql, begin, final, limit - len(rows))
                rows += [Kept(*row) for row in rest]
        return rows

    async def before(self, position: int, limit: int) -> list[Kept]:
        sql = _KEPT + "WHERE position < $1 ORDER BY position DESC LIMIT $2"
        return [Kept(*row) for row in await self._rows(sql, position, limit)]

    async def outlines(self, position: int, limit: int) -> list[Outline]:
        rows = await self._rows(
            "SELECT position, time_ms, length(body) FROM seamline_log WHERE position > $1 AND position <= $2 "
            "ORDER BY position LIMIT $3",
            position, self._last, limit,
        )  # fmt: skip
        return [Outline(*row) for row in rows]

    async def delayed(self) -> tuple[int, int]:
        count, due_ms = (await self._rows("SELECT count(*), min(due_ms) FROM seamline_log_delayed"))[0]
        return count, due_ms or 0

    async def _rows(self, sql: str, *parameters: Any) -> Sequence[Any]:
        try:
            return await self._rows_once(sql, *parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The server was gone for a moment, and with it every connection of the pool.
            return await self._rows_once(sql, *parameters)

    async def _rows_once(self, sql: str, *parameters: Any) -> Sequence[Any]:
        async with self._database.read() as connection:
            return (await connection.exec_driver_sql(sql, parameters)).fetchall()

    # Upkeep

    async def delete(self, positions: Sequence[int]) -> int:
        return await self._change("DELETE FROM seamline_log WHERE position = ANY($1::bigint[])", list(positions))

    async def delete_older(self, first: int, last: int, time_ms: int) -> int:
        sql = "DELETE FROM seamline_log WHERE position BETWEEN $1 AND $2 AND time_ms < $3"
        return sum(
            [
                await self._change(sql, at, min(last, at + DELETED_AT_ONCE - 1), time_ms)
                for at in range(first, last + 1, DELETED_AT_ONCE)
            ]
        )

    async def release(self, now_ms: int) -> int:
        count = 0
        while True:
            async with self._database.transaction() as tx:
                # One process at a time, or what is due together would not keep its order.
                turn = await tx.exec_driver_sql("SELECT pg_try_advisory_xact_lock($1)", (self._turn,))
                if not turn.scalar_one():
                    return count
                moved = (await tx.exec_driver_sql(self._release, (now_ms, RELEASED_AT_ONCE))).rowcount
            count += moved
            if moved < RELEASED_AT_ONCE:
                return count

    async def set_aside(self, row: Kept, fact: str, now_ms: int) -> None:
        async with self._database.transaction() as tx:
            await tx.exec_driver_sql(
                "INSERT INTO seamline_log_damaged (position, partition, time_ms, checksum, body, fact, found_ms) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                (*row, fact, now_ms),
            )
            await tx.exec_driver_sql("DELETE FROM seamline_log WHERE position = $1", (row.position,))

    async def check_file(self) -> list[Damage]:
        return []  # pages are the server's to check

    async def salvage(self, now_ms: int) -> list[Damage]:  # noqa: ARG002  # likewise
        return []

    async def _change(self, sql: str, *parameters: Any) -> int:
        async with self._database.transaction() as tx:
            return (await tx.exec_driver_sql(sql, parameters)).rowcount


def _columns(rows: Sequence[Row]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


def _delayed_columns(delayed: Sequence[tuple[int, Row]]) -> tuple[list[Any], ...]:
    return ([due_ms for due_ms, _ in delayed], *_columns([row for _, row in delayed]))
