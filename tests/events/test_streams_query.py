"""Views are queried with SQL by whoever policy lets: one SELECT, on views only, within limits; on both stores."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.events.stream_rig import START, Rig, Sold, sold

from seamline.events.streams import QueryRefused, ViewsService, count, distinct, session, stream, sum_, top_k, tumbling
from seamline.events.streams import service as limits
from seamline.kernel.store import Database, sqlite_url

sales = stream(Sold, at=lambda e: e.at).by(currency=lambda e: e.currency)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_server)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Rig]:
    """A view with rows, and a table that is nobody else's business."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path, "shop")
    else:
        server = request.getfixturevalue("postgres_server")
        name = f"streams_{tmp_path.name[-20:].strip('-').replace('-', '_')}"
        admin = create_async_engine(server.url(), isolation_level="AUTOCOMMIT")
        async with admin.connect() as connection:
            await connection.exec_driver_sql(f"CREATE DATABASE {name}")
        await admin.dispose()
        url = server.url(name)
    async with Database(url, "shop") as database, Rig.on(database) as made:
        async with database.transaction() as connection:
            await connection.execute(text("CREATE TABLE secrets (word TEXT)"))
            await connection.execute(text("INSERT INTO secrets VALUES ('swordfish')"))
        await made.view("sales", sales.window(tumbling(60)).aggregate(orders=count(), cents=sum_(lambda e: e.cents)))
        await made.take(sold(0, 5), sold(1, 7, "USD"), sold(60, 11), sold(61, 13))
        yield made


@pytest.fixture
async def service(rig: Rig) -> AsyncGenerator[ViewsService]:
    made = ViewsService(rig.db)
    yield made
    await made.close()


async def ask(service: ViewsService, statement: str, **parameters: Any) -> Any:
    return json.loads(await service.query(statement, json.dumps(parameters)))


async def test_a_select_with_parameters_is_answered_as_objects(service: ViewsService):
    since = int((START + timedelta(seconds=60)).timestamp() * 1000)
    found = await ask(service, "SELECT currency, orders, cents FROM sales WHERE start_ms >= :since", since=since)
    assert found == [{"currency": "EUR", "orders": 2, "cents": 24}]


async def test_what_analysts_write_works(service: ViewsService):
    """Groups, joins, subqueries, WITH, window functions, unions, a semicolon, comments."""
    assert await ask(service, "SELECT currency, sum(cents) AS cents FROM sales GROUP BY currency ORDER BY 1;") == [
        {"currency": "EUR", "cents": 29}, {"currency": "USD", "cents": 7},
    ]  # fmt: skip
    assert await ask(
        service,
        """WITH euros AS (SELECT * FROM sales WHERE currency = 'EUR') -- a 'comment;
        SELECT count(*) AS many, max(a.cents) AS most FROM euros a /* and ( another */ JOIN euros b USING (start_ms)""",
    ) == [{"many": 2, "most": 24}]
    assert await ask(service, "WITH x AS (SELECT 1 AS one) SELECT count(*) AS many FROM x") == [{"many": 1}]
    rank = "SELECT cents, row_number() OVER (ORDER BY cents DESC) AS place FROM sales WHERE orders IN (1, 2)"
    assert (await ask(service, rank))[0] == {"cents": 24, "place": 1}
    assert await ask(service, "SELECT name, events, late FROM stream_status") == [
        {"name": "sales", "events": 4, "late": 0}
    ]
    assert await ask(
        service, "SELECT orders FROM sales WHERE currency = :c AND cents > :least", c="USD", least=1.5
    ) == [{"orders": 1}]
    assert await ask(service, "SELECT coalesce(:nothing, 'x') AS x", nothing=None) == [{"x": "x"}]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM secrets",
        "SELECT word FROM secrets",
        "SELECT count(*) FROM secrets",
        'SELECT * FROM "secrets"',
        "SELECT (SELECT word FROM secrets) AS word FROM sales",
        "SELECT orders FROM sales WHERE EXISTS (SELECT 1 FROM secrets WHERE word LIKE 's%')",
        "WITH sales AS (SELECT word FROM secrets) SELECT * FROM sales",
        "SELECT orders FROM sales UNION ALL SELECT length(word) FROM secrets",
        "SELECT * FROM seamline_stream_aside",
        "SELECT data FROM seamline_stream_joins",
        "SELECT * FROM sqlite_master",
        "SELECT count(*) FROM sqlite_master",
        "SELECT * FROM pg_catalog.pg_roles",
        "SELECT rolname FROM pg_roles",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM pragma_database_list",
        "SELECT query_to_xml('SELECT * FROM secrets', true, true, '')",
        "SELECT pg_catalog.\"query_to_xml\"('SELECT * FROM secrets', true, true, '')",
        "SELECT set_config('role', 'admin', false)",
        "SELECT pg_sleep(100)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT load_extension('x')",
        "SELECT U&\"\\0071uery_to_xml\"('SELECT * FROM secrets', true, true, '')",
        "SELECT $$x$$",
        "SELECT E'\\' || (SELECT word FROM secrets) || '",
        "SELECT 'unclosed FROM secrets",
        "INSERT INTO sales VALUES (1)",
        "UPDATE secrets SET word = 'x'",
        "DELETE FROM secrets",
        "DROP VIEW sales",
        "WITH gone AS (DELETE FROM secrets RETURNING word) SELECT * FROM gone",
        "SELECT * INTO taken FROM sales",
        "SELECT * FROM sales FOR UPDATE",
        "PRAGMA query_only = OFF",
        "ATTACH DATABASE '/tmp/x' AS x",
        "SET ROLE admin",
        "BEGIN",
        "COMMIT; SELECT 1",
        "SELECT 1; SELECT word FROM secrets",
        "SELECT 1; DROP TABLE secrets",
        "EXPLAIN SELECT * FROM secrets",
        "COPY secrets TO '/tmp/x'",
        "SELECT orders, orders FROM sales",
        "SELECT nothing FROM sales",
        "SELECT orders FROM sales WHERE cents > :missing",
        "selec",
        "",
        ";",
        "SELECT * FROM sales" + " " * 20_000,
    ],
)
async def test_nothing_but_views_can_be_read_and_nothing_changed(rig: Rig, service: ViewsService, statement: str):
    """Each is refused with a reason, and what was there is there."""
    with pytest.raises(QueryRefused):
        answer = await ask(service, statement)
        assert "swordfish" not in json.dumps(answer)
    async with rig.db.read() as connection:
        assert (await connection.execute(text("SELECT word FROM secrets"))).all() == [("swordfish",)]
        assert (await connection.execute(text("SELECT count(*) FROM sales"))).scalar_one() == 3


async def test_an_endless_query_ends(service: ViewsService, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "TIME_MAX_S", 0.3)
    endless = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS x FROM n"
    with pytest.raises(QueryRefused, match="longer than"):
        await ask(service, endless)
    assert await ask(service, "SELECT count(*) AS many FROM sales") == [{"many": 3}]


async def test_an_answer_has_an_end(service: ViewsService, monkeypatch: pytest.MonkeyPatch):
    """In rows and in bytes."""
    endless = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 10001"
    with pytest.raises(QueryRefused, match="10000 rows"):
        await ask(service, endless)
    monkeypatch.setattr(limits, "BYTES_MAX", 10)
    with pytest.raises(QueryRefused, match="10 bytes"):
        await ask(service, "SELECT orders FROM sales")


async def test_queries_run_beside_each_other_and_beside_writers(rig: Rig, service: ViewsService):
    async def read() -> None:
        for _ in range(20):
            (found,) = await ask(service, "SELECT sum(orders) AS orders, count(*) AS many FROM sales")
            assert found["orders"] >= 4

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(read())
        for second in range(20):
            await rig.take(sold(120 + second))
    assert (await ask(service, "SELECT sum(orders) AS orders FROM sales")) == [{"orders": 24}]


async def test_the_machinery_is_the_same_on_both_stores(rig: Rig):
    """Sessions that become one, members, a swap of versions, late events: as on SQLite."""
    definition = stream(Sold, at=lambda e: e.at).window(session(30), late_s=60)
    await rig.view(
        "visits", definition.aggregate(shoppers=distinct(lambda e: e.shopper), best=top_k(1, lambda e: e.shopper))
    )
    await rig.take(sold(0), sold(50, shopper="bob"), sold(51, shopper="bob"))
    await rig.take(sold(25, shopper="eve"))
    assert await rig.rows("visits", "end_ms - start_ms, shoppers, best") == [(81_000, 3, '[["bob",2]]')]
    await rig.view("visits", definition.aggregate(orders=count()), version=2)
    await rig.take(sold(0), sold(500))
    assert await rig.rows("visits", "orders, closed") == [(1, 1), (1, 0)]
    await rig.take(sold(1))
    assert await rig.aside() == [("late", "Sold", 1_000)]
    await rig.tick()


async def test_readers_leave_nothing_running(rig: Rig):
    service = ViewsService(rig.db)
    await ask(service, "SELECT count(*) AS many FROM sales")
    await service.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("views-")]
