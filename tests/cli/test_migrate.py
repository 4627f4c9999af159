"""``seamline migrate`` on an application of two modules, one of which has tables."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from seamline.cli.app import run

MODULE = """
from __future__ import annotations
from seamline import Contract, Database, Module, readonly
from {package} import Ledger
from {package}.tables import metadata
module = Module("ledger", provides=Ledger, tables=metadata)
@module.service
class LedgerService(Ledger):
    def __init__(self, db: Database) -> None: ...
    async def total(self) -> int: return 0
"""
TABLES = """
from sqlalchemy import Column, Integer, MetaData, Table
metadata = MetaData()
entries = Table("entries", metadata, Column("id", Integer, primary_key=True){more})
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "seamline.toml": '[app]\nname = "shop"\nmodules = ["migrated.ledger", "migrated.plain"]\n',
        "policy/none.cedar": "",
        "migrated/__init__.py": "",
        "migrated/ledger/__init__.py": (
            "from seamline import Contract\nclass Ledger(Contract):\n    async def total(self) -> int: ...\n"
        ),
        "migrated/ledger/module.py": MODULE.format(package="migrated.ledger"),
        "migrated/ledger/tables.py": TABLES.format(more=""),
        "migrated/plain/__init__.py": "",
        "migrated/plain/module.py": 'from seamline import Module\nmodule = Module("plain")\n',
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    _forget(monkeypatch)
    return tmp_path


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the next command were a process of its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "migrated"]:
        monkeypatch.delitem(sys.modules, name)


def _report(shop: Path, capsys: pytest.CaptureFixture[str], *arguments: str, exit_status: int = 0) -> dict[str, Any]:
    assert run(["migrate", "--app", str(shop), "--json", *arguments]) == exit_status
    return json.loads(capsys.readouterr().out)


def test_from_first_tables_to_a_change_and_back(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Write, show, apply, change, apply and take back: each step does what it says to file and database."""
    report = _report(shop, capsys)
    assert [line["module"] for line in report["modules"]] == ["ledger"]
    assert "--make" in report["modules"][0]["said"]

    made = _report(shop, capsys, "--make", "first tables")["modules"][0]
    assert made["file"].endswith("migrated/ledger/migrations/versions/0001_first_tables.py")
    assert _report(shop, capsys, "--make", "again")["modules"][0]["file"] is None

    pending = _report(shop, capsys, "--status", exit_status=1)["modules"][0]["pending"]
    assert [each["message"] for each in pending] == ["first tables"]
    assert [each["message"] for each in _report(shop, capsys)["modules"][0]["applied"]] == ["first tables"]
    assert _report(shop, capsys, "--status")["modules"][0]["pending"] == []

    tables = shop / "migrated" / "ledger" / "tables.py"
    tables.write_text(TABLES.format(more=', Column("amount", Integer)'), encoding="utf-8")
    _forget(monkeypatch)
    assert _report(shop, capsys, "--module", "ledger", "--make", "amounts")["modules"][0]["file"] is not None
    _report(shop, capsys)
    assert _columns(shop) == ["id", "amount"]
    taken = _report(shop, capsys, "--module", "ledger", "--downgrade", "-1")["modules"][0]["taken_back"]
    assert [each["message"] for each in taken] == ["amounts"]
    assert _columns(shop) == ["id"]


def _columns(shop: Path) -> list[str]:
    database = sqlite3.connect(shop / ".seamline" / "db" / "ledger.sqlite3")
    try:
        return [row[1] for row in database.execute("PRAGMA table_info(entries)")]
    finally:
        database.close()


def test_failure_has_its_own_exit_status(shop: Path, capsys: pytest.CaptureFixture[str]):
    """A revision that raises is one sentence with its code, and exit status 9, the data range."""
    versions = shop / "migrated" / "ledger" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_bad.py").write_text(
        '"""Bad."""\nrevision = "bad"\ndown_revision = None\ndef upgrade(): 1 / 0\ndef downgrade(): ...\n'
    )
    report = _report(shop, capsys, exit_status=9)
    assert report["error"]["code"] == "SL7102"
    assert "'bad' (Bad) raised ZeroDivisionError" in report["error"]["fact"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--module", "ledgre"], "Did you mean 'ledger'?"),
        (["--module", "plain"], "has no tables"),
        (["--downgrade", "-1"], "Name it: --module NAME"),
        (["--status", "--make", "x"], "exclude each other"),
    ],
)
def test_wrong_use(shop: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str):
    """Wrong use is named, with the remedy, and nothing is made."""
    assert run(["migrate", "--app", str(shop), *arguments]) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")
    assert not (shop / ".seamline" / "db").exists()
