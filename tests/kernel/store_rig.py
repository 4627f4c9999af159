"""What the tests of SQLite databases share: two tables, an open database, and statements that take long."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, func, select, text

from seamline.kernel.store import Database, prepare, sqlite_url

METADATA = MetaData()
rows = Table("rows", METADATA, Column("id", Integer, primary_key=True), Column("name", String, unique=True))
parts = Table(
    "parts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("row", Integer, ForeignKey("rows.id"), nullable=False),
)

LONG = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) SELECT count(*) FROM n")
LONG_SELECT = text(
    "SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
    "SELECT i FROM n)"
)
ENDLESS = 10**12


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path, "shop")


@pytest.fixture
async def db(url: str) -> AsyncGenerator[Database]:
    async with Database(url, "shop", METADATA, wait_s=20) as database:
        await prepare(database, None)
        yield database


async def count(db: Database) -> int:
    async with db.read() as r:
        return (await r.execute(select(func.count()).select_from(rows))).scalar_one()
