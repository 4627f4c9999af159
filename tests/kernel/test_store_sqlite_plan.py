"""Only statements that touch a handful of rows may run on the event loop's thread."""

from __future__ import annotations

import sqlite3

import pytest

from seamline.kernel.store.sqlite_plan import Kind, Plans


@pytest.fixture
def plans() -> Plans:
    connection = sqlite3.connect(":memory:")
    connection.executescript("""
        CREATE TABLE a (id INTEGER PRIMARY KEY, name TEXT UNIQUE, x, y, z, UNIQUE (x, y));
        CREATE TABLE words (word TEXT PRIMARY KEY, n);
        CREATE INDEX a_z ON a (z);
        CREATE UNIQUE INDEX words_n ON words (n);
    """)
    return Plans(connection)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM a", Kind.READ),
        ("  -- why\n select 1", Kind.READ),
        ("INSERT INTO a (id) VALUES (1)", Kind.SHORT),
        ("INSERT INTO words VALUES ('a', 1) ON CONFLICT (word) DO UPDATE SET n = n + 1 RETURNING n", Kind.SHORT),
        ("REPLACE INTO words VALUES ('a', 1)", Kind.SHORT),
        ("INSERT INTO a (id) SELECT id FROM a", Kind.LONG),
        ("INSERT INTO a (id) VALUES ((SELECT max(id) FROM a))", Kind.LONG),
        ("UPDATE a SET x = 1 WHERE id = 3", Kind.SHORT),
        ("UPDATE a SET x = 1 WHERE name = 'n' AND z > 1", Kind.SHORT),
        ("UPDATE a SET z = 1 WHERE x = 1 AND y = 2", Kind.SHORT),
        ("UPDATE words SET word = 'b' WHERE n = 1", Kind.SHORT),
        ("DELETE FROM words WHERE word = 'a'", Kind.SHORT),
        ("UPDATE a SET x = 1", Kind.LONG),
        ("UPDATE a SET x = 1 WHERE x = 1", Kind.LONG),  # the first column of two: any number of rows
        ("UPDATE a SET x = 1 WHERE z = 1", Kind.LONG),  # not unique
        ("UPDATE a SET x = 1 WHERE id > 1", Kind.LONG),
        ("UPDATE a SET x = 1 WHERE name > 'a'", Kind.LONG),
        ("UPDATE a SET x = 1 WHERE id IN (1, 2, 3)", Kind.SHORT),
        ("UPDATE a SET x = (SELECT count(*) FROM words) WHERE id = 1", Kind.LONG),
        ("DELETE FROM a", Kind.LONG),
        ("DELETE FROM a WHERE id = 1 OR z = 2", Kind.LONG),
        ("CREATE INDEX i ON a (x)", Kind.LONG),
        ("VACUUM", Kind.LONG),
        ("WITH n AS (SELECT 1) DELETE FROM a", Kind.LONG),
        ("", Kind.LONG),
        ("SAVEPOINT s", Kind.SHORT),
        ("ROLLBACK TO s", Kind.SHORT),
        ("RELEASE SAVEPOINT s", Kind.SHORT),
        ("ROLLBACK", Kind.FORBIDDEN),
        ("ROLLBACK TRANSACTION", Kind.FORBIDDEN),
        ("/* a */ ; COMMIT", Kind.FORBIDDEN),
        ("END TRANSACTION", Kind.FORBIDDEN),
        ("begin immediate", Kind.FORBIDDEN),
    ],
)
def test_kinds(plans: Plans, sql: str, kind: Kind):
    """By key is short; what may touch any number of rows is long; what ends the transaction is refused."""
    assert plans.kind_of(sql, ()) is kind
    assert plans.kind_of(sql, ()) is kind


def test_cascades_and_triggers_make_writes_long(plans: Plans):
    """One deleted row may take a million along, so nothing is short where rows pull others."""
    connection = plans._connection  # pyright: ignore[reportPrivateUsage]
    statement = "DELETE FROM words WHERE word = 'a'"
    assert plans.kind_of(statement, ()) is Kind.SHORT
    assert plans.kind_of("CREATE TABLE c (id REFERENCES words (word) ON DELETE CASCADE)", ()) is Kind.LONG
    connection.execute("CREATE TABLE c (id REFERENCES words (word) ON DELETE CASCADE)")
    assert plans.kind_of(statement, ()) is Kind.LONG
    assert plans.kind_of("INSERT INTO words VALUES ('b', 2)", ()) is Kind.LONG


def test_memory_of_statements_is_bounded(plans: Plans):
    """Ten thousand different texts are not all kept."""
    for number in range(10_000):
        plans.kind_of(f"SELECT {number}", ())
    assert len(plans._kinds) <= 2_000  # pyright: ignore[reportPrivateUsage]
