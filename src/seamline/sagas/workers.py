"""Which processes run sagas, and which of them are gone.

A worker counts up its beat in the database. Whoever sees a beat stand still for as long as a lease lasts takes the
worker's place away; a process that ended on this machine is seen at once. The time is summed up from one look to the
next, of which each counts for little: neither a clock that jumps nor a watcher that was held up itself ends a lease.
"""

from __future__ import annotations

import logging
from uuid import uuid4

from seamline.kernel.clock import Clock
from seamline.kernel.owner import is_gone, process_owner
from seamline.sagas.journal import Journal

_log = logging.getLogger("seamline.sagas")


class Workers:
    """This engine's registration, and its eye on the others."""

    def __init__(self, journal: Journal, process: str, clock: Clock, lease_s: float) -> None:
        self._journal = journal
        self._process = process or process_owner("sagas")
        self._clock = clock
        self._lease_s = lease_s
        self._looked_s = 0.0
        self._silent: dict[str, tuple[int, float]] = {}
        self.owner = ""
        self.lost = False
        """Whether another took our place, and we have no new one yet."""
        self.trouble: str | None = None
        """Why the journal cannot be written, while it cannot."""

    async def register(self) -> None:
        self.owner = f"{self._process}#{uuid4().hex[:8]}"
        await self._journal.register(self.owner)
        self.lost = False

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
        passed_s = min(now_s - self._looked_s, self._lease_s / 3)
        self._looked_s = now_s
        found = await self._journal.workers()
        for owner, beat in found.items():
            if owner == self.owner:
                continue
            known = self._silent.get(owner)
            silent_s = known[1] + passed_s if known is not None and known[0] == beat else 0.0
            self._silent[owner] = (beat, silent_s)
            gone = is_gone(owner.partition("#")[0])
            if gone or silent_s >= self._lease_s:
                count = await self._journal.take_over(owner, beat)
                free += count
                _log.info("took over %d sagas from %s, which %s", count, owner,
                          "has ended" if gone else "was not heard of for too long")  # fmt: skip
        self._silent = {owner: silent for owner, silent in self._silent.items() if owner in found}
        return free
