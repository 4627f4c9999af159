"""A connection of the log's own to PostgreSQL: it carries the groups of events, one round trip each, and notices."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from seamline.kernel.store import Database
from seamline.kernel.store.errors import ServerError
from seamline.kernel.store.postgresql import PostgresqlServer, shown

CLOSE_S: Final = 2.0


class Line:
    """Connects again when the server has gone and come back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._module = database.module
        self._connection: Any = None
        self._login = 0
        self._lock = asyncio.Lock()
        self._channel = ""
        self._woken: Callable[[], None] | None = None

    async def start(self, channel: str, woken: Callable[[], None]) -> None:
        self._channel, self._woken = channel, woken
        async with self._lock:
            await self._open()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=CLOSE_S)

    async def run(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """In one transaction.

        Raises:
            ServerError: the server went away; if it was meanwhile, nobody knows whether the rows are there.
        """
        async with self._lock:
            connection = await self._open()
            try:
                if len(statements) == 1:
                    sql, parameters = statements[0]
                    await connection.execute(sql, *parameters)
                    return
                async with connection.transaction():
                    for sql, parameters in statements:
                        await connection.execute(sql, *parameters)
            except Exception as error:
                if connection.is_closed():
                    raise self._gone(error) from error
                raise

    async def notify(self, channel: str) -> None:
        """Wake who listens elsewhere. That may fail: they look by themselves, too."""
        with suppress(Exception):
            await self.run([("SELECT pg_notify($1, '')", (channel,))])

    def refused_value(self, error: BaseException) -> bool:
        """Whether a value did not fit, so that other rows of the group may."""
        return isinstance(error, _driver().DataError)

    async def _open(self) -> Any:
        login = self._database.login
        serial = 0 if login is None else login.serial
        if self._connection is not None and not self._connection.is_closed():
            if serial == self._login:
                return self._connection
            await self.close()  # nothing is under way, and the login that it began with will end
        asyncpg, url = _driver(), self._database.url
        try:
            connection = await asyncpg.connect(
                host=url.host, port=url.port, user=url.username, password=url.password, database=url.database,
                **PostgresqlServer(url, self._module, wait_s=1.0).as_module(),
            )  # fmt: skip
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise self._gone(error) from error
        self._connection, self._login = connection, serial
        await connection.add_listener(self._channel, self._heard)
        if self._woken is not None:
            self._woken()  # what was said while nobody listened
        return connection

    def _heard(self, connection: Any, pid: int, channel: str, payload: str) -> None:  # noqa: ARG002  # asyncpg's form
        if self._woken is not None and pid != connection.get_server_pid():
            self._woken()

    def _gone(self, error: BaseException) -> ServerError:
        return ServerError(
            f"{shown(self._database.url)} does not answer ({error or type(error).__name__})",
            "Check the url and that the server is running",
            place=self._module,
        )


def _driver() -> Any:
    """asyncpg, which is there only where PostgreSQL is used; the database has checked that."""
    return importlib.import_module("asyncpg")
