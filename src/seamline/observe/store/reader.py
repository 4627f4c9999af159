"""Questions to what is kept: from any process and any thread, also when nothing runs, each bounded in time and rows."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from seamline.observe.errors import BadQueryError
from seamline.observe.incidents import Incident, decode
from seamline.observe.records import Log, Mark, Span
from seamline.observe.store import charts, search
from seamline.observe.store.child import Child, too_long
from seamline.observe.store.keeping import sizes
from seamline.observe.store.query import (
    EdgeSummary,
    LogQuery,
    MetricName,
    Page,
    Series,
    SeriesQuery,
    StoreSize,
    TraceQuery,
    TraceSummary,
)
from seamline.observe.store.schema import HOT, ID_BITS, open_reader
from seamline.observe.windows import Window

CHECK_INSTRUCTIONS: Final = 20_000
"""SQLite asks every so many instructions (about half a millisecond) whether the time is over."""
IDLE_MAX: Final = 4
MARKS_MAX: Final = 5_000
INCIDENTS_MAX: Final = 1_000

_MARK: Final = msgspec.msgpack.Decoder(Mark)


class TelemetryReader:
    """Reads a store's folder. Raises TelemetryMissingError where there is none, QueryTooLongError after a while."""

    def __init__(self, folder: Path, *, timeout_s: float = 5.0) -> None:
        self.folder = folder
        self._timeout_s = timeout_s
        self._idle: list[tuple[int, sqlite3.Connection]] = []
        self._lock = threading.Lock()
        self._child = Child()

    def close(self) -> None:
        self._child.close()
        with self._lock:
            for _, connection in self._idle:
                connection.close()
            self._idle.clear()

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace in the order of time, at most 10,000; empty if it is not known."""
        try:
            id_ = bytes.fromhex(trace_id)
        except ValueError:
            raise BadQueryError(f"{trace_id!r} is no trace id", "32 hexadecimal digits") from None
        with self._look() as look:
            return search.trace(look, id_)

    def traces(self, q: TraceQuery) -> Page[TraceSummary]:
        with self._look() as look:
            return search.traces(look, q)

    def logs(self, q: LogQuery) -> Page[Log]:
        with self._look() as look:
            return search.logs(look, q)

    def graph(self, since_ns: int, until_ns: int, *, by_method: bool = False) -> list[EdgeSummary]:
        """Every edge there was a call on, the busiest first."""
        with self._look() as look:
            return charts.graph(look, since_ns, until_ns, by_method=by_method)

    def red(self, q: SeriesQuery) -> Series:
        with self._look() as look:
            return charts.red(look, q)

    def metric_names(self, since_ns: int = 0) -> list[MetricName]:
        with self._look() as look:
            return charts.metric_names(look, since_ns)

    def metric(
        self,
        name: str,
        *,
        module: str = "",
        attributes: dict[str, str] | None = None,
        since_ns: int,
        until_ns: int,
        step_ns: int = 0,
    ) -> list[Series]:
        """One series for each module, process and set of attributes that has told, at most 200."""
        with self._look() as look:
            return charts.metric(look, name, module, attributes or {}, since_ns, until_ns, step_ns)

    def profile(self, module: str, since_ns: int, until_ns: int) -> list[tuple[str, int]]:
        """Stacks and the CPU in nanoseconds they used, the costliest first. An empty module is all of them."""
        with self._look() as look:
            return charts.profile(look, module, since_ns, until_ns)

    def windows(self, since_ns: int, until_ns: int) -> list[Window]:
        with self._look() as look:
            return charts.windows(look, since_ns, until_ns)

    def marks(self, since_ns: int, until_ns: int) -> list[Mark]:
        """In the order of time."""
        with self._look() as look:
            sql = "SELECT body FROM marks WHERE at >= ? AND at < ? ORDER BY at DESC LIMIT ?"
            rows = look.rows(sql, (since_ns, until_ns or search.FOREVER, MARKS_MAX))
            return [_MARK.decode(body) for (body,) in reversed(rows)]

    def incidents(self, *, since_ns: int = 0, open_only: bool = False) -> list[Incident]:
        """Those that were open since then, the newest first."""
        with self._look() as look:
            sql = "SELECT body FROM incidents WHERE open >= ? ORDER BY began DESC LIMIT ?"
            found = [decode(body) for (body,) in look.rows(sql, (int(open_only), INCIDENTS_MAX))]
            return [each for each in found if each.status == "open" or each.ended_ns >= since_ns]

    def incident(self, id_: str) -> Incident | None:
        with self._look() as look:
            rows = look.rows("SELECT body FROM incidents WHERE id = ?", (id_,))
            return decode(rows[0][0]) if rows else None

    def size(self) -> StoreSize:
        with self._look() as look:
            return self._size(look)

    def _size(self, look: search.Look) -> StoreSize:
        used: dict[str, int] = {}
        entries = {"spans": 0, "logs": 0}
        sql = "SELECT kind, name, entries, bytes FROM usage JOIN modules ON id = module"
        for kind, module, number, held in look.rows(sql):
            entries[kind] += number
            used[module] = used.get(module, 0) + held
        history = {"spans": 0, "logs": 0}
        oldest: list[int] = []
        for kind, number, since in look.rows("SELECT kind, sum(entries), min(since) FROM files GROUP BY kind"):
            history[kind] = number
            oldest.append(since)
        newest: list[int] = []
        for table in ("pieces", "logs"):
            first, last = look.rows(f"SELECT min(id), max(id) FROM {table}")[0]  # noqa: S608 - our own names
            if first is not None:
                oldest.append((first >> ID_BITS) * 1_000_000)
                newest.append((last >> ID_BITS) * 1_000_000)
        _, sealed = sizes(look.connection)
        files = [self.folder / HOT, self.folder / f"{HOT}-wal"]
        return StoreSize(
            hot_bytes=sum(each.stat().st_size for each in files if each.exists()),
            history_bytes=sealed,
            spans=entries["spans"],
            history_spans=history["spans"],
            logs=entries["logs"],
            history_logs=history["logs"],
            oldest_ns=min(oldest, default=0),
            newest_ns=max(newest, default=0),
            dropped=dict(look.rows("SELECT kind, count FROM dropped ORDER BY kind")),
            bytes_by_module=dict(sorted(used.items(), key=lambda each: -each[1])),
        )

    @contextmanager
    def _look(self) -> Generator[search.Look]:
        """One moment of the file, for as long as one question may take."""
        inode, connection = self._take()
        until = time.monotonic() + self._timeout_s
        connection.set_progress_handler(lambda: time.monotonic() > until, CHECK_INSTRUCTIONS)
        try:
            connection.execute("BEGIN")
            yield search.Look(connection, self.folder, self._child, until, self._timeout_s)
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise too_long(self._timeout_s) from None
            raise
        except BaseException:
            connection.close()
            raise
        self._give_back(inode, connection)

    def _take(self) -> tuple[int, sqlite3.Connection]:
        path = self.folder / HOT
        inode = path.stat().st_ino if path.exists() else 0
        with self._lock:
            while self._idle:
                known, connection = self._idle.pop()
                if known == inode:
                    return inode, connection
                connection.close()  # it was moved aside
        return inode, open_reader(self.folder)

    def _give_back(self, inode: int, connection: sqlite3.Connection) -> None:
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append((inode, connection))
                return
        connection.close()
