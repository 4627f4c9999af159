"""Taking sagas up: those that are due, were told something, or lost their process."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.signal.trace import TraceContext
from seamline.module.errors import Unavailable
from seamline.sagas import hearing
from seamline.sagas.course import Course
from seamline.sagas.errors import NewerJournalError
from seamline.sagas.journal.journal import check_input
from seamline.sagas.journal.records import Head, read_entry, read_work, to_text
from seamline.sagas.journal.statements import INTERRUPTED, Write
from seamline.sagas.life import set_aside

if TYPE_CHECKING:
    from seamline.module.principal import Subject
    from seamline.sagas.engine import Engine

_log = logging.getLogger("seamline.sagas")

TICK_S: Final = 0.5
UNKNOWN_MS: Final = 1000
"""The pause where it cannot be told yet on whose behalf a saga was started."""
UPKEEP_TICKS: Final = 10
FORGET_TICKS: Final = 120


class Intake:
    """Claims for one engine, when woken and now and then."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake = asyncio.Event()
        self._strays: set[str] = set()
        self._known = {kind.name: kind.version for kind in engine.kinds.values()}

    def wake(self) -> None:
        """There may be something to take up."""
        self._wake.set()

    def start(self) -> None:
        tasks = self._engine.tasks
        tasks.spawn(self._ticks(), name="saga ticks")
        tasks.spawn(self._work(), name="saga claims")

    async def _ticks(self) -> None:
        engine, tick = self._engine, 0
        beats = max(int(engine.settings.lease_s / 3 / TICK_S), 1)
        while True:
            await engine.pace.sleep(TICK_S)
            tick += 1
            try:
                if tick % beats == 0 or engine.workers.lost or engine.workers.trouble:
                    await self._beat()
                await engine.workers.look()
                await engine.deliver()
                for course in list(engine.running.values()):
                    course.consider_rest()
                if tick % UPKEEP_TICKS == 0:
                    await self._free_strays()
                if tick % FORGET_TICKS == 0:
                    await self._forget()
            except NewerJournalError as error:
                engine.workers.suspect(error)  # and no new ones are started
                engine.draining = True
                engine.lose()
                return
            except Exception as error:
                engine.workers.suspect(error)
            engine.wake()

    async def _beat(self) -> None:
        if not await self._engine.workers.beat():
            self._engine.lose()
            await self._engine.workers.register()

    async def _free_strays(self) -> None:
        """Sagas that are ours on disk and do not run here: the answer to a claim was lost, or one broke off."""
        engine = self._engine
        sql = "SELECT id FROM seamline_sagas WHERE ended_ms = 0 AND owner = ?"
        found = {str(row[0]) for row in await engine.journal.store.read(sql, (engine.owner,))} - set(engine.running)
        for saga in found & self._strays:
            await engine.journal.combiner.add(Write(engine.owner, [("free", (saga, engine.owner))]))
        self._strays = found

    async def _forget(self) -> None:
        engine = self._engine
        await hearing.forget(engine)
        if engine.settings.retention_s:
            await engine.journal.forget(engine.now_ms() - int(engine.settings.retention_s * 1000))

    async def _work(self) -> None:
        engine = self._engine
        next_due: asyncio.Task[None] | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            if next_due is not None:
                next_due.cancel()
                next_due = None
            try:
                # To look costs nothing; to take would hold the file for a moment, twice a second.
                while (due_ms := await engine.journal.next_due()) is not None and due_ms <= engine.now_ms():
                    if not await self.take_up():
                        break
            except Exception as error:
                engine.workers.suspect(error)
                continue
            if due_ms is not None and due_ms > engine.now_ms() and not engine.draining:
                next_due = engine.tasks.spawn(self._wake_at(due_ms), name="next saga timer")

    async def _wake_at(self, due_ms: int) -> None:
        engine = self._engine
        while (left_ms := due_ms - engine.now_ms()) > 0:
            await engine.clock.sleep(left_ms / 1000)
        self._wake.set()

    async def take_up(self) -> int:
        """Take sagas that are due, as many as there is room for; how many."""
        engine = self._engine
        room = engine.settings.running_max - len(engine.running)
        if engine.draining or room <= 0:
            return 0
        heads = await engine.journal.claim(engine.owner, self._known, engine.now_ms(), room)
        if heads:
            await self._resume(heads)
        return len(heads)

    async def _resume(self, heads: list[Head]) -> None:
        """Go on with sagas that were just claimed."""
        engine = self._engine
        ids = [head.id for head in heads]
        entries = await engine.journal.entries(ids)
        messages = await engine.journal.messages(ids)
        subjects = [await self._subject(head) for head in heads]
        for head, subject in zip(heads, subjects, strict=True):
            course = Course(
                engine, engine.by_name[head.type], head.id, head.key, head.run, head.created_ms, head.began_ms,
                head.input.encode(), TraceContext.from_traceparent(head.trace), head.parent,
            )  # fmt: skip
            engine.running[head.id] = course
            engine.counts["taken_up"] += 1
            course.mail.seen = head.messages
            course.interrupted = head.due_ms == INTERRUPTED
            if isinstance(subject, Unavailable):
                course.due_ms, course.shown = engine.now_ms() + UNKNOWN_MS, _still(head)
                engine.runners.start(set_aside(course))
                continue
            try:
                if isinstance(subject, SeamlineError):
                    raise subject
                course.subject = subject
                check_input(head)
                read = [(seq, read_entry(head.id, seq, text, crc)) for seq, text, crc in entries[head.id]]
                course.remember(read, messages[head.id], head.messages, read_work(head))
            except SeamlineError as error:
                course.halt(error)
                course.shown = head.work
                engine.runners.start(set_aside(course))
                continue
            engine.run(course)

    async def _subject(self, head: Head) -> Subject | SeamlineError | None:
        """On whose behalf a saga was started, or why that cannot be told."""
        engine = self._engine
        if not head.subject or engine.proofs is None:
            return None
        try:
            return await engine.proofs.resume(head.subject, engine.module, f"saga:{head.id}")
        except SeamlineError as error:
            return error


def _still(head: Head) -> str:
    """How a saga stands that is given back before anything was done: as it stood."""
    if head.due_ms != INTERRUPTED:
        return head.work
    return to_text(msgspec.structs.replace(read_work(head), interrupted=True))
