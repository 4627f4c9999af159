"""What the journal's stores write for many sagas at once, on both of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from tests.conftest import PostgresqlServer
from tests.sagas.rig import Host, hosting, until

from seamline.kernel.store import Database, StoreError
from seamline.module import Module
from seamline.sagas import Saga, SagasError
from seamline.sagas.errors import LostSagasError
from seamline.sagas.journal import Journal, open_journal, postgresql
from seamline.sagas.journal.records import checksum
from seamline.sagas.journal.statements import Statement, Write


@pytest.fixture
async def journal(db: Database) -> AsyncGenerator[Journal]:
    journal = open_journal(db)
    await journal.start()
    await journal.register("here")
    yield journal
    await journal.close()


def started(saga: str, owner: str | None = "here", key: str = "") -> Statement:
    data = b'{"text":"it\'s \\"quoted\\" \\\\ \xc3\xa4"}'
    return "start", (saga, "buy", key, 1, owner, 0, 1, 1, 2**41, data.decode(), checksum(data), "", "", "")


def entry(saga: str, seq: int, text: str = "{}") -> Statement:
    return "entry", (saga, seq, text, checksum(text.encode()))


async def rows(journal: Journal, sql: str) -> list[tuple[Any, ...]]:
    return await journal.store.read(sql)


async def test_of_a_group_only_what_a_lost_worker_writes_is_refused(journal: Journal):
    """Nothing of its writes is kept, and all of the others', in the order asked for."""
    writes = [
        Write("here", [started("a"), entry("a", 1)]),
        Write("gone", [started("b", "gone"), entry("b", 1)], ("buy", "")),
        Write("", [started("c", None, "one")], ("buy", "one")),
        Write("gone", [entry("a", 2)], post=("a", "signal", "word", "null", 5)),
        Write("here", [entry("c", 1)], post=("a", "signal", "word", '"x"', 5)),
    ]
    outcomes = await journal.store.write(writes)
    assert [each if isinstance(each, str | None) else type(each) for each in outcomes] == [
        None, LostSagasError, "c", LostSagasError, None,
    ]  # fmt: skip
    assert await rows(journal, "SELECT id, owner, messages FROM seamline_sagas ORDER BY id") == [
        ("a", "here", 1), ("c", None, 0),
    ]  # fmt: skip
    assert await rows(journal, "SELECT saga, seq FROM seamline_saga_journal ORDER BY saga") == [("a", 1), ("c", 1)]
    assert await rows(journal, "SELECT saga, n, body FROM seamline_saga_messages") == [("a", 1, '"x"')]


async def test_a_group_keeps_the_order_of_what_builds_upon_each_other(journal: Journal):
    """A saga that starts, works, rests with a new message, and ends, all in one group."""
    await journal.store.write([Write("here", [started("a"), started("b")])])
    await journal.post("a", "signal", "word", "null", 5)
    work = ("running", '{"a":1}', "", 7, "b")
    rest = (0, None, "running", "", "stuck!", 8, "a")
    end = ("succeeded", "done", 9, 9, "", "b")
    await journal.store.write(
        [Write("here", [("rest", rest), ("take", ("a", 1))]), Write("here", [("work", work), ("end", end)])]
    )
    found = await rows(journal, "SELECT id, owner, due_ms, status, stuck, ended_ms FROM seamline_sagas ORDER BY id")
    assert found == [("a", None, 0, "running", "stuck!", 0), ("b", None, None, "succeeded", "", 9)]
    assert await rows(journal, "SELECT * FROM seamline_saga_messages") == []
    head = await journal.head("b")
    assert checksum(head.input.encode()) == head.crc
    assert head.updated_ms == 9


async def test_a_key_that_is_taken_gives_the_saga_that_has_it(journal: Journal):
    """Also within one group."""
    first = [Write("", [started(name, None, "k")], ("buy", "k")) for name in ("a", "b")]
    assert await journal.store.write(first) == ["a", "a"]
    assert await journal.store.write([Write("here", [started("c", key="k")], ("buy", "k"))]) == ["a"]


async def test_a_group_too_large_for_one_document_is_written_in_parts(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
):
    """Nothing of it is missing; what one saga writes stays together."""
    monkeypatch.setattr(postgresql, "CHARACTERS_MAX", 100)
    writes = [Write("here", [started(f"s{n}", key=f"k{n}")], ("buy", f"k{n}")) for n in range(7)]
    assert await journal.store.write(writes) == [f"s{n}" for n in range(7)]


async def test_journals_are_made_by_many_processes_at_once(journal: Journal):
    """Each finds the tables and what belongs to them."""
    others = [open_journal(journal.store.database) for _ in range(5)]
    for other in others:
        await other.start()
    assert await others[0].store.write([Write("here", [started("a")])]) == [None]


async def test_a_journal_of_before_there_were_users_is_brought_up(journal: Journal):
    """Its sagas are nobody's and go on; new ones keep on whose behalf they were started."""
    await journal.store.write([Write("here", [started("a")])])
    await journal.store.run([("ALTER TABLE seamline_sagas DROP COLUMN subject", ())])
    again = open_journal(journal.store.database)
    await again.start()
    await again.store.write([Write("here", [("start", (*started("b")[1][:-1], "proof"))])])
    found = await rows(again, "SELECT id, subject FROM seamline_sagas ORDER BY id")
    assert found == [("a", ""), ("b", "proof")]
    await again.close()


shop = Module("shop")


async def upper(name: str) -> str:
    return name.upper()


@shop.saga
async def quick(s: Saga, name: str) -> str:
    return await s.step(upper, await s.step(upper, name))


async def test_a_saga_run_inside_of_a_unit_of_work_is_no_part_of_it(db: Database):
    """What others were told is on disk stays; what the unit wrote after it is rolled back."""
    async with hosting(shop, db) as host:
        with pytest.raises(KeyError):
            async with db.unit():
                assert await host.sagas.run(quick, "x", key="in a unit") == "X"
                async with db.transaction() as tx:
                    await tx.exec_driver_sql("INSERT INTO seamline_saga_waits (name, saga) VALUES ('a', 'b')")
                raise KeyError
        store = host.engine.journal.store
        assert await store.read("SELECT status FROM seamline_sagas") == [("succeeded",)]
        assert await store.read("SELECT name FROM seamline_saga_waits") == []


@pytest.mark.needs_server
async def test_sagas_go_on_when_their_server_was_restarted(postgres_server: PostgresqlServer):
    """In the middle of their writes, as after a crash of the server: each ends once, with its steps in its journal."""
    async with Database(postgres_server.url(), "restarted") as db, hosting(shop, db) as host:
        handles = [await host.sagas.start(quick, f"s{n}", key=f"s{n}") for n in range(20)]
        running = [asyncio.get_running_loop().create_task(many(host, n)) for n in range(8)]
        await until(lambda: host.engine.counts["ended"] > 40)
        await asyncio.to_thread(postgres_server.restart)
        begun = host.engine.counts["ended"]
        await until(lambda: host.engine.counts["ended"] > begun + 40, 60)
        for task in running:
            task.cancel()

        async def all_ended() -> list[tuple[Any, ...]]:
            with suppress(StoreError, DBAPIError):  # what was connected to the server of before
                store = host.engine.journal.store
                if not await store.read("SELECT 1 FROM seamline_sagas WHERE ended_ms = 0"):
                    return await store.read(COUNTS)
            return []

        ended = await until(all_ended, 60)
        assert {(status, entries) for _, status, entries in ended} == {("succeeded", 2)}
        assert {handle.id for handle in handles} <= {saga for saga, _, _ in ended}


COUNTS = (
    "SELECT s.id, s.status, (SELECT count(*) FROM seamline_saga_journal j WHERE j.saga = s.id) FROM seamline_sagas s"
)


async def many(host: Host, number: int) -> None:
    for n in range(100_000):
        with suppress(SagasError, StoreError, DBAPIError):  # while the server is away new ones are refused
            await host.sagas.run(quick, f"m{number}-{n}")
        await asyncio.sleep(0)
