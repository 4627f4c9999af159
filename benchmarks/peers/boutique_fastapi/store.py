"""SQLite by SQLAlchemy, one file per service, set up as the example's is: WAL, every commit on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.peers.boutique_fastapi.platform import Settings

cart = MetaData()
carts = Table(
    "carts",
    cart,
    Column("shopper", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)
cart_lines = Table(
    "cart_lines",
    cart,
    Column("shopper", String(64), ForeignKey("carts.shopper"), primary_key=True),
    Column("product_id", String(64), primary_key=True),
    Column("quantity", Integer, CheckConstraint("quantity > 0"), nullable=False),
    Column("position", Integer, nullable=False),
)

payments = MetaData()
charges = Table(
    "charges",
    payments,
    Column("id", String(36), primary_key=True),
    Column("order_id", String(36), nullable=False, unique=True),
    Column("currency", String(3), nullable=False),
    Column("amount", String(32), nullable=False),
    Column("brand", String(16), nullable=False),
    Column("last_four", String(4), nullable=False),
    Column("charged_at", DateTime(timezone=True), nullable=False),
    Column("refunded_at", DateTime(timezone=True)),
)

checkout = MetaData()
orders = Table(
    "orders",
    checkout,
    Column("id", String(36), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

emails = MetaData()
outbox = Table(
    "outbox",
    emails,
    Column("order_id", String(36), primary_key=True),
    Column("recipient", String(254), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("text", Text, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
)


def database(name: str, tables: MetaData, settings: Settings) -> Any:
    """A lifespan that opens a service's own database and makes its tables; ``Engine`` injects it."""

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{settings.folder / name}.sqlite3")
        event.listen(engine.sync_engine, "connect", _set_up)
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
        app.state.engine = engine
        try:
            yield
        finally:
            await engine.dispose()

    return opened


def _set_up(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _engine(request: Request) -> AsyncEngine:
    return request.app.state.engine


Engine = Annotated[AsyncEngine, Depends(_engine)]
