"""The one writer: a queue that never blocks who adds, and a thread that commits what came in groups."""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.settings.observe import MIB, ObserveSettings
from seamline.observe.incidents import Incident, encode
from seamline.observe.records import Batch, Log, Mark, Point, Source, Span
from seamline.observe.store.keeping import Keeper, evict
from seamline.observe.store.pieces import Terms, is_trace_id, pack_log, pack_spans
from seamline.observe.store.rollups import REST, Names, Rollups, meta, set_meta
from seamline.observe.store.schema import (
    ID_BITS,
    hour_of,
    is_damage,
    make_id,
    move_aside,
    open_writer,
    words_table,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

COMMIT_S: Final = 0.25
COMMIT_ROWS: Final = 5_000
QUEUE_MAX: Final = 10_000
"""Spans and logs that wait; beyond it, what comes is dropped, first that of who has most of them waiting."""
BATCHES_MAX: Final = 4_000
OPEN_AGAIN_S: Final = 1.0
EARLY_MS: Final = 60_000
MODULES_MAX: Final = 10_000
CLOSE_S: Final = 10.0

_MARK: Final = msgspec.msgpack.Encoder()
_TRIES: Final = 4


class TelemetryStore:
    """Keeps what it is given. Only one process at a time may write to a folder.

    :attr:`trouble` is empty, or says in a sentence why something is not kept; :attr:`dropped` counts that by kind.
    """

    def __init__(self, folder: Path, settings: ObserveSettings, clock: Clock | None = None) -> None:
        self.folder = folder
        self.dropped: Counter[str] = Counter()
        self._trouble = ""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._size_max = int(settings.size_max_mb * MIB)
        self._hot_ms = int(settings.hot_s * 1000)
        self._condition = threading.Condition()
        self._queue: deque[Batch] = deque()
        self._queued: Counter[str] = Counter()
        self._waiting = 0
        self._incidents: dict[str, Incident] = {}
        self._jobs: deque[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]] = deque()
        self._closing = False
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-writer", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self._terms = Terms()
        self._window_ns = max(int(settings.window_s * 1e9), 1)
        self._rollups = Rollups(self._window_ns)
        self._modules = Names("modules", ("name",), MODULES_MAX, 0, 1)
        self._tables: set[tuple[str, int]] = set()
        self._sequence = random.getrandbits(ID_BITS)
        self._floors = {"spans": 0, "logs": 0}
        self._untold: Counter[str] = Counter()
        self._marks: list[Mark] = []
        self._keeper = Keeper(folder, settings, self.now_ns, self.ask)

    @property
    def trouble(self) -> str:
        return self._trouble or self._keeper.trouble

    def start(self) -> None:
        """Open the file, or make it; what cannot be opened now is tried again each second."""
        self._thread.start()
        self._opened.wait(CLOSE_S)

    def close(self) -> None:
        """Commit what was added, and end."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._keeper.stop()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def add(self, batch: Batch) -> None:
        """Take a batch, from the event loop or any thread. Returns at once."""
        rows = len(batch.spans) + len(batch.logs)
        with self._condition:
            if self._closing:
                self._drop({"spans": len(batch.spans), "logs": len(batch.logs)})
                return
            if batch.dropped:
                self._drop(batch.dropped)
            who = batch.source.workload
            if rows and not self._has_room(who, rows):
                self._drop({"spans": len(batch.spans), "logs": len(batch.logs)})
                batch, rows = msgspec.structs.replace(batch, spans=[], logs=[]), 0
            if len(self._queue) >= BATCHES_MAX:
                self._drop({"traffic": len(batch.traffic), "points": len(batch.points)})
                return
            self._queue.append(batch)
            self._queued[who] += rows
            before, self._waiting = self._waiting, self._waiting + rows
            if len(self._queue) == 1 or before < COMMIT_ROWS <= self._waiting:
                self._condition.notify()

    def _has_room(self, who: str, rows: int) -> bool:
        if not self._waiting or self._waiting + rows <= QUEUE_MAX:
            return True
        share = QUEUE_MAX // max(len(self._queued), 2)
        return self._queued[who] + rows <= share and self._waiting + rows <= 2 * QUEUE_MAX

    @property
    def full(self) -> bool:
        """Whether who can wait should: half of the queue is taken, and what does not fit into the rest is dropped."""
        return self._waiting >= QUEUE_MAX // 2

    def put_incident(self, incident: Incident) -> None:
        with self._condition:
            self._incidents[incident.id] = incident
            self._condition.notify()

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until all that was added is committed, or dropped."""
        with contextlib.suppress(CancelledError):
            self.ask(lambda _: None).result(timeout_s)

    async def keep(self) -> None:
        """Seal what is no longer recent, and keep to age and size, until cancelled."""
        while True:
            await self._clock.sleep(self._keeper.period_s)
            await self.tend()

    async def tend(self) -> None:
        """One round of :meth:`keep`. What it cannot do is said in :attr:`trouble`, and tried again in the next."""
        await self._keeper.tend()

    def ask(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have the writer's thread do something with the file, after what was added before it."""
        future: Future[T] = Future()
        with self._condition:
            if self._closing:
                future.cancel()
                return future
            self._jobs.append((work, future))
            self._condition.notify()
        return future

    def now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1e6) * 1000

    def _drop(self, counts: Counter[str] | dict[str, int]) -> None:
        for kind, count in counts.items():
            if count > 0:
                self.dropped[kind] += count
                self._untold[kind] += count

    # What follows runs in the writer's thread.

    def _run(self) -> None:
        while True:
            batches, incidents, jobs, closing = self._next_group()
            connection = self._connection or self._open()
            self._opened.set()
            if connection is None:
                self._lose(batches)
                self._put_back(incidents)
                for _, future in jobs:
                    future.cancel()
                if closing:
                    return
                time.sleep(OPEN_AGAIN_S)
                continue
            try:
                self._commit(batches, incidents)
                self._do(jobs)
            except Exception as error:
                log.exception("telemetry: the writer begins again")
                self._in_trouble(f"telemetry is dropped: {error}")
                self._lose(batches)
                self._shut()
            if closing and self._is_done():
                self._shut()
                return

    def _next_group(self) -> tuple[list[Batch], list[Incident], list[tuple[Any, Future[Any]]], bool]:
        with self._condition:
            if self._connection is not None and not (self._queue or self._jobs or self._incidents or self._closing):
                self._condition.wait(1.0 if self._rollups.waiting else None)
            until = time.monotonic() + COMMIT_S
            while (
                self._connection is not None
                and self._queue
                and self._waiting < COMMIT_ROWS
                and not (self._jobs or self._closing)
                and (left := until - time.monotonic()) > 0
            ):
                self._condition.wait(left)
            batches, rows = list[Batch](), 0
            while self._queue and rows < COMMIT_ROWS:
                batch = self._queue.popleft()
                batches.append(batch)
                rows += len(batch.spans) + len(batch.logs)
                self._queued[batch.source.workload] -= len(batch.spans) + len(batch.logs)
            if not self._queue:
                self._queued.clear()
            self._waiting -= rows
            incidents = list(self._incidents.values())
            self._incidents.clear()
            jobs = [] if self._queue else list(self._jobs)
            if not self._queue:
                self._jobs.clear()
            return batches, incidents, jobs, self._closing

    def _is_done(self) -> bool:
        with self._condition:
            return not (self._queue or self._jobs or self._incidents)

    def _open(self) -> sqlite3.Connection | None:
        try:
            connection, said = open_writer(self.folder, self._size_max)
            self._connection = connection
            self._load()
        except (OSError, sqlite3.Error) as error:
            self._connection = None
            self._in_trouble(f"telemetry cannot be kept: {error}")
            return None
        if said:
            self._marks.append(Mark(self.now_ns(), "other", said))
        return connection

    def _load(self) -> None:
        connection = self._connection
        assert connection is not None
        set_meta(connection, "window_ns", self._window_ns)
        self._rollups.load(connection)
        self._modules.load(connection)
        self._look_again(connection)

    def _look_again(self, connection: sqlite3.Connection) -> None:
        """What others than a commit change."""
        self._tables = set(connection.execute("SELECT kind, hour FROM words"))
        for kind in self._floors:
            self._floors[kind] = meta(connection, f"floor_{kind}")

    def _shut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _do(self, jobs: Iterable[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]]) -> None:
        for work, future in jobs:
            connection = self._connection
            if connection is None or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                future.set_result(work(connection))
            except BaseException as error:
                future.set_exception(error)
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            try:
                self._look_again(connection)
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)

    def _commit(self, batches: list[Batch], incidents: list[Incident]) -> None:
        for _ in range(_TRIES):
            connection = self._connection
            assert connection is not None
            try:
                wrote = self._write(connection, batches, incidents)
            except sqlite3.IntegrityError:
                self._take_back(connection)
                self._sequence = random.getrandbits(ID_BITS)  # an id was taken: begin elsewhere
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    self._begin_anew(error)
                    if self._connection is None:
                        break
                    continue
                self._take_back(connection)
                if self._made_room(connection, error):
                    continue
                self._in_trouble(f"telemetry is dropped: {error}")
                break
            else:
                if wrote:
                    self._written()
                return
        self._lose(batches)
        self._put_back(incidents)

    def _take_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        try:
            self._load()
        except sqlite3.DatabaseError:
            self._shut()

    def _made_room(self, connection: sqlite3.Connection, error: sqlite3.DatabaseError) -> bool:
        """Whether it was our own limit of the file's size, and something older could give way."""
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL or self._connection is None:
            return False
        pages, most, free = (
            connection.execute(f"PRAGMA {each}").fetchone()[0]
            for each in ("page_count", "max_page_count", "freelist_count")
        )
        if pages - free < most * 0.9:
            return False
        try:
            return evict(connection, self._size_max // 10) > 0
        except sqlite3.DatabaseError:
            self._take_back(connection)
            return False

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        self._shut()
        move_aside(self.folder, f"is damaged ({error})")
        self._open()

    def _lose(self, batches: Iterable[Batch]) -> None:
        with self._condition:
            for batch in batches:
                kinds = ("spans", "logs", "traffic", "points", "profiles", "marks")
                self._drop({kind: len(getattr(batch, kind)) for kind in kinds})

    def _put_back(self, incidents: Iterable[Incident]) -> None:
        """An incident is not lost for want of room: it is written when there is."""
        with self._condition:
            for incident in incidents:
                self._incidents.setdefault(incident.id, incident)

    def _in_trouble(self, sentence: str) -> None:
        if not self._trouble:
            log.warning("%s; the application is not affected", sentence)
        self._trouble = sentence

    def _written(self) -> None:
        if self._trouble:
            log.warning("telemetry is kept again")
            self._marks.append(Mark(self.now_ns(), "other", f"{self._trouble}. It is kept again"))
            self._trouble = ""

    def _write(self, connection: sqlite3.Connection, batches: list[Batch], incidents: list[Incident]) -> bool:
        """Whether there was anything to write."""
        now_ns = self.now_ns()
        with self._condition:
            untold, marks = self._untold, self._marks
            told = [Point("seamline.telemetry.dropped", count, kind="counter", unit="{record}", attributes={"of": kind})
                    for kind, count in untold.items()]  # fmt: skip
        if not (batches or incidents or told or marks):
            if self._rollups.waiting:
                self._roll(connection, now_ns)
            return False
        connection.execute("BEGIN IMMEDIATE")
        unkept: Counter[str] = Counter()
        for batch in batches:
            self._rollups.add(connection, batch, now_ns)
        if told:
            self._rollups.add(connection, Batch(Source(""), now_ns, points=told), now_ns)
        self._write_spans(connection, [span for batch in batches for span in batch.spans], now_ns, unkept)
        self._write_logs(connection, [line for batch in batches for line in batch.logs], now_ns, unkept)
        new_marks = [*marks, *(mark for batch in batches for mark in batch.marks)]
        connection.executemany(
            "INSERT INTO marks (at, body) VALUES (?, ?)", [(mark.at_ns, _MARK.encode(mark)) for mark in new_marks]
        )
        connection.executemany(
            "INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?)",
            [(each.id, each.began_ns, each.status == "open", encode(each)) for each in incidents],
        )
        connection.executemany(
            "INSERT INTO dropped VALUES (?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            list(untold.items()),
        )
        self._rollups.write(connection)
        connection.execute("COMMIT")
        self._rollups.settle()
        unkept["points"] += self._rollups.take_dropped()
        with self._condition:
            for kind, count in list(untold.items()):
                self._untold[kind] -= count
            self._untold = +self._untold
            del self._marks[: len(marks)]
            self._drop(unkept)
        self._roll(connection, now_ns)
        return True

    def _roll(self, connection: sqlite3.Connection, now_ns: int) -> None:
        if self._rollups.is_due(now_ns):
            connection.execute("BEGIN IMMEDIATE")
            self._rollups.roll(connection, now_ns)
            connection.execute("COMMIT")

    def _write_spans(
        self, connection: sqlite3.Connection, spans: list[Span], now_ns: int, unkept: Counter[str]
    ) -> None:
        by_trace: dict[bytes, list[Span]] = {}
        for span in spans:
            known = by_trace.get(span.trace_id)
            if known is None:
                by_trace[span.trace_id] = [span]
            else:
                known.append(span)
        rows: list[tuple[int, bytes, int, int, bytes]] = []
        documents: dict[int, list[tuple[int, str]]] = {}
        for trace_id, together in by_trace.items():
            if not is_trace_id(trace_id):
                unkept["spans"] += len(together)
                continue
            body, kept = pack_spans(together)
            unkept["spans"] += len(together) - len(kept)
            if not kept:
                continue
            first = min(kept, key=_beginning)
            id_ = self._id("spans", first.start_ns, now_ns)
            rows.append((id_, trace_id, self._module(connection, first.module), len(kept), body))
            documents.setdefault(hour_of(id_), []).append((id_, self._terms.of_spans(kept)))
        rows.sort()
        connection.executemany("INSERT INTO pieces VALUES (?, ?, ?, ?, ?)", rows)
        self._write_words(connection, "spans", documents)
        self._write_usage(connection, "spans", ((row[2], row[3], len(row[4])) for row in rows))

    def _write_logs(self, connection: sqlite3.Connection, lines: list[Log], now_ns: int, unkept: Counter[str]) -> None:
        rows: list[tuple[int, bytes | None, int, int, bytes]] = []
        documents: dict[int, list[tuple[int, str]]] = {}
        for line in lines:
            packed = pack_log(line)
            if packed is None:
                unkept["logs"] += 1
                continue
            body, kept = packed
            id_ = self._id("logs", kept.at_ns, now_ns)
            trace = kept.trace_id if is_trace_id(kept.trace_id) else None
            rows.append((id_, trace, self._module(connection, kept.module or kept.workload), kept.severity, body))
            documents.setdefault(hour_of(id_), []).append((id_, self._terms.of_log(kept)))
        connection.executemany("INSERT INTO logs VALUES (?, ?, ?, ?, ?)", rows)
        self._write_words(connection, "logs", documents)
        self._write_usage(connection, "logs", ((row[2], 1, len(row[4])) for row in rows))

    def _id(self, kind: str, at_ns: int, now_ns: int) -> int:
        """In the order of time; what claims to be older than anything recent, or of the future, is taken as near it."""
        now_ms = now_ns // 1_000_000
        least = max(now_ms - self._hot_ms, (self._floors[kind] >> ID_BITS) + 1)
        self._sequence += 1
        return make_id(max(min(at_ns // 1_000_000, now_ms + EARLY_MS), least), self._sequence)

    def _module(self, connection: sqlite3.Connection, name: str) -> int:
        number = self._modules.number(connection, (name,))
        if number is None:
            number = self._modules.number(connection, (REST,))
        return number or 0

    def _write_words(
        self, connection: sqlite3.Connection, kind: str, documents: dict[int, list[tuple[int, str]]]
    ) -> None:
        for hour, rows in documents.items():
            table = words_table(kind, hour)
            if (kind, hour) not in self._tables:
                connection.execute(
                    f"CREATE VIRTUAL TABLE IF NOT EXISTS {table} USING fts5 (t, content='', detail=none, columnsize=0)"
                )
                connection.execute("INSERT OR IGNORE INTO words VALUES (?, ?)", (kind, hour))
                self._tables.add((kind, hour))
            rows.sort()
            connection.executemany(f"INSERT INTO {table} (rowid, t) VALUES (?, ?)", rows)  # noqa: S608 - a number

    def _write_usage(self, connection: sqlite3.Connection, kind: str, rows: Iterable[tuple[int, int, int]]) -> None:
        used: dict[int, list[int]] = {}
        for module, entries, size in rows:
            known = used.setdefault(module, [0, 0])
            known[0] += entries
            known[1] += size
        connection.executemany(
            "INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "entries = entries + excluded.entries, bytes = bytes + excluded.bytes",
            [(kind, module, *counts) for module, counts in used.items()],
        )


def _beginning(span: Span) -> tuple[bool, int]:
    return any(span.parent_id), span.start_ns
