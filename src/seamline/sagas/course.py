"""One saga at work in this process: its function runs, and what is in its journal already is not done again.

What happens to a saga is put down at once and written with the next thing that must wait for it: a step begins only
when all before it is on disk, and the last step's result goes to disk with the saga's end.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.signal.trace import TraceContext
from seamline.sagas import steps
from seamline.sagas.journal.records import (
    LEFT,
    OK,
    UNKNOWN,
    Entry,
    Message,
    Trouble,
    Waiting,
    Work,
    error_from,
    to_text,
)
from seamline.sagas.mail import Mail
from seamline.sagas.past import Past
from seamline.sagas.pen import Pen
from seamline.sagas.places import Places
from seamline.sagas.saga import Step, Wait
from seamline.sagas.undo import Undo

if TYPE_CHECKING:
    from seamline.module.principal import Subject
    from seamline.sagas.engine import Engine
    from seamline.sagas.kinds import Kind


_WENT_ON: ContextVar[str] = ContextVar("seamline_saga_went_on", default="")
"""The saga that did something new in this branch since it was taken up from a process that died."""


class Course:
    """One run of one saga, from its start or from what its journal says, until it ends or leaves memory."""

    def __init__(
        self,
        engine: Engine,
        kind: Kind,
        saga: str,
        key: str,
        run: int,
        created_ms: int,
        began_ms: int,
        data: bytes,
        trace: TraceContext | None,
        parent: str = "",
    ) -> None:
        self.engine = engine
        self.kind = kind
        self.id = saga
        self.key = key
        self.run = run
        self.created_ms = created_ms
        self.began_ms = self.now_ms = began_ms
        self.data = data
        self.trace = trace
        """Its span is the saga's."""
        self.parent_span = 0
        """The span in which it was started, as far as this process knows."""
        self.parent = parent
        self.subject: Subject | None = None
        """On whose behalf it was started."""
        self.prefix = f"{saga}:" if run == 1 else f"{saga}:{run}:"
        self.fresh = True
        self.interrupted = False
        """Taken up from a process that died: what it had under way may have had its effect."""
        self.cut = False
        """It leaves in the middle of a step."""
        self.task: asyncio.Task[Any] | None = None
        self.places = Places(self)
        self.mail = Mail(self)
        self.past = Past(self)
        self.pen = Pen(self)
        self.failure: Exception | None = None
        """Why everything is undone, once that is in the journal."""
        # What goes on.
        self.busy = 0
        self.quiet: asyncio.Future[None] | None = None
        self.underway: dict[str, str] = {}
        self.waits: dict[str, Wait[Any]] = {}
        self.listened = False
        self.trouble: dict[str, Trouble] = {}
        self.notes: dict[str, msgspec.Raw] = {}
        self.undos: list[Undo] = []
        self.pivoted = False
        self.stopping: Exception | None = None
        """Cancelled, or out of time: it ends at the next boundary."""
        self.ending = False
        self.leaving = False
        self.due_ms: int | None = 0
        self.shown: str | None = None
        """How it stood, where nothing was done with it."""
        self._waits_shown: list[Waiting] | None = None
        """What it waited for when it was told to leave."""
        self.raised: dict[str, Exception] = {}
        self.halted: SeamlineError | None = None
        self.lost = False

    def remember(self, entries: list[tuple[int, Entry]], messages: list[Message], seen: int, work: Work) -> None:
        """Take up what is in the journal."""
        self.fresh = False
        self.trouble = work.trouble
        self.interrupted = self.interrupted or work.interrupted
        self.notes = work.notes
        if entries:
            self.pen.seq = entries[-1][0]
        self.failure = self.past.remember([entry for _, entry in entries])
        self.mail.remember(messages, seen, work.refused)

    # Places.

    def key_of(self, place: str) -> str:
        """What calls for a place carry. A step that is asked anew after its answer has another one."""
        again = self.past.again.get(place)
        return f"{self.prefix}{place}" if again is None else f"{self.prefix}{place}:again{again}"

    def check_subject(self) -> None:
        """Raise Unauthenticated when on whose behalf it was started is revoked."""
        if self.subject is not None and self.engine.proofs is not None:
            self.engine.proofs.check(self.subject)

    @property
    def subject_of_undo(self) -> Subject | None:
        """On whose behalf it takes back: its own module's alone once the user is revoked."""
        proofs = self.engine.proofs
        if self.subject is None or proofs is None or proofs.refuses(self.subject) is not None:
            return None
        return self.subject

    @property
    def closed(self) -> bool:
        return self.leaving or self.ending or self.halted is not None or self.failure is not None

    # What happens.

    async def perform(self, step: Step[Any]) -> Any:
        place = step.place
        if self.past.at:
            entry = await self.past.recall(place, "step", step.name)
            if entry is not None:
                return self._recalled(step, entry)
        # What was under way when a process died is the first that is not in the journal, in each branch.
        maybe_begun = self.interrupted and _WENT_ON.get() != self.id
        if not self.fresh or self.closed or self.stopping is not None:
            await self.past.begins(place, step.name, maybe_begun=maybe_begun)
        self.underway[place] = step.name
        self.busy += 1
        try:
            if not self.pen.idle:
                await self.pen.flush()
            try:
                entry, value = await steps.attempt(self, step, maybe_begun=maybe_begun)
            except asyncio.CancelledError as cancelled:
                if self.leaving or self.halted is not None:
                    self.cut = True
                    raise
                # The saga's own code gave the step up, as a TaskGroup does when another of its branches fails.
                entry, value = steps.left(self, step), cancelled
        finally:
            del self.underway[place]
            self.leave_work()
        self._ended(step, entry, value)
        self.went_on()
        if self.busy:
            self.engine.loop.call_soon(self.pen.flush_soon)
        if self.stopping is not None or self.closed:
            raise asyncio.CancelledError
        if entry.outcome != OK:
            raise self._noted(place, value)
        return value

    def went_on(self) -> None:
        """Something that was not in the journal has ended: what this branch begins now had not begun before."""
        if self.interrupted:
            _WENT_ON.set(self.id)

    def _noted(self, place: str, error: BaseException) -> BaseException:
        if isinstance(error, Exception):
            self.raised[place] = error
        return error

    def leave_work(self) -> None:
        self.busy -= 1
        if self.busy == 0:
            if self.quiet is not None and not self.quiet.done():
                self.quiet.set_result(None)
            if self.waits:
                self.engine.loop.call_soon(self.consider_rest)

    def _recalled(self, step: Step[Any], entry: Entry) -> Any:
        arguments = step.callee.arguments
        if arguments is not None and not arguments.same(bytes(entry.input), arguments.encode(step.arguments)):
            given = arguments.encode(step.arguments).decode()
            self.halt(
                self.past.mismatch(step.place, f"{step.name}{bytes(entry.input).decode()}", f"{step.name}{given}")
            )
            raise asyncio.CancelledError
        try:
            value: Any
            if entry.outcome == OK:
                value = step.callee.decode_result(entry.output)
            elif entry.outcome == LEFT:
                value = asyncio.CancelledError()
            else:
                value = error_from(self.id, entry.outcome, entry.error, entry.output)
        except SeamlineError as error:
            self.halt(error)
            raise asyncio.CancelledError from None
        self._register(step, entry, value)
        if entry.outcome != OK:
            raise self._noted(step.place, value)
        return value

    def _ended(self, step: Step[Any], entry: Entry, value: Any) -> None:
        """A step has its outcome: put it down, for the next write."""
        if self.trouble and self.trouble.pop(step.place, None) is not None:
            self.pen.dirty = True
        self.now_ms = max(self.now_ms, entry.at_ms)
        if entry.kind:  # else it is in the journal already, with what the step wrote
            self.pen.put_down(entry)
        self._register(step, entry, value)

    def _register(self, step: Step[Any], entry: Entry, value: Any) -> None:
        if step.undo is not None and entry.outcome in (OK, UNKNOWN, LEFT) and not self.pivoted:
            self.undos.append(
                Undo(
                    step.place,
                    step.name,
                    step.undo,
                    step.arguments,
                    value if entry.outcome == OK else None,
                    step if entry.outcome in (UNKNOWN, LEFT) else None,
                )
            )

    def pivot(self) -> None:
        self.pivoted = True
        self.undos.clear()

    def patched(self, name: str) -> bool:
        found = self.past.patches.get(name)
        if found is None:
            # What began before the change must be finished as it began.
            past = self.past
            begun = past.replaying or past.then or self.failure is not None or not (self.fresh or past.order)
            found = not begun
            self.past.patches[name] = found
            if found:
                self.pen.put_down(Entry("", "patched", name, self.now_ms))
        return found

    def note(self, values: dict[str, Any]) -> None:
        self.notes.update({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()})
        self.pen.dirty = True

    @property
    def status(self) -> str:
        return "undoing" if self.failure is not None else "running"

    def work(self) -> str:
        """What people see of it."""
        waits = self._waits_shown if self._waits_shown is not None else self._waiting()
        refused = self.mail.refused
        if not (waits or self.trouble or self.notes or refused or self.interrupted):
            return ""
        return to_text(Work(waits, self.trouble, self.notes, refused, self.interrupted))

    def _waiting(self) -> list[Waiting]:
        return [
            Waiting(wait.place, wait.kind, wait.name, wait.due_ms, wait.shown)
            for wait in self.waits.values()
            if wait.kind != "pause"
        ]

    def stuck(self) -> str:
        if self.halted is not None:
            return str(self.halted)
        limit_ms = self.engine.now_ms() - self.engine.stuck_ms
        for place, trouble in self.trouble.items():
            if trouble.since_ms <= limit_ms or trouble.given_up:
                return f"{place} {trouble.name} has failed {trouble.attempts} times: {trouble.error}"
        return ""

    # Stopping and leaving.

    def stop(self, error: Exception) -> bool:
        """End it at the next boundary and undo what it did. False when it is too late for that."""
        if self.failure is not None or self.stopping is not None or self.pivoted:
            return False
        self.stopping = error
        if not self.past.replaying:
            for wait in list(self.waits.values()):
                if wait.kind == "child":
                    self.engine.starts.cancel_child(wait, error)
                elif wait.future is not None:
                    wait.future.cancel()
        return True

    def halt(self, error: SeamlineError) -> None:
        """Stop it where it is, for a person to look at."""
        if self.halted is None:
            self.halted = error
            self.due_ms = None
            self.wake_waits()
            self.past.break_off()

    def close(self, due_ms: int | None) -> None:
        """Leave memory at the next boundary; to be taken up again at ``due_ms``, or when it is told something."""
        if self.leaving:
            return
        self.leaving = True
        self.due_ms = due_ms
        self._waits_shown = self._waiting()
        self.wake_waits()
        self.past.break_off()

    def wake_waits(self) -> None:
        """Nothing is waited for any more."""
        for wait in list(self.waits.values()):
            if wait.future is not None:
                wait.future.cancel()

    def lose(self) -> None:
        """Another process has it now."""
        self.lost = self.leaving = True
        if self.task is not None:
            self.task.cancel()

    def pausing(self, place: str, due_ms: int) -> asyncio.Future[None]:
        """What a failed attempt waits for before the next."""
        wait: Wait[None] = Wait(self, place, "pause", place, None, lambda _: None)
        future = wait.future = self.engine.loop.create_future()
        wait.since = self.engine.pace.monotonic()
        wait.due_ms = due_ms
        self.waits[f"{place} again"] = wait
        return future

    def consider_rest(self) -> None:
        """Leave memory if there is nothing to do but wait for long."""
        if self.busy or self.closed or self.stopping is not None or self.past.replaying or not self.waits:
            return
        engine = self.engine
        now_ms, now_s = engine.now_ms(), engine.pace.monotonic()
        for wait in self.waits.values():
            if wait.future is None or wait.future.done():
                return
            soon = wait.due_ms and wait.due_ms - now_ms <= engine.idle_ms
            if soon or not (
                wait.kind in ("sleep", "approval", "pause") or now_s - wait.since >= engine.settings.idle_s
            ):
                return
        dues = [wait.due_ms for wait in self.waits.values() if wait.due_ms]
        if self.kind.timeout_ms:
            dues.append(self.created_ms + self.kind.timeout_ms)
        self.close(min(dues) if dues else None)
