"""What a database's statements leave behind: counts always, spans in recorded traces, and never a value."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from tests.kernel.store_rig import LONG, METADATA, db, rows, url

from seamline.kernel.signal import here
from seamline.kernel.signal.metrics import Flow
from seamline.kernel.signal.trace import TraceContext, Tracer
from seamline.kernel.store import Database, raw_in
from seamline.kernel.store.statement import Shape, shape_of
from seamline.kernel.store.tracing import SUMMARIES_MAX

__all__ = ["db", "url"]  # fixtures

SECRET = "4929-secret-1234"
PARENT = TraceContext(random.getrandbits(128), 0, True)


class Call:
    """A call of shop, in a recorded trace."""

    module = "shop"
    origin = PARENT

    def span_id(self) -> int:
        return 77


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    yield Tracer(1.0)
    here.set_source(lambda: None)


@pytest.fixture
async def told(db: Database, tracer: Tracer) -> Database:
    for block in (db.read(), db.transaction()):
        async with block as connection:
            await connection.execute(select(rows))  # SQLAlchemy asks SQLite about itself at first
    db.statements.tell(tracer)
    db.statements.take()
    return db


def flows(tracer: Tracer) -> dict[str, Flow]:
    found = tracer.flows.take()
    assert {(flow.caller, flow.side) for flow in found} <= {("shop", "sql")}
    return {flow.method: flow for flow in found}


async def test_every_statement_is_counted_without_any_trace(told: Database, tracer: Tracer):
    """By what it does and to which table; a failed one by its code, a commit once for all who share it."""
    async with told.transaction() as tx:
        await tx.execute(insert(rows).values(id=1, name=SECRET))
        await tx.execute(insert(rows), [{"id": 2, "name": "b"}, {"id": 3, "name": "c"}])
    async with told.read() as r:
        for _ in range(3):
            await r.execute(select(rows).where(rows.c.id == 2))
    with pytest.raises(IntegrityError):
        async with told.transaction() as tx:
            await tx.execute(insert(rows).values(id=4, name=SECRET))
    found = flows(tracer)
    assert found["SELECT rows"].calls == 3
    assert found["SELECT rows"].sum_ns > 0
    assert sum(found["SELECT rows"].histogram.values()) == 3
    assert (found["INSERT rows"].calls, found["INSERT rows"].codes) == (3, {"already_exists": 1})
    assert found["COMMIT"].calls == 1
    assert {flow.callee for flow in found.values()} == {"sqlite"}
    assert tracer.take() == []


async def test_in_a_recorded_trace_every_statement_is_a_span(told: Database, tracer: Tracer):
    """A child of the span at work, with the conventions' attributes, and no value of any kind in it."""
    here.set_source(Call)
    async with told.transaction() as tx:
        await tx.execute(insert(rows).values(id=1, name=SECRET))
        await tx.execute(text(f"INSERT INTO rows (id, name) VALUES (2, '{SECRET}2')"))
    async with told.read() as r:
        await r.execute(text(f'SELECT * FROM rows WHERE name = "{SECRET}2" OR id = 1'))
    with pytest.raises(IntegrityError):
        async with told.transaction() as tx:
            await tx.execute(insert(rows).values(id=9, name=SECRET))
    spans = tracer.take()
    assert [span.name for span in spans] == ["INSERT rows", "INSERT rows", "SELECT rows", "INSERT rows"]
    assert SECRET not in repr(spans)
    for span in spans:
        assert (span.trace_id, span.parent_id, span.kind) == (PARENT.trace_id, 77, "client")
        assert (span.module, span.peer) == ("shop", "sqlite")
    read, failed = spans[2], spans[3]
    assert read.attributes == {
        "db.system.name": "sqlite",
        "db.namespace": "shop",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT rows",
        "db.query.text": "SELECT * FROM rows WHERE name = ? OR id = ?",
        "db.response.returned_rows": 2,
    }
    assert failed.status == "already_exists"
    assert (failed.attributes or {})["error.type"] == "IntegrityError"


async def test_a_slow_statement_has_its_trace_recorded(told: Database, tracer: Tracer):
    """Though nobody had drawn the lot for it; a quick one leaves nothing."""

    class Unsampled(Call):
        origin = TraceContext(5, 0, False)

    here.set_source(Unsampled)
    async with told.read() as r:
        await r.execute(select(rows))
    assert tracer.take() == []
    tracer.slow_s = 0.0
    async with told.read() as r:
        await r.execute(select(rows))
    (span,) = tracer.take()
    assert (span.name, span.trace_id, span.parent_id) == ("SELECT rows", 5, 77)
    assert Unsampled.origin.sampled


async def test_work_on_sqlites_own_connection_is_counted_by_its_name(told: Database, tracer: Tracer):
    """The platform's statements go past SQLAlchemy, and show all the same, as a part of a transaction or alone; as
    spans only where they took long."""
    here.set_source(Call)

    def note(sqlite: Any) -> None:
        sqlite.execute("INSERT INTO rows (id, name) VALUES (?, ?)", (7, SECRET))

    await told.raw(note)
    await told.raw_read(lambda sqlite: sqlite.execute("SELECT 1").fetchall())
    async with told.transaction() as tx:
        await raw_in(tx, lambda sqlite: sqlite.execute("DELETE FROM rows"))
        await raw_in(tx, lambda sqlite: sqlite.execute("DELETE FROM rows"))
    name = "seamline test_work_on_sqlites_own_connection_is_counted_by_its_name"
    assert {method: flow.calls for method, flow in flows(tracer).items()} == {name: 4, "COMMIT": 2}
    tracer.take()
    await told.raw_read(lambda sqlite: sqlite.execute(LONG.text, {"count": 100_000}).fetchall())
    assert [span.name for span in tracer.take()] == [name]


async def test_waiting_for_the_writer_is_told_apart_from_the_statement(told: Database, tracer: Tracer):
    """The one who waits has the time under ``seamline.db.wait`` and as a span of its own."""
    here.set_source(Call)
    inside = asyncio.Event()

    async def hold() -> None:
        async with told.transaction() as tx:
            await tx.execute(insert(rows).values(id=1, name="a"))
            inside.set()
            for _ in range(100):
                await asyncio.sleep(0)  # until it waits, which is a matter of turns and not of time
            await asyncio.sleep(0.02)

    async def wait() -> None:
        await inside.wait()
        async with told.transaction() as tx:
            await tx.execute(insert(rows).values(id=2, name="b"))

    await asyncio.gather(hold(), wait())
    (measure,) = told.statements.take()
    assert (measure.name, measure.module, measure.kind, measure.unit) == ("seamline.db.wait", "shop", "histogram", "s")
    assert measure.attributes == {"db.system.name": "sqlite", "seamline.db.wait.for": "writer"}
    assert measure.count == 1
    assert measure.value > 0.019
    assert told.statements.take() == []
    waited, inserted = [span for span in tracer.take() if span.name in {"wait for writer", "INSERT rows"}][-2:]
    assert (waited.name, inserted.name) == ("wait for writer", "INSERT rows")
    assert waited.duration_ns > 19_000_000
    assert inserted.start_ns >= waited.start_ns + waited.duration_ns - 1_000_000


async def test_kinds_of_statements_are_bounded(told: Database, tracer: Tracer):
    """Who makes up a name for each statement gets one count for all beyond the bound."""
    async with told.read() as r:
        for number in range(SUMMARIES_MAX + 50):
            await r.execute(text(f"WITH t{number}(a) AS (SELECT 1) SELECT a FROM t{number}"))
    found = flows(tracer)
    assert len(found) <= SUMMARIES_MAX + 1
    assert found["other"].calls >= 50
    assert sum(flow.calls for flow in found.values()) == SUMMARIES_MAX + 50


@pytest.mark.needs_server
async def test_postgresql_tells_the_same(postgres_server: Any, tracer: Tracer):
    """Through SQLAlchemy's events: counts, spans with rows, failures without what the driver quotes, and the wait."""
    async with Database(postgres_server.url(), "shop", METADATA) as db:
        await db.run_sync(METADATA.drop_all)
        await db.run_sync(METADATA.create_all)
        db.statements.tell(tracer)
        db.statements.take()
        here.set_source(Call)
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(id=1, name=SECRET))
        async with db.read() as r:
            await r.execute(select(rows))
        with pytest.raises(IntegrityError):
            async with db.transaction() as tx:
                await tx.execute(insert(rows).values(id=2, name=SECRET))
        spans = [span for span in tracer.take() if not span.name.startswith("wait")]
        assert [(span.name, span.peer, span.status) for span in spans] == [
            ("INSERT rows", "postgresql", "ok"),
            ("SELECT rows", "postgresql", "ok"),
            ("INSERT rows", "postgresql", "already_exists"),
        ]
        assert SECRET not in repr(spans)
        assert [(span.attributes or {}).get("db.response.returned_rows") for span in spans] == [1, 1, None]
        found = flows(tracer)
        assert (found["INSERT rows"].calls, found["INSERT rows"].errors) == (2, 1)
        (measure,) = db.statements.take()
        assert (measure.attributes["seamline.db.wait.for"], measure.count) == ("connection", 3)


@pytest.mark.parametrize(
    ("sql", "shape"),
    [
        ("SELECT a.x FROM a JOIN b ON a.id = b.id WHERE x = 7", ("SELECT", "SELECT a b")),
        ("INSERT OR REPLACE INTO orders VALUES ('x')", ("INSERT", "INSERT orders")),
        ('UPDATE "Big One" SET x = 1 WHERE y IN (1, 2)', ("UPDATE", "UPDATE Big One")),
        ("SELECT * FROM t FOR UPDATE SKIP LOCKED", ("SELECT", "SELECT t")),
        ("WITH a AS (SELECT 1 FROM b) DELETE FROM c", ("DELETE", "SELECT b DELETE c")),
        ("create table if not exists t (a int)", ("CREATE", "CREATE t")),
        ("-- SELECT x\n/* FROM y */ DELETE FROM z", ("DELETE", "DELETE z")),
        ("PRAGMA user_version", ("PRAGMA", "PRAGMA user_version")),
        ("", ("OTHER", "OTHER")),
    ],
)
def test_a_statement_is_summed_up_by_verb_and_tables(sql: str, shape: tuple[str, str]):
    """Comments, values and what is in parentheses before the verb do not confuse it."""
    assert shape_of(sql)[:2] == shape


@pytest.mark.parametrize(
    "literal",
    [
        "'{}'", "'it''s {}'", r"'back\' || '{}'", r"E'it\'s {}'", "x'{}'", "$${}$$", "$t${}$t$", "'{}", "$${}",
        "U&'{}'", "'a' '{}'", "/* {} */", "-- {}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["SELECT {}", "INSERT INTO t VALUES ({}, 2)", "SELECT * FROM t WHERE a={}"])
def test_no_way_to_write_a_value_gets_through(literal: str, around: str):
    """Neither into the text nor into the summary."""
    shape = shape_of(around.format(literal.format("hidden")))
    assert "hidden" not in repr(shape)


@given(st.text(string.printable, max_size=200), st.integers(10**8, 10**12))
def test_numbers_never_show_whatever_stands_around(rest: str, number: int):
    """As a token of its own, a number is a value; and nothing makes the reader fail."""
    shape = shape_of(f"SELECT {number} FROM t WHERE {rest}")
    assert str(number) not in shape.text.replace(rest, "")
    assert isinstance(shape_of(rest), Shape)


def test_a_long_statement_is_read_at_its_beginning_only():
    """Lists of values are one thing, so that a batch of 1,000 rows is the same kind as one of 1,001."""
    shapes = {shape_of("INSERT INTO t (a, b) VALUES " + ", ".join(["(?, ?)"] * times)) for times in (900, 901)}
    assert len(shapes) == 1
    (shape,) = shapes
    assert shape.summary == "INSERT t"
    assert len(shape.text) < 100
    assert len({shape_of(f"SELECT a FROM t WHERE a IN ({', '.join('?' * n)})") for n in (3, 4)}) == 1
