"""The owner's side of :mod:`.views`: runs a query where it can see views and nothing else, within limits.

In SQLite an authorizer decides on everything that the statement's plan reads; in PostgreSQL the plan is asked for
first, and the relations in it are compared. Both run on connections that cannot write.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from sqlalchemy import BigInteger, Boolean, Double, Text, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.streams import tables
from seamline.events.streams.statement import FUNCTIONS, check_statement
from seamline.events.streams.views import QueryRefused, ViewsContract
from seamline.kernel.store import Database
from seamline.kernel.store.errors import ReadOnlyError
from seamline.kernel.store.sqlite_file import connect

ROWS_MAX: Final = 10_000
BYTES_MAX: Final = 4 * 1024 * 1024
TIME_MAX_S: Final = 2.0
_VALUE_BYTES_MAX: Final = 1024 * 1024
_CHECK_INSTRUCTIONS: Final = 10_000
_AT_ONCE: Final = 2
_TYPES: Final[dict[type, Any]] = {bool: Boolean(), int: BigInteger(), float: Double(), str: Text(), type(None): Text()}
_ROWS_OF_VIEWS: Final = "seamline_view_"
_IN_SQLITE: Final = frozenset({"like", "glob", "->", "->>"})
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class ViewsService(ViewsContract):
    """Serves the views of one module: what the host provides for :func:`~.views.views_contract`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = _SqliteFile(database.path) if database.path is not None else None

    async def query(self, statement: str, parameters: str) -> str:
        """See :class:`~.views.ViewsContract`."""
        statement = check_statement(statement)
        given = _read_parameters(parameters)
        if self._file is not None:
            columns, rows = await self._file.query(statement, given)
        else:
            columns, rows = await self._on_server(statement, given)
        return _answer(columns, rows)

    async def _on_server(self, statement: str, given: dict[str, Any]) -> tuple[Sequence[str], Sequence[Any]]:
        try:
            async with asyncio.timeout(TIME_MAX_S), self._database.read() as connection:
                await self._check_plan(connection, statement, given)
                # What is in brackets keeps its order; the limit keeps the driver from holding more.
                limited = f"SELECT * FROM ({statement}\n) AS answer LIMIT {ROWS_MAX + 1}"  # noqa: S608  # checked above
                result = await connection.execute(_bound(limited, given), given)
                return tuple(result.keys()), result.all()
        except TimeoutError:
            raise _too_slow() from None
        except ReadOnlyError as error:
            raise _mistake(error.fact) from None
        except DBAPIError as error:
            raise _mistake(str(error.orig).rpartition(">: ")[2]) from None
        except SQLAlchemyError as error:
            raise _mistake(str(error).splitlines()[0]) from None

    async def _check_plan(self, connection: AsyncConnection, statement: str, given: dict[str, Any]) -> None:
        explain = _bound(f"EXPLAIN (VERBOSE, FORMAT JSON) {statement}", given)
        plan = (await connection.execute(explain, given)).scalar_one()
        for schema, relation in _relations(msgspec.json.decode(plan) if isinstance(plan, str) else plan):
            if schema != self._database.module or not _is_open(relation):
                raise _not_a_view(relation)

    async def close(self) -> None:
        if self._file is not None:
            await self._file.close()


class _SqliteFile:
    """Connections that read views, each used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=f"views-{path.stem}")
        self._idle: list[_SqliteReader] = []

    async def query(self, statement: str, given: dict[str, Any]) -> tuple[Sequence[str], Sequence[Any]]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._query, statement, given)

    def _query(self, statement: str, given: dict[str, Any]) -> tuple[Sequence[str], Sequence[Any]]:
        reader = self._idle.pop() if self._idle else _SqliteReader(self._path)
        try:
            return reader.query(statement, given)
        finally:
            self._idle.append(reader)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for reader in self._idle:
            reader.close()
        self._idle.clear()


class _SqliteReader:
    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES_MAX)
        self._ends_at_s = 0.0
        self._names: dict[str, bool] = {}
        """What there is in the file, and whether it is a view of ours."""
        self._refused = ""

    def query(self, statement: str, given: dict[str, Any]) -> tuple[Sequence[str], Sequence[Any]]:
        connection = self._connection
        self._names = {
            name.lower(): (kind == "view" and bool(ours)) or _is_open(name)
            for name, kind, ours in connection.execute(
                "SELECT name, type, name = ? OR name IN (SELECT name FROM seamline_stream_views) FROM sqlite_master",
                (tables.STATUS,),
            )
        }
        self._refused, self._ends_at_s = "", time.monotonic() + TIME_MAX_S
        connection.set_authorizer(self._may)
        connection.set_progress_handler(self._is_over, _CHECK_INSTRUCTIONS)
        try:
            cursor = connection.execute(statement, given)
            rows = cursor.fetchmany(ROWS_MAX + 1)
            columns = [each[0] for each in cursor.description]
            cursor.close()
            return columns, rows
        except sqlite3.Error as error:
            raise self._explained(error) from None
        finally:
            connection.set_authorizer(None)
            connection.set_progress_handler(None, 0)

    def _may(self, action: int, first: str | None, second: str | None, _database: str | None, _via: str | None) -> int:
        if action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and self._may_read(str(first), str(second)):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and str(second).lower() in FUNCTIONS | _IN_SQLITE:
            return sqlite3.SQLITE_OK
        self._refused = str(second if action == sqlite3.SQLITE_FUNCTION else first)
        return sqlite3.SQLITE_DENY

    def _may_read(self, name: str, column: str) -> bool:
        known = self._names.get(name.lower())
        if known is None:
            # A name of the statement's own (WITH) is asked about when no column of it is used.
            return name == "json_each" or (column == "" and not name.lower().startswith(("sqlite_", "pragma_")))
        return known

    def _is_over(self) -> int:
        return time.monotonic() > self._ends_at_s

    def _explained(self, error: sqlite3.Error) -> QueryRefused:
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_INTERRUPT:
            return _too_slow()
        if code == sqlite3.SQLITE_AUTH:
            return _not_a_view(self._refused)
        return _mistake(str(error))

    def close(self) -> None:
        self._connection.close()


def _is_open(name: str) -> bool:
    """Whether a table holds rows of views, or what ``stream_status`` shows."""
    return name.lower().startswith(_ROWS_OF_VIEWS) or name == tables.views.name


def _relations(plan: Any) -> Iterable[tuple[str, str]]:
    """(schema, name) of every relation in a plan of PostgreSQL's."""
    if isinstance(plan, list):
        for each in cast("list[Any]", plan):
            yield from _relations(each)
    elif isinstance(plan, dict):
        node = cast("dict[str, Any]", plan)
        if "Relation Name" in node:
            yield str(node.get("Schema", "")), str(node["Relation Name"])
        for each in node.values():
            yield from _relations(each)


def _bound(statement: str, given: dict[str, Any]) -> TextClause:
    return text(statement).bindparams(*(bindparam(name, type_=_TYPES[type(value)]) for name, value in given.items()))


def _read_parameters(parameters: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(parameters, type=dict[str, int | float | str | bool | None])
    except msgspec.DecodeError as error:
        raise QueryRefused(
            reason=f"the parameters cannot be read: {error}", remedy="Numbers, texts, true, false and null by name."
        ) from None


def _answer(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if len(rows) > ROWS_MAX:
        raise QueryRefused(
            reason=f"the answer has more than {ROWS_MAX} rows", remedy="Ask for fewer: WHERE, GROUP BY, LIMIT."
        )
    if len(set(columns)) < len(columns):
        raise QueryRefused(
            reason=f"two columns of the answer have one name ({', '.join(columns)})", remedy="Name them apart with AS."
        )
    try:
        answer = _ENCODER.encode([dict(zip(columns, row, strict=True)) for row in rows])
    except TypeError as error:
        raise _mistake(str(error)) from None
    if len(answer) > BYTES_MAX:
        raise QueryRefused(
            reason=f"the answer has more than {BYTES_MAX} bytes", remedy="Ask for fewer rows or columns."
        )
    return answer.decode()


def _not_a_view(name: str) -> QueryRefused:
    return QueryRefused(
        reason=f"{name!r} is not a view, nor a function that may be used",
        remedy=f"Query the module's views; {tables.STATUS!r} lists them.",
    )


def _too_slow() -> QueryRefused:
    return QueryRefused(
        reason=f"the query took longer than {TIME_MAX_S:g} s", remedy="Narrow it by start_ms, or ask a coarser view."
    )


def _mistake(detail: str) -> QueryRefused:
    return QueryRefused(reason=" ".join(detail.split())[:300], remedy="Correct the statement.")
