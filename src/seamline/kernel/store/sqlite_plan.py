"""Which statements are short enough to run on the event loop's thread."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from enum import Enum
from typing import Final


class Kind(Enum):
    READ = "read"  # may be broken off and run again
    SHORT = "short"  # touches a handful of rows by key
    LONG = "long"  # may touch any number of rows: belongs in a thread
    FORBIDDEN = "forbidden"  # begins or ends the transaction behind our back


_CACHED_STATEMENTS_MAX: Final = 2_000
_BLANK: Final = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|;)*"
_HEAD: Final = re.compile(rf"{_BLANK}([A-Za-z]+){_BLANK}([A-Za-z]+)?", re.DOTALL)
_BY_KEY: Final = re.compile(r"SEARCH \S+ USING (?:COVERING )?(?:INTEGER PRIMARY KEY|INDEX (\S+)) \((.*)\)$")
_SELECT: Final = re.compile(r"\bSELECT\b", re.IGNORECASE)


class Plans:
    """Remembers the kind of every statement text that a connection has seen."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kinds: dict[str, Kind] = {}

    def kind_of(self, sql: str, parameters: Sequence[object]) -> Kind:
        """``parameters`` fit one run of the statement; their values do not matter."""
        kind = self._kinds.get(sql)
        if kind is None:
            if len(self._kinds) >= _CACHED_STATEMENTS_MAX:
                self._kinds.clear()
            kind = self._kinds[sql] = self._classify(sql, parameters)
        return kind

    def _classify(self, sql: str, parameters: Sequence[object]) -> Kind:
        head = _HEAD.match(sql)
        if head is None:
            return Kind.LONG
        first, second = head[1].upper(), (head[2] or "").upper()
        if first == "SELECT":
            return Kind.READ
        if first in {"SAVEPOINT", "RELEASE"} or (first == "ROLLBACK" and second == "TO"):
            return Kind.SHORT
        if first in {"BEGIN", "COMMIT", "END", "ROLLBACK"}:
            return Kind.FORBIDDEN
        if first in {"INSERT", "REPLACE"}:
            return Kind.LONG if _SELECT.search(sql) or self._spreads() else Kind.SHORT
        if first in {"CREATE", "ALTER", "DROP"}:
            self._kinds.clear()  # every plan may be another from now on
        if first in {"UPDATE", "DELETE"}:
            return Kind.SHORT if self._by_key(sql, parameters) and not self._spreads() else Kind.LONG
        return Kind.LONG

    def _by_key(self, sql: str, parameters: Sequence[object]) -> bool:
        """Whether the plan finds at most one row, by its rowid or by a whole unique index."""
        rows = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
        return bool(rows) and all(self._one_row(row[3]) for row in rows)

    def _one_row(self, step: str) -> bool:
        found = _BY_KEY.match(step)
        if found is None or "<" in found[2] or ">" in found[2]:
            return False
        if found[1] is None:
            return True
        unique = self._connection.execute(
            "SELECT sql IS NULL OR sql LIKE 'CREATE UNIQUE%' FROM sqlite_master WHERE name = ?", (found[1],)
        ).fetchone()
        columns = self._connection.execute("SELECT count(*) FROM pragma_index_info(?)", (found[1],)).fetchone()
        return bool(unique and unique[0]) and columns[0] == found[2].count("=?")

    def _spreads(self) -> bool:
        """Whether a row may take others along: by a trigger or a cascading foreign key."""
        return (
            self._connection.execute(
                "SELECT 1 FROM sqlite_master WHERE type = 'trigger' OR sql LIKE '%CASCADE%' LIMIT 1"
            ).fetchone()
            is not None
        )
