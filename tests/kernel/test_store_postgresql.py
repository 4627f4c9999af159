"""PostgreSQL: a schema and a role for each module, made where absent, closed to other modules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from seamline.kernel.store import Database, StoreError, prepare
from seamline.kernel.store.errors import (
    DriverMissingError,
    NestedTransactionError,
    ReadOnlyError,
    ServerError,
    UrlError,
)
from seamline.kernel.store.migrations import downgrade, revision, status, upgrade

pytestmark = pytest.mark.needs_server

ORDERS = MetaData()
orders = Table("orders", ORDERS, Column("id", Integer, primary_key=True), Column("name", String(20)))


@pytest.fixture
async def url(postgres_server: Any) -> AsyncGenerator[str]:
    """A fresh database."""
    admin = create_async_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.exec_driver_sql("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        await connection.exec_driver_sql("CREATE DATABASE shop")
        yield postgres_server.url("shop")
        await connection.exec_driver_sql("DROP DATABASE shop WITH (FORCE)")
        for role in (await connection.exec_driver_sql("SELECT rolname FROM pg_roles")).scalars().all():
            if str(role).startswith("shop_"):
                await connection.exec_driver_sql(f'DROP ROLE "{role}"')
    await admin.dispose()


async def test_transactions_commit_and_roll_back(url: str):
    """What a block wrote is there after it, and nothing of a block that raised."""
    async with Database(url, "orders", ORDERS) as db:
        await prepare(db, None)
        async with db.transaction() as tx:
            await tx.execute(insert(orders).values(id=1, name="one"))
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await tx.execute(insert(orders).values(id=2, name="two"))
                raise ZeroDivisionError
        async with db.read() as r:
            assert (await r.execute(select(orders))).all() == [(1, "one")]


async def test_module_cannot_read_anothers_tables(url: str):
    """The role of one module is refused by another's schema, whichever name it writes."""
    async with Database(url, "orders", ORDERS) as mine, Database(url, "spy") as spy:
        await prepare(mine, None)
        async with mine.transaction() as tx:
            await tx.execute(insert(orders).values(id=1, name="secret"))
        for attack in (
            "SELECT * FROM orders.orders",
            "INSERT INTO orders.orders VALUES (2, 'x')",
            "DROP TABLE orders.orders",
            "SET search_path = orders; SELECT * FROM orders",
            "CREATE TABLE orders.mine (id int)",
            "CREATE TABLE public.shared (id int)",
            'GRANT "shop_orders" TO "shop_spy"',
        ):
            with pytest.raises(DBAPIError):
                async with spy.transaction() as tx:
                    for statement in attack.split(";"):
                        await tx.execute(text(statement))
        async with mine.read() as r:
            assert (await r.execute(select(orders))).all() == [(1, "secret")]


async def test_schema_and_role_are_the_modules(url: str):
    """Every connection works as the module's role, which cannot log in, in the module's schema."""
    async with Database(url, "my-orders") as db:
        for block in (db.transaction(), db.read()):
            async with block as connection:
                found = (await connection.execute(text("SELECT current_user, current_schema()"))).one()
                assert tuple(found) == ("shop_my-orders", "my-orders")
                login = await connection.scalar(
                    text("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'shop_my-orders'")
                )
                assert login is False


async def test_starters_do_not_collide(url: str):
    """Twelve replicas of three modules that start at once make each schema, role and table once."""
    databases = [Database(url, f"m{number % 3}", ORDERS) for number in range(12)]

    async def start(db: Database) -> None:
        await db.start()
        await prepare(db, None)

    await asyncio.gather(*map(start, databases))
    for db in databases:
        await db.ready()
        await db.close()


async def test_read_refuses_to_write(url: str):
    """``read()`` cannot write, and says what to use."""
    async with Database(url, "orders", ORDERS) as db:
        await prepare(db, None)
        with pytest.raises(ReadOnlyError, match=r"SL7008.*transaction\(\)"):
            async with db.read() as r:
                await r.execute(insert(orders).values(id=1))


async def test_nested_transaction_is_refused(url: str):
    """A task that opens a transaction inside its own is told, though a server could run both."""
    async with Database(url, "orders") as db, db.transaction():
        with pytest.raises(NestedTransactionError, match="SL7007"):
            async with db.transaction():
                pass


async def test_cancelled_statement_leaves_a_sound_pool(url: str):
    """Statements cancelled half-way give their connections back or away; the next ones work."""
    async with Database(url, "orders", ORDERS) as db:
        await prepare(db, None)
        for _ in range(20):
            entered = asyncio.Event()

            async def slow(entered: asyncio.Event = entered) -> None:
                async with db.transaction() as tx:
                    await tx.execute(insert(orders).values(name="lost"))
                    entered.set()
                    await tx.execute(text("SELECT pg_sleep(60)"))

            async with asyncio.TaskGroup() as group:
                task = group.create_task(slow())
                await entered.wait()
                task.cancel()
        async with db.read() as r:
            assert (await r.execute(select(orders))).all() == []


async def test_migrations_in_the_modules_schema(url: str, tmp_path: Path):
    """Autogenerate, upgrade, status and downgrade act in the module's schema; the version table is there too."""
    folder = tmp_path / "migrations"
    async with Database(url, "orders", ORDERS) as db:
        first = await revision(db, folder, "first tables")
        assert first is not None
        assert len((await status(db, folder)).pending) == 1
        upgrades = await asyncio.gather(*(upgrade(db, folder) for _ in range(3)))
        assert sorted(len(applied) for applied in upgrades) == [0, 0, 1]
        assert await revision(db, folder, "nothing") is None
        async with db.transaction() as tx:
            await tx.execute(insert(orders).values(id=1, name="one"))
            owner = await tx.scalar(
                text("SELECT tableowner FROM pg_tables WHERE schemaname='orders' AND tablename='alembic_version'")
            )
            assert owner == "shop_orders"
        await downgrade(db, folder, "base")
        with pytest.raises(DBAPIError):
            async with db.read() as r:
                await r.execute(select(orders))


async def test_foreign_schema_is_not_taken(url: str):
    """A schema of the module's name that belongs to somebody else is left alone, with a remedy."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA orders")
    await engine.dispose()
    with pytest.raises(ServerError, match=r"SL7004.*belongs to 'admin'.*ALTER SCHEMA"):
        await Database(url, "orders").start()


async def test_errors_name_the_server_and_hide_the_password(url: str):
    """Wrong password, unknown database and a silent port are told apart, without the password."""
    wrong = url.replace("tests-only", "hunter2")
    with pytest.raises(ServerError, match="password authentication failed") as refused:
        await Database(wrong, "orders").start()
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ServerError, match='database "nowhere" does not exist'):
        await Database(url.replace("/shop", "/nowhere"), "orders").start()
    with pytest.raises(ServerError, match="does not answer"):
        await Database("postgresql+asyncpg://u:hunter2@127.0.0.1:1/x", "orders").start()


async def test_user_without_rights_is_told_what_it_needs(url: str):
    """A login that may not create roles is told so, with the role and the schema that it lacks."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE ROLE shop_weak LOGIN PASSWORD 'weak'")
    await engine.dispose()
    with pytest.raises(ServerError, match=r"SL7004.*permission denied.*CREATEROLE"):
        await Database(url.replace("admin:tests-only", "shop_weak:weak"), "orders").start()


async def test_server_gone_while_running(url: str):
    """Connections that the server ended are an error once, and the next ones work."""
    async with Database(url, "orders") as db:
        await db.ready()
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orders'"
            )
        await engine.dispose()
        with pytest.raises((DBAPIError, StoreError)):
            await db.ready()
        await db.ready()


def test_wrong_urls_are_refused_before_use():
    """Other drivers, missing names and names too long for PostgreSQL are refused when the database is made."""
    with pytest.raises(UrlError, match=r"postgresql\+asyncpg"):
        Database("postgresql://localhost/shop", "orders")
    with pytest.raises(UrlError, match="names no database"):
        Database("postgresql+asyncpg://localhost", "orders")
    with pytest.raises(UrlError, match="SL7001"):
        Database("not a url", "orders")


def test_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """Without asyncpg the error is the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "asyncpg", None)
    with pytest.raises(DriverMissingError, match=r'SL7003.*pip install "seamline\[postgresql\]"'):
        Database("postgresql+asyncpg://localhost/shop", "orders")
