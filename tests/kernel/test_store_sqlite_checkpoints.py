"""The write-ahead log is copied into the file beside the commits, and begins anew."""

# How far the copying is and which threads there are is seen nowhere else.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from seamline.kernel.store import Database, sqlite_url
from seamline.kernel.store.sqlite_commit import COMMITS_MIN, PAGES, PAGES_MAX, Checkpoints
from seamline.kernel.store.sqlite_file import connect

FRAME = 4096 + 24


def threads_of(name: str) -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.endswith(f"-{name}")}


def test_what_is_committed_while_a_thread_copies_is_copied_between_two_commits(tmp_path: Path):
    """Only then can SQLite use the log from its beginning; without that it would grow as long as somebody writes."""
    path = tmp_path / "log.sqlite3"
    log = tmp_path / "log.sqlite3-wal"

    def writer() -> sqlite3.Connection:
        connection = connect(path, read_only=False)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    checkpoints = Checkpoints(writer, "checkpoint-alone")
    with closing(writer()) as connection:
        connection.execute("CREATE TABLE bulk (body BLOB)")
        for _ in range(3):
            while not checkpoints._copying:
                connection.execute("INSERT INTO bulk VALUES (zeroblob(20000))")
                checkpoints.committed(connection)
            assert checkpoints._copied.wait(20)
            connection.execute("INSERT INTO bulk VALUES (zeroblob(20000))")
            checkpoints.committed(connection)
            assert not checkpoints._copying
            assert checkpoints._pages <= 2 * PAGES
            grown = log.stat().st_size
            connection.execute("INSERT INTO bulk VALUES (zeroblob(20000))")
            assert log.stat().st_size == grown
        assert COMMITS_MIN < checkpoints._commits_max < PAGES
        checkpoints.close()
    assert not log.exists()
    assert threads_of("alone") == set()


async def test_the_log_stays_small_while_many_write(tmp_path: Path):
    """More than it may have is written without a pause, and all of it is there."""
    database = Database(sqlite_url(tmp_path, "busy"), "busy")
    path = database.path
    assert path is not None
    log = path.with_name(path.name + "-wal")
    sizes: list[int] = []
    async with database:
        await database.raw(lambda c: c.execute("CREATE TABLE bulk (n INTEGER, body BLOB)"))

        async def write(n: int) -> None:
            for each in range(n, n + 40):
                await database.raw(_insert(each))
                sizes.append(log.stat().st_size)

        async with asyncio.TaskGroup() as group:
            for n in range(0, 1_600, 40):
                group.create_task(write(n))
        assert "checkpoint-busy" in threads_of("busy")
        found = await database.raw_read(lambda c: c.execute("SELECT n FROM bulk ORDER BY n").fetchall())
    assert found == [(n,) for n in range(1_600)]
    assert path.stat().st_size > 1_600 * 20_000
    assert max(sizes) < (PAGES_MAX + 40 * 6 + 100) * FRAME
    assert threads_of("busy") == set()
    assert not log.exists()


def _insert(n: int) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute("INSERT INTO bulk VALUES (?, zeroblob(20000))", (n,))
