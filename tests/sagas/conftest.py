"""A module's database on both stores."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from tests.sagas.rig import STARTED

from seamline.kernel.store import Database, sqlite_url

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_server)])
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[str]:
    """Where a module's data is: once in a file, once on a server."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path, "shop")
        return
    server = request.getfixturevalue("postgres_server")
    name = f"sagas{next(_numbers)}"
    admin = create_async_engine(server.url(), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield server.url(name)
        finally:
            await connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            await connection.exec_driver_sql(f'DROP ROLE IF EXISTS "{name}_shop"')
    await admin.dispose()


@pytest.fixture
async def db(store_url: str) -> AsyncGenerator[Database]:
    async with Database(store_url, "shop") as database:
        yield database
        for host in list(STARTED):
            await host.stop()
