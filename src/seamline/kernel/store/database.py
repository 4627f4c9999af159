"""A module's own database: transactions, reads, and the life of the connections behind them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection, MetaData, NullPool, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import greenlet_spawn

from seamline.kernel.store import sqlite_dialect
from seamline.kernel.store.errors import (
    DamagedFileError,
    FolderError,
    NestedTransactionError,
    NotStartedError,
    ReadOnlyError,
    StoreError,
    UrlError,
)
from seamline.kernel.store.postgresql import PostgresqlServer, check_driver, shown, sqlstate
from seamline.kernel.store.sqlite_file import SqliteFile

_READ_ONLY_STATE = "25006"


class Database:
    """The database of one module, asked for by type: ``def __init__(self, db: Database)``.

    ::

        async with db.transaction() as tx:          # sqlalchemy.ext.asyncio.AsyncConnection
            await tx.execute(insert(orders).values(id=order_id))
        async with db.read() as r:                  # the same, refuses to write
            rows = (await r.execute(select(orders))).all()
        async with db.session() as session:         # sqlalchemy.ext.asyncio.AsyncSession, for the ORM
            session.add(Order(id=order_id))

    Leaving the block commits and returns when the change is on disk; an exception rolls back.
    SQLite has one writer: keep transactions short, and call other modules outside of them.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql+asyncpg://user:password@host/name``.
        module: the module's name; in PostgreSQL the schema, and with the database's name the role.
        tables: what the module stores, for migrations.
        wait_s: how long a transaction waits for its turn before :class:`WriterBusyError`.
    """

    def __init__(self, url: str, module: str, tables: MetaData | None = None, *, wait_s: float = 30.0) -> None:
        try:
            self.url: URL = make_url(url)
        except ArgumentError as error:
            raise UrlError(
                f"the database url {url!r} cannot be read",
                'Write "sqlite:////absolute/path" or "postgresql+asyncpg://user:password@host/name"',
                place=module,
            ) from error
        self.module = module
        self.tables = tables
        self._wait_s = wait_s
        self._file: SqliteFile | None = None
        self._server: PostgresqlServer | None = None
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._writing: set[asyncio.Task[object] | None] = set()
        if self.url.get_backend_name() != "sqlite":
            check_driver(self.url)
        elif not self.url.database or self.url.database == ":memory:":
            raise UrlError(
                "a module's SQLite database is a file, which several connections and processes share",
                'Write "sqlite:////absolute/path", in tests to a temporary folder',
                place=module,
            )

    @property
    def path(self) -> Path | None:
        """The SQLite file; None in PostgreSQL."""
        if self.url.get_backend_name() != "sqlite" or not self.url.database:
            return None
        return Path(self.url.database)

    async def start(self) -> None:
        """Open the file, or reach the server and make the module's schema and role.

        Raises:
            StoreError: with what is in the way.
        """
        if self._writer is not None:
            return
        path = self.path
        if path is not None:
            # In a thread: another process may hold the file for a moment.
            self._file = await asyncio.to_thread(self._open_file, path)
            self._writer = _engine(self._file.writer)
            self._reader = _engine(self._file.readers)
        else:
            self._server = PostgresqlServer(self.url, self.module, wait_s=self._wait_s)
            await self._server.prepare()
            self._writer, self._reader = self._server.writer, self._server.reader

    def _open_file(self, path: Path) -> SqliteFile:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return SqliteFile(path, wait_s=self._wait_s)
        except (OSError, sqlite3.OperationalError) as error:
            raise FolderError(
                f"the database file {str(path)!r} cannot be opened for writing ({error})",
                "Make the folder writable for this user, or name another as [app] data",
                place=self.module,
            ) from error
        except sqlite3.DatabaseError as error:
            raise DamagedFileError(
                f"{str(path)!r} is not a sound SQLite database ({error})",
                "Move it away and restore the last copy; a new file is made where there is none",
                place=self.module,
            ) from error

    async def close(self) -> None:
        """Wait for the commit under way, and close every connection. A second close does nothing."""
        file, server, self._file, self._server = self._file, self._server, None, None
        self._writer = self._reader = None
        if file is not None:
            await file.close()
        if server is not None:
            await server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def ready(self) -> None:
        """Readiness: raises StoreError unless the database answers."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    def transaction(self) -> _Block:
        """A transaction that may write. Its statements see each other; others see them when it is on disk."""
        return _Block(self, self._writer, writes=True)

    def read(self) -> _Block:
        """Statements that only read, and never wait for a writer.

        In SQLite all of them see one moment; in PostgreSQL each sees its own.
        """
        return _Block(self, self._reader, writes=False)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A transaction for mapped classes. Objects stay readable after the commit."""
        async with (
            self.transaction() as connection,
            AsyncSession(connection, expire_on_commit=False, join_transaction_mode="control_fully") as session,
        ):
            yield session
            await session.flush()
            session.expunge_all()

    async def run_sync(self, work: Callable[[Connection], None]) -> None:
        """Run ``work`` with a plain SQLAlchemy connection inside a transaction, for SQLAlchemy's own tools."""
        async with self.transaction() as connection:
            await connection.run_sync(work)

    def _enter(self, engine: AsyncEngine | None, *, writes: bool) -> AsyncEngine:
        if engine is None:
            raise NotStartedError(
                "the database is not open", "Use it between start() and close()", place=self.module
            )
        if writes:
            task = asyncio.current_task()
            if task in self._writing:
                raise NestedTransactionError(
                    "a transaction is opened inside a transaction of the same module, and would wait for itself",
                    "Pass the outer one on, or use its begin_nested() for a part that may fail alone",
                    place=self.module,
                )
            self._writing.add(task)
        return engine

    def _leave(self, *, writes: bool) -> None:
        if writes:
            self._writing.discard(asyncio.current_task())

    async def _reach(self, connection: AsyncConnection) -> None:
        if self._server is None:
            await connection.start()
        else:
            async with self._server.reachable():
                await connection.start()

    def _explained(self, error: BaseException) -> StoreError | None:
        """What a driver's error means to the module, if it is more than the driver says."""
        if not isinstance(error, DBAPIError):
            return None
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY or sqlstate(error) == _READ_ONLY_STATE:
            return ReadOnlyError(
                "something was written inside read()", "Use transaction() instead", place=self.module
            )
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return DamagedFileError(
                f"{shown(self.url)} is damaged ({error.orig})", "Restore the last copy", place=self.module
            )
        return None


class _Block:
    """``async with db.transaction()``: a class, because a generator would cost more than the statement."""

    __slots__ = ("_connection", "_db", "_engine", "_writes")

    def __init__(self, db: Database, engine: AsyncEngine | None, *, writes: bool) -> None:
        self._db = db
        self._engine = engine
        self._writes = writes

    async def __aenter__(self) -> AsyncConnection:
        engine = self._db._enter(self._engine, writes=self._writes)
        try:
            self._connection = engine.connect()
            await self._db._reach(self._connection)
        except BaseException:
            self._db._leave(writes=self._writes)
            raise
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection.sync_connection
        assert connection is not None
        try:
            if error is None and self._writes:
                await greenlet_spawn(_commit_and_close, connection)
            else:
                await greenlet_spawn(connection.close)  # rolls back
        finally:
            self._db._leave(writes=self._writes)
        explained = self._db._explained(error) if error is not None else None
        if explained is not None:
            raise explained from error


def _commit_and_close(connection: Connection) -> None:
    try:
        connection.commit()
    finally:
        connection.close()


def _engine(source: object) -> AsyncEngine:
    # Seats cost nothing, so no pool keeps them: the queue for the real connections is in the source.
    return create_async_engine(
        f"{sqlite_dialect.NAME}://", creator=lambda: sqlite_dialect.Seat(source), poolclass=NullPool
    )


def sqlite_url(data: Path, module: str) -> str:
    """Where a module's database is unless the settings name another."""
    return f"sqlite:///{data.absolute() / 'db' / module}.sqlite3"
