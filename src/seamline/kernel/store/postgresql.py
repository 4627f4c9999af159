"""PostgreSQL: each module has a schema and a role that cannot log in, and works as that role only.

The url's user logs in, makes schema and role where they are absent, and every connection starts as the
module's role with the module's schema as its search path: set while connecting, so that it costs no
round trip. Other modules' schemas are closed to that role.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from sqlalchemy import URL, NullPool, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from seamline.kernel.store.errors import DriverMissingError, ServerError, UrlError

CONNECT_TIMEOUT_S: Final = 10
POOL_SIZE: Final = 5
POOL_OVERFLOW: Final = 10
IDLE_IN_TRANSACTION_S: Final = 20
"""A process that stands still in the middle of a transaction loses it after so long, and with it the rows it locked:
another one that goes on with its work must not wait for it for ever."""

_NAME_BYTES_MAX: Final = 63
_SET_IS_APART: Final = 160_000  # since version 16 a member needs a right of its own to SET ROLE


class Login:
    """Whom a module logs in as, where that is replaced while it runs; the role it works as stays the same.

    ``url`` holds user and password, and ``serial`` tells a newer login from an older one.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.serial = 0

    def replace(self, url: URL) -> None:
        self.url = url
        self.serial += 1


class PostgresqlServer:
    """The module's two pools: one that writes, one that cannot. A connection is opened when first needed.

    With a ``login`` schema and role exist already: who may make them has made it.
    """

    def __init__(self, url: URL, module: str, *, wait_s: float, login: Login | None = None) -> None:
        self._url = url
        self._login = login
        self.schema = module
        self.role = f"{url.database}_{module}"
        for name in (self.schema, self.role):
            if len(name.encode()) > _NAME_BYTES_MAX:
                raise UrlError(
                    f"{name!r} is longer than the {_NAME_BYTES_MAX} bytes that PostgreSQL keeps of a name",
                    "Give the database or the module a shorter name",
                    place=module,
                )
        self.writer = _engine(url, self.as_module(), wait_s=wait_s)
        read_only = self.as_module(default_transaction_read_only="on")
        # Without BEGIN and COMMIT a read is one round trip; each statement sees one moment, as it would
        # in a READ COMMITTED transaction.
        self.reader = _engine(url, read_only, wait_s=wait_s, isolation_level="AUTOCOMMIT")
        if login is not None:
            for engine in (self.writer, self.reader):
                _log_in_with(engine, login)

    def as_module(self, **settings: str) -> dict[str, Any]:
        """Arguments of a connection that starts as the module's role in the module's schema."""
        own = {
            "role": self.role,
            "search_path": _quoted(self.schema),
            "application_name": self.schema,
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_S * 1000),
        }
        return {"timeout": CONNECT_TIMEOUT_S, "server_settings": own | settings}

    async def prepare(self) -> None:
        """Make the schema and the role where they are absent."""
        if self._login is not None:
            return
        login = create_async_engine(self._url, poolclass=NullPool, connect_args={"timeout": CONNECT_TIMEOUT_S})
        try:
            async with self.reachable(), login.begin() as connection:
                await self._prepare(connection)
        except DBAPIError as error:
            raise ServerError(
                f"{shown(self._url)}: {reason(error)}",
                f"The user of the url needs CREATEROLE and CREATE on the database, or the role {self.role!r} and "
                f"the schema {self.schema!r} owned by it must exist and the role be granted to the user",
                place=self.schema,
            ) from error
        finally:
            await login.dispose()

    async def _prepare(self, connection: AsyncConnection) -> None:
        role, schema = _quoted(self.role), _quoted(self.schema)
        # Roles belong to the whole server: starters of the same module, anywhere, come one after another.
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:role))"), {"role": self.role})
        known = {"role": self.role, "schema": self.schema}
        if not await connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), known):
            await connection.exec_driver_sql(f"CREATE ROLE {role} NOLOGIN NOINHERIT")
        version = await connection.scalar(text("SELECT current_setting('server_version_num')::int"))
        may = {**known, "right": "SET" if version >= _SET_IS_APART else "MEMBER"}
        if not await connection.scalar(text("SELECT pg_has_role(current_user, :role, :right)"), may):
            await connection.exec_driver_sql(f"GRANT {role} TO CURRENT_USER")
        owner = await connection.scalar(
            text("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = :schema"), known
        )
        if owner is None:
            await connection.exec_driver_sql(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")
        elif owner != self.role:
            raise ServerError(
                f"the schema {self.schema!r} exists and belongs to {owner!r}",
                f"Use another database, or run: ALTER SCHEMA {schema} OWNER TO {role}",
                place=self.schema,
            )

    @asynccontextmanager
    async def reachable(self) -> AsyncGenerator[None]:
        """Name the server when it does not answer."""
        try:
            yield
        except (OSError, TimeoutError) as error:
            raise ServerError(
                f"{shown(self._url)} does not answer ({error or type(error).__name__})",
                "Check the url and that the server is running",
                place=self.schema,
            ) from error
        except DBAPIError as error:
            if not _is_refusal(error):
                raise
            raise ServerError(
                f"{shown(self._url)} refuses the connection: {reason(error)}",
                "Check user, password and database name in the url",
                place=self.schema,
            ) from error

    async def renew(self) -> None:
        """Have the connections that nobody uses log in anew; those in use are left when they come back."""
        for engine in (self.writer, self.reader):
            idle = cast("QueuePool", engine.sync_engine.pool).checkedin()
            held = [await engine.connect() for _ in range(idle)]
            for each in held:
                await each.close()

    async def close(self) -> None:
        await self.writer.dispose()
        await self.reader.dispose()


def _engine(
    url: URL, connect_args: dict[str, Any], *, wait_s: float, isolation_level: str | None = None
) -> AsyncEngine:
    options = {} if isolation_level is None else {"isolation_level": isolation_level}
    return create_async_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=wait_s,
        pool_pre_ping=False,
        pool_use_lifo=True,
        connect_args=connect_args,
        **options,
    )


def _log_in_with(engine: AsyncEngine, login: Login) -> None:
    """Have each new connection use the login of the hour, and leave a connection of an older one."""

    def connect(_: object, record: ConnectionPoolEntry, __: object, parameters: dict[str, Any]) -> None:
        record.info["serial"] = login.serial
        parameters |= {"user": login.url.username, "password": login.url.password}

    def check_out(_: object, record: ConnectionPoolEntry, __: object) -> None:
        if record.info.get("serial") != login.serial:
            raise DisconnectionError  # the pool opens another in its place

    event.listen(engine.sync_engine, "do_connect", connect)
    event.listen(engine.sync_engine, "checkout", check_out)


def check_driver(url: URL) -> None:
    """Raise an error that says what to install or write, before the url is used."""
    if url.drivername != "postgresql+asyncpg":
        raise UrlError(f"the url names {url.drivername!r}", 'Begin it with "postgresql+asyncpg://" or "sqlite:///"')
    if not url.database:
        raise UrlError(f"{shown(url)} names no database", "Add its name: postgresql+asyncpg://host/name")
    try:
        import asyncpg  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
    except ModuleNotFoundError as error:
        raise DriverMissingError(
            "asyncpg, the PostgreSQL driver, is not installed", 'Run: pip install "seamline[postgresql]"'
        ) from error


def shown(url: URL) -> str:
    """The url without its password."""
    return url.render_as_string(hide_password=True)


def reason(error: SQLAlchemyError) -> str:
    """What the server said, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause.__cause__ or cause).splitlines()[0]


def sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _is_refusal(error: DBAPIError) -> bool:
    # Class 28: authorisation; 3D000: no such database; 57P03: starting up; 53300: too many connections;
    # class 08 and what has no state at all: the connection broke.
    state = sqlstate(error)
    return state.startswith(("28", "08")) or state in {"3D000", "57P01", "57P03", "53300"}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
