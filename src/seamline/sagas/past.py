"""What a saga's journal says, replayed: each thing is given back at its place, in the order in which it happened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from seamline.sagas import hearing
from seamline.sagas.errors import SagaMismatchError
from seamline.sagas.journal.records import OK, Entry, error_from

if TYPE_CHECKING:
    from seamline.sagas.course import Course

STALL_S: Final = 5.0
"""Branches that replay wait for each other's turn no longer than this."""

QUIET_TICKS: Final = 50
"""Of the event loop, in which branches that are left behind show that they go on."""


class Past:
    """The journal of one run, as far as it was when the saga was taken up.

    Where branches run at once they see what happened in the journal's order, so that they come to the same again.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self.order: list[Entry] = []
        self.cursor = 0
        self.at: dict[str, Entry] = {}
        self.then: dict[str, str] = {}
        """What was under way when the last entry was written: it may have had its effect."""
        self.again: dict[str, int] = {}
        self.undone: dict[str, Entry] = {}
        self.patches: dict[str, bool] = {}
        self.heard: set[str] = set()
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._over: asyncio.Future[None] | None = None

    def remember(self, entries: list[Entry]) -> Exception | None:
        """Take up what is in the journal. Gives why everything is being undone, if it is."""
        failure: Exception | None = None
        order: list[Entry] = []
        for entry in entries:
            kind = entry.kind
            if kind == "failed":
                failure = error_from(self._course.id, entry.outcome, entry.error, entry.output)
            elif kind == "undo":
                self.undone[entry.place] = entry
            elif kind == "patched":
                self.patches[entry.name] = True
            elif kind == "again":
                self.again[entry.place] = self.again.get(entry.place, 0) + 1
                order = [each for each in order if each.place != entry.place]
            else:
                order.append(entry)
                if kind == "event" and entry.outcome == OK:
                    self.heard.add(hearing.heard_id(bytes(entry.output).decode()))
            if kind != "undo":
                self.then = dict(each.split(" ", 1) for each in entry.then)
        self.order = order
        self.at = {entry.place: entry for entry in order}
        # A step that writes its own entry, in its own transaction, may be done while it still counts as under way.
        self.then = {place: name for place, name in self.then.items() if place not in self.at}
        return failure

    @property
    def replaying(self) -> bool:
        return self.cursor < len(self.order)

    async def recall(self, place: str, kind: str, name: str) -> Entry | None:
        """What the journal has for this place, once it is its turn; None when this has not happened yet."""
        entry = self.at.get(place)
        if entry is None:
            return None
        course = self._course
        if entry.kind != kind or entry.name != name:
            course.halt(self.mismatch(place, f"{entry.kind} {entry.name!r}", f"{kind} {name!r}"))
            raise asyncio.CancelledError
        while self.order[self.cursor] is not entry:
            turn = self._turns[place] = course.engine.loop.create_future()
            course.engine.loop.call_later(STALL_S, self._stalled, self.cursor)
            await turn
        self.cursor += 1
        course.now_ms = max(course.now_ms, entry.at_ms)
        if self.replaying:
            following = self._turns.pop(self.order[self.cursor].place, None)
            if following is not None and not following.done():
                following.set_result(None)
        elif self._over is not None and not self._over.done():
            self._over.set_result(None)
        return entry

    def _stalled(self, cursor: int) -> None:
        course = self._course
        if self.cursor == cursor and self._turns and not course.leaving and course.busy == 0:
            entry = self.order[cursor]
            course.halt(self.mismatch(entry.place, f"{entry.kind} {entry.name!r}", "nothing there"))

    async def begins(self, place: str, name: str, *, maybe_begun: bool = False) -> None:
        """Something that is not in the journal begins; maybe again. Raises CancelledError where it may not."""
        course = self._course
        if self.replaying and (course.failure is not None or course.stopping is not None):
            # What the journal has must be seen first, since it is to be undone.
            if self._over is None:
                self._over = course.engine.loop.create_future()
            await asyncio.shield(self._over)
        expected = self.then.pop(place, None) if self.then else None
        if expected is not None and expected != name:
            course.halt(self.mismatch(place, repr(expected), repr(name)))
        # What may have begun before a crash is brought to its end before the saga is stopped, or comes to its own.
        over = course.ending or course.stopping is not None
        if course.leaving or course.halted is not None or course.failure is not None or (over and not maybe_begun):
            raise asyncio.CancelledError

    async def play_out(self) -> None:
        """Let branches that nobody waits for any more see what they saw, and begin again what they had begun."""
        quiet_ticks, before = 0, self._left
        while before != (0, 0) and not self._course.closed and quiet_ticks < QUIET_TICKS:
            await asyncio.sleep(0)
            quiet_ticks = quiet_ticks + 1 if before == self._left else 0
            before = self._left

    @property
    def _left(self) -> tuple[int, int]:
        return len(self.order) - self.cursor, len(self.then)

    def break_off(self) -> None:
        """Nothing is replayed any more."""
        for turn in self._turns.values():
            turn.cancel()
        if self._over is not None:
            self._over.cancel()

    def left_over(self) -> SagaMismatchError | None:
        """The error, where the code has ended and the journal goes on."""
        if self.replaying:
            entry = self.order[self.cursor]
            return self.mismatch(entry.place, f"{entry.kind} {entry.name!r}", "its end")
        if self.then:
            place, name = next(iter(self.then.items()))
            return self.mismatch(place, f"{name!r} under way", "its end")
        return None

    def mismatch(self, place: str, expected: str, found: str) -> SagaMismatchError:
        course = self._course
        return SagaMismatchError(
            f"saga {course.id!r} of type {course.kind.name!r}, place {place}: its journal has {expected}, "
            f"its code has {found}",
            'Deploy the code it began with, or put the change behind `if s.patched("..."):`, or give the new course a '
            "new `version=`; take time and chance from s.now(), s.random() and s.uuid(). "
            f"Then `seamline sagas retry {course.id}`",
        )
