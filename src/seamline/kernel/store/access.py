"""The two ways into a database, to write and to read, and the block that a user enters."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from time import monotonic
from types import TracebackType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction
from sqlalchemy.util import greenlet_spawn

from seamline.kernel.store.errors import (
    DamagedFileError,
    DiskFullError,
    NestedTransactionError,
    NotStartedError,
    ReadOnlyError,
    StoreError,
)
from seamline.kernel.store.postgresql import PostgresqlServer, sqlstate
from seamline.kernel.store.tracing import Statements
from seamline.kernel.store.unit import Unit, unit_of

_READ_ONLY_STATE = "25006"
_DISK_FULL_STATE = "53100"

Refused = Callable[[BaseException], BaseException]
"""Says in other words why the commit failed."""


class Access:
    """One way in. ``engine`` is None while the database is closed."""

    def __init__(self, module: str, statements: Statements, *, writes: bool) -> None:
        self.module = module
        self.statements = statements
        self.writes = writes
        self.engine: AsyncEngine | None = None
        self.server: PostgresqlServer | None = None
        self._inside: dict[asyncio.Task[object] | None, AsyncConnection | None] = {}
        self._afterwards: dict[int, list[tuple[Callable[[], None], Refused | None]]] = {}

    @property
    def inside(self) -> bool:
        """Whether any task is inside of a transaction."""
        return bool(self._inside)

    @property
    def current(self) -> AsyncConnection | None:
        """The transaction that this task is inside of."""
        return self._inside.get(asyncio.current_task()) if self._inside else None

    def nested(self) -> NestedTransactionError:
        return NestedTransactionError(
            "a transaction is opened inside a transaction of the same module and would wait for itself",
            "Pass the outer one on, or use its begin_nested() for a part that may fail alone",
            place=self.module,
        )

    async def enter(self) -> AsyncConnection:
        if self.engine is None:
            raise NotStartedError("the database is not open", "Use it between start() and close()", place=self.module)
        task = asyncio.current_task()
        if self.writes:
            if task in self._inside:
                raise self.nested()
            self._inside[task] = None
        try:
            connection = self.engine.connect()
            if self.server is None:
                await connection.start()
            else:
                began = monotonic()
                try:
                    async with self.server.reachable():
                        await connection.start()
                finally:
                    self.statements.waited("connection", began)
        except BaseException:
            self._inside.pop(task, None)
            raise
        if self.writes:
            self._inside[task] = connection
        return connection

    def after_commit(
        self, connection: AsyncConnection, callback: Callable[[], None], refused: Refused | None = None
    ) -> None:
        self._afterwards.setdefault(id(connection), []).append((callback, refused))

    async def leave(self, connection: AsyncConnection, *, commit: bool) -> None:
        plain = connection.sync_connection
        assert plain is not None
        afterwards = self._afterwards.pop(id(connection), ()) if self._afterwards else ()
        try:
            if commit and self.writes:
                await greenlet_spawn(_commit_and_close, plain)
            else:
                await greenlet_spawn(plain.close)  # rolls back
        except Exception as error:
            told: BaseException = error
            for _, refused in afterwards:
                told = told if refused is None else refused(told)
            if told is error:
                told = self.explained(error) or error
            if told is error:
                raise
            raise told from error
        finally:
            if self.writes:
                self._forget(connection)
        if commit:
            for callback, _ in afterwards:
                callback()

    def _forget(self, connection: AsyncConnection) -> None:
        task = asyncio.current_task()
        if self._inside.get(task) is not connection:  # a unit may end in another task than the one that began it
            task = next((each for each, held in self._inside.items() if held is connection), task)
        self._inside.pop(task, None)

    def explained(self, error: BaseException) -> StoreError | None:
        """What a driver's error means to the module, where it means more than the driver says."""
        if not isinstance(error, DBAPIError):
            return None
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY or sqlstate(error) == _READ_ONLY_STATE:
            return ReadOnlyError("something was written inside read()", "Use transaction() instead", place=self.module)
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return DamagedFileError(
                f"the database file is damaged ({error.orig})", "Restore the last copy", place=self.module
            )
        if is_full(error):
            return DiskFullError(
                f"there is no room for what was written ({error.orig}); nothing of it was kept",
                "Make room on the disk; the same is accepted as soon as there is",
                place=self.module,
            )
        return None


def is_full(error: BaseException) -> bool:
    """Whether this is what a database says, itself or by way of SQLAlchemy, when its disk is full."""
    if isinstance(error, DiskFullError):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", 0)
    # A quota, or a limit on the size of files, is a failed write to SQLite.
    full = code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE
    return full or getattr(cause, "sqlstate", None) == _DISK_FULL_STATE


class Block:
    """``async with db.transaction()``: a class, because a generator would cost more than the statement.

    Inside a unit of work the block is a part of the unit's transaction.
    """

    __slots__ = ("_access", "_connection", "_part", "_unit", "_writing")

    def __init__(self, access: Access, writing: Access) -> None:
        self._access = access
        self._writing = writing
        self._unit: Unit | None = None
        self._part: AsyncTransaction | None = None

    async def __aenter__(self) -> AsyncConnection:
        unit = unit_of(self._writing)
        if unit is not None and (self._access.writes or (unit.begun and not unit.inside_part)):
            if unit.inside_part:
                raise self._access.nested()
            self._part = await unit.enter_part()
            self._unit = unit
            return await unit.connection()
        self._connection = connection = await self._access.enter()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keep = error is None
        if self._unit is not None:
            await self._unit.leave_part(self._part, keep=keep and self._access.writes)
        else:
            await self._access.leave(self._connection, commit=keep)
        if error is not None:
            explained = self._access.explained(error)
            if explained is not None:
                raise explained from error


def _commit_and_close(connection: Connection) -> None:
    try:
        connection.commit()
    finally:
        connection.close()
