"""Short-lived logins on a real PostgreSQL: only the module's own schema, replaced under load, dropped afterwards."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import SecretsSettings
from seamline.kernel.store import Database, Login, StoreError, prepare
from seamline.secrets.errors import SecretsError
from seamline.secrets.postgresql import Logins, MadeLogin, scram_verifier
from seamline.secrets.runtime import SecretsRuntime

pytestmark = pytest.mark.needs_server
METADATA = MetaData()
items = Table("items", METADATA, Column("id", Integer, primary_key=True))


class Place:
    """A database of its own, whose owner may make roles and is no superuser."""

    def __init__(self, server: Any, admin: AsyncEngine) -> None:
        self.server = server
        self.admin = admin
        self.url = f"postgresql+asyncpg://keeper:keeper-pw@{server.host}:{server.port}/vault_shop"

    async def ask(self, statement: str, **values: object) -> list[Any]:
        async with self.admin.connect() as connection:
            return list((await connection.execute(text(statement), values)).scalars())

    async def users(self) -> list[str]:
        return await self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'vault\\_shop\\_%~%' ORDER BY 1")


@pytest.fixture(params=["admin", "keeper"])
async def place(postgres_server: Any, request: pytest.FixtureRequest) -> AsyncGenerator[Place]:
    """Each test runs with a superuser and with a user who has CREATEROLE alone."""
    admin = create_async_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        for statement in (
            "DROP DATABASE IF EXISTS vault_shop WITH (FORCE)",
            "CREATE ROLE keeper LOGIN CREATEROLE PASSWORD 'keeper-pw'",
            "CREATE DATABASE vault_shop OWNER keeper",
        ):
            await connection.exec_driver_sql(statement)
        found = Place(postgres_server, admin)
        if request.param == "admin":
            found.url = postgres_server.url("vault_shop")
        yield found
        await connection.exec_driver_sql("DROP DATABASE vault_shop WITH (FORCE)")
        for role in await found.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'vault\\_shop%'"):
            await connection.exec_driver_sql(f'DROP OWNED BY "{role}"')
            await connection.exec_driver_sql(f'DROP ROLE "{role}"')
        await connection.exec_driver_sql("DROP ROLE keeper")
    await admin.dispose()


def url_of(made: MadeLogin) -> URL:
    return URL.create("postgresql+asyncpg", made.user, made.password, made.host, made.port, made.database)


def database(made: MadeLogin, module: str, tables: MetaData | None = None) -> Database:
    url = url_of(made)
    return Database(url.render_as_string(), module, tables, login=Login(url))


async def test_a_login_reaches_its_own_schema_and_no_other(place: Place):
    """PostgreSQL itself refuses the rest, whatever role or schema the session names."""
    logins = Logins(lambda _: place.url, 600)
    mine, other = await logins.make("orders"), await logins.make("spy")
    async with database(mine, "orders", METADATA) as orders, database(other, "spy") as spy:
        await orders.ensure(METADATA)
        async with orders.transaction() as tx:
            await tx.execute(items.insert().values(id=1))
        for attack in (
            "SELECT * FROM orders.items",
            "INSERT INTO orders.items VALUES (2)",
            "DROP TABLE orders.items",
            "CREATE TABLE orders.mine (id int)",
            "CREATE TABLE public.shared (id int)",
            "SET ROLE vault_shop_orders",
            "SET SESSION AUTHORIZATION vault_shop_orders",
            f'SET ROLE "{mine.user}"',
            "RESET ROLE; SELECT * FROM orders.items",
            "RESET ROLE; CREATE ROLE evil",
            f"RESET ROLE; ALTER ROLE \"{other.user}\" VALID UNTIL 'infinity'",
            "RESET ROLE; GRANT vault_shop_orders TO vault_shop_spy",
        ):
            with pytest.raises(DBAPIError, match=r"denied|cannot set|must have|Only roles|permission"):
                async with spy.transaction() as tx:
                    for statement in attack.split("; "):
                        await tx.exec_driver_sql(statement)
        owner = await place.ask("SELECT current_database()")
        assert owner
        async with orders.read() as r:
            assert (await r.execute(items.select())).scalars().all() == [1]
    # From outside of the platform, too: with the password alone.
    raw = create_async_engine(url_of(other))
    with pytest.raises(DBAPIError, match="permission denied"):
        async with raw.connect() as connection:
            await connection.exec_driver_sql("SELECT * FROM orders.items")
    await raw.dispose()
    await logins.close()


async def test_no_query_fails_while_logins_are_replaced(place: Place):
    """Twenty replacements while eight writers, two long transactions and readers go on; then the old ones are gone."""
    logins = Logins(lambda _: place.url, 600)
    made = await logins.make("orders")
    done = 0
    replaced = asyncio.Event()
    async with database(made, "orders", METADATA) as db:
        await db.ensure(METADATA)

        async def write(first: int) -> None:
            nonlocal done
            number = first
            while not replaced.is_set():
                async with db.transaction() as tx:
                    await tx.execute(items.insert().values(id=number))
                async with db.read() as r:
                    assert (await r.execute(items.select().where(items.c.id == number))).scalar_one() == number
                number += 100
                done += 1

        async def more(count: int) -> None:
            """Until so many more are done."""
            end = done + count
            while done < end:  # noqa: ASYNC110  # what is waited for is the load itself
                await asyncio.sleep(0)

        async def stay(number: int) -> None:
            async with db.transaction() as tx:
                await tx.execute(items.insert().values(id=number))
                await replaced.wait()
                await tx.execute(items.insert().values(id=number + 1))

        async with asyncio.TaskGroup() as group:
            for first in range(8):
                group.create_task(write(first * 10 + 1000))
            group.create_task(stay(1))
            group.create_task(stay(11))
            await more(20)
            for _ in range(20):
                made = await logins.make("orders")
                await db.renew_login(url_of(made))
                await more(16)
            replaced.set()
        async with db.read() as r:
            found = (await r.execute(text("SELECT count(*) FROM orders.items"))).scalar_one()
            assert found == done + 4
        # What came back after the last replacement is left at the next one, or when it is asked for.
        await db.renew_login(url_of(made))
        async with db.transaction() as tx:
            assert (await tx.execute(text("SELECT session_user"))).scalar_one() == made.user
        sessions = await place.ask("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE '%~%'")
        assert sessions == [made.user]
        assert len(await place.users()) == 21
    await logins.close()
    assert await place.users() == []


async def test_a_login_whose_time_is_over_is_refused_and_dropped(place: Place):
    """By the server's own clock, with its sessions; also one that a supervisor which died left behind."""
    dead = Logins(lambda _: place.url, 0.2)
    made = await dead.make("orders")
    raw = create_async_engine(url_of(made))
    async with raw.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        await place.ask("SELECT pg_sleep(0.25)")
        fresh = create_async_engine(url_of(made))
        with pytest.raises(DBAPIError, match="password authentication failed"):
            await fresh.connect()
        await fresh.dispose()
        assert await place.users() == [made.user]
        other = Logins(lambda _: place.url, 600)
        next_made = await other.make("orders")
        assert await place.users() == [next_made.user]
        with pytest.raises(DBAPIError):
            await connection.exec_driver_sql("SELECT 1")
        await connection.invalidate()
    await raw.dispose()
    await other.close()


async def test_the_runtime_replaces_a_login_at_half_of_its_life(place: Place):
    """By the clock, without anybody asking; a server that is away meanwhile is asked again."""
    logins, clock, calls = Logins(lambda _: place.url, 600), ManualClock(), 0
    wanted = asyncio.Event()

    class Source:
        async def ask(self, module: str, operation: str, arguments: object) -> Any:
            nonlocal calls
            calls += 1
            assert (operation, arguments) == ("login", {})
            if calls == 2:
                wanted.set()
                raise SecretsError("not now")
            made = await logins.make(module)
            return {name: getattr(made, name) for name in MadeLogin.__dataclass_fields__}

    runtime = SecretsRuntime(Source(), clock, SecretsSettings())
    url, lifetime_s = await runtime.log_in("orders")
    async with Database(url.render_as_string(), "orders", login=Login(url)) as db:
        runtime.keep_logged_in(db, lifetime_s)
        await asyncio.sleep(0)
        clock.advance(301)
        await wanted.wait()
        assert db.login is not None
        while db.login.serial == 0:
            clock.advance(1)
            await asyncio.sleep(0.001)
        assert db.url.username != url.username
        await db.ready()
        await runtime.stop()
    await logins.close()


async def test_migrations_run_with_a_login(place: Place):
    """What they make belongs to the module's role, so that the next login can go on with it."""
    logins = Logins(lambda _: place.url, 600)
    async with database(await logins.make("orders"), "orders", METADATA) as db:
        await prepare(db, None)
    async with database(await logins.make("orders"), "orders", METADATA) as db, db.transaction() as tx:
        await tx.exec_driver_sql("ALTER TABLE items ADD COLUMN more int")
    owner = create_async_engine(place.server.url("vault_shop"))
    async with owner.connect() as connection:
        assert await connection.scalar(text("SELECT tableowner FROM pg_tables WHERE tablename = 'items'")) == (
            "vault_shop_orders"
        )
    await owner.dispose()
    await logins.close()


async def test_a_login_that_is_being_made_at_the_end_is_dropped_too(place: Place):
    """Closed at any moment of its making, whether who asked waits or gave up: none is left."""
    for turn in range(20):
        logins = Logins(lambda _: place.url, 600)
        asked = [asyncio.ensure_future(logins.make("orders")) for _ in range(3)]  # noqa: TID251  # given up below
        await asyncio.sleep(turn * 0.004)
        asked[0].cancel()
        await logins.close()
        await asyncio.gather(*asked, return_exceptions=True)
        assert await place.users() == [], turn
        with pytest.raises(SecretsError, match="stops"):
            await logins.make("orders")


async def test_passwords_stand_in_no_log_of_the_server(place: Place):
    """The server gets a verifier, which it logs with the statement if it is told to; the password never reaches it."""
    await place.ask("SELECT set_config('log_statement', 'all', false)")
    logins = Logins(lambda _: place.url, 600)
    made = await logins.make("orders")
    (stored,) = await place.ask("SELECT rolpassword FROM pg_authid WHERE rolname = :user", user=made.user)
    assert stored.startswith("SCRAM-SHA-256$4096:")
    assert made.password not in stored
    assert made.password not in repr(made)
    await logins.close()


def test_the_verifier_is_the_one_of_rfc_7677():
    """With the salt and password of its example, by the definition of StoredKey and ServerKey."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = scram_verifier("pencil", salt)
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 4096)
    assert verifier.startswith(
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    )
    assert verifier.endswith("wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")
    assert len(salted) == 32


async def test_a_sqlite_url_is_told_so(tmp_path: Any):
    """Dynamic logins are PostgreSQL's."""
    with pytest.raises(SecretsError, match="no PostgreSQL"):
        await Logins(lambda _: f"sqlite:///{tmp_path}/x.sqlite3", 60).make("orders")


async def test_a_server_that_is_away_is_named_without_the_password(tmp_path: Any):
    """The admin's password is in the url, and in no error."""
    logins = Logins(lambda _: "postgresql+asyncpg://keeper:canary-pw@127.0.0.1:1/shop", 60)
    with pytest.raises(StoreError) as raised:
        await logins.make("orders")
    assert "canary-pw" not in str(raised.value)
