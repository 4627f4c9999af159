"""Logins to PostgreSQL that live for a while: one for each process and module, made, replaced and dropped.

A login is a member of the module's own role, which owns the module's schema and cannot log in; so tables belong to
the role, whoever made them, and a login can be dropped at any time. The server itself refuses another module's
schema, and a login whose time is over. Its password is made here and goes to the server as a SCRAM verifier only,
so that it stands in no server's log.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from seamline.kernel.signal import log
from seamline.secrets.errors import SecretsError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_log = log.get("seamline.secrets")
_NAME_BYTES_MAX: Final = 63
_MARK: Final = "~"
_SET_IS_APART: Final = 160_000  # since version 16 a membership says what it allows
_SCRAM_ITERATIONS: Final = 4096
_CONNECTIONS_MAX: Final = 64
_LOGINS_MAX: Final = 500
"""Of a module at once: some for each of its processes."""


@dataclass(frozen=True, slots=True)
class MadeLogin:
    """How a process reaches a module's schema until ``ends_ms``."""

    host: str
    port: int | None
    database: str
    user: str
    password: str = field(repr=False)
    ends_ms: int
    lifetime_s: float


class Logins:
    """Makes logins with the user of the url, who needs CREATEROLE.

    Args:
        url_of: the database of a module, with that user and its password.
        lifetime_s: how long a login is valid; the sessions of one that has ended are ended with it.
    """

    def __init__(self, url_of: Callable[[str], str], lifetime_s: float) -> None:
        self._url_of = url_of
        self._lifetime_s = lifetime_s
        self._prepared: set[str] = set()
        self._made: dict[str, set[str]] = {}
        self._lock = asyncio.Lock()
        self._making: set[asyncio.Future[None]] = set()
        """Done when a login has been made, or not."""
        self._closed = False

    async def make(self, module: str) -> MadeLogin:
        """A login for ``module``. Drops those that have ended. Raises StoreError where the server refuses."""
        if self._closed:
            raise SecretsError("no login is made any more: the application stops", "Start it again.")
        done = asyncio.get_running_loop().create_future()
        self._making.add(done)
        try:
            return await self._make(module)
        finally:
            self._making.discard(done)
            done.set_result(None)

    async def _make(self, module: str) -> MadeLogin:
        from sqlalchemy import make_url, text

        from seamline.kernel.store.postgresql import PostgresqlServer, check_driver

        url = make_url(self._url_of(module))
        if url.get_backend_name() != "postgresql":
            raise SecretsError(
                f"the database of module {module!r} is no PostgreSQL, and credentials are dynamic",
                'Set its url, or write credentials = "static" under [data].',
            )
        check_driver(url)
        server = PostgresqlServer(url, module, wait_s=10)
        try:
            async with self._lock:
                if module not in self._prepared:
                    await server.prepare()
                    self._prepared.add(module)
        finally:
            await server.close()
        role = server.role
        if len(self._made.get(module, ())) >= _LOGINS_MAX:
            await self.sweep()
        if len(self._made.get(module, ())) >= _LOGINS_MAX:
            raise SecretsError(
                f"module {module!r} has {_LOGINS_MAX} logins that have not ended", "See who asks for them."
            )
        user = f"{_stem(role)}{_MARK}{int(time.time()):x}{os.urandom(3).hex()}"
        password = base64.urlsafe_b64encode(os.urandom(24)).decode()
        # Known before it exists: who is interrupted in between leaves nothing behind.
        self._made.setdefault(module, set()).add(user)
        async with self._admin(module) as connection:
            await self._drop_ended(connection, role)
            ends, ends_ms = (
                await connection.execute(
                    text(
                        "SELECT t::text, (extract(epoch FROM t) * 1000)::bigint FROM (SELECT now() + :life AS t) AS x"
                    ),
                    {"life": _interval(self._lifetime_s)},
                )
            ).one()
            for statement in await _creation(connection, user, role, scram_verifier(password), ends):
                await connection.exec_driver_sql(statement)
        return MadeLogin(
            url.host or "localhost", url.port, url.database or "", user, password, ends_ms, self._lifetime_s
        )

    async def sweep(self) -> None:
        """Drop what has ended, also what another supervisor left behind."""
        from seamline.kernel.store.postgresql import PostgresqlServer

        for module in self._prepared:
            async with self._admin(module) as connection:
                url = connection.engine.url
                await self._drop_ended(connection, PostgresqlServer(url, module, wait_s=1).role)

    async def close(self) -> None:
        """Drop all that were made here, and those that were about to be: nobody is left who uses them."""
        self._closed = True
        if self._making:
            await asyncio.wait(self._making, timeout=10)
        for module, users in self._made.items():
            try:
                async with asyncio.timeout(10), self._admin(module) as connection:
                    await _drop(connection, users)
            except Exception as error:  # they end by themselves
                _log.warning("the logins of module %s were not dropped, and end in time: %s", module, error)
        self._made.clear()

    async def _drop_ended(self, connection: AsyncConnection, role: str) -> None:
        from sqlalchemy import text

        ended = await connection.execute(
            text("SELECT rolname FROM pg_roles WHERE starts_with(rolname, :stem) AND rolvaliduntil < now()"),
            {"stem": f"{_stem(role)}{_MARK}"},
        )
        users = {str(name) for name in ended.scalars()}
        await _drop(connection, users)
        for known in self._made.values():
            known.difference_update(users)

    @asynccontextmanager
    async def _admin(self, module: str) -> AsyncGenerator[AsyncConnection]:
        from sqlalchemy import NullPool
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(self._url_of(module), poolclass=NullPool, connect_args={"timeout": 10})
        try:
            async with engine.begin() as connection:
                yield connection
        finally:
            await engine.dispose()


def _stem(role: str) -> str:
    """What all logins of a role begin with."""
    own = 8 + 6 + len(_MARK)
    if len(role.encode()) + own <= _NAME_BYTES_MAX:
        return role
    digest = hashlib.sha256(role.encode()).hexdigest()[:8]
    return role.encode()[: _NAME_BYTES_MAX - own - 9].decode(errors="ignore") + "-" + digest


async def _creation(connection: AsyncConnection, user: str, role: str, verifier: str, ends: str) -> list[str]:
    from sqlalchemy import text

    version = await connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    above = await connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    apart = version >= _SET_IS_APART
    quoted, own = _quoted(user), _quoted(role)
    rights = f"LOGIN NOINHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT {_CONNECTIONS_MAX}"
    made = [
        f"CREATE ROLE {quoted} {rights} PASSWORD '{verifier}' VALID UNTIL '{ends}'",
        f"GRANT {own} TO {quoted}" + (" WITH INHERIT FALSE, SET TRUE" if apart else ""),
    ]
    if not above:  # who ends another's sessions must have its rights
        made.append(f"GRANT {quoted} TO CURRENT_USER" + (" WITH INHERIT TRUE, SET FALSE" if apart else ""))
    return made


async def _drop(connection: AsyncConnection, users: set[str]) -> None:
    from sqlalchemy import text

    for user in sorted(users):
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :user"), {"user": user}
        )
        await connection.exec_driver_sql(f"DROP ROLE IF EXISTS {_quoted(user)}")


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What PostgreSQL keeps of a password (RFC 5802, RFC 7677), so that it never sees the password itself."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt64}${stored64}:{server64}"


def _interval(seconds: float) -> object:
    from datetime import timedelta

    return timedelta(seconds=seconds)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
