"""The page on data is true: its module is written, migrated and tested as it stands, on both kinds of database."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.pages import read_page, run_module, write_files

from seamline.kernel.settings import Settings
from seamline.kernel.store import Database, errors, sqlite_url

PAGE = read_page("data.md")


def block(kind: str, heading: str) -> str:
    """The first block of a kind below a heading."""
    found = re.search(rf"^## {heading}\n.*?^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    write_files(PAGE, tmp_path)
    assert sorted(each.name for each in tmp_path.rglob("*.py")) == [
        "__init__.py", "__init__.py", "module.py", "tables.py",
    ]  # fmt: skip
    return tmp_path


def commands() -> list[tuple[list[str], str]]:
    """Each command of the console with what it prints; ``...`` stands for anything."""
    pairs = re.findall(r"^\$ seamline (.*)\n([^$].*)\n", block("console", "Migrations"), re.MULTILINE)
    assert len(pairs) == 5
    return [(shlex.split(words), output) for words, output in pairs]


def test_the_module_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_commands_print_what_the_page_shows(shop: Path):
    """One after another, on the page's own module."""
    for words, output in commands():
        said = run_module(shop, "seamline.cli", *words)
        assert re.fullmatch(re.escape(output).replace(r"\.\.\.", ".*"), " ".join(said.split())), (words, said)


def test_the_test_of_the_page_passes(shop: Path):
    """What was written is there after the database was opened anew."""
    (shop / "test_notes.py").write_text(block("python", "In a test"), encoding="utf-8")
    (shop / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    assert "1 passed" in run_module(shop, "pytest", "-q", "-p", "no:cacheprovider", "test_notes.py")


async def test_the_file_is_as_durable_as_the_page_says(tmp_path: Path):
    """Journal, synchronous level and foreign keys of a connection that writes."""
    assert "`WAL` mode with `synchronous = FULL` and enforced foreign keys" in PAGE
    async with Database(sqlite_url(tmp_path, "notes"), "notes") as db, db.transaction() as tx:
        found = [(await tx.execute(text(f"PRAGMA {name}"))).scalar_one() for name in
                 ("journal_mode", "synchronous", "foreign_keys")]  # fmt: skip
    assert found == ["wal", 2, 1]


@pytest.mark.needs_server
async def test_the_one_line_moves_the_module_to_postgresql(shop: Path, postgres_server: Any):
    """Its schema and its role are made and are called what the page says."""
    told = block("toml", "PostgreSQL")
    (shop / "seamline.toml").write_text(told + (shop / "seamline.toml").read_text(), encoding="utf-8")
    url = Settings.load(shop, {}).data.url_of("notes")
    assert url.startswith("postgresql+asyncpg://")
    admin = create_async_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    name = "docs_data"
    async with admin.connect() as connection:
        await connection.exec_driver_sql(f"CREATE DATABASE {name}")
        said = run_module(shop, "seamline.cli", "migrate", "--make", "x", SEAMLINE_DATA_URL=postgres_server.url(name))
        said += run_module(shop, "seamline.cli", "migrate", SEAMLINE_DATA_URL=postgres_server.url(name))
    inside = create_async_engine(postgres_server.url(name))
    async with inside.connect() as connection:
        owner = await connection.scalar(text("SELECT tableowner FROM pg_tables WHERE tablename = 'notes'"))
        schema = await connection.scalar(text("SELECT schemaname FROM pg_tables WHERE tablename = 'notes'"))
        login = await connection.scalar(text("SELECT rolcanlogin FROM pg_roles WHERE rolname = :r"), {"r": owner})
    await inside.dispose()
    await admin.dispose()
    assert (owner, schema, login) == (f"{name}_notes", "notes", False), said


def test_every_error_of_the_store_is_on_the_page():
    """By its code."""
    codes = {
        each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.StoreError)
    }
    assert set(re.findall(r"^\| (SL7\d{3}) ", PAGE, re.MULTILINE)) == codes - {"SL7000"}
