"""Migrations: a module's tables move with its code, as a whole or not at all, whoever starts first."""

from __future__ import annotations

import asyncio
import logging
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, inspect, text

from seamline.kernel.store import Database, prepare, sqlite_url
from seamline.kernel.store.errors import (
    MigrationFailedError,
    MigrationFilesError,
    MigrationPendingError,
    MigrationUnknownError,
)
from seamline.kernel.store.migrations import downgrade, revision, stamp, status, upgrade
from seamline.kernel.store.revisions import only_head


def _tables(*, with_note: bool = False) -> MetaData:
    metadata = MetaData()
    note = [Column("note", String(50), nullable=False, server_default="none")] if with_note else []
    Table("orders", metadata, Column("id", Integer, primary_key=True), *note)
    Table(
        "lines",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("order_id", Integer, ForeignKey("orders.id", ondelete="CASCADE")),
    )
    return metadata


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders" / "migrations"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncGenerator[Database]:
    async with Database(sqlite_url(tmp_path, "orders"), "orders", _tables()) as database:
        yield database


def _revision(folder: Path, number: int, body: str, *, after: int | None = None, down: str = "pass") -> None:
    (folder / "versions").mkdir(parents=True, exist_ok=True)
    follows = after if after is not None else number - 1
    (folder / "versions" / f"{number:04d}_step.py").write_text(
        f'"""Step {number}."""\nfrom alembic import op\nimport sqlalchemy as sa\n'
        f"revision = 'r{number}'\ndown_revision = {f'r{follows}' if follows else None!r}\n"
        f"def upgrade():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        f"def downgrade():\n    {down}\n",
        encoding="utf-8",
    )


async def _names(db: Database) -> set[str]:
    async with db.transaction() as tx:
        return set(await tx.run_sync(lambda connection: inspect(connection).get_table_names()))


async def test_written_revisions_make_the_tables(db: Database, folder: Path):
    """What ``revision`` writes makes exactly the module's tables, forward and back, and then nothing differs."""
    first = await revision(db, folder, "First tables!")
    assert first == folder / "versions" / "0001_first_tables.py"
    assert await _names(db) == set()  # writing a revision touches no data
    applied = await upgrade(db, folder)
    assert [each.message for each in applied] == ["First tables!"]
    assert await _names(db) == {"orders", "lines", "alembic_version"}
    assert await revision(db, folder, "nothing") is None
    assert await upgrade(db, folder) == ()
    assert [each.message for each in await downgrade(db, folder, "base")] == ["First tables!"]
    assert await _names(db) == {"alembic_version"}


async def test_a_later_change_keeps_rows(db: Database, folder: Path):
    """A column added later is found, and rebuilding the table takes no rows of others along."""
    await revision(db, folder, "first")
    await upgrade(db, folder)
    async with db.transaction() as tx:
        await tx.execute(text("INSERT INTO orders VALUES (1)"))
        await tx.execute(text("INSERT INTO lines VALUES (1, 1)"))
    db.tables = _tables(with_note=True)
    second = await revision(db, folder, 'a "note"\\')
    assert second is not None
    assert "note" in second.read_text()
    head = (await status(db, folder)).head
    _revision(folder, 3, "with op.batch_alter_table('orders', recreate='always') as t: t.alter_column('id')")
    third = folder / "versions" / "0003_step.py"
    third.write_text(third.read_text().replace("'r2'", repr(head)))
    assert len(await upgrade(db, folder)) == 2
    async with db.read() as r:
        assert (await r.execute(text("SELECT id, note FROM orders"))).all() == [(1, "none")]
        assert (await r.execute(text("SELECT * FROM lines"))).all() == [(1, 1)]


async def test_failure_keeps_nothing(db: Database, folder: Path):
    """When the third of four revisions raises, the first two are not kept, and the error names the third."""
    _revision(folder, 1, "op.create_table('a', sa.Column('id', sa.Integer))")
    _revision(folder, 2, "op.execute('INSERT INTO a VALUES (1)')")
    _revision(folder, 3, "op.execute('INSERT INTO nowhere VALUES (1)')")
    _revision(folder, 4, "op.create_table('b', sa.Column('id', sa.Integer))")
    with pytest.raises(MigrationFailedError, match=r"SL7102: orders: revision 'r3' \(Step 3\).*no such table: nowhere"):
        await upgrade(db, folder)
    assert await _names(db) == set()
    assert (await status(db, folder)).current is None
    _revision(folder, 3, "pass")
    assert [each.id for each in await upgrade(db, folder)] == ["r1", "r2", "r3", "r4"]


async def test_failure_downwards_keeps_all(db: Database, folder: Path):
    """A downgrade that raises leaves everything as it was and names its revision."""
    _revision(folder, 1, "op.create_table('a', sa.Column('id', sa.Integer))", down="1 / 0")
    _revision(folder, 2, "pass")
    await upgrade(db, folder)
    with pytest.raises(MigrationFailedError, match=r"'r1'.*ZeroDivisionError"):
        await downgrade(db, folder, "base")
    assert (await status(db, folder)).current == "r2"
    assert [each.id for each in await downgrade(db, folder, "-1")] == ["r2"]


async def test_broken_references_are_refused(db: Database, folder: Path):
    """Foreign keys are off while tables are rebuilt, so rows that lost their parent are looked for at the end."""
    await revision(db, folder, "first")
    await upgrade(db, folder)
    head = (await status(db, folder)).head
    _revision(folder, 2, "op.execute('INSERT INTO lines VALUES (1, 99)')")
    step = folder / "versions" / "0002_step.py"
    step.write_text(step.read_text().replace("'r1'", repr(head)))
    with pytest.raises(MigrationFailedError, match="a row of 'lines' refers to a row of 'orders'"):
        await upgrade(db, folder)
    assert (await status(db, folder)).current == head


async def test_older_code_refuses_newer_tables(db: Database, folder: Path):
    """Code that lacks the revision of its tables does not start, and is told both ways out."""
    _revision(folder, 1, "pass")
    _revision(folder, 2, "pass")
    await upgrade(db, folder)
    (folder / "versions" / "0002_step.py").unlink()
    for development in (True, False):
        with pytest.raises(MigrationUnknownError, match="SL7103: orders: the tables are at revision 'r2'"):
            await prepare(db, folder, development=development)


async def test_start_outside_development(db: Database, folder: Path):
    """Outside development nothing is changed at the start: pending revisions and missing tables are refused."""
    with pytest.raises(MigrationPendingError, match=r"SL7101.*'lines'.*--make"):
        await prepare(db, None, development=False)
    _revision(folder, 1, "pass")
    with pytest.raises(MigrationPendingError, match=r"'r1' \(Step 1\).*seamline migrate --module orders"):
        await prepare(db, folder, development=False)
    assert await _names(db) == set()
    await upgrade(db, folder)
    await prepare(db, folder, development=False)


async def test_tables_without_revisions(db: Database, folder: Path, caplog: pytest.LogCaptureFixture):
    """In development tables are made without revisions, with a hint once; revisions can take over later."""
    with caplog.at_level(logging.WARNING, "seamline.store"):
        await prepare(db, folder)
        await prepare(db, folder)
    assert len(caplog.records) == 1
    assert 'seamline migrate --module orders --make "first tables"' in caplog.text
    await revision(db, folder, "first tables")
    with pytest.raises(MigrationFailedError, match="--stamp head"):
        await prepare(db, folder)
    await stamp(db, folder)
    await prepare(db, folder)
    assert (await status(db, folder)).pending == ()


async def test_tables_of_the_platform_are_left_alone(db: Database, folder: Path):
    """Tables named seamline_… are not the module's: no revision drops them."""
    await prepare(db, None)
    async with db.transaction() as tx:
        await tx.execute(text("CREATE TABLE seamline_outbox (id INTEGER)"))
    first = await revision(db, folder, "first")
    assert first is not None
    assert "seamline_" not in first.read_text()


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("revision = 'r3'; down_revision = 'r1'", "both come last"),
        ("this is not python", "cannot be imported"),
        ("1 / 0", "ZeroDivisionError"),
        ("revision = 'r3'; down_revision = 'r9'", "r9"),
        ("revision = 'r2'; down_revision = 'r1'", "more than once"),
        ("down_revision = 'r1'", "x.py"),
    ],
)
async def test_wrong_files(db: Database, folder: Path, file: str, says: str):
    """Two last revisions, files that are no programs, gaps and doubles are named before anything is touched."""
    _revision(folder, 1, "op.create_table('a', sa.Column('id', sa.Integer))")
    _revision(folder, 2, "pass")
    (folder / "versions" / "x.py").write_text(file, encoding="utf-8")
    with pytest.raises(MigrationFilesError, match=f"SL7104.*{says}"):
        await upgrade(db, folder)
    assert await _names(db) == set()


async def test_status_makes_nothing(tmp_path: Path, folder: Path):
    """Asking does not make the file."""
    _revision(folder, 1, "pass")
    database = Database(sqlite_url(tmp_path / "new", "orders"), "orders")
    found = await status(database, folder)
    assert (found.current, found.head, [each.id for each in found.pending]) == (None, "r1", ["r1"])
    assert not (tmp_path / "new").exists()


async def test_replicas_start_at_once(tmp_path: Path, folder: Path):
    """Four processes start one module at once: each revision runs once, and all of them come up."""
    _revision(folder, 1, "op.create_table('ran', sa.Column('step', sa.Integer))")
    for number in range(2, 6):
        _revision(folder, number, f"op.execute('INSERT INTO ran VALUES ({number})')")
    url = sqlite_url(tmp_path, "orders")
    code = f"""
        import asyncio, pathlib
        from seamline.kernel.store import Database, prepare
        async def main():
            async with Database({url!r}, "orders") as db:
                print(len(await prepare(db, pathlib.Path({str(folder)!r}))))
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe) for _ in range(4)]
    outputs = await asyncio.wait_for(asyncio.gather(*(process.communicate() for process in processes)), 60)
    assert [error for _, error in outputs if error] == []
    assert sorted(int(output) for output, _ in outputs) == [0, 0, 0, 5]
    async with Database(url, "orders") as db, db.read() as r:
        assert (await r.execute(text("SELECT step FROM ran ORDER BY step"))).scalars().all() == [2, 3, 4, 5]


async def test_modules_migrate_side_by_side(tmp_path: Path):
    """Modules of one process migrate at once without mixing up their operations."""

    async def one(number: int) -> None:
        folder = tmp_path / f"m{number}" / "migrations"
        _revision(folder, 1, f"op.create_table('t{number}', sa.Column('id', sa.Integer))")
        async with Database(sqlite_url(tmp_path, f"m{number}"), f"m{number}") as db:
            await prepare(db, folder)
            assert await _names(db) == {"alembic_version", f"t{number}"}

    await asyncio.gather(*(one(number) for number in range(8)))


async def test_start_with_nothing_pending_does_not_import_alembic(db: Database, folder: Path):
    """A start that finds its tables up to date is spared the import, which costs more than the start."""
    _revision(folder, 1, "pass")
    _revision(folder, 2, "pass")
    await upgrade(db, folder)
    code = f"""
        import asyncio, pathlib, sys
        from seamline.kernel.store import Database, prepare
        async def main():
            async with Database({str(db.url)!r}, "orders") as db:
                print(await prepare(db, pathlib.Path({str(folder)!r})), "alembic" in sys.modules)
        asyncio.run(main())
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), stdout=pipe, stderr=pipe
    )
    assert await asyncio.wait_for(process.communicate(), 60) == (b"() False\n", b"")


@pytest.mark.parametrize(
    ("files", "head"),
    [
        ({"a": None, "b": "a", "c": "b"}, "c"),
        ({"b": "a", "a": None}, "b"),
        ({"a": None}, "a"),
        ({}, None),
        ({"a": None, "b": "a", "c": "a"}, None),  # two heads
        ({"b": "a"}, None),  # a gap
        ({"a": None, "c": ("a", "b")}, None),  # a merge is for Alembic to judge
        ({"a": "a"}, None),
    ],
)
def test_head_at_a_glance(folder: Path, files: dict[str, object], head: str | None):
    """The last revision is told from the files alone, or not at all where they do not make one line."""
    (folder / "versions").mkdir(parents=True)
    for number, (name, follows) in enumerate(files.items()):
        source = f"revision: str = {name!r}\ndown_revision = {follows!r}\n"
        (folder / "versions" / f"{number}.py").write_text(source, encoding="utf-8")
    assert only_head(folder) == head
