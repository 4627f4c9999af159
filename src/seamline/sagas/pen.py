"""What happened to a saga and is not on disk yet, and its way there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from seamline.sagas.journal.records import Entry, entry_row
from seamline.sagas.journal.statements import Statement

if TYPE_CHECKING:
    from seamline.sagas.course import Course


class Pen:
    """Writes one saga's journal."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self.seq = 0
        self.pending: list[Entry] = []
        self.taken: list[int] = []
        """Messages that what is pending has answered."""
        self.dirty = False
        """Whether what people see of the saga has changed."""
        self._on_its_way: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether all is on disk; what people see apart."""
        return not self.pending and self._on_its_way is None

    def put_down(self, entry: Entry) -> None:
        """To be written with the next that is."""
        self.pending.append(entry)

    def row(self, entry: Entry) -> tuple[str, int, str, int]:
        """An entry that is written by itself, with its number."""
        self.seq += 1
        return entry_row(self._course.id, self.seq, entry)

    def statements(self) -> list[Statement]:
        """What is pending, for the journal; it is then no longer pending."""
        course = self._course
        statements: list[Statement] = []
        if self.pending:
            pending, self.pending = self.pending, []
            if course.underway:
                pending[-1].then = [f"{place} {name}" for place, name in course.underway.items()]
            statements = [("entry", self.row(entry)) for entry in pending]
        if self.taken:
            statements += [("take", (course.id, number)) for number in self.taken]
            self.taken = []
        if self.dirty:
            self.dirty = False
            now_ms = course.engine.now_ms()
            statements.append(("work", (course.status, course.work(), course.stuck(), now_ms, course.id)))
        return statements

    async def flush(self) -> None:
        """Write what is pending; return when that, and all that was on its way, is on disk.

        Raises CancelledError when the saga was lost.
        """
        before, statements = self._on_its_way, self.statements()
        if not statements:
            return await self.settle()
        written = self._on_its_way = self._course.engine.loop.create_future()
        try:
            await self._keep(before, statements, written)
        except asyncio.CancelledError:
            # Only the branch that waits was cancelled: others rely on what it writes.
            if not self._course.lost:
                again = self._keep(before, statements, written)
                self._course.engine.tasks.spawn(again, name=f"journal of {self._course.id}")
            raise
        return None

    async def _keep(
        self, before: asyncio.Future[None] | None, statements: list[Statement], written: asyncio.Future[None]
    ) -> None:
        """Write statements after those before them, which may be held up."""
        if before is not None:
            await asyncio.shield(before)
        try:
            await self._course.engine.keep(self._course, statements)
        except BaseException:
            if self._course.lost:
                written.cancel()  # nobody may go on as if it were on disk
            raise
        if self._on_its_way is written:
            self._on_its_way = None
        written.set_result(None)

    def flush_soon(self) -> None:
        """Write what is pending while the saga goes on elsewhere."""
        if (self.pending or self.dirty) and not self._course.lost:
            self._course.engine.tasks.spawn(self.flush(), name=f"journal of {self._course.id}")

    async def settle(self) -> None:
        """Wait for what is on its way to disk."""
        if self._on_its_way is not None:
            await asyncio.shield(self._on_its_way)
