"""The journal in the module's PostgreSQL schema: each kind of statement goes to the server once for many sagas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store import Database
from seamline.sagas.journal.statements import FENCE, ORDER, POST, POST_BODY, STATEMENTS, Statement, Write, numbered
from seamline.sagas.journal.store import Rows, lost

_SQL: Final = {kind: numbered(STATEMENTS[kind]) for kind in ORDER}
_FENCE: Final = f"{numbered(FENCE)} FOR SHARE"
"""Whoever takes the sagas over deletes the row, and waits until what was written before is on disk."""

_POST: Final = numbered(POST)
_POST_BODY: Final = numbered(POST_BODY)
_FENCES: Final = "SELECT owner FROM seamline_saga_workers WHERE owner = ANY($1::text[]) FOR SHARE"
_FOUND_BY_KEYS: Final = (
    "SELECT s.type, s.key, s.id FROM unnest($1::text[], $2::text[]) AS k(type, key) "
    "JOIN seamline_sagas s ON s.type = k.type AND s.key = k.key"
)


class PostgresqlStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    def sql(self, text: str) -> str:
        return numbered(text)

    async def write(self, writes: Sequence[Write]) -> Sequence[str | BaseException | None]:
        async with self.database.transaction() as connection:
            owners = sorted({write.owner for write in writes if write.owner})
            # The first statement goes through SQLAlchemy, which begins the transaction with it.
            found = await connection.exec_driver_sql(_FENCES, (owners,))
            held = {"", *(row[0] for row in found)}
            driver: Any = (await connection.get_raw_connection()).driver_connection
            batches: dict[str, list[tuple[Any, ...]]] = {}
            for write in writes:
                if write.owner in held:
                    for kind, parameters in write.statements:
                        batches.setdefault(kind, []).append(parameters)
            for kind in ORDER:
                if kind in batches:
                    # In one order of sagas, so that two writers never wait for each other.
                    rows = sorted(batches[kind], key=_saga_in[kind]) if kind in _saga_in else batches[kind]
                    await driver.executemany(_SQL[kind], rows)
            for write in writes:
                if write.post is not None and write.owner in held:
                    number = await driver.fetchval(_POST, write.post[0])
                    if number is not None:
                        await driver.execute(_POST_BODY, write.post[0], number, *write.post[1:])
            return await _outcomes(driver, writes, held)

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


async def _outcomes(driver: Any, writes: Sequence[Write], held: set[str]) -> list[str | BaseException | None]:
    keys = [write.key for write in writes if write.key is not None and write.owner in held]
    ids: dict[tuple[str, str], str] = {}
    if keys:
        rows = await driver.fetch(_FOUND_BY_KEYS, [each[0] for each in keys], [each[1] for each in keys])
        ids = {(row[0], row[1]): row[2] for row in rows}
    return [
        lost(write.owner) if write.owner not in held else ids[write.key] if write.key is not None else None
        for write in writes
    ]
