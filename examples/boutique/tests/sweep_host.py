"""What workers host in the crash sweep: the shop, and a fuse at every commit of every module.

The test writes into ``<data>/fuse`` at which commit of which module the process shall die, or stand still; the worker
takes the file away and does so. Nothing of this is in the shop or in Seamline: the two functions through which every
write of a module passes are replaced in this process.
"""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store.access import Access
from seamline.kernel.store.database import Database
from seamline.run.berth import Berth
from seamline.run.hosting import ModuleHosting

T = TypeVar("T")


class Order(msgspec.Struct, frozen=True):
    """What to do, and where: at the ``commit``-th commit of ``module`` since the order was given."""

    number: int
    module: str
    commit: int
    when: str
    """``before`` the commit, when nothing of it may be seen again; ``after`` it, before anybody hears of it; or
    ``never``, to write the module of each commit into ``<data>/commits``."""
    signal: int = signal.SIGKILL


class Fuse:
    """Counts commits by module since the last order, and carries it out."""

    def __init__(self, data: Path) -> None:
        self._file = data / "fuse"
        self._list = data / "commits"
        self._commits: Counter[str] = Counter()
        self._number = 0

    def pass_by(self, module: str, when: str) -> None:
        try:
            order = msgspec.json.decode(self._file.read_bytes(), type=Order)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        if order.number != self._number:
            self._number = order.number
            self._commits.clear()
        if when == "before":
            self._commits[module] += 1
            if order.when == "never":
                with self._list.open("a", encoding="utf-8") as commits:
                    commits.write(f"{module}\n")
        if (module, self._commits[module], when) == (order.module, order.commit, order.when):
            try:
                self._file.unlink()
            except FileNotFoundError:
                return  # another process was the one
            os.kill(os.getpid(), order.signal)

    def install(self) -> None:
        leave, raw = Access.leave, Database.raw

        async def leave_by(access: Access, connection: AsyncConnection, *, commit: bool) -> None:
            writes = commit and access.writes
            if writes:
                self.pass_by(access.module, "before")
            await leave(access, connection, commit=commit)
            if writes:
                self.pass_by(access.module, "after")

        async def raw_by(database: Database, work: Callable[[sqlite3.Connection], T]) -> T:
            def last(connection: sqlite3.Connection) -> T:
                result = work(connection)
                self.pass_by(database.module, "before")
                return result

            result = await raw(database, last)
            self.pass_by(database.module, "after")
            return result

        replaced: Any = Access
        replaced.leave = leave_by
        replaced = Database
        replaced.raw = raw_by


def host(berth: Berth) -> ModuleHosting:
    """The factory that :mod:`sweep_supervisor` names to its workers."""
    Fuse(berth.data).install()
    return ModuleHosting(berth)
