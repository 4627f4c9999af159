"""A module's own database: transactions, reads, and the life of the connections behind them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Self, TypeVar

from sqlalchemy import URL, Connection, MetaData, NullPool, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from seamline.kernel.store import sqlite_dialect
from seamline.kernel.store.access import Access, Block, Refused
from seamline.kernel.store.errors import DamagedFileError, FolderError, NotStartedError, UrlError
from seamline.kernel.store.postgresql import Login, PostgresqlServer, check_driver
from seamline.kernel.store.sqlite_file import Readers, SqliteFile, Writer
from seamline.kernel.store.tracing import Statements
from seamline.kernel.store.unit import UNIT, Unit, unit_of

T = TypeVar("T")


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
        login: in PostgreSQL, whom to log in as instead of the url's user; it may be replaced, see :meth:`renew_login`.
    """

    def __init__(
        self,
        url: str,
        module: str,
        tables: MetaData | None = None,
        *,
        wait_s: float = 30.0,
        login: Login | None = None,
    ) -> None:
        try:
            self._url: URL = make_url(url)
        except ArgumentError as error:
            raise UrlError(
                f"the database url {url!r} cannot be read",
                'Write "sqlite:////absolute/path" or "postgresql+asyncpg://user:password@host/name"',
                place=module,
            ) from error
        self.module = module
        self.tables = tables
        self._wait_s = wait_s
        self.login = login
        self._file: SqliteFile | None = None
        self._server: PostgresqlServer | None = None
        sqlite = self._url.get_backend_name() == "sqlite"
        self.statements = Statements(module, "sqlite" if sqlite else "postgresql")
        self._write = Access(module, self.statements, writes=True)
        self._read = Access(module, self.statements, writes=False)
        if self.url.get_backend_name() != "sqlite":
            check_driver(self.url)
        elif not self.url.database or self.url.database == ":memory:":
            raise UrlError(
                "a module's SQLite database is a file, which several connections and processes share",
                'Write "sqlite:////absolute/path", in tests to a temporary folder',
                place=module,
            )

    @property
    def url(self) -> URL:
        """With the user and the password of the hour."""
        return self._url if self.login is None else self.login.url

    async def renew_login(self, url: URL) -> None:
        """Log in as the user of ``url`` from now on. Whatever is under way goes on as who it began."""
        assert self.login is not None
        self.login.replace(url)
        if self._server is not None:
            async with self._server.reachable():
                await self._server.renew()

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
        if self._write.engine is not None:
            return
        path = self.path
        if path is not None:
            # In a thread: another process may hold the file for a moment.
            self._file = await asyncio.to_thread(self._open_file, path)
            self._write.engine = _engine(self._file.writer)
            self._read.engine = _engine(self._file.readers)
        else:
            server = PostgresqlServer(self.url, self.module, wait_s=self._wait_s, login=self.login)
            await server.prepare()
            self._server = self._write.server = self._read.server = server
            for engine in (server.writer, server.reader):
                self.statements.listen(engine)
            self._write.engine, self._read.engine = server.writer, server.reader

    def _open_file(self, path: Path) -> SqliteFile:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return SqliteFile(path, self.statements, wait_s=self._wait_s)
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
        self._write.engine = self._read.engine = None
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

    def transaction(self) -> Block:
        """A transaction that may write. Its statements see each other; others see them when it is on disk."""
        return Block(self._write, self._write)

    def read(self) -> Block:
        """Statements that only read, and never wait for a writer.

        In SQLite all of them see one moment; in PostgreSQL each sees its own.
        """
        return Block(self._read, self._write)

    def unit(self) -> Unit:
        """Everything that is written inside commits once, at the end. For the platform; see :mod:`.unit`."""
        return Unit(self._write)

    def is_free(self) -> bool:
        """Whether it is plain, without a look around, that this task's work belongs to no transaction."""
        return UNIT.get() is None and not self._write.inside

    async def current(self) -> AsyncConnection | None:
        """The transaction that work of this task belongs to: the block it is inside of, or its unit's."""
        unit = unit_of(self._write)
        return await unit.connection() if unit is not None else self._write.current

    def after_commit(
        self, connection: AsyncConnection, callback: Callable[[], None], refused: Refused | None = None
    ) -> None:
        """Call ``callback`` once the transaction of ``connection``, as :meth:`current` gives it, is on disk. Where the
        commit fails, ``refused`` may put the error in other words."""
        self._write.after_commit(connection, callback, refused)

    async def raw(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on SQLite's own connection, in a transaction that shares its commit with others; for the
        platform, where SQLAlchemy's price per statement shows. It runs on the event loop: a millisecond at most.

        Raises:
            NotStartedError: the database is closed, or is not SQLite.
        """
        writer = self._open_file_or_raise().writer
        turn = writer.enter_now() or await writer.enter()
        began = monotonic()
        try:
            result = work(turn.lane.connection)
        except BaseException:
            turn.rollback()
            raise
        self.statements.worked(work, began)
        await turn.commit()
        return result

    async def raw_read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As :meth:`raw`, to read: ``work`` sees one moment of the file, waits for no writer and cannot write."""
        readers = self._open_file_or_raise().readers
        turn = readers.enter_now() or await readers.enter()
        began = monotonic()
        try:
            result = work(turn.lane.connection)
        finally:
            turn.rollback()
        self.statements.worked(work, began)
        return result

    def _open_file_or_raise(self) -> SqliteFile:
        if self._file is None:
            raise NotStartedError(
                "there is no open SQLite file", "Use it between start() and close()", place=self.module
            )
        return self._file

    async def ensure(self, tables: MetaData) -> None:
        """Make the platform's own tables (``seamline_...``) where they are absent; many processes may ask at once."""
        async with self.transaction() as connection:
            if self._server is not None:
                name = {"name": f"seamline tables of {self.module}"}
                await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), name)
            await connection.run_sync(tables.create_all)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[AsyncSession]:
        """A transaction for mapped classes. Objects stay readable after the commit."""
        async with self.transaction() as connection:
            session = AsyncSession(connection, expire_on_commit=False)
            try:
                yield session
                await session.commit()  # the session began it, being the first to use the connection
            finally:
                await session.close()

    async def run_sync(self, work: Callable[[Connection], None]) -> None:
        """Run ``work`` with a plain SQLAlchemy connection inside a transaction, for SQLAlchemy's own tools."""
        async with self.transaction() as connection:
            await connection.run_sync(work)


def _engine(source: Writer | Readers) -> AsyncEngine:
    # Seats cost nothing, so no pool keeps them: the queue for the real connections is in the source.
    return create_async_engine(
        f"{sqlite_dialect.NAME}://", creator=lambda: sqlite_dialect.Seat(source), poolclass=NullPool
    )


def sqlite_url(data: Path, module: str) -> str:
    """Where a module's database is unless the settings name another."""
    return f"sqlite:///{data.absolute() / 'db' / module}.sqlite3"
