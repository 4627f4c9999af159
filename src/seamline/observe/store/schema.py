"""The tables of ``hot.db``, how the file is opened, and what becomes of one that cannot be used.

Spans stand together as they came: one row, a *piece*, has the spans of one trace that were committed together. A
piece's id begins with the time of its first span, so that ids are in the order of time. What pieces and logs can be
found by are words in full-text tables, one an hour, which are dropped as a whole.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from seamline.observe.errors import TelemetryMissingError

log = logging.getLogger(__name__)

HOT: Final = "hot.db"
HISTORY: Final = "history"
VERSION: Final = 1
APPLICATION: Final = 0x5EA31141
"""SQLite's application_id, so that somebody else's file is not taken for ours."""

PAGE_BYTES: Final = 8192
CACHE_KB: Final = 6 * 1024
CHECKPOINT_PAGES: Final = 2_000
BUSY_MS: Final = 2_000
HOUR_MS: Final = 3_600_000
ID_BITS: Final = 20
"""The low bits of an id tell apart what began in the same millisecond."""

TIERS: Final = (0, 1, 2)
"""Of what is rolled up: windows of ``window_s``, minutes, hours."""
MINUTE_NS: Final = 60 * 10**9
HOUR_NS: Final = 3600 * 10**9
FINEST_KEPT_NS: Final = 2 * HOUR_NS

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE modules (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE pieces (
    id INTEGER PRIMARY KEY, trace BLOB NOT NULL, module INTEGER NOT NULL, spans INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX pieces_trace ON pieces (trace);
CREATE INDEX pieces_module ON pieces (module, id);
CREATE TABLE logs (
    id INTEGER PRIMARY KEY, trace BLOB, module INTEGER NOT NULL, severity INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX logs_trace ON logs (trace) WHERE trace IS NOT NULL;
CREATE INDEX logs_module ON logs (module, id);
CREATE TABLE words (kind TEXT NOT NULL, hour INTEGER NOT NULL, PRIMARY KEY (kind, hour)) WITHOUT ROWID;
CREATE TABLE usage (
    kind TEXT NOT NULL, module INTEGER NOT NULL, entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, module)
) WITHOUT ROWID;
CREATE TABLE edges (
    id INTEGER PRIMARY KEY, caller TEXT NOT NULL, callee TEXT NOT NULL, method TEXT NOT NULL, side TEXT NOT NULL,
    UNIQUE (caller, callee, method, side)
);
CREATE TABLE traffic (
    tier INTEGER NOT NULL, at INTEGER NOT NULL, edge INTEGER NOT NULL, calls INTEGER NOT NULL, errors INTEGER NOT NULL,
    retries INTEGER NOT NULL, inflight INTEGER NOT NULL, sum_ns INTEGER NOT NULL, histogram BLOB NOT NULL, codes BLOB,
    PRIMARY KEY (tier, at, edge)
) WITHOUT ROWID;
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, module TEXT NOT NULL,
    workload TEXT NOT NULL, replica INTEGER NOT NULL, attributes TEXT NOT NULL,
    UNIQUE (name, kind, unit, module, workload, replica, attributes)
);
CREATE TABLE points (
    tier INTEGER NOT NULL, at INTEGER NOT NULL, metric INTEGER NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
    low REAL NOT NULL, high REAL NOT NULL, last REAL NOT NULL, buckets BLOB,
    PRIMARY KEY (tier, at, metric)
) WITHOUT ROWID;
CREATE TABLE stacks (id INTEGER PRIMARY KEY, module TEXT NOT NULL, stack TEXT NOT NULL, UNIQUE (module, stack));
CREATE TABLE profiles (
    tier INTEGER NOT NULL, at INTEGER NOT NULL, stack INTEGER NOT NULL, cpu_ns INTEGER NOT NULL,
    blocked_ns INTEGER NOT NULL, PRIMARY KEY (tier, at, stack)
) WITHOUT ROWID;
CREATE TABLE marks (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX marks_at ON marks (at);
CREATE TABLE incidents (
    id TEXT PRIMARY KEY, began INTEGER NOT NULL, open INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX incidents_began ON incidents (began);
CREATE TABLE dropped (kind TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
    entries INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sealed (trace INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY (trace, file)) WITHOUT ROWID;
"""


def make_id(at_ms: int, sequence: int) -> int:
    return (at_ms << ID_BITS) | (sequence & ((1 << ID_BITS) - 1))


def id_at(at_ns: int) -> int:
    """The least id of what began then or later."""
    return max(at_ns // 1_000_000, 0) << ID_BITS


def sealed_key(trace_id: bytes) -> int:
    """What a trace's id is in the table that says which files of the history have it."""
    return int.from_bytes(trace_id[:8], "big", signed=True)


def hour_of(id_: int) -> int:
    return (id_ >> ID_BITS) // HOUR_MS


def words_table(kind: str, hour: int) -> str:
    return f"words_{kind}_{hour:d}"


def open_writer(folder: Path, size_max_bytes: int) -> tuple[sqlite3.Connection, str]:
    """The file, made if there is none, and a sentence if one that could not be used was moved aside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HISTORY).mkdir(exist_ok=True)
    path = folder / HOT
    said = ""
    try:
        connection = _open(path, size_max_bytes)
        found = _state_of(connection)
    except sqlite3.DatabaseError as error:
        if _is_room(error):
            raise
        connection, found = None, f"is damaged ({error})"
    if found:
        if connection is not None:
            connection.close()
        said = move_aside(folder, found)
        connection = _open(path, size_max_bytes)
        _state_of(connection)
    assert connection is not None
    return connection, said


def move_aside(folder: Path, why: str) -> str:
    """Put the file where it is in nobody's way; only the last such file is kept."""
    path, aside = folder / HOT, folder / f"{HOT}.aside"
    path.replace(aside)
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).unlink()
    said = f"{path.name} {why}; it was moved aside as {aside.name}, and a new one begun"
    log.warning("telemetry: %s", said)
    return said


def _open(path: Path, size_max_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL the disk is waited for at checkpoints only: a crash of the machine may lose the last seconds, but
        # never the file. OFF would spare those few waits, which are the writer thread's, and could lose all of it.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * PAGE_BYTES}")
        connection.execute(f"PRAGMA cache_size = {-CACHE_KB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {max(size_max_bytes // page_bytes, 64)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _state_of(connection: sqlite3.Connection) -> str:
    """Empty if the tables are there, or were made; otherwise why the file cannot be used."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application, version) == (APPLICATION, VERSION):
        connection.execute("SELECT value FROM meta LIMIT 1").fetchone()
        return ""
    if application == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        script = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} {script} COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return ""
    if application != APPLICATION:
        return "is not a telemetry store"
    return f"has the tables of version {version}, and these are version {VERSION}"


def open_reader(folder: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises TelemetryMissingError."""
    path = folder / HOT
    if not path.is_file():
        raise TelemetryMissingError(
            f"there is no telemetry in {str(folder)!r}",
            "Start the application with `seamline up`, with store = true in [observe]",
        )
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    connection.isolation_level = None
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA cache_size = -2048")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        connection.close()
        raise TelemetryMissingError(
            f"{path.name} cannot be read: {error}", "It is moved aside when the application starts", place=str(folder)
        ) from error
    if (application, version) != (APPLICATION, VERSION):
        connection.close()
        raise TelemetryMissingError(
            f"{path.name} is not a telemetry store of this version",
            "It is moved aside when the application starts",
            place=str(folder),
        )
    return connection


def _is_room(error: sqlite3.DatabaseError) -> bool:
    """Whether the error says that the disk is full or does not answer, and nothing of the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }  # fmt: skip


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is broken."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
