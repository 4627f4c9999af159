"""One saga at work in this process: its function runs, and what is in its journal already is not done again.

What happens to a saga is put down at once and written with the next thing that must wait for it: a step begins only
when all before it is on disk, and the last step's result goes to disk with the saga's end.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.signal.trace import TraceContext
from seamline.module.context import CURRENT, CallContext
from seamline.sagas import steps
from seamline.sagas.errors import SagaCancelled, SagaMismatchError, SagaUseError
from seamline.sagas.journal.records import (
    OK,
    UNKNOWN,
    Entry,
    Message,
    Trouble,
    Waiting,
    Work,
    end_text,
    entry_row,
    error_from,
    outcome_of,
    to_text,
)
from seamline.sagas.journal.statements import Statement
from seamline.sagas.saga import Saga, Step, Wait
from seamline.sagas.undo import Undo, compensate

if TYPE_CHECKING:
    from seamline.sagas.engine import Engine
    from seamline.sagas.kinds import Kind

STALL_S: Final = 5.0
"""Branches that replay wait for each other's turn no longer than this."""

QUIET_TICKS: Final = 50
"""Of the event loop, in which branches that are left behind show that they go on."""


class Branch:
    """A task of the saga's own, as ``asyncio.gather`` makes them; it counts its places apart from others."""

    __slots__ = ("branches", "lots", "path", "places", "task")

    def __init__(self, path: str, task: asyncio.Task[Any] | None) -> None:
        self.path = path
        self.task = task
        self.places = 0
        self.branches = 0
        self.lots: random.Random | None = None


_BRANCH: ContextVar[Branch] = ContextVar("seamline_saga_branch")


class Renewed(BaseException):
    """Leaves the saga's function when it continues as new."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.arguments = arguments


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
        self.now_ms = began_ms
        self.data = data
        self.trace = trace
        self.parent = parent
        self.prefix = f"{saga}:" if run == 1 else f"{saga}:{run}:"
        self.fresh = True
        self.task: asyncio.Task[Any] | None = None
        self.main = Branch("", None)
        # What the journal says.
        self.order: list[Entry] = []
        self.cursor = 0
        self.past: dict[str, Entry] = {}
        self.turns: dict[str, asyncio.Future[None]] = {}
        self.over: asyncio.Future[None] | None = None
        self.then: dict[str, str] = {}
        self.again: dict[str, int] = {}
        self.undone: dict[str, Entry] = {}
        self.patches: dict[str, bool] = {}
        self.failure: Exception | None = None
        """Why everything is undone, once that is in the journal."""
        # What is to be written.
        self.seq = 0
        self.pending: list[Entry] = []
        self.taken: list[int] = []
        self.dirty = False
        self.writing: asyncio.Task[None] | None = None
        # What goes on.
        self.unstarted = 0
        self.busy = 0
        self.quiet: asyncio.Future[None] | None = None
        self.underway: dict[str, str] = {}
        self.waits: dict[str, Wait[Any]] = {}
        self.messages: list[Message] = []
        self.seen = 0
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
        self.before = ""
        self.raised: dict[int, str] = {}
        self.halted: SeamlineError | None = None
        self.lost = False

    # What was.

    def remember(self, entries: list[tuple[int, Entry]], messages: list[Message], seen: int, work: Work) -> None:
        """Take up what is in the journal."""
        self.fresh = False
        order: list[Entry] = []
        for seq, entry in entries:
            self.seq = seq
            kind = entry.kind
            if kind == "failed":
                self.failure = error_from(self.id, entry.outcome, entry.error, entry.output)
            elif kind == "undo":
                self.undone[entry.place] = entry
            elif kind == "patched":
                self.patches[entry.name] = True
            elif kind == "again":
                self.again[entry.place] = self.again.get(entry.place, 0) + 1
                order = [each for each in order if each.place != entry.place]
            else:
                order.append(entry)
            if kind != "undo":
                self.then = dict(each.split(" ", 1) for each in entry.then)
        self.order = order
        self.past = {entry.place: entry for entry in order}
        self.messages = messages
        self.seen = max([seen, *(message.n for message in messages)])
        self.trouble = work.trouble
        self.notes = work.notes
        for message in [each for each in messages if each.kind in ("retry", "skip")]:
            messages.remove(message)
            self.taken.append(message.n)
            self.try_again(message)

    @property
    def replaying(self) -> bool:
        return self.cursor < len(self.order)

    # Places.

    def branch(self) -> Branch:
        task = asyncio.current_task()
        if task is self.task:
            return self.main
        found = _BRANCH.get(self.main)
        if found.task is not task:
            found.branches += 1
            found = Branch(f"{found.path}b{found.branches}.", task)
            _BRANCH.set(found)
        return found

    def take_place(self) -> str:
        self.unstarted += 1
        if asyncio.current_task() is self.task:
            main = self.main
            main.places += 1
            return str(main.places)
        branch = self.branch()
        branch.places += 1
        return f"{branch.path}{branch.places}"

    def key_of(self, place: str) -> str:
        """What calls for a place carry. A step that is asked anew after its answer has another one."""
        again = self.again.get(place)
        return f"{self.prefix}{place}" if again is None else f"{self.prefix}{place}:again{again}"

    def lots(self) -> random.Random:
        branch = self.branch()
        if branch.lots is None:
            branch.lots = random.Random(f"{self.prefix}{branch.path}")
        return branch.lots

    async def recall(self, place: str, kind: str, name: str) -> Entry | None:
        """What the journal has for this place, once it is its turn; None when this has not happened yet."""
        entry = self.past.get(place)
        if entry is None:
            return None
        if entry.kind != kind or entry.name != name:
            self.halt(self.mismatch(place, f"{entry.kind} {entry.name!r}", f"{kind} {name!r}"))
            raise asyncio.CancelledError
        while self.order[self.cursor] is not entry:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.turns[place] = turn
            asyncio.get_running_loop().call_later(STALL_S, self._stalled, self.cursor)
            await turn
        self.cursor += 1
        self.now_ms = max(self.now_ms, entry.at_ms)
        if self.cursor < len(self.order):
            next_turn = self.turns.pop(self.order[self.cursor].place, None)
            if next_turn is not None and not next_turn.done():
                next_turn.set_result(None)
        elif self.over is not None and not self.over.done():
            self.over.set_result(None)
        return entry

    def _stalled(self, cursor: int) -> None:
        if self.cursor == cursor and self.turns and not self.leaving and self.busy == 0:
            entry = self.order[cursor]
            self.halt(self.mismatch(entry.place, f"{entry.kind} {entry.name!r}", "nothing there"))

    async def begins(self, place: str, name: str) -> None:
        """Something that is not in the journal begins. Raises CancelledError where it may not."""
        if self.replaying and (self.failure is not None or self.stopping is not None):
            await self._replayed()  # what the journal has must be seen, since it is to be undone
        expected = self.then.pop(place, None) if self.then else None
        if expected is not None and expected != name:
            self.halt(self.mismatch(place, repr(expected), repr(name)))
        # What may have begun before a crash is brought to its end before the saga is stopped.
        maybe_begun = expected is not None or not (self.fresh or self.order)
        if self.closed or (self.stopping is not None and not maybe_begun):
            raise asyncio.CancelledError

    async def _replayed(self) -> None:
        if self.over is None:
            self.over = asyncio.get_running_loop().create_future()
        await asyncio.shield(self.over)

    @property
    def closed(self) -> bool:
        return self.leaving or self.ending or self.halted is not None or self.failure is not None

    def mismatch(self, place: str, expected: str, found: str) -> SagaMismatchError:
        return SagaMismatchError(
            f"saga {self.id!r} of type {self.kind.name!r}, place {place}: its journal has {expected}, "
            f"its code has {found}",
            'Deploy the code it began with, or put the change behind `if s.patched("..."):`, or give the new course a '
            "new `version=`; take time and chance from s.now(), s.random() and s.uuid(). "
            f"Then `seamline sagas retry {self.id}`",
        )

    # What happens.

    async def perform(self, step: Step[Any]) -> Any:
        place = step.place
        if self.past:
            entry = await self.recall(place, "step", step.name)
            if entry is not None:
                return self._recalled(step, entry)
        if not self.fresh or self.closed or self.stopping is not None:
            await self.begins(place, step.name)
        self.underway[place] = step.name
        self.busy += 1
        try:
            if self.pending or self.writing is not None:
                await self.flush()
            entry, value = await steps.attempt(self, step)
        finally:
            del self.underway[place]
            self.leave_work()
        self._ended(step, entry, value)
        if self.busy:
            self.engine.loop.call_soon(self.flush_soon)
        if self.stopping is not None or self.closed:
            raise asyncio.CancelledError
        if entry.outcome != OK:
            self.raised[id(value)] = place
            raise value
        return value

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
            self.halt(self.mismatch(step.place, f"{step.name}{bytes(entry.input).decode()}", f"{step.name}{given}"))
            raise asyncio.CancelledError
        try:
            if entry.outcome == OK:
                value = step.callee.decode_result(entry.output)
            else:
                value = error_from(self.id, entry.outcome, entry.error, entry.output)
        except SeamlineError as error:
            self.halt(error)
            raise asyncio.CancelledError from None
        self._register(step, entry, value)
        if entry.outcome != OK:
            self.raised[id(value)] = step.place
            raise value
        return value

    def _ended(self, step: Step[Any], entry: Entry, value: Any) -> None:
        """A step has its outcome: put it down, for the next write."""
        if self.trouble and self.trouble.pop(step.place, None) is not None:
            self.dirty = True
        self.now_ms = max(self.now_ms, entry.at_ms)
        if entry.kind:  # else it is in the journal already, with what the step wrote
            self.pending.append(entry)
        self._register(step, entry, value)

    def _register(self, step: Step[Any], entry: Entry, value: Any) -> None:
        if step.undo is not None and entry.outcome in (OK, UNKNOWN) and not self.pivoted:
            self.undos.append(
                Undo(
                    step.place,
                    step.name,
                    step.undo,
                    step.arguments,
                    value if entry.outcome == OK else None,
                    step if entry.outcome == UNKNOWN else None,
                )
            )

    def pivot(self) -> None:
        self.pivoted = True
        self.undos.clear()

    def patched(self, name: str) -> bool:
        found = self.patches.get(name)
        if found is None:
            # What began before the change must be finished as it began.
            found = not self.replaying and not self.then and (self.fresh or bool(self.order)) and self.failure is None
            self.patches[name] = found
            if found:
                self.put_down(Entry("", "patched", name, self.now_ms))
        return found

    def note(self, values: dict[str, Any]) -> None:
        self.notes.update({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()})
        self.dirty = True

    def renew(self, arguments: tuple[Any, ...]) -> None:
        raise Renewed(arguments)

    # Writing.

    def put_down(self, entry: Entry) -> None:
        self.pending.append(entry)

    def written(self) -> list[Statement]:
        """What is to be written, as statements; it is then no longer pending."""
        pending, self.pending = self.pending, []
        statements: list[Statement] = []
        if pending:
            if self.underway:
                pending[-1].then = [f"{place} {name}" for place, name in self.underway.items()]
            saga, seq = self.id, self.seq
            for entry in pending:
                seq += 1
                statements.append(("entry", entry_row(saga, seq, entry)))
            self.seq = seq
        if self.taken:
            statements += [("take", (self.id, number)) for number in self.taken]
            self.taken = []
        if self.dirty:
            self.dirty = False
            statements.append(("work", (self.status, self.work(), self.stuck(), self.engine.now_ms(), self.id)))
        return statements

    def row(self, entry: Entry) -> tuple[str, int, str, int]:
        """An entry that is written by itself, with its number."""
        self.seq += 1
        return entry_row(self.id, self.seq, entry)

    async def flush(self) -> None:
        """Write what is pending; return when it is on disk. Raises CancelledError when the saga was lost."""
        statements = self.written()
        if self.writing is not None:
            writing, self.writing = self.writing, None
            await asyncio.shield(writing)
        if statements:
            await self.engine.keep(self, statements)

    def flush_soon(self) -> None:
        """Write what is pending while the saga goes on elsewhere."""
        if (self.pending or self.dirty) and not self.lost:
            before = self.writing
            self.writing = self.engine.tasks.spawn(
                self._flush_after(before, self.written()), name=f"journal of {self.id}"
            )

    async def _flush_after(self, before: asyncio.Task[None] | None, statements: list[Statement]) -> None:
        if before is not None:
            await before
        await self.engine.keep(self, statements)

    @property
    def status(self) -> str:
        return "undoing" if self.failure is not None else "running"

    def work(self) -> str:
        """What people see of it."""
        waits = [
            Waiting(wait.place, wait.kind, wait.name, wait.due_ms, wait.shown)
            for wait in self.waits.values()
            if wait.kind != "pause"
        ]
        return to_text(Work(waits, self.trouble, self.notes)) if waits or self.trouble or self.notes else ""

    def stuck(self) -> str:
        if self.halted is not None:
            return str(self.halted)
        limit_ms = self.engine.now_ms() - self.engine.stuck_ms
        for place, trouble in self.trouble.items():
            if trouble.since_ms <= limit_ms or trouble.given_up:
                return f"{place} {trouble.name} has failed {trouble.attempts} times: {trouble.error}"
        return ""

    # Its life.

    async def live(self) -> None:
        """Run until it ends, or leaves memory."""
        self.task = asyncio.current_task()
        kind = self.kind
        token = CURRENT.set(CallContext(self.engine.module, self.engine.module, kind.label, trace=self.trace))
        try:
            await self._live()
        except asyncio.CancelledError:
            if not self.lost:
                self.engine.dropped(self, None)
        except Exception as error:  # of the engine's own making, or of its database
            self.engine.dropped(self, error)
        finally:
            CURRENT.reset(token)
            self.engine.left(self)

    async def rest_halted(self) -> None:
        """Give it back as it was: it cannot be read."""
        self.task = asyncio.current_task()
        self.shown = self.before
        try:
            await self.leave()
        finally:
            self.engine.left(self)

    async def _live(self) -> None:
        kind = self.kind
        if self.messages:
            self.engine.loop.call_soon(self.answer)
        value: Any = None
        error: Exception | None = None
        try:
            given = dict(zip(kind.input.names, kind.input.decode(self.data), strict=True))
            value = await kind.function(Saga(self), **kind.wired, **given)
        except asyncio.CancelledError:
            if not (self.closed or self.stopping):
                error = SagaUseError("its code was cancelled from within", "Do not cancel the saga's own task")
        except Renewed as renewed:
            if not self.closed and self.stopping is None:
                return await self._renew(renewed.arguments)
        except Exception as raised:
            error = raised
        await self._settle()
        if self.leaving:
            return await self.leave()
        if self.halted is None and self.failure is None and (self.replaying or self.then):
            self._halt_early()
        if self.halted is not None:
            return await self.leave()
        if self.unstarted > 0 and error is None and self.stopping is None and self.failure is None:
            error = SagaUseError(
                f"saga {self.id!r} ended with {self.unstarted} steps that were not awaited", "Await each of them"
            )
        failure = self.failure or self.stopping or error
        if failure is None:
            failure = await self._succeed(value)
        if failure is not None:
            await self._fail(failure)

    def _halt_early(self) -> None:
        if self.replaying:
            entry = self.order[self.cursor]
            self.halt(self.mismatch(entry.place, f"{entry.kind} {entry.name!r}", "its end"))
        else:
            place, name = next(iter(self.then.items()))
            self.halt(self.mismatch(place, f"{name!r} under way", "its end"))

    async def _settle(self) -> None:
        """Wait for what was begun and not waited for, such as the other branches when one of them failed."""
        quiet_ticks, cursor = 0, self.cursor
        while self.replaying and not (self.leaving or self.halted) and quiet_ticks < QUIET_TICKS:
            await asyncio.sleep(0)
            quiet_ticks = quiet_ticks + 1 if cursor == self.cursor else 0
            cursor = self.cursor
        self.ending = True
        for wait in list(self.waits.values()):
            if wait.future is not None:
                wait.future.cancel()
        while self.busy:
            self.quiet = self.engine.loop.create_future()
            await self.quiet
        for turn in self.turns.values():
            turn.cancel()
        if self.over is not None:
            self.over.cancel()

    async def _renew(self, arguments: tuple[Any, ...]) -> None:
        await self._settle()
        data = self.kind.input.encode(self.kind.arguments(arguments, {}))
        await self.engine.renew(self, data)

    async def _succeed(self, value: Any) -> Exception | None:
        """End well; or say why not."""
        try:
            output = msgspec.Raw(self.kind.result.encode(value))
        except Exception as error:  # whatever the codec's library raises
            return SagaUseError(f"saga {self.id!r} gave what its result's type does not allow: {error}")
        # A step that failed without an answer may have had its effect after all: not with this saga's blessing.
        if any(undo.unsettled is not None for undo in self.undos):
            await self.flush()
            if not await compensate(self, [undo for undo in self.undos if undo.unsettled is not None]):
                await self.leave()
                return None
        await self.engine.end(self, "succeeded", end_text(OK, "", output))
        return None

    async def _fail(self, failure: Exception) -> None:
        """Undo everything, and end badly."""
        kind, error, output = outcome_of(failure)
        if self.failure is None:
            if self.pivoted:
                return await self._go_on_later(failure)
            self.failure = failure
            self.put_down(Entry("", "failed", type(failure).__name__, self.now_ms, kind, output=output, error=error))
            if self.undos:
                self.dirty = True
                await self.flush()
        if self.undos and not await compensate(self, self.undos):
            return await self.leave()
        status = "cancelled" if isinstance(failure, SagaCancelled) else "failed"
        await self.engine.end(self, status, end_text(kind, error, output))

    async def _go_on_later(self, failure: Exception) -> None:
        """Past the point of no return: the step that failed is asked again, as if for the first time."""
        place = self.raised.get(id(failure))
        if place is None:
            self.halted = SagaUseError(
                f"saga {self.id!r} failed past its point of no return: {type(failure).__name__}: {failure}",
                f"Correct its code, then `seamline sagas retry {self.id}`",
            )
            return await self.leave()
        now_ms = self.engine.now_ms()
        name = next((entry.name for entry in (*self.pending, *self.order) if entry.place == place), "")
        trouble = self.trouble.get(f"again {place}") or Trouble(name, 0, now_ms, "")
        trouble.attempts += 1
        trouble.error = str(failure)
        trouble.given_up = True
        trouble.due_ms = now_ms + int(self.engine.pause_s(trouble.attempts) * 1000)
        self.trouble[f"again {place}"] = trouble
        self.put_down(Entry(place, "again", name, now_ms))
        self.due_ms = trouble.due_ms
        await self.leave()

    # Stopping and leaving.

    def stop(self, error: Exception) -> bool:
        """End it at the next boundary and undo what it did. False when it is too late for that."""
        if self.failure is not None or self.stopping is not None or self.pivoted:
            return False
        self.stopping = error
        if not self.replaying:
            for wait in list(self.waits.values()):
                if wait.kind == "child":
                    self.engine.cancel_child(wait, error)
                elif wait.future is not None:
                    wait.future.cancel()
        return True

    def halt(self, error: SeamlineError) -> None:
        """Stop it where it is, for a person to look at."""
        if self.halted is None:
            self.halted = error
            self.due_ms = None
            for future in (*self.turns.values(), *(wait.future for wait in self.waits.values())):
                if future is not None:
                    future.cancel()
            if self.over is not None:
                self.over.cancel()

    def close(self, due_ms: int | None) -> None:
        """Leave memory at the next boundary; to be taken up again at ``due_ms``, or when it is told something."""
        if self.leaving:
            return
        self.leaving = True
        self.due_ms = due_ms
        self.shown = self.work()
        for wait in list(self.waits.values()):
            if wait.future is not None:
                wait.future.cancel()
        for turn in self.turns.values():
            turn.cancel()

    def lose(self) -> None:
        """Another process has it now."""
        self.lost = self.leaving = True
        if self.task is not None:
            self.task.cancel()

    def pausing(self, place: str, due_ms: int) -> asyncio.Future[None]:
        """What a failed attempt waits for before the next."""
        wait: Wait[None] = Wait(self, place, "pause", place, None, lambda _: None)
        future = wait.future = self.engine.loop.create_future()
        wait.since = self.engine.clock.monotonic()
        wait.due_ms = due_ms
        self.waits[f"{place} again"] = wait
        return future

    def consider_rest(self) -> None:
        """Leave memory if there is nothing to do but wait for long."""
        if self.busy or self.closed or self.stopping is not None or self.replaying or not self.waits:
            return
        engine = self.engine
        now_ms, now_s = engine.now_ms(), engine.clock.monotonic()
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

    async def leave(self) -> None:
        """Give the saga back to the journal."""
        if self.lost:
            return
        if self.writing is not None:
            await asyncio.shield(self.writing)
        if self.shown is None:
            self.shown = self.work()
        self.dirty = False
        statements = self.written()
        rest = (self.seen, self.due_ms, self.status, self.shown, self.stuck(), self.engine.now_ms(), self.id)
        await self.engine.keep(self, [*statements, ("rest", rest)])

    # Messages.

    def deliver(self, messages: list[Message]) -> None:
        """Messages that came since."""
        for message in messages:
            if message.n > self.seen:
                self.seen = message.n
                self.messages.append(message)
        self.answer()

    def answer(self) -> None:
        """Let everything that waits for a message have it."""
        for message in [each for each in self.messages if each.kind in ("cancel", "retry", "skip")]:
            self.messages.remove(message)
            self.taken.append(message.n)
            if message.kind == "cancel":
                error = SagaCancelled(f"saga {self.id!r} was cancelled: {message.body or 'no reason given'}")
                if not self.stop(error):
                    self.note({"cancel": "came too late"})
            else:
                self.try_again(message)
        for wait in list(self.waits.values()):
            if wait.future is not None and not wait.future.done():
                message = self.message_for(wait)
                if message is not None:
                    wait.future.set_result(message)

    def try_again(self, message: Message) -> None:
        """A person says: now; or that a compensation was done by hand."""
        if message.kind == "skip":
            entry = Entry(message.name, "undo", "by hand", self.engine.now_ms())
            self.undone[message.name] = entry
            self.put_down(entry)
            self.trouble.pop(f"undo {message.name}", None)
        for trouble in self.trouble.values():
            trouble.due_ms, trouble.given_up = 0, False
        for wait in [each for each in self.waits.values() if each.kind == "pause"]:
            if wait.future is not None and not wait.future.done():
                wait.future.set_result(None)

    def message_for(self, wait: Wait[Any]) -> Message | None:
        for index, message in enumerate(self.messages):
            if message.kind == wait.kind and message.name == wait.name:
                del self.messages[index]
                return message
        return None
