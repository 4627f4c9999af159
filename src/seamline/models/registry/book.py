"""What is called how, and who changed that: versions, aliases and the split of traffic, each change kept.

One SQLite file beside the blobs. A change and its entry in the history are one transaction, on disk when it returns.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from seamline.kernel.clock import Clock, now_ms

FILE: Final = "models.db"
_BUSY_S: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS versions (
    name TEXT NOT NULL, version TEXT NOT NULL, manifest TEXT NOT NULL, added_ms INTEGER NOT NULL,
    PRIMARY KEY (name, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aliases (
    name TEXT NOT NULL, alias TEXT NOT NULL, version TEXT NOT NULL,
    PRIMARY KEY (name, alias)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS splits (
    contract TEXT PRIMARY KEY, revision INTEGER NOT NULL, split TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
    revision INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,
    what TEXT NOT NULL, subject TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS history_subject ON history (subject, revision);
"""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the history."""

    revision: int
    at_ms: int
    who: str
    why: str
    what: str
    """``add``, ``remove``, ``alias``, ``sign``, or of a split: ``promote``, ``weights``, ``rollback``."""
    subject: str
    """The model or the contract."""
    before: Any = None
    after: Any = None


class Book:
    """Opens the file for each change: several processes may, and SQLite lets one write at a time."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.path = folder / FILE
        self._clock = clock

    # Reading: what is not there is empty.

    def versions(self, name: str = "") -> list[tuple[str, str, str, int]]:
        """Name, version, digest of the manifest and when it was added; of one model or of all."""
        query = "SELECT name, version, manifest, added_ms FROM versions WHERE ? IN ('', name) ORDER BY name, added_ms"
        return self._read(query, (name,))

    def aliases(self, name: str = "") -> dict[tuple[str, str], str]:
        """(model, alias) to version."""
        rows = self._read("SELECT name, alias, version FROM aliases WHERE ? IN ('', name)", (name,))
        return {(each, alias): version for each, alias, version in rows}

    def splits(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Contract to the revision and the split in force."""
        rows = self._read("SELECT contract, revision, split FROM splits", ())
        return {contract: (revision, json.loads(split)) for contract, revision, split in rows}

    def history(self, subject: str = "", most: int = 100) -> list[Change]:
        """The newest first."""
        rows = self._read(
            "SELECT revision, at_ms, who, why, what, subject, before, after FROM history"
            " WHERE ? IN ('', subject) ORDER BY revision DESC LIMIT ?",
            (subject, most),
        )
        return [
            Change(
                revision=row[0], at_ms=row[1], who=row[2], why=row[3], what=row[4], subject=row[5],
                before=json.loads(row[6]), after=json.loads(row[7]),
            )
            for row in rows
        ]  # fmt: skip

    def _read(self, query: str, arguments: Sequence[Any]) -> list[Any]:
        if not self.path.exists():
            return []
        with closing(self._open()) as connection:
            return connection.execute(query, arguments).fetchall()

    # Writing.

    @contextmanager
    def change(self) -> Generator[Changing]:
        """All that is done inside is done, or nothing of it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(self._open()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Changing(connection, now_ms(self._clock))
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        return connection


class Changing:
    """A transaction on the book."""

    def __init__(self, connection: sqlite3.Connection, at_ms: int) -> None:
        self._connection = connection
        self._at_ms = at_ms

    def manifest(self, name: str, version: str) -> str | None:
        """The digest of a version's manifest."""
        return self._one("SELECT manifest FROM versions WHERE name = ? AND version = ?", name, version)

    def add(self, name: str, version: str, manifest: str) -> None:
        self._do("INSERT INTO versions VALUES (?, ?, ?, ?)", name, version, manifest, self._at_ms)

    def remove(self, name: str, version: str) -> None:
        self._do("DELETE FROM versions WHERE name = ? AND version = ?", name, version)

    def alias(self, name: str, alias: str) -> str | None:
        """The version that is called so."""
        return self._one("SELECT version FROM aliases WHERE name = ? AND alias = ?", name, alias)

    def aliases_of(self, name: str, version: str) -> list[str]:
        rows = self._connection.execute("SELECT alias FROM aliases WHERE name = ? AND version = ?", (name, version))
        return [row[0] for row in rows]

    def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Or take it away, with None."""
        if version is None:
            self._do("DELETE FROM aliases WHERE name = ? AND alias = ?", name, alias)
        else:
            self._do("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)", name, alias, version)

    def split(self, contract: str) -> dict[str, Any] | None:
        found = self._one("SELECT split FROM splits WHERE contract = ?", contract)
        return None if found is None else json.loads(found)

    def revision(self, contract: str) -> int:
        """That of the split in force; 0 while there is none."""
        return int(self._one("SELECT revision FROM splits WHERE contract = ?", contract) or 0)

    def set_split(self, contract: str, revision: int, split: Any) -> None:
        self._do("INSERT OR REPLACE INTO splits VALUES (?, ?, ?)", contract, revision, json.dumps(split))

    def past(self, subject: str, what: Sequence[str]) -> list[tuple[int, str, Any, Any]]:
        """Revision, what, before and after of a subject's changes of these kinds, the newest first."""
        marks = ", ".join("?" * len(what))
        rows = self._connection.execute(
            f"SELECT revision, what, before, after FROM history WHERE subject = ? AND what IN ({marks})"  # noqa: S608
            " ORDER BY revision DESC LIMIT 1000",
            (subject, *what),
        )
        return [(row[0], row[1], json.loads(row[2]), json.loads(row[3])) for row in rows]

    def note(self, what: str, subject: str, before: Any, after: Any, *, who: str, why: str) -> int:
        """Write it into the history; its revision."""
        cursor = self._connection.execute(
            "INSERT INTO history (at_ms, who, why, what, subject, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._at_ms, who, why, what, subject, json.dumps(before), json.dumps(after)),
        )
        return int(cursor.lastrowid or 0)

    def _one(self, query: str, *arguments: Any) -> Any:
        row = self._connection.execute(query, arguments).fetchone()
        return None if row is None else row[0]

    def _do(self, query: str, *arguments: Any) -> None:
        self._connection.execute(query, arguments)
