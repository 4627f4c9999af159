"""The journal in the module's SQLite file, on SQLite's own connection: a write costs a few microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store import Database
from seamline.sagas.journal.statements import FENCE, FOUND_BY_KEY, ORDER, POST, POST_BODY, STATEMENTS, Statement, Write
from seamline.sagas.journal.store import Rows, lost

_RANK: Final = {kind: rank for rank, kind in enumerate(ORDER)}
_SQL: Final = [STATEMENTS[kind] for kind in ORDER]


class SqliteStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    def sql(self, text: str) -> str:
        return text

    async def prepare(self) -> None:
        return

    async def write(self, writes: Sequence[Write]) -> Sequence[str | BaseException | None]:
        return await self.database.raw(lambda connection: _write(connection, writes))

    async def write_with(self, connection: AsyncConnection, write: Write) -> None:
        if write.owner and (await connection.exec_driver_sql(FENCE, (write.owner,))).first() is None:
            raise lost(write.owner)
        for kind, parameters in write.statements:
            await connection.exec_driver_sql(STATEMENTS[kind], parameters)
        if write.post is not None:
            found = (await connection.exec_driver_sql(POST, (write.post[0],))).first()
            if found is not None:
                await connection.exec_driver_sql(POST_BODY, (write.post[0], found[0], *write.post[1:]))

    async def run(self, statements: Sequence[Statement]) -> list[Rows]:
        return await self.database.raw(
            lambda connection: [connection.execute(sql, parameters).fetchall() for sql, parameters in statements]
        )

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        async with self.database.read() as connection:
            return [tuple(row) for row in (await connection.exec_driver_sql(sql, tuple(parameters))).all()]

    async def peek(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        return await self.database.raw_read(lambda connection: connection.execute(sql, tuple(parameters)).fetchall())


def _write(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[str | BaseException | None]:
    outcomes: list[str | BaseException | None] = [None] * len(writes)
    batches: list[list[tuple[Any, ...]]] = [[] for _ in _SQL]
    owners: dict[str, bool] = {"": True}
    keyed: list[tuple[int, tuple[str, str]]] = []
    for index, write in enumerate(writes):
        owner = write.owner
        held = owners.get(owner)
        if held is None:
            held = owners[owner] = connection.execute(FENCE, (owner,)).fetchone() is not None
        if not held:
            outcomes[index] = lost(owner)
            continue
        for kind, parameters in write.statements:
            batches[_RANK[kind]].append(parameters)
        if write.key is not None:
            keyed.append((index, write.key))
    for sql, rows in zip(_SQL, batches, strict=True):
        if rows:
            connection.executemany(sql, rows)
    for write, outcome in zip(writes, outcomes, strict=True):
        if write.post is not None and outcome is None:
            found = connection.execute(POST, (write.post[0],)).fetchone()
            if found is not None:
                connection.execute(POST_BODY, (write.post[0], found[0], *write.post[1:]))
    for index, key in keyed:
        outcomes[index] = connection.execute(FOUND_BY_KEY, key).fetchone()[0]
    return outcomes
