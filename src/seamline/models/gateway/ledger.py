"""The one account of what was spent on this machine: a SQLite file, and slices of what is left lent to processes.

What a process may spend without asking is its slice; what is spent and what is lent together never exceed a limit. A
slice is as large as the process needs for about a second, and no larger than a fraction of what is left: near the
limit it is one call. A process that dies is found by the lock that it held: what its journal says was spent is
booked, and the rest of its slices is free again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from seamline.kernel.store.sqlite_file import connect
from seamline.models.gateway.ledger_journal import SUFFIX, Journal, is_dead, left_by

RECALL_S: Final = 1.0
"""So long nobody takes more of a limit than it needs now, after somebody did not get enough."""
_SHARE: Final = 4
"""What is lent ahead is at most this part of what is left, for each process."""
_TIGHT: Final = 32
_KEPT_S: Final = {"minute": 7200, "hour": 3 * 86400, "day": 100 * 86400, "month": 3 * 366 * 86400}
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS spent (
    meter TEXT NOT NULL, begins INTEGER NOT NULL, used INTEGER NOT NULL, recalled REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (meter, begins)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slices (
    meter TEXT NOT NULL, begins INTEGER NOT NULL, holder TEXT NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (meter, begins, holder)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS slices_by_holder ON slices (holder);
CREATE TABLE IF NOT EXISTS holders (holder TEXT PRIMARY KEY, written INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (
    holder TEXT NOT NULL, number INTEGER NOT NULL, meters TEXT NOT NULL, PRIMARY KEY (holder, number)
) STRICT, WITHOUT ROWID;
"""


@dataclasses.dataclass(slots=True)
class Line:
    """One meter in an exchange with the ledger; what the ledger answers stands in it afterwards."""

    meter: str
    begins: int
    most: int
    """Negative is unlimited: only added up."""
    spent: int
    """Since the last exchange."""
    reserved: int
    """By calls under way here."""
    free: int
    """Of the slice; negative where calls cost more than was reserved for them."""
    ahead: int
    """To be lent beyond what is wanted now."""
    give: bool
    """The rest is given back."""
    used: int = 0
    lent: int = 0
    """To other processes."""
    tight: bool = False
    """Somebody is short of it, or little is left."""


@dataclasses.dataclass(slots=True)
class Want:
    """A call that waits for what it may cost, of several lines: all of it or nothing."""

    amounts: Sequence[tuple[int, int]]
    """Line and amount."""
    short: int = -1
    """The line that has too little."""


@dataclasses.dataclass(slots=True)
class Exchange:
    written: int
    """Of the journal's records, those that the lines' ``spent`` have in them."""
    lines: list[Line]
    wants: list[Want]
    groups: list[tuple[int, str]]
    gone: list[int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was used of one meter in one window, and what is lent or reserved now."""

    account: str
    """``key:key-1f``, ``user:ann``, ``all:``."""
    unit: str
    per: str
    models: tuple[str, ...]
    begins: int
    used: int
    held: int


class Ledger:
    """One process's connection. Its methods block, and are called by one thread at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._folder = path.with_name(path.name + ".open")
        self._connection = connect(path, read_only=False)
        self._connection.execute("PRAGMA busy_timeout = 10000")
        self._connection.executescript(_TABLES)
        self._buried: list[Path] = []
        self.journal = Journal(self._folder)
        with self._transaction() as connection:
            connection.execute("INSERT INTO holders VALUES (?, 0)", (self.journal.holder,))
            self._bury(connection)
        self._clear()

    def exchange(self, asked: Exchange, now_s: float, *, bury: bool) -> None:
        """Book what was spent, and lend what is wanted. ``now_s`` is monotonic. Raises sqlite3.Error."""
        with self._transaction() as connection:
            if bury:
                self._bury(connection)
            me = self.journal.holder
            connection.execute("UPDATE holders SET written = ? WHERE holder = ?", (asked.written, me))
            connection.executemany("INSERT INTO groups VALUES (?, ?, ?)", [(me, *group) for group in asked.groups])
            connection.executemany(
                "DELETE FROM groups WHERE holder = ? AND number = ?", [(me, number) for number in asked.gone]
            )
            (holders,) = connection.execute("SELECT count(*) FROM holders").fetchone()
            recalled = [self._book(connection, line, now_s) for line in asked.lines]
            for want in asked.wants:
                self._lend(asked.lines, want)
            for index in {want.short for want in asked.wants if want.short >= 0}:
                line = asked.lines[index]
                recalled[index] = True
                connection.execute(
                    "INSERT INTO spent VALUES (?1, ?2, 0, ?3) ON CONFLICT DO UPDATE SET recalled = ?3",
                    (line.meter, line.begins, now_s),
                )
            wanted = {index for want in asked.wants for index, _ in want.amounts}
            for index, line in enumerate(asked.lines):
                if line.most < 0:
                    continue
                self._keep(line, holders, wanted=index in wanted, recalled=recalled[index])
                self._write_slice(connection, line)

    def _book(self, connection: sqlite3.Connection, line: Line, now_s: float) -> bool:
        """Whether somebody is short of it."""
        where = line.meter, line.begins
        if line.spent:
            connection.execute(
                "INSERT INTO spent VALUES (?, ?, ?3, 0) ON CONFLICT DO UPDATE SET used = used + ?3",
                (*where, line.spent),
            )
        if line.most < 0:
            return False
        row = connection.execute("SELECT used, recalled FROM spent WHERE meter = ? AND begins = ?", where).fetchone()
        line.used, recalled = row or (0, 0.0)
        (line.lent,) = connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM slices WHERE meter = ? AND begins = ? AND holder != ?",
            (*where, self.journal.holder),
        ).fetchone()
        # What calls cost beyond what was reserved for them is in `used` now: nobody owes it any more.
        line.free = max(line.free, 0)
        return 0 <= now_s - recalled < RECALL_S and bool(recalled)

    def _lend(self, lines: list[Line], want: Want) -> None:
        for index, amount in want.amounts:
            line = lines[index]
            if line.most >= 0 and amount > line.free + max(_left(line), 0):
                want.short = index
                return
        for index, amount in want.amounts:
            line = lines[index]
            if line.most >= 0:
                line.free = max(line.free - amount, 0)
                line.reserved += amount

    def _keep(self, line: Line, holders: int, *, wanted: bool, recalled: bool) -> None:
        """How much of the slice stays here."""
        left = _left(line)
        line.tight = recalled or left < line.most // _TIGHT
        if line.give or line.tight:
            line.free = 0
        elif wanted:
            line.free += max(min(line.ahead, left // (_SHARE * holders)), 0)

    def _write_slice(self, connection: sqlite3.Connection, line: Line) -> None:
        of = line.meter, line.begins, self.journal.holder
        if amount := line.reserved + line.free:
            connection.execute(
                "INSERT INTO slices VALUES (?, ?, ?, ?4) ON CONFLICT DO UPDATE SET amount = ?4", (*of, amount)
            )
        else:
            connection.execute("DELETE FROM slices WHERE meter = ? AND begins = ? AND holder = ?", of)

    def close(self, *, settled: bool) -> None:
        """Give everything back. Where calls are still under way, whoever comes next books what they owe."""
        if settled:
            with self._transaction() as connection:
                self._forget(connection, self.journal.holder)
        self._connection.close()
        self.journal.close()
        if settled:
            self.journal.path.unlink(missing_ok=True)

    def spent(self) -> list[Spent]:
        """All windows that are kept, the newest first."""
        return _read(self._connection)

    def forget_old(self, now_s: float) -> None:
        """Windows that nobody asks about any more. ``now_s`` is since the epoch."""
        with self._transaction() as connection:
            for per, kept_s in _KEPT_S.items():
                connection.execute(
                    "DELETE FROM spent WHERE begins < ? AND meter LIKE ? AND NOT EXISTS (SELECT 1 FROM slices"
                    " WHERE slices.meter = spent.meter AND slices.begins = spent.begins)",
                    (int(now_s) - kept_s, f"%|{per}|%"),
                )

    # The dead.

    def _bury(self, connection: sqlite3.Connection) -> None:
        rows: list[tuple[str, int]] = connection.execute("SELECT holder, written FROM holders").fetchall()
        for holder, written in rows:
            path = self._folder / (holder + SUFFIX)
            if holder == self.journal.holder or not is_dead(path):
                continue
            groups = connection.execute("SELECT number, meters FROM groups WHERE holder = ?", (holder,)).fetchall()
            meters: dict[int, list[tuple[str, int]]] = {number: json.loads(text) for number, text in groups}
            if path.exists():
                self._buried.append(path)
                for record in left_by(path, written):
                    for meter, begins in meters.get(record.group, ()):
                        amount = {"tokens": record.tokens, "money": record.nano}.get(meter.split("|")[1], 1)
                        connection.execute(
                            "INSERT INTO spent VALUES (?, ?, ?3, 0) ON CONFLICT DO UPDATE SET used = used + ?3",
                            (meter, begins, amount),
                        )
            self._forget(connection, holder)

    def _forget(self, connection: sqlite3.Connection, holder: str) -> None:
        for table in ("slices", "groups", "holders"):
            connection.execute(f"DELETE FROM {table} WHERE holder = ?", (holder,))  # noqa: S608  # one of three

    def _clear(self) -> None:
        """Remove journals that the ledger no longer knows."""
        known = {holder for (holder,) in self._connection.execute("SELECT holder FROM holders").fetchall()}
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.stem not in known and is_dead(path):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            self._buried.clear()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        while self._buried:
            self._buried.pop().unlink(missing_ok=True)


def budgets_beside(keys: Path) -> Path:
    """The ledger that belongs to a file of keys."""
    return keys.with_name(keys.stem + "-budgets.db")


def spent_in(path: Path) -> list[Spent]:
    """What a ledger says, as of the last tenth of a second of each process; empty if there is none yet."""
    if not path.exists():
        return []
    connection = connect(path, read_only=True)
    try:
        return _read(connection)
    finally:
        connection.close()


def _read(connection: sqlite3.Connection) -> list[Spent]:
    rows = connection.execute(
        "SELECT meter, begins, used, (SELECT coalesce(sum(amount), 0) FROM slices"
        " WHERE slices.meter = spent.meter AND slices.begins = spent.begins) FROM spent ORDER BY begins DESC, meter"
    ).fetchall()
    return [_spent(*row) for row in rows]


def meter_name(account: str, unit: str, per: str, models: Sequence[str] = ()) -> str:
    """``key:key-1f|money|month|fast,cheap``."""
    return "|".join((account.replace("|", "%7C"), unit, per, ",".join(models)))


def _spent(meter: str, begins: int, used: int, held: int) -> Spent:
    account, unit, per, models = meter.split("|")
    return Spent(
        account=account.replace("%7C", "|"), unit=unit, per=per, models=tuple(filter(None, models.split(","))),
        begins=begins, used=used, held=held,
    )  # fmt: skip


def _left(line: Line) -> int:
    """What nobody has used, reserved or lent."""
    return line.most - line.used - line.lent - line.reserved - line.free
