"""One SQLite file: a few connections for readers and one for the writer, whose commits are shared.

Handing a statement to a thread and back costs about 75 microseconds, running it costs about 3. So
statements that are known to be short run on the event loop's thread. Reads run there too, within a budget
of time; one that exceeds it is broken off and run again in a thread. A commit waits for the disk and
always goes to a thread.

While one commit waits for the disk, the next transactions queue; they run one after another inside one
SQLite transaction, each in its savepoint, and are all acknowledged by one commit (group commit). No
transaction is acknowledged before it is on disk.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from seamline.kernel.store.errors import NotStartedError, WriterBusyError
from seamline.kernel.store.sqlite_commit import PAGES_MAX, Committer
from seamline.kernel.store.sqlite_plan import Kind, Plans
from seamline.kernel.store.tracing import Statements

READ_BUDGET_S: Final = 0.0005
READ_CHECK_INSTRUCTIONS: Final = 5_000
"""SQLite asks every so many instructions (about 0.1 ms) whether a read may go on."""

LONG_READ_REST: Final = 32
"""A read that exceeded its budget goes straight to a thread this many times before it is tried again."""

GROUP_MAX: Final = 128
GROUP_AGE_S_MAX: Final = 0.005
BULK_VALUES_MAX: Final = 1_000
READERS_MAX: Final = 8
READER_THREADS_MAX: Final = 4
READ_WAIT_MS: Final = 5_000
POLL_S_MAX: Final = 0.01
INTERRUPT_AGAIN_S: Final = 0.005

_GIVEN_UP: Final = "SQLite gave up the transaction after an error; nothing of it was kept"

_T = TypeVar("_T")


class Outcome(NamedTuple):
    cursor: sqlite3.Cursor
    rows: list[Any]


class Turn(Protocol):
    """A transaction's hold on a connection: from its first statement to its end."""

    lane: Lane

    def may_interrupt(self) -> bool: ...

    def check(self) -> None:
        """Raise if SQLite has given up the transaction, so that nothing runs outside of one."""
        ...

    def commit(self) -> asyncio.Future[None] | None:
        """End the transaction; what comes back, if anything, is done when it is on disk."""
        ...

    def rollback(self) -> None: ...


class Lane:
    """One SQLite connection, used by one transaction at a time, on the loop's thread or in a thread."""

    def __init__(self, connection: sqlite3.Connection, threads: Executor, *, read_only: bool) -> None:
        self.connection = connection
        self.threads = threads
        self.read_only = read_only
        self.plans = Plans(connection)
        self._break_off_at_s = 0.0
        self._long_reads: dict[str, int] = {}
        self._in_thread: asyncio.Future[Any] | None = None
        connection.set_progress_handler(self._over_budget, READ_CHECK_INSTRUCTIONS)

    def _over_budget(self) -> bool:
        return 0.0 < self._break_off_at_s < time.perf_counter()

    def kind_of(self, sql: str, parameters: Sequence[object]) -> Kind:
        kind = self.plans.kind_of(sql, parameters)
        if self.read_only and kind is not Kind.FORBIDDEN:
            return Kind.READ  # the connection refuses to write, so anything may be run again
        return kind

    def run_now(self, sql: str, parameters: Sequence[Any], kind: Kind) -> Outcome | None:
        """Run on the loop's thread; None if it would take too long and was not, or only half, run."""
        if kind is not Kind.READ:
            cursor = self.connection.execute(sql, parameters)
            return Outcome(cursor, cursor.fetchall() if cursor.description else [])
        rest = self._long_reads.get(sql, 0)
        if rest:
            self._long_reads[sql] = rest - 1
            return None
        self._break_off_at_s = time.perf_counter() + READ_BUDGET_S
        try:
            cursor = self.connection.execute(sql, parameters)
            return Outcome(cursor, cursor.fetchall() if cursor.description else [])
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:  # Python's own errors have none
                if len(self._long_reads) > 1_000:
                    self._long_reads.clear()
                self._long_reads[sql] = LONG_READ_REST
                return None
            if is_busy(error):
                return None
            raise
        finally:
            self._break_off_at_s = 0.0

    async def run_in_thread(self, work: Callable[[], _T], may_interrupt: Callable[[], bool]) -> _T:
        """Run ``work`` in a thread; when cancelled, break it off if allowed, and always wait for its end."""
        loop = asyncio.get_running_loop()
        self.connection.set_progress_handler(None, 0)  # the handler would ask for the interpreter's lock
        future = self._in_thread = loop.run_in_executor(self.threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await self._end(future, may_interrupt)
            raise
        finally:
            self._in_thread = None
            self.connection.set_progress_handler(self._over_budget, READ_CHECK_INSTRUCTIONS)

    async def _end(self, future: asyncio.Future[Any], may_interrupt: Callable[[], bool]) -> None:
        while not future.done():
            if may_interrupt():
                self.connection.interrupt()  # again each time: it may not have begun when we first asked
            try:
                await asyncio.wait([future], timeout=INTERRUPT_AGAIN_S)
            except asyncio.CancelledError:
                continue
        if not future.cancelled():
            future.exception()  # it was looked at

    async def close(self) -> None:
        """Break off what runs in a thread, and close. What comes later is told that the connection is closed."""
        if self._in_thread is not None:
            await self._end(self._in_thread, lambda: True)
        self.connection.close()

    def execute(self, sql: str, parameters: Sequence[Any]) -> Outcome:
        """In a thread: run and fetch all, waiting for a busy file if this lane only reads."""
        connection = self.connection
        if self.read_only:
            connection.execute(f"PRAGMA busy_timeout = {READ_WAIT_MS}")
        try:
            cursor = connection.execute(sql, parameters)
            return Outcome(cursor, cursor.fetchall() if cursor.description else [])
        finally:
            if self.read_only:
                connection.execute("PRAGMA busy_timeout = 0")

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> Outcome:
        return Outcome(self.connection.executemany(sql, rows), [])


class ReadTurn:
    def __init__(self, readers: Readers, lane: Lane) -> None:
        self._readers = readers
        self.lane = lane

    def may_interrupt(self) -> bool:
        return True

    def check(self) -> None:
        return

    def commit(self) -> None:
        self.rollback()

    def rollback(self) -> None:
        try:
            if not self._readers.closed and self.lane.connection.in_transaction:
                self.lane.connection.execute("ROLLBACK")
        finally:
            self._readers.give_back(self.lane)


class Readers:
    """Connections that cannot write, opened as they are needed; each reader sees one moment of the file."""

    def __init__(self, open_lane: Callable[[], Lane], statements: Statements, *, wait_s: float) -> None:
        self.statements = statements
        self._open_lane = open_lane
        self._wait_s = wait_s
        self._idle: list[Lane] = []
        self._lanes: list[Lane] = []
        self._queue: deque[asyncio.Future[Lane]] = deque()
        self.closed = False

    async def enter(self) -> ReadTurn:
        turn = self.enter_now()
        if turn is None:
            began = time.monotonic()
            waiting: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
            self._queue.append(waiting)
            try:
                turn = self._begin(await _bounded(waiting, self._wait_s, "no reader of the database became free"))
            except BaseException:
                if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                    self.give_back(waiting.result())
                raise
            finally:
                self.statements.waited("reader", began)
        return turn

    def enter_now(self) -> ReadTurn | None:
        if self.closed:
            raise _closed()
        if self._idle:
            return self._begin(self._idle.pop())
        if len(self._lanes) < READERS_MAX:
            lane = self._open_lane()
            self._lanes.append(lane)
            return self._begin(lane)
        return None

    def _begin(self, lane: Lane) -> ReadTurn:
        lane.connection.execute("BEGIN")
        return ReadTurn(self, lane)

    def give_back(self, lane: Lane) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.done():
                waiting.set_result(lane)
                return
        self._idle.append(lane)

    async def close(self) -> None:
        self.closed = True
        _turn_away(self._queue)
        for lane in self._lanes:
            await lane.close()


class WriteTurn:
    def __init__(self, writer: Writer, *, nested: bool) -> None:
        self._writer = writer
        self.lane = writer.lane
        self.nested = nested

    def may_interrupt(self) -> bool:
        # An interrupted write takes the whole SQLite transaction along, so others must not be in it.
        return not self.nested

    def check(self) -> None:
        if not self._writer.closed and not self.lane.connection.in_transaction:
            raise sqlite3.OperationalError(_GIVEN_UP)

    def commit(self) -> asyncio.Future[None]:
        try:
            self.check()
            if self.nested:
                self.lane.connection.execute("RELEASE turn")
        except BaseException:
            self._writer.leave()
            raise
        return self._writer.leave_for_disk()

    def rollback(self) -> None:
        connection = self.lane.connection
        try:
            if not self._writer.closed and connection.in_transaction:
                if self.nested:
                    connection.execute("ROLLBACK TO turn")
                    connection.execute("RELEASE turn")
                else:
                    connection.execute("ROLLBACK")
        finally:
            self._writer.leave()


class Writer:
    """The one connection that writes: a fair gate in front, group commit behind."""

    def __init__(self, lane: Lane, committer: Committer, statements: Statements, *, wait_s: float) -> None:
        self.lane = lane
        self.statements = statements
        self.commits = 0
        self._committer = committer
        self._wait_s = wait_s
        self.closed = False
        self._held = False
        self._committing = False
        self._queue: deque[asyncio.Future[None]] = deque()
        self._group: list[asyncio.Future[None]] = []
        self._group_since_s = 0.0
        self._commit_began_s = 0.0

    async def enter(self) -> WriteTurn:
        """Wait for our turn and for other processes, and begin.

        Raises:
            WriterBusyError: others held the database for ``wait_s`` seconds.
        """
        if self.closed:
            raise _closed()
        began = time.monotonic()
        try:
            return await self._enter()
        finally:
            self.statements.waited("writer", began)

    async def _enter(self) -> WriteTurn:
        if self._held or self._committing or self._queue:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(waiting)
            try:
                await _bounded(waiting, self._wait_s, "another transaction of this module holds the database")
            except BaseException:
                if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                    self.leave()
                raise
        else:
            self._held = True
        try:
            return await self._begin()
        except BaseException:
            self.leave()
            raise

    def enter_now(self) -> WriteTurn | None:
        """Begin at once, or None if that needs waiting."""
        if self.closed or self._held or self._committing or self._queue:
            return None
        try:
            self.lane.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return None
            raise
        self._held = True
        return WriteTurn(self, nested=False)

    async def _begin(self) -> WriteTurn:
        connection = self.lane.connection
        if connection.in_transaction:
            connection.execute("SAVEPOINT turn")
            return WriteTurn(self, nested=True)
        pause_s, deadline_s = 0.0005, time.monotonic() + self._wait_s
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return WriteTurn(self, nested=False)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() > deadline_s:
                    raise _busy(f"another process held the database for {self._wait_s:g} s") from error
            # SQLite's own waiting would hold a thread and could not be cancelled. Uneven pauses keep
            # two processes from meeting again and again.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 1.5, POLL_S_MAX)

    def leave(self) -> None:
        """The turn came to nothing: let the next in, or commit what the group has."""
        if self._group and (self.closed or not self.lane.connection.in_transaction):
            self._fail(sqlite3.OperationalError(_GIVEN_UP))
        self._go_on()

    def leave_for_disk(self) -> asyncio.Future[None]:
        """The turn is complete: join the group that the next commit acknowledges."""
        member: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._group:
            self._group_since_s = time.monotonic()
        self._group.append(member)
        self._go_on()
        return member

    def _go_on(self) -> None:
        self._held = False
        if self.closed:
            return
        group = self._group
        full = group and (len(group) >= GROUP_MAX or time.monotonic() - self._group_since_s > GROUP_AGE_S_MAX)
        while self._queue and not full:
            waiting = self._queue.popleft()
            if not waiting.done():
                self._held = True
                waiting.set_result(None)
                return
        if group:
            self._committing = True
            self._commit_began_s = time.monotonic()
            self._committer.commit(self.lane.connection, self._committed)

    def _committed(self, error: Exception | None) -> None:
        self._committing = False
        self.statements.committed(self._commit_began_s, error)
        if error is not None:
            if self.lane.connection.in_transaction:
                self.lane.connection.execute("ROLLBACK")
            self._fail(error)
        else:
            self.commits += 1
            group, self._group = self._group, []
            for member in group:
                if not member.done():
                    member.set_result(None)
        self._go_on()

    def _fail(self, error: BaseException) -> None:
        group, self._group = self._group, []
        for member in group:
            if not member.done():
                copy = type(error)(*error.args)
                copy.__dict__.update(error.__dict__)  # SQLite's code
                member.set_exception(copy)

    async def close(self) -> None:
        """Turn away who waits, finish the commit under way, and close."""
        _turn_away(self._queue)
        while self._committing:
            await asyncio.wait(list(self._group))
        self.closed = True
        await asyncio.get_running_loop().run_in_executor(self.lane.threads, self._committer.close)
        await self.lane.close()


class SqliteFile:
    """The file of one module, open."""

    def __init__(self, path: Path, statements: Statements, *, wait_s: float) -> None:
        self._path = path
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix=f"write-{path.stem}")
        self._read_threads = ThreadPoolExecutor(READER_THREADS_MAX, thread_name_prefix=f"read-{path.stem}")
        lane = Lane(connect(path, read_only=False), self._write_thread, read_only=False)
        lane.connection.execute(f"PRAGMA wal_autocheckpoint = {PAGES_MAX}")
        committer = Committer(lambda: connect(path, read_only=False), path.stem)
        self.writer = Writer(lane, committer, statements, wait_s=wait_s)
        self.readers = Readers(self._open_reader, statements, wait_s=wait_s)

    def _open_reader(self) -> Lane:
        return Lane(connect(self._path, read_only=True), self._read_threads, read_only=True)

    async def close(self) -> None:
        await self.writer.close()
        await self.readers.close()
        self._write_thread.shutdown(wait=False)
        self._read_threads.shutdown(wait=False)


def connect(path: Path, *, read_only: bool, wait_ms: int = 10_000) -> sqlite3.Connection:
    """Open ``path`` durable (WAL, synchronous FULL) with foreign keys enforced and no implicit transactions."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=wait_ms / 1000
    )
    try:
        _enter_wal(connection, wait_ms)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: sqlite3.Connection, wait_ms: int) -> None:
    """Two processes that turn a new file to WAL at once: SQLite fails one at once, without its timeout."""
    deadline_s = time.monotonic() + wait_ms / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline_s:
                raise
        time.sleep(0.001)


def is_busy(error: sqlite3.Error) -> bool:
    # Extended codes carry the primary code in their low byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


async def _bounded(waiting: asyncio.Future[_T], wait_s: float, what: str) -> _T:
    """Await ``waiting``; after ``wait_s`` it fails instead."""

    def give_up() -> None:
        if not waiting.done():
            waiting.set_exception(_busy(f"{what} for {wait_s:g} s"))

    timer = asyncio.get_running_loop().call_later(wait_s, give_up)
    try:
        return await waiting
    finally:
        timer.cancel()


def _turn_away(queue: deque[asyncio.Future[_T]]) -> None:
    while queue:
        waiting = queue.popleft()
        if not waiting.done():
            waiting.set_exception(_closed())


def _closed() -> NotStartedError:
    return NotStartedError("the database was closed", "Let what uses it end before")


def _busy(fact: str) -> WriterBusyError:
    return WriterBusyError(
        fact, "Keep transactions short: call other modules and services before or after them, not inside"
    )
