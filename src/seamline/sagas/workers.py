"""Which processes run sagas, and which of them are gone.

A worker counts up its beat in the database. Whoever sees a beat stand still for as long as a lease lasts, by its own
clock that never jumps, takes the worker's place away; a process that ended on this machine is seen at once.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil

from seamline.kernel.clock import Clock
from seamline.sagas.journal import Journal

_log = logging.getLogger("seamline.sagas")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")


def this_process() -> str:
    """This process among all that may share a database: where it runs, its number, when it began."""
    pid = os.getpid()
    return f"{_where()}/{pid}/{psutil.Process(pid).create_time():.2f}"


def _where() -> str:
    """What two processes have in common that see each other's numbers."""
    try:
        return f"{_BOOT.read_text(encoding='ascii').strip()}-{_NAMESPACE.readlink().name[5:-1]}"
    except OSError:
        return f"{os.uname().nodename}-{psutil.boot_time():.0f}"


def certainly_gone(owner: str) -> bool:
    """Whether the process that an owner names ran here and has ended."""
    where, _, rest = owner.partition("/")
    pid, _, began = rest.partition("/")
    if where != _where() or not pid.isdigit():
        return False
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.2f}" != began.partition("#")[0] or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


class Workers:
    """This engine's registration, and its eye on the others."""

    def __init__(self, journal: Journal, process: str, clock: Clock, lease_s: float) -> None:
        self._journal = journal
        self._process = process or this_process()
        self._clock = clock
        self._lease_s = lease_s
        self._seen: dict[str, tuple[int, float]] = {}
        self.owner = ""
        self.trouble: str | None = None
        """Why the journal cannot be written, while it cannot."""

    async def register(self) -> None:
        self.owner = f"{self._process}#{uuid4().hex[:8]}"
        await self._journal.register(self.owner)

    async def leave(self) -> None:
        """Give everything back at once."""
        try:
            await self._journal.take_over(self.owner)
        except Exception:
            _log.warning("the registration of %s stays until its lease ends", self.owner, exc_info=True)

    async def beat(self) -> bool:
        """False when another took our place. Raises NewerJournalError."""
        await self._journal.check_format()
        alive = await self._journal.beat(self.owner)
        if self.trouble is not None:
            _log.info("the journal of sagas can be written again")
            self.trouble = None
        return alive

    def suspect(self, error: BaseException) -> None:
        """The journal could not be written."""
        if self.trouble is None:
            _log.error("the journal of sagas cannot be written: %s: %s", type(error).__name__, error)
        self.trouble = f"{type(error).__name__}: {error}"

    async def look(self) -> int:
        """Take over from workers that are gone; how many sagas became free."""
        now_s, free = self._clock.monotonic(), 0
        found = await self._journal.workers()
        for owner, beat in found.items():
            if owner == self.owner:
                continue
            seen = self._seen.get(owner)
            if seen is None or seen[0] != beat:
                self._seen[owner] = seen = (beat, now_s)
            gone = certainly_gone(owner)
            if gone or now_s - seen[1] >= self._lease_s:
                count = await self._journal.take_over(owner, beat)
                free += count
                _log.info("took over %d sagas from %s, which %s", count, owner,
                          "has ended" if gone else "was not heard of for too long")  # fmt: skip
        self._seen = {owner: seen for owner, seen in self._seen.items() if owner in found}
        return free
