"""The log in a module's SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.log.interface import Damage, Ends
from seamline.events.log.rows import Kept, Outline
from seamline.events.log.salvage import READ, READ_AFTER, salvage
from seamline.events.log.store import Entry
from seamline.events.log.tables import metadata
from seamline.kernel.store import Database
from seamline.kernel.store.sqlite_file import connect

STEP_S: Final = 0.001
"""For so long appenders wait while old records are dropped, and the event loop while some are read."""

STEP_ROWS: Final = 32
RELEASED_AT_ONCE: Final = 256

_INSERT: Final = "INSERT INTO seamline_log (partition, time_ms, checksum, body) VALUES (?, ?, ?, ?)"
_ROWS_TOGETHER: Final = 16
_INSERT_TOGETHER: Final = _INSERT + ", (?, ?, ?, ?)" * (_ROWS_TOGETHER - 1)
"""At two thirds of the price: the next position is looked up and kept once per statement."""
_INSERT_DELAYED: Final = (
    "INSERT INTO seamline_log_delayed (due_ms, partition, time_ms, checksum, body) VALUES (?, ?, ?, ?, ?)"
)
_BEFORE: Final = READ + "WHERE position < ? ORDER BY position DESC LIMIT ?"
_OUTLINES: Final = (
    "SELECT position, ifnull(CAST(time_ms AS INTEGER), 0), ifnull(length(body), 0) FROM seamline_log "
    "WHERE position > ? ORDER BY position LIMIT ?"
)
_ENDS: Final = (
    "SELECT (SELECT min(position) FROM seamline_log), (SELECT seq FROM sqlite_sequence WHERE name = 'seamline_log')"
)
_ANY_DELAYED: Final = "SELECT 1 FROM seamline_log_delayed LIMIT 1"
_WRITTEN: Final = (
    "SELECT name, seq FROM sqlite_sequence WHERE name IN ('seamline_log', 'seamline_log_delayed') ORDER BY name"
)


class SqliteStore:
    """:class:`Store` on SQLite: the file's lock puts commits, and with them positions, in one order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watcher: sqlite3.Connection | None = None
        self._version = 0
        self._written: list[Any] = []

    async def start(self, woken: Callable[[], None]) -> None:  # noqa: ARG002  # nobody tells: news() is asked
        path = self._database.path
        assert path is not None
        await self._database.ensure(metadata)
        self._watcher = connect(path, read_only=True)
        await self.news()

    async def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    async def write(self, entries: Sequence[Entry]) -> None:
        rows = [row for rows, _ in entries for row in rows]
        delayed = [(due_ms, *row) for _, delayed in entries for due_ms, row in delayed]

        def work(connection: sqlite3.Connection) -> None:
            alone = len(rows) % _ROWS_TOGETHER
            connection.executemany(_INSERT, rows[:alone])
            for first in range(alone, len(rows), _ROWS_TOGETHER):
                together = rows[first : first + _ROWS_TOGETHER]
                connection.execute(_INSERT_TOGETHER, list(chain.from_iterable(together)))
            if delayed:
                connection.executemany(_INSERT_DELAYED, delayed)

        await self._database.raw(work)

    async def write_with(self, connection: AsyncConnection, entry: Entry) -> None:
        rows, delayed = entry
        if rows:
            await connection.exec_driver_sql(_INSERT, list(rows))
        if delayed:
            await connection.exec_driver_sql(_INSERT_DELAYED, [(due_ms, *row) for due_ms, row in delayed])

    def written(self) -> None:
        """The host tells other processes."""

    def spoilt_by_one(self, error: BaseException) -> bool:
        return isinstance(error, (sqlite3.DataError, OverflowError))

    async def news(self) -> bool:
        if self._watcher is None:
            return False
        version = self._watcher.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return False
        written = self._watcher.execute(_WRITTEN).fetchall()
        changed, self._version, self._written = written != self._written, version, written
        return changed

    async def _rows(self, sql: str, *parameters: Any) -> Sequence[Any]:
        async with self._database.read() as connection:
            return (await connection.exec_driver_sql(sql, parameters)).fetchall()

    async def after(self, position: int, limit: int) -> list[Kept]:
        until_s = time.perf_counter() + STEP_S

        def work(connection: sqlite3.Connection) -> list[Kept] | None:
            rows: list[Kept] = []
            for row in connection.execute(READ_AFTER, (position, limit)):
                rows.append(Kept._make(row))
                if time.perf_counter() > until_s:
                    return None
            return rows

        try:
            rows = await self._database.raw_read(work)
        except sqlite3.DatabaseError:
            rows = None
        if rows is None:  # large rows go to a thread, and damage is explained
            rows = [Kept(*row) for row in await self._rows(READ_AFTER, position, limit)]
        return rows

    async def before(self, position: int, limit: int) -> list[Kept]:
        return [Kept(*row) for row in await self._rows(_BEFORE, position, limit)]

    async def outlines(self, position: int, limit: int) -> list[Outline]:
        return [Outline(*row) for row in await self._rows(_OUTLINES, position, limit)]

    async def ends(self) -> Ends:
        first, last = (await self._rows(_ENDS))[0]
        last = last or 0
        return Ends(last + 1 if first is None else first, last)

    async def delete(self, positions: Sequence[int]) -> int:
        return await self._step_by_step("DELETE FROM seamline_log WHERE position = ?", [(each,) for each in positions])

    async def delete_older(self, first: int, last: int, time_ms: int) -> int:
        steps = [(at, min(last, at + STEP_ROWS - 1), time_ms) for at in range(first, last + 1, STEP_ROWS)]
        return await self._step_by_step(
            "DELETE FROM seamline_log WHERE position BETWEEN ? AND ? AND time_ms < ?", steps
        )

    async def _step_by_step(self, sql: str, steps: Sequence[Sequence[Any]]) -> int:
        """Let others write after about a millisecond: a large row is many pages."""
        rest = deque(steps)

        def work(connection: sqlite3.Connection) -> int:
            count, until_s = 0, time.perf_counter() + STEP_S
            while rest and time.perf_counter() < until_s:
                count += connection.execute(sql, rest.popleft()).rowcount
            return count

        count = 0
        while rest:
            count += await self._database.raw(work)
        return count

    async def delayed(self) -> tuple[int, int]:
        if not await self._database.raw_read(lambda sqlite: sqlite.execute(_ANY_DELAYED).fetchone()):
            return 0, 0
        count, due_ms = (await self._rows("SELECT count(*), min(due_ms) FROM seamline_log_delayed"))[0]
        return count, due_ms or 0

    async def release(self, now_ms: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            due = connection.execute(
                "SELECT number, partition, time_ms, checksum, body FROM seamline_log_delayed WHERE due_ms <= ? "
                "ORDER BY due_ms, number LIMIT ?",
                (now_ms, RELEASED_AT_ONCE),
            ).fetchall()
            connection.executemany(_INSERT, [row[1:] for row in due])
            connection.executemany("DELETE FROM seamline_log_delayed WHERE number = ?", [row[:1] for row in due])
            return len(due)

        count = 0
        while moved := await self._database.raw(work):
            count += moved
        return count

    async def set_aside(self, row: Kept, fact: str, now_ms: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO seamline_log_damaged "
                "(position, partition, time_ms, checksum, body, fact, found_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, fact, now_ms),
            )
            connection.execute("DELETE FROM seamline_log WHERE position = ?", (row.position,))

        await self._database.raw(work)

    async def check_file(self) -> list[Damage]:
        rows = await self._rows("PRAGMA integrity_check('seamline_log')")
        return [Damage(0, 0, str(row[0])) for row in rows if row[0] != "ok"]

    async def salvage(self, now_ms: int) -> list[Damage]:
        """Begin a new table with every row that can still be read; the damaged one is kept under another name."""
        path = self._database.path
        assert path is not None
        with closing(connect(path, read_only=True)) as reader:
            async with self._database.transaction() as tx:
                return await tx.run_sync(lambda connection: salvage(connection, reader, now_ms))
