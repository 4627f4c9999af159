"""A process that consumes, for tests that kill or freeze it: ``python -m tests.events.consumer_process``.

Arguments: the folder, and where to die and the how-manieth time (``settled 40``), or nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.events.shop import Sold, running, shop, until, write

from seamline.events.embedded import EmbeddedSubscription
from seamline.events.inbox import Inbox
from seamline.events.positions import Bookmark
from seamline.kernel.store import Database
from seamline.module import Module

POINTS = ("handler", "written", "settled", "committed", "positions", "forgotten", "flushed")
"""Before and after everything that one event leaves on disk, in that order."""


class Fate:
    """Ends the process the n-th time that it comes to a point."""

    def __init__(self, point: str, count: int) -> None:
        self._point = point
        self._left = count

    def at(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, cls: type[Any], name: str, *, before: str = "", after: str = "") -> None:
        method: Callable[..., Awaitable[Any]] = getattr(cls, name)

        async def watched(*arguments: Any) -> Any:
            self.at(before)
            found = await method(*arguments)
            self.at(after)
            return found

        setattr(cls, name, watched)

    def inside_flush(self) -> None:
        """Before positions are written, and after what lies before them is forgotten; both before the commit."""
        write = Bookmark.write

        def watched(mark: Bookmark, sqlite: sqlite3.Connection) -> None:
            self.at("positions")
            write(mark, sqlite)
            self.at("forgotten")

        setattr(Bookmark, "write", watched)  # noqa: B010  # for the type checker, whom the names of parameters concern


async def freeze(db: Database) -> None:
    """Stop in the middle of a handler, but not with SQLite's lock: that would stop everybody."""
    assert db._file is not None  # pyright: ignore[reportPrivateUsage]
    writer: Any = db._file.writer  # pyright: ignore[reportPrivateUsage]
    await until(lambda: not (writer._held or writer._committing))
    sys.stdout.write("frozen\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSTOP)


DEADLY = 7
"""The number of the event whose handler ends its process."""


def books(fate: Fate, frozen: bool, *, deadly: bool = False) -> Module:
    module = Module("books")
    seen = 0

    @module.on(Sold, concurrency=8, attempts=2)
    async def enter(event: Sold, db: Database) -> None:
        nonlocal seen
        fate.at("handler")
        if deadly and event.number == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        if frozen and seen == 3:
            await freeze(db)
        await write(db, event.sku, event.number)
        fate.at("written")

    return module


async def main(folder: str, point: str = "", count: str = "0") -> None:
    fate = Fate(point, int(count))
    fate.around(Inbox, "settle", after="settled")
    fate.around(EmbeddedSubscription, "acknowledge", before="committed")
    fate.inside_flush()
    fate.around(EmbeddedSubscription, "_flush", after="flushed")
    async with running(Path(folder), shop(), books(fate, frozen=point == "frozen", deadly=point == "deadly")):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
