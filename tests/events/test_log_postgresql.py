"""What only PostgreSQL can do to a log: commits out of order, and a server that goes away."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import text
from tests.conftest import PostgresqlServer
from tests.events.log_rig import Place, eventually, everything, record

from seamline.events.log import Log
from seamline.kernel.store import Database
from seamline.kernel.store.errors import ServerError

pytestmark = pytest.mark.needs_server


@pytest.fixture
def place(postgres_server: PostgresqlServer, request: pytest.FixtureRequest) -> Place:
    return Place(postgres_server.url(), f"orders_{abs(hash(request.node.name)) % 10**9}")


async def ids(log: Log, after: int = 0) -> list[str]:
    return [each.id for each in await everything(log, after)]


async def test_a_reader_does_not_pass_what_is_still_on_its_way(place: Place):
    """A later position commits first: readers wait for the earlier one and lose neither; when it is given up, they
    go on. What is not of this log, however long it takes, holds nobody up."""
    stranger = Database(place.url, f"{place.module}_b")
    async with place.open() as (database, log), stranger, stranger.transaction() as unrelated:
        await unrelated.execute(text("CREATE TABLE long (n INTEGER)"))
        for give_up, first in ((False, 0), (True, 10)):
            async with asyncio.TaskGroup() as group:
                said, go_on = asyncio.Event(), asyncio.Event()
                slow = group.create_task(slowly(database, log, first, said, go_on, give_up=give_up))
                await said.wait()
                await log.append([record(first + 1)])
                async with database.transaction() as tx:
                    await log.append([record(first + 2)], tx)
                late = [f"event-{n}" for n in range(first, first + 3)]
                assert not set(late) & set(await ids(log))
                assert (await log.ends()).last < (await newest(database))
                go_on.set()
                await slow
            expected = late[1:] if give_up else late
            assert (await ids(log))[-len(expected) :] == expected


async def slowly(
    database: Database, log: Log, number: int, said: asyncio.Event, go_on: asyncio.Event, *, give_up: bool
) -> None:
    try:
        async with database.transaction() as tx:
            await log.append([record(number)], tx)
            said.set()
            await go_on.wait()
            if give_up:
                raise ZeroDivisionError  # noqa: TRY301  # any error rolls back
    except ZeroDivisionError:
        return


async def newest(database: Database) -> int:
    async with database.read() as r:
        return (await r.execute(text("SELECT max(position) FROM seamline_log"))).scalar_one()


async def test_who_waits_elsewhere_is_woken_by_a_notification(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Of another host's process, whom no supervisor tells: with the look every quarter of a second put off by an
    hour, each append is heard of, by itself or in a transaction."""
    monkeypatch.setattr("seamline.events.log.durable.LOOK_S", 3600.0)
    async with place.open() as (database, log), place.open() as (_, other), asyncio.timeout(30):
        for number in range(40):
            seen = other.generation
            if number % 2:
                async with database.transaction() as tx:
                    await log.append([record(number)], tx)
            else:
                await log.append([record(number)])
            seen = await other.changed(seen)
            while f"event-{number}" not in await ids(other):
                seen = await other.changed(seen)


async def test_followers_lose_nothing_while_transactions_commit_in_any_order(place: Place):
    """Readers at the end of the log, in two processes, beside many transactions that end in another order than they
    began, or are given up: each sees each committed event once, in the same order, and a key's as they were said."""
    async with place.open() as (database, log), place.open() as (_, other):
        committed: list[str] = []
        lots = random.Random(3)

        async def transactions(publisher: int) -> None:
            for n in range(12):
                number = publisher * 100 + n
                try:
                    async with database.transaction() as tx:
                        await log.append([record(number, key=f"k{publisher}")], tx)
                        await tx.execute(text("SELECT pg_sleep(:s)"), {"s": lots.random() / 100})
                        if lots.random() < 0.2:
                            raise ZeroDivisionError  # noqa: TRY301  # any error rolls back
                        await log.append([record(number + 50, key=f"k{publisher}")], tx)
                    committed.extend((f"event-{number}", f"event-{number + 50}"))
                except ZeroDivisionError:
                    continue

        async def alone() -> None:
            for n in range(100):
                await log.append([record(5_000 + n, key="alone")])
                committed.append(f"event-{5_000 + n}")

        async def follow(reader: Log) -> list[str]:
            found: list[str] = []
            after = 0
            while "event-9999" not in found:
                seen = reader.generation
                page = await reader.read(after, limit=10)
                found += [each.record.id for each in page]
                after = page.through
                if not page:
                    await reader.changed(seen)
            return found

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            followers = [group.create_task(follow(log)), group.create_task(follow(other))]
            async with asyncio.TaskGroup() as publishing:
                for publisher in range(8):
                    publishing.create_task(transactions(publisher))
                publishing.create_task(alone())
            await log.append([record(9_999)])
        first, second = (each.result() for each in followers)
        assert first == second
        assert sorted(first) == sorted([*committed, "event-9999"])
        alone_ids = [f"event-{5_000 + n}" for n in range(100)]
        assert [each for each in first if each in set(alone_ids)] == alone_ids


async def test_a_server_that_drops_its_connections_is_found_again(place: Place):
    """Appends under way are acknowledged or fail, and none that was acknowledged is lost; after that appending,
    waking and reading go on by themselves."""
    async with place.open() as (_, log), place.open() as (_, other):
        acknowledged: list[str] = []
        stop = asyncio.Event()
        refused = 0

        async def publish(publisher: int) -> None:
            nonlocal refused
            n = publisher * 100_000
            while not stop.is_set():
                n += 1
                try:
                    await log.append([record(n)])
                    acknowledged.append(f"event-{n}")
                except ServerError:
                    refused += 1

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for publisher in range(4):
                group.create_task(publish(publisher))
            for turn in range(3):
                enough = (turn + 1) * 200

                async def appended(enough: int = enough) -> bool:
                    return len(acknowledged) > enough

                await eventually(appended)
                await drop_connections(place)
            stop.set()
        assert refused
        seen = other.generation
        await log.append([record(1)])
        async with asyncio.timeout(20):
            await other.changed(seen)
        found = await ids(log)
        assert set(acknowledged) <= set(found)


async def drop_connections(place: Place) -> None:
    async with Database(place.url, f"{place.module}_admin") as admin, admin.transaction() as tx:
        await tx.execute(text("SET ROLE NONE"))
        gone = await tx.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"),
            {"name": place.module},
        )
        assert gone.rowcount


async def test_one_transaction_may_say_very_much(place: Place):
    """Thousands of appends in one transaction, some of them in savepoints that are undone, take one lock."""
    async with place.open() as (database, log):
        async with database.transaction() as tx:
            for n in range(1_000):
                await log.append([record(n)], tx)
            for n in range(20):
                with pytest.raises(ZeroDivisionError):
                    async with tx.begin_nested():
                        await log.append([record(10_000 + n)], tx)
                        raise ZeroDivisionError
            locks = await tx.execute(
                text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
            )
            assert locks.scalar_one() == 1
        assert await ids(log) == [f"event-{n}" for n in range(1_000)]


async def test_what_a_savepoint_undid_holds_nobody_up_and_what_follows_is_waited_for(place: Place):
    """The lock goes with the savepoint that took it: the next append of the transaction takes it anew."""
    async with place.open() as (database, log):
        async with database.transaction() as tx:
            with pytest.raises(ZeroDivisionError):
                async with tx.begin_nested():
                    await log.append([record(1)], tx)
                    raise ZeroDivisionError
            await log.append([record(2)], tx)
            await log.append([record(3)])
            assert await ids(log) == []
        assert await ids(log) == ["event-2", "event-3"]
