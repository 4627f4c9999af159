"""SQLAlchemy's way to :mod:`sqlite_file`: the ``sqlite+seamline`` dialect.

What SQLAlchemy holds as a connection is only a seat: it takes a turn on a real connection at its first
statement and gives it back at commit or rollback. Seats are made by the pool and cost nothing while idle.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from time import monotonic
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.engine.url import URL
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from seamline.kernel.store.sqlite_file import BULK_VALUES_MAX, Outcome, Readers, Turn, Writer
from seamline.kernel.store.sqlite_plan import Kind

NAME = "sqlite+seamline"

T = TypeVar("T")


class Cursor:
    """What SQLAlchemy runs one statement on. All rows are fetched with the statement."""

    server_side = False
    arraysize = 1

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        turn = self._seat.turn()
        began = monotonic()
        try:
            for hold_up in self._seat.statements.before:
                hold_up()
            self._execute(turn, sql, parameters)
        except BaseException as error:
            self._seat.statements.ran(sql, began, -1, error)
            raise
        self._seat.statements.ran(sql, began, max(len(self._rows), self.rowcount))

    def _execute(self, turn: Turn, sql: str, parameters: Sequence[Any]) -> None:
        lane = turn.lane
        kind = lane.kind_of(sql, parameters)
        _refuse_forbidden(kind, sql)
        outcome = None
        if kind is not Kind.LONG and len(parameters) <= BULK_VALUES_MAX:
            outcome = lane.run_now(sql, parameters, kind)
        if outcome is None:
            outcome = await_only(
                lane.run_in_thread(
                    lambda: lane.execute(sql, parameters),
                    _always if kind is Kind.READ else turn.may_interrupt,
                )
            )
        else:
            await_only(_AT_ONCE)
        self._take(outcome)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        turn = self._seat.turn()
        began = monotonic()
        try:
            for hold_up in self._seat.statements.before:
                hold_up()
            self._execute_many(turn, sql, rows)
        except BaseException as error:
            self._seat.statements.ran(sql, began, -1, error)
            raise
        self._seat.statements.ran(sql, began, self.rowcount)

    def _execute_many(self, turn: Turn, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        lane = turn.lane
        kind = lane.kind_of(sql, rows[0]) if rows else Kind.SHORT
        _refuse_forbidden(kind, sql)
        if kind is Kind.SHORT and (not rows or len(rows) * len(rows[0]) <= BULK_VALUES_MAX):
            await_only(_AT_ONCE)
            self._take(lane.execute_many(sql, rows))
            return
        self._take(await_only(lane.run_in_thread(lambda: lane.execute_many(sql, rows), turn.may_interrupt)))

    def _take(self, outcome: Outcome) -> None:
        cursor = outcome.cursor
        self._rows = deque(outcome.rows)
        self.description = cursor.description
        self.rowcount = cursor.rowcount
        self.lastrowid = cursor.lastrowid

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.popleft()

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """SQLAlchemy awaits this before it hands out a buffered result."""

    def setinputsizes(self, *sizes: Any) -> None:
        """SQLite needs no sizes."""

    def nextset(self) -> None:
        """SQLite has one result set."""


class StreamCursor(Cursor):
    """For ``stream()``: rows stay in SQLite until they are asked for; all of it happens in a thread."""

    server_side = True
    _cursor: sqlite3.Cursor | None = None
    _turn: Turn | None = None

    def _execute(self, turn: Turn, sql: str, parameters: Sequence[Any]) -> None:
        self._turn = turn
        _refuse_forbidden(turn.lane.kind_of(sql, parameters), sql)
        cursor = self._cursor = self._aside(lambda: turn.lane.connection.execute(sql, parameters))
        self._take(Outcome(cursor, []))

    def _aside(self, work: Callable[[], Any]) -> Any:
        assert self._turn is not None
        return await_only(self._turn.lane.run_in_thread(work, self._turn.may_interrupt))

    def fetchone(self) -> Any:
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        cursor = self._cursor
        return self._aside(lambda: cursor.fetchmany(size or self.arraysize)) if cursor else []

    def fetchall(self) -> list[Any]:
        cursor = self._cursor
        return self._aside(cursor.fetchall) if cursor else []

    def __iter__(self) -> Iterator[Any]:
        while rows := self.fetchmany(256):
            yield from rows

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None


class Seat:
    """A connection as SQLAlchemy sees it; in truth a place in the queue for one."""

    isolation_level = ""

    def __init__(self, source: Writer | Readers) -> None:
        self.statements = source.statements
        self._source = source
        self._turn: Turn | None = None

    def turn(self) -> Turn:
        turn = self._turn
        if turn is None:
            turn = self._source.enter_now()
            if turn is None:
                turn = await_only(self._source.enter())
            self._turn = turn
        else:
            turn.check()
        return turn

    def taken(self) -> Turn | None:
        """The turn it has, if it has one."""
        if self._turn is not None:
            self._turn.check()
        return self._turn

    def cursor(self, *, server_side: bool = False) -> Cursor:
        return StreamCursor(self) if server_side else Cursor(self)

    def commit(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            on_disk = turn.commit()
            if on_disk is not None:
                await_only(on_disk)

    def rollback(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.rollback()

    close = terminate = rollback


async def raw_in(connection: AsyncConnection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run ``work`` on SQLite's own connection as a part of the transaction of ``connection``; for the platform, where
    SQLAlchemy's price per statement shows. It runs on the event loop: a millisecond at most."""
    begun = connection.sync_connection
    if begun is not None and begun.in_transaction():
        seat = begun.connection.dbapi_connection
        if isinstance(seat, Seat) and (turn := seat.taken()) is not None:
            return _timed(seat, turn, work)  # nothing to wait for, so nothing for a greenlet

    def run(plain: Connection) -> T:
        if not plain.in_transaction():
            plain.begin()
        seat = plain.connection.dbapi_connection
        assert isinstance(seat, Seat)
        return _timed(seat, seat.turn(), work)

    return await connection.run_sync(run)


def _timed(seat: Seat, turn: Turn, work: Callable[[sqlite3.Connection], T]) -> T:
    began = monotonic()
    result = work(turn.lane.connection)
    seat.statements.worked(work, began)
    return result


class _Driver:
    """The DBAPI module that SQLAlchemy asks for its errors and constants."""

    paramstyle = "qmark"

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class SeamlineDialect(SQLiteDialect_aiosqlite):
    """SQLite through :class:`Seat`."""

    driver = "seamline"
    supports_statement_cache = True
    has_terminate = True

    def __init__(self, **options: Any) -> None:
        super(SQLiteDialect_aiosqlite, self).__init__(**options)

    @classmethod
    def import_dbapi(cls) -> Any:
        return _Driver(sqlite3)

    def on_connect(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Real connections are prepared where they are opened."""

    def create_connect_args(self, url: URL) -> Any:  # noqa: ARG002  # the dialect's signature
        return ([], {})

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:  # noqa: ARG002  # likewise
        return False


class _AtOnce:
    """Done before it is awaited. SQLAlchemy asks that every statement awaits something."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


_AT_ONCE = _AtOnce()


def _always() -> bool:
    return True


def _refuse_forbidden(kind: Kind, sql: str) -> None:
    if kind is Kind.FORBIDDEN:
        raise sqlite3.ProgrammingError(
            f"{sql.strip()!r} would end the transaction behind the database's back; leave the block instead"
        )


registry.register("sqlite.seamline", __name__, "SeamlineDialect")
