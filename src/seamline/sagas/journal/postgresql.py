"""The journal in the module's PostgreSQL schema: many sagas write in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store import Database
from seamline.sagas.journal.function import CALL, CREATE, NAME
from seamline.sagas.journal.statements import FENCE, ORDER, POST, POST_BODY, STATEMENTS, Statement, Write, numbered
from seamline.sagas.journal.store import Rows, lost

_SQL: Final = {kind: numbered(STATEMENTS[kind]) for kind in ORDER}
_FENCE: Final = f"{numbered(FENCE)} FOR KEY SHARE"
"""Whoever takes the sagas over deletes the row, and waits until what was written before is on disk."""

_POST: Final = numbered(POST)
_POST_BODY: Final = numbered(POST_BODY)
CHARACTERS_MAX: Final = 32 * 2**20
"""Of what goes to the server at once, unless one saga alone writes more: a document there has a limit."""


class PostgresqlStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    def sql(self, text: str) -> str:
        return numbered(text)

    async def prepare(self) -> None:
        async with self.database.transaction() as connection:
            await connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext($1))", (NAME,))
            if (await connection.exec_driver_sql("SELECT to_regproc($1)", (NAME,))).scalar() is None:
                await connection.exec_driver_sql(CREATE)

    async def write(self, writes: Sequence[Write]) -> Sequence[str | BaseException | None]:
        rows = _rows(writes)
        if len(rows) > CHARACTERS_MAX and len(writes) > 1:
            half = len(writes) // 2
            return [*await self.write(writes[:half]), *await self.write(writes[half:])]
        owners = sorted({write.owner for write in writes if write.owner})
        keys = [write.key for write in writes if write.key is not None]
        async with self.database.transaction() as connection:
            # The function is a transaction by itself: no BEGIN, no COMMIT.
            alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
            call = await alone.exec_driver_sql(CALL, (owners, rows, msgspec.json.encode(keys).decode()))
            answer: Any = call.one()
        held, ids = answer
        if ids is None:
            return await self._without_lost(writes, {"", *held})
        found = iter(ids)
        return [None if write.key is None else next(found) for write in writes]

    async def _without_lost(self, writes: Sequence[Write], held: set[str]) -> Sequence[str | BaseException | None]:
        """What workers that have their place write, after one that has lost it held all of them up."""
        kept = iter(await self.write([write for write in writes if write.owner in held]))
        return [next(kept) if write.owner in held else lost(write.owner) for write in writes]

    async def write_with(self, connection: AsyncConnection, write: Write) -> None:
        if write.owner and (await connection.exec_driver_sql(_FENCE, (write.owner,))).first() is None:
            raise lost(write.owner)
        for kind, parameters in write.statements:
            await connection.exec_driver_sql(_SQL[kind], parameters)
        if write.post is not None:
            found = (await connection.exec_driver_sql(_POST, (write.post[0],))).first()
            if found is not None:
                await connection.exec_driver_sql(_POST_BODY, (write.post[0], found[0], *write.post[1:]))

    async def run(self, statements: Sequence[Statement]) -> list[Rows]:
        async with self.database.transaction() as connection:
            results: list[Rows] = []
            for sql, parameters in statements:
                result = await connection.exec_driver_sql(numbered(sql), parameters)
                results.append([tuple(row) for row in result.all()] if result.returns_rows else [])
            return results

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        async with self.database.read() as connection:
            return [tuple(row) for row in (await connection.exec_driver_sql(numbered(sql), tuple(parameters))).all()]

    async def peek(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        return await self.read(sql, parameters)


def _last(parameters: tuple[Any, ...]) -> Any:
    return parameters[-1]


def _first(parameters: tuple[Any, ...]) -> Any:
    return parameters[0]


def _type_and_key(parameters: tuple[Any, ...]) -> Any:
    return parameters[1:3]


_saga_in: Final = {
    **dict.fromkeys(("work", "rest", "end", "renew"), _last),
    **dict.fromkeys(("free", "clear"), _first),
    "start": _type_and_key,
}


def _rows(writes: Sequence[Write]) -> str:
    """What is written, by kind."""
    batches: dict[str, list[tuple[Any, ...]]] = {}
    for write in writes:
        for kind, parameters in write.statements:
            batches.setdefault(kind, []).append(parameters)
        if write.post is not None:
            batches.setdefault("post", []).append(write.post)
    for kind, rows in batches.items():
        if kind in _saga_in:  # in one order of sagas, so that two writers never wait for each other
            rows.sort(key=_saga_in[kind])
    return msgspec.json.encode(batches).decode()
