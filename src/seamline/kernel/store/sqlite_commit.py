"""The thread in which a SQLite connection commits, while the event loop goes on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

Done = Callable[[Exception | None], None]


class Committer:
    """Commits one at a time. An executor would, too; its futures took half of the time of the way there and back."""

    def __init__(self, name: str) -> None:
        self._asked: SimpleQueue[tuple[sqlite3.Connection, asyncio.AbstractEventLoop, Done] | None] = SimpleQueue()
        # What is not acknowledged when the interpreter ends was never promised.
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def commit(self, connection: sqlite3.Connection, done: Done) -> None:
        """Commit, then call ``done`` on the running event loop, with what went wrong."""
        self._asked.put((connection, asyncio.get_running_loop(), done))

    def close(self) -> None:
        """Let the thread end; nothing is under way."""
        self._asked.put(None)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            connection, loop, done = asked
            error = None
            try:
                connection.execute("COMMIT")
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits
                loop.call_soon_threadsafe(done, error)
            del asked, connection, loop, done, error
