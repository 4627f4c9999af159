"""The two ways into a database, to write and to read, and the block that a user enters."""

from __future__ import annotations

import asyncio
import sqlite3
from types import TracebackType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from seamline.kernel.store.errors import (
    DamagedFileError,
    NestedTransactionError,
    NotStartedError,
    ReadOnlyError,
    StoreError,
)
from seamline.kernel.store.postgresql import PostgresqlServer, sqlstate

_READ_ONLY_STATE = "25006"


class Access:
    """One way in. ``engine`` is None while the database is closed."""

    def __init__(self, module: str, *, writes: bool) -> None:
        self.module = module
        self.writes = writes
        self.engine: AsyncEngine | None = None
        self.server: PostgresqlServer | None = None
        self._inside: set[asyncio.Task[object] | None] = set()

    async def enter(self) -> AsyncConnection:
        if self.engine is None:
            raise NotStartedError("the database is not open", "Use it between start() and close()", place=self.module)
        if self.writes:
            task = asyncio.current_task()
            if task in self._inside:
                raise NestedTransactionError(
                    "a transaction is opened inside a transaction of the same module and would wait for itself",
                    "Pass the outer one on, or use its begin_nested() for a part that may fail alone",
                    place=self.module,
                )
            self._inside.add(task)
        try:
            connection = self.engine.connect()
            if self.server is None:
                await connection.start()
            else:
                async with self.server.reachable():
                    await connection.start()
        except BaseException:
            self._inside.discard(asyncio.current_task())
            raise
        return connection

    async def leave(self, connection: AsyncConnection, *, commit: bool) -> None:
        plain = connection.sync_connection
        assert plain is not None
        try:
            if commit and self.writes:
                await greenlet_spawn(_commit_and_close, plain)
            else:
                await greenlet_spawn(plain.close)  # rolls back
        finally:
            if self.writes:
                self._inside.discard(asyncio.current_task())

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
        return None


class Block:
    """``async with db.transaction()``: a class, because a generator would cost more than the statement."""

    __slots__ = ("_access", "_connection")

    def __init__(self, access: Access) -> None:
        self._access = access

    async def __aenter__(self) -> AsyncConnection:
        self._connection = connection = await self._access.enter()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._access.leave(self._connection, commit=error is None)
        if error is not None:
            explained = self._access.explained(error)
            if explained is not None:
                raise explained from error


def _commit_and_close(connection: Connection) -> None:
    try:
        connection.commit()
    finally:
        connection.close()
