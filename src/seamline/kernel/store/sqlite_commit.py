"""The threads in which a SQLite file commits and is brought up to date, while the event loop goes on.

A commit is on disk when it is in the write-ahead log. Every thousand pages or so they are copied from there into the
file, which SQLite would do inside of a commit; for some milliseconds everybody would wait. Here a thread copies them
beside the commits, and only the few that are written meanwhile are copied between two of them, so that the
write-ahead log begins anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

PAGES: Final = 1_000
PAGES_MAX: Final = 4 * PAGES
"""With so many SQLite does it by itself: after few large commits, or where readers held the log."""

COMMITS_MIN: Final = 16
"""Between two checkpoints, however large the commits are."""

Done = Callable[[Exception | None], None]


class Committer:
    """Commits one at a time. An executor would, too; its futures took half of the time of the way there and back."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        self._asked: SimpleQueue[tuple[sqlite3.Connection, asyncio.AbstractEventLoop, Done] | None] = SimpleQueue()
        self._checkpoints = Checkpoints(connect, f"checkpoint-{name}")
        # What is not acknowledged when the interpreter ends was never promised.
        self._thread = Thread(target=self._work, name=f"commit-{name}", daemon=True)
        self._thread.start()

    def commit(self, connection: sqlite3.Connection, done: Done) -> None:
        """Commit, then call ``done`` on the running event loop, with what went wrong."""
        self._asked.put((connection, asyncio.get_running_loop(), done))

    def close(self) -> None:
        """In a thread: wait for the threads to end; no commit is under way."""
        self._asked.put(None)
        self._thread.join()
        self._checkpoints.close()

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            connection, loop, done = asked
            error = None
            try:
                connection.execute("COMMIT")
            except Exception as raised:
                error = raised
            else:
                self._checkpoints.committed(connection)
            with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits
                loop.call_soon_threadsafe(done, error)
            del asked, connection, loop, done, error


class Checkpoints:
    """See the module's docstring."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        self._connect = connect
        self._name = name
        self._thread: Thread | None = None
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._copying = False
        self._copied = Event()
        self._commits = 0
        self._commits_max = COMMITS_MIN
        self._pages = 0

    def committed(self, connection: sqlite3.Connection) -> None:
        """In the thread that commits, to which ``connection`` belongs until it answers."""
        self._commits += 1
        if self._copied.is_set():
            _copy(connection)
            self._copied.clear()
            # The commits to come will be as large as those that were; but another process may have emptied the log.
            expected = self._commits_max * PAGES // max(self._pages, PAGES // 2)
            self._commits_max = max(expected, COMMITS_MIN)
            self._commits = 0
            self._copying = False
        elif not self._copying and self._commits >= self._commits_max:
            self._copying = True
            if self._thread is None:
                self._thread = Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._asked.put(True)

    def _work(self) -> None:
        with suppress(sqlite3.Error), closing(self._connect()) as connection:
            while self._asked.get():
                self._pages = _copy(connection)
                self._copied.set()

    def close(self) -> None:
        if self._thread is not None:
            self._asked.put(False)
            self._thread.join()


def _copy(connection: sqlite3.Connection) -> int:
    """How many pages the write-ahead log has. A checkpoint that fails harms nobody: what is in the way,
    commits will meet."""
    with suppress(sqlite3.Error):
        return connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    return 0
