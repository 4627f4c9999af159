"""Within age and size: what is no longer recent is sealed or deleted; where room is short, each module gives its due.

Sealing is done by a child process, into a file that counts only when it is registered. That happens in one transaction
with the *floor* below which rows no longer count, so that a trace is either here or there, whenever the process ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from seamline.kernel.settings.observe import MIB, ObserveSettings
from seamline.observe.errors import HistoryError
from seamline.observe.store.child import run_child
from seamline.observe.store.rollups import age_rollups, meta, set_meta
from seamline.observe.store.schema import HISTORY, HOUR_MS, ID_BITS, id_at, sealed_key, words_table

log = logging.getLogger(__name__)

T = TypeVar("T")
Kind = str
"""``spans`` or ``logs``."""

KINDS: Final = ("spans", "logs")
TABLE: Final = {"spans": "pieces", "logs": "logs"}
PERIOD_S: Final = 10.0
SEAL_TIMEOUT_S: Final = 600.0
SWEEP_ROWS: Final = 2_000
SLOW_NS: Final = 10**9
"""A trace with a span as long as that goes to history like a failed one."""
FULL: Final = 0.9
"""Of the size that may be used: beyond it something is deleted."""
FILE_SHARE: Final = 0.25
"""One file of the history takes at most this share of the room that is left for it."""
FILE_BYTES_MIN: Final = 2 * MIB
_DAY_MS: Final = 24 * HOUR_MS
_NO_DUCKDB: Final = (
    "history is not kept for want of DuckDB: `pip install 'seamline[history]'`. "
    "What is recent stays in SQLite, within size and age"
)


class Keeper:
    """Decides what goes when. What touches the file it gives to the writer's thread."""

    def __init__(
        self,
        folder: Path,
        settings: ObserveSettings,
        now_ns: Callable[[], int],
        ask: Callable[[Callable[[sqlite3.Connection], Any]], Future[Any]],
    ) -> None:
        self._folder = folder
        self._history = folder / HISTORY
        self._settings = settings
        self._now_ns = now_ns
        self._ask = ask
        self._hot_ns = int(settings.hot_s * 1e9)
        self._history_ns = int(settings.history_days * 24 * 3600 * 1e9)
        self._size_max = int(settings.size_max_mb * MIB)
        self._step_ms = int(min(max(settings.hot_s / 6, 1), 3600) * 1000)
        self._said = False
        self._stopped = False
        self._number = 0
        self.period_s = min(PERIOD_S, max(settings.hot_s / 10, 0.5))
        self.trouble = ""

    def stop(self) -> None:
        self._stopped = True

    async def tend(self) -> None:
        try:
            if importlib.util.find_spec("duckdb") is None:
                self._say_once()
                await self._do(self._age_without_history)
            else:
                await self._settle_files()
                await self._seal_all()
            await self._do(self._age)
            while await self._do(self._sweep) and not self._stopped:
                pass
            while await self._do(self._shrink) and not self._stopped:
                pass
        except asyncio.CancelledError:
            raise
        except (HistoryError, OSError, sqlite3.Error) as error:
            fact = error.fact if isinstance(error, HistoryError) else str(error)
            if not self.trouble:
                log.warning("telemetry: what is past cannot be put away: %s", fact)
            self.trouble = f"what is past cannot be put away: {fact}"
        else:
            self.trouble = ""

    def _say_once(self) -> None:
        if not self._said:
            self._said = True
            log.warning("telemetry: %s", _NO_DUCKDB)

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        future: Future[T] = self._ask(work)
        return await asyncio.wrap_future(future)

    async def _settle_files(self) -> None:
        """Delete what a killed process left half done; take over the history of a file that was moved aside."""
        registered, begun = await self._do(_registered)
        for path in sorted(self._history.iterdir()):
            if path.name in registered:
                continue
            if path.suffix != ".parquet" or begun:
                path.unlink(missing_ok=True)
            else:
                kind = "logs" if path.name.startswith("logs") else "spans"
                job = {"do": "describe", "path": str(path), "kind": kind}
                try:
                    found = await run_child(job, SEAL_TIMEOUT_S)
                except HistoryError as error:
                    log.warning("telemetry: %s is not taken over: %s", path.name, error.fact)
                    path.unlink(missing_ok=True)
                    continue
                found["bytes"] = path.stat().st_size
                await self._do(lambda connection, p=path, k=kind, f=found: _register(connection, p.name, k, f))
        if not begun:
            await self._do(lambda connection: set_meta(connection, "begun", 1))

    async def _seal_all(self) -> None:
        for kind in KINDS:
            while not self._stopped:
                job = await self._do(lambda connection, k=kind: self._plan(connection, k))
                if job is None:
                    break
                path = self._history / job["name"]
                part = path.with_suffix(".part")
                found = await run_child({**job, "path": str(part)}, SEAL_TIMEOUT_S)
                if found["entries"]:
                    _sync(part)
                    part.replace(path)
                    found["bytes"] = path.stat().st_size
                await self._do(lambda connection, j=job, f=found: _register(connection, j["name"], j["kind"], f, j))

    def _plan(self, connection: sqlite3.Connection, kind: Kind) -> dict[str, Any] | None:
        """What is to be sealed next: at most one step's time, so that a file and the work for it stay small."""
        now_ms = self._now_ns() // 1_000_000
        cut_ms = now_ms - self._hot_ns // 1_000_000
        cut_ms -= cut_ms % self._step_ms
        floor = meta(connection, f"floor_{kind}")
        sql = f"SELECT min(id) FROM {TABLE[kind]} WHERE id >= ?"  # noqa: S608 - our own names
        first = connection.execute(sql, (floor,)).fetchone()[0]
        if first is None or first >> ID_BITS >= cut_ms:
            return None
        first_ms = first >> ID_BITS
        until_ms = min(cut_ms, first_ms - first_ms % self._step_ms + self._step_ms)
        _, history = sizes(connection)
        room = max(self._size_max // 2 - history, 0)
        self._number += 1
        return {
            "do": "seal", "kind": kind, "folder": str(self._folder), "floor": floor, "cut": until_ms << ID_BITS,
            "keep": self._settings.keep_traces, "slow_ns": SLOW_NS,
            "bytes_max": int(max(room * FILE_SHARE, FILE_BYTES_MIN)),
            "name": f"{kind}-{first_ms}-{until_ms}-{os.getpid()}-{self._number}.parquet",
        }  # fmt: skip

    def _age_without_history(self, connection: sqlite3.Connection) -> None:
        floor = id_at(self._now_ns() - max(self._history_ns, self._hot_ns))
        for kind in KINDS:
            set_meta(connection, f"floor_{kind}", max(floor, meta(connection, f"floor_{kind}")))

    def _age(self, connection: sqlite3.Connection) -> None:
        now_ns = self._now_ns()
        connection.execute("BEGIN IMMEDIATE")
        age_rollups(connection, now_ns, self._hot_ns, self._history_ns)
        old = connection.execute("SELECT name FROM files WHERE until < ?", (now_ns - self._history_ns,)).fetchall()
        for (name,) in old:
            _forget_file(connection, name)
        for kind in KINDS:
            # A clock that was wrong left rows that would otherwise outlive all others.
            _delete(connection, kind, "id > ?", (id_at(now_ns) + (_DAY_MS << ID_BITS),), SWEEP_ROWS)
        connection.execute("COMMIT")
        for (name,) in old:
            (self._history / name).unlink(missing_ok=True)

    def _sweep(self, connection: sqlite3.Connection) -> bool:
        """Delete some of what is below the floor; whether there may be more."""
        more = False
        connection.execute("BEGIN IMMEDIATE")
        for kind in KINDS:
            floor = meta(connection, f"floor_{kind}")
            more |= _delete(connection, kind, "id < ?", (floor,), SWEEP_ROWS)[0] >= SWEEP_ROWS
        connection.execute("COMMIT")
        if not more:
            self._drop_words(connection)
        return more

    def _drop_words(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for kind, hour in connection.execute("SELECT kind, hour FROM words").fetchall():
            since, until = (hour * HOUR_MS) << ID_BITS, ((hour + 1) * HOUR_MS) << ID_BITS
            sql = f"SELECT 1 FROM {TABLE[kind]} WHERE id >= ? AND id < ? LIMIT 1"  # noqa: S608
            now_hour = self._now_ns() // 1_000_000 // HOUR_MS
            if hour != now_hour and not connection.execute(sql, (since, until)).fetchone():
                connection.execute(f"DROP TABLE IF EXISTS {words_table(kind, hour)}")
                connection.execute("DELETE FROM words WHERE kind = ? AND hour = ?", (kind, hour))
        connection.execute("COMMIT")

    def _shrink(self, connection: sqlite3.Connection) -> bool:
        """Delete some if it is more than may be kept; whether to look again."""
        hot, history = sizes(connection)
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        most = max(self._size_max - min(history, self._size_max // 2), 64 * page_bytes)
        connection.execute(f"PRAGMA max_page_count = {most // page_bytes}")
        _give_back(connection)
        if hot + history <= FULL * self._size_max:
            return False
        if history > self._size_max * FULL / 2:
            oldest = connection.execute("SELECT name FROM files ORDER BY until LIMIT 1").fetchone()
            connection.execute("BEGIN IMMEDIATE")
            _forget_file(connection, oldest[0])
            connection.execute("COMMIT")
            (self._history / oldest[0]).unlink(missing_ok=True)
            return True
        return evict(connection, self._size_max // 50) > 0


def sizes(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bytes that are used in SQLite, and in Parquet."""
    pages, free, size = (
        connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "freelist_count", "page_size")
    )
    history = connection.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0]
    return (pages - free) * size, history


def evict(connection: sqlite3.Connection, room: int) -> int:
    """Make about ``room`` bytes free, from the oldest of the modules that hold most; how many became free.

    Whoever holds less than an equal share loses nothing: a noisy module drives out its own past only. A trace goes as a
    whole.
    """
    used: dict[int, dict[Kind, int]] = {}
    for kind, module, held in connection.execute("SELECT kind, module, bytes FROM usage WHERE bytes > 0"):
        used.setdefault(module, {})[kind] = held
    totals = {module: sum(kinds.values()) for module, kinds in used.items()}
    everything = sum(totals.values())
    connection.execute("BEGIN IMMEDIATE")
    if everything < sizes(connection)[0] // 8:
        freed = _evict_rollups(connection)
        connection.execute("COMMIT")
        return freed
    level, freed = fair_level(totals, max(everything - room, 0)), 0
    for module, total in totals.items():
        for kind, held in used[module].items():
            due = (total - level) * held // total
            while due > 0:
                entries, size = _delete_oldest(connection, kind, module, due)
                due -= size
                freed += size
                if not entries:
                    break
    connection.execute("COMMIT")
    return freed


def fair_level(held: Mapping[Any, int], most: int) -> int:
    """The level to which the largest are cut so that all together hold no more than ``most``."""
    left = most
    values = sorted(held.values())
    for index, value in enumerate(values):
        share = left // (len(values) - index)
        if value > share:
            return share
        left -= value
    return values[-1] if values else 0


def _delete_oldest(connection: sqlite3.Connection, kind: Kind, module: int, due: int) -> tuple[int, int]:
    table = TABLE[kind]
    sql = f"SELECT id, length(body) FROM {table} WHERE module = ? ORDER BY id LIMIT {SWEEP_ROWS}"  # noqa: S608
    chosen: list[int] = []
    for id_, size in connection.execute(sql, (module,)):
        chosen.append(id_)
        due -= size
        if due <= 0:
            break
    if not chosen:
        return 0, 0
    where, last = "module = ? AND id <= ?", (module, chosen[-1])
    if kind == "spans":
        where = f"trace IN (SELECT trace FROM pieces WHERE {where})"  # noqa: S608
    return _delete(connection, kind, where, last, 0)


def _delete(
    connection: sqlite3.Connection, kind: Kind, where: str, values: tuple[Any, ...], limit: int
) -> tuple[int, int]:
    """Delete the rows, the oldest first, and take them off what their modules use; how many, and how many bytes."""
    table, entries = TABLE[kind], "spans" if kind == "spans" else "1"
    order = f"ORDER BY id LIMIT {limit}" if limit else ""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS going (id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM going")
    connection.execute(f"INSERT INTO going SELECT id FROM {table} WHERE {where} {order}", values)  # noqa: S608
    rows = connection.execute(
        f"SELECT module, count(*), sum({entries}), sum(length(body)) FROM {table} "  # noqa: S608
        "WHERE id IN (SELECT id FROM going) GROUP BY module"
    ).fetchall()
    connection.executemany(
        "UPDATE usage SET entries = max(entries - ?, 0), bytes = max(bytes - ?, 0) WHERE kind = ? AND module = ?",
        [(number, size, kind, module) for module, _, number, size in rows],
    )
    connection.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM going)")  # noqa: S608
    return sum(row[1] for row in rows), sum(row[3] for row in rows)


def _evict_rollups(connection: sqlite3.Connection) -> int:
    """The older half of the finest counts there are; for when it is not spans and logs that fill the file."""
    before = sizes(connection)[0]
    for tier in (0, 1, 2):
        for table in ("points", "traffic", "profiles"):
            sql = f"SELECT min(at), max(at) FROM {table} WHERE tier = ?"  # noqa: S608
            first, last = connection.execute(sql, (tier,)).fetchone()
            if first is not None:
                middle = (first + last + 1) // 2
                connection.execute(f"DELETE FROM {table} WHERE tier = ? AND at <= ?", (tier, middle))  # noqa: S608
        if sizes(connection)[0] < before:
            break
    return before - sizes(connection)[0]


def _give_back(connection: sqlite3.Connection) -> None:
    """Shorten the file where much of it is empty."""
    pages, free = (connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "freelist_count"))
    if free > 2_000 and free > pages // 4:
        connection.execute("PRAGMA incremental_vacuum(2000)").fetchall()


def _registered(connection: sqlite3.Connection) -> tuple[set[str], bool]:
    return {name for (name,) in connection.execute("SELECT name FROM files")}, meta(connection, "begun") == 1


def _register(
    connection: sqlite3.Connection, name: str, kind: Kind, found: dict[str, Any], job: dict[str, Any] | None = None
) -> None:
    """The moment from which the file counts, and what it was made of does not."""
    connection.execute("BEGIN IMMEDIATE")
    if found["entries"]:
        connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (name, kind, found["since"], found["until"], found["entries"], found["bytes"]),
        )
        traces = (bytes.fromhex(each) for each in found["traces"])
        connection.executemany(
            "INSERT OR IGNORE INTO sealed VALUES (?, ?)", sorted((sealed_key(each), name) for each in traces)
        )
    if job is not None:
        for id_ in found["late"]:
            _delete(connection, kind, "id = ?", (id_,), 0)
        set_meta(connection, f"floor_{kind}", job["cut"])
        if found["thinned"]:
            connection.execute(
                "INSERT INTO dropped VALUES ('history', ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                (found["thinned"],),
            )
    connection.execute("COMMIT")


def _forget_file(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM files WHERE name = ?", (name,))
    connection.execute("DELETE FROM sealed WHERE file = ?", (name,))


def _sync(path: Path) -> None:
    """What is deleted from SQLite on the strength of this file must be on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
