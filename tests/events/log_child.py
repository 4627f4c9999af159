"""Processes that append to a log and tell what was acknowledged; they are made to be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.reduction
import os
import signal
import sqlite3
import struct
from itertools import count
from typing import Any

from sqlalchemy import text
from tests.events.log_rig import Place, record

_NUMBER = struct.Struct("<q")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.events.log_child"])


class Child:
    """A process with some publishers, who append without end: those with odd numbers directly, the others in a
    transaction together with a row of ``sums``.

    Args:
        die_at: the process kills itself when so many write points have been passed: before and after each statement
            and each commit. 0 leaves that to others.
    """

    def __init__(self, place: Place, name: int, publishers: int, die_at: int = 0) -> None:
        self.acknowledged: list[int] = []
        self._read, write = os.pipe()
        sender = multiprocessing.reduction.DupFd(write)
        arguments = (place.url, place.module, name, publishers, die_at, sender)
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        os.close(write)

    def wait_for(self, events: int) -> None:
        """Until so many were acknowledged, or the process has ended."""
        while len(self.acknowledged) < events and self._take():
            pass

    def _take(self) -> bool:
        taken = os.read(self._read, _NUMBER.size)
        if taken:
            self.acknowledged.append(_NUMBER.unpack(taken)[0])
        return bool(taken)

    def end(self) -> None:
        """Kill it, if it is not dead, and take what it said before."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(20)
        while self._take():
            pass
        os.close(self._read)


def _run(url: str, module: str, name: int, publishers: int, die_at: int, sender: Any) -> None:
    if die_at:
        _die_at(die_at)
    asyncio.run(_append_without_end(Place(url, module), name, publishers, sender.detach()))


async def _append_without_end(place: Place, name: int, publishers: int, told: int) -> None:
    async with place.open() as (database, log):

        async def publish(publisher: int) -> None:
            for n in count():
                number = (name * 100 + publisher) * 1_000_000 + n
                said = record(number, key=f"{name}-{publisher}", size=200)
                if publisher % 2:
                    await log.append([said])
                else:
                    async with database.transaction() as tx:
                        await tx.execute(text("INSERT INTO sums VALUES (:n)"), {"n": number})
                        await log.append([said], tx)
                os.write(told, _NUMBER.pack(number))  # in one piece: it is there, or it is not

        async with asyncio.TaskGroup() as group:
            for publisher in range(publishers):
                group.create_task(publish(publisher))


def _die_at(point: int) -> None:
    passed = count(1)
    connect = sqlite3.connect

    def step() -> None:
        if next(passed) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            step()
            done = super().execute(sql, *rest)
            step()
            return done

        def executemany(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            step()
            done = super().executemany(sql, *rest)
            step()
            return done

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Watched, **options)

    sqlite3.connect = watched  # this process does not live to regret it
