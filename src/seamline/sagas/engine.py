"""The engine of one module's sagas in one process: takes them up, runs them, and gives them back.

Every process that hosts the module has an engine, and registers as a worker in the module's database. A saga belongs
to one worker at a time. A worker that is not heard of loses its registration, and with it the right to write: what it
still tries is refused in the transaction that would have kept it. Its sagas are taken up by others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.clock import Clock, SystemClock, now_ms
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import Runners, TaskOwner
from seamline.kernel.settings.sections import SagasSettings
from seamline.kernel.signal.trace import TraceContext, Tracer
from seamline.kernel.store import Database
from seamline.module.context import CURRENT
from seamline.sagas.course import Course
from seamline.sagas.errors import LostSagasError, SagaBusyError, SagaTimedOut, UnknownSagaError
from seamline.sagas.intake import Intake, start_by_the_clock
from seamline.sagas.journal import open_journal
from seamline.sagas.journal.records import Trouble, checksum
from seamline.sagas.journal.statements import Statement, Write
from seamline.sagas.kinds import Kind
from seamline.sagas.life import live
from seamline.sagas.watch import Watch
from seamline.sagas.workers import Workers

if TYPE_CHECKING:
    from seamline.sagas.saga import Wait

_log = logging.getLogger("seamline.sagas")

PAUSE_S_MAX: Final = 30.0
WRITE_PAUSE_S_MAX: Final = 2.0


class Engine:
    """Runs the sagas of one module.

    Args:
        module: the module's name.
        database: the module's own, open.
        kinds: its types of sagas, by function.
        settings: ``[sagas]``.
        clock: what timers go by.
        owner: names this process; see :mod:`.workers`.
        announce: called when something happened that other processes may wait for.
        pace: what pauses between attempts, leases and looks go by. It runs on where a test holds ``clock``.
    """

    def __init__(
        self,
        module: str,
        database: Database,
        kinds: dict[Callable[..., Any], Kind],
        settings: SagasSettings,
        clock: Clock,
        *,
        tracer: Tracer | None = None,
        owner: str = "",
        announce: Callable[[str], None] | None = None,
        pace: Clock | None = None,
    ) -> None:
        self.module = module
        self.database = database
        self.kinds = kinds
        self.by_name = {kind.name: kind for kind in kinds.values()}
        self.settings = settings
        self.clock = clock
        self.pace = pace or SystemClock()
        self.tracer = tracer or Tracer(0.0)
        self.idle_ms = int(settings.idle_s * 1000)
        self.stuck_ms = int(settings.stuck_after_s * 1000)
        self.journal = open_journal(database)
        self.workers = Workers(self.journal, owner, self.pace, settings.lease_s)
        self.tasks = TaskOwner(f"sagas of {module}")
        self.running: dict[str, Course] = {}
        self.watch = Watch(self)
        self.intake = Intake(self)
        self.draining = False
        self.counts = {"started": 0, "ended": 0, "taken_up": 0, "stuck": 0}
        self.loop: asyncio.AbstractEventLoop
        self.heard: set[str] = set()
        """The events that are heard of for sagas that wait for them."""
        self.publish: Callable[..., Any] | None = None
        self._announce = announce
        self.runners = Runners()
        self._gone = asyncio.Event()
        self._open = False
        self._started = False
        self._complained: dict[str, float] = {}

    @property
    def owner(self) -> str:
        return self.workers.owner

    # Time.

    def now_ms(self) -> int:
        """The wall clock, in milliseconds since the epoch."""
        return now_ms(self.clock)

    def at(self, due_ms: int, future: asyncio.Future[Any], value: Any) -> asyncio.Task[None]:
        """Give ``future`` its value when the wall clock says so."""

        async def wait() -> None:
            while (left_ms := due_ms - self.now_ms()) > 0:
                await self.clock.sleep(left_ms / 1000)
            if not future.done():
                future.set_result(value)

        return self.tasks.spawn(wait(), name="saga timer")

    def after(self, seconds: float, future: asyncio.Future[Any]) -> asyncio.Task[None]:
        """Let ``future`` go after a pause."""

        async def wait() -> None:
            await self.pace.sleep(seconds)
            if not future.done():
                future.set_result(None)

        return self.tasks.spawn(wait(), name="saga pause")

    def pause_s(self, attempts: int, backoff_s: float | None = None) -> float:
        """The pause after so many failed attempts."""
        first_s = self.settings.step_backoff_s if backoff_s is None else backoff_s
        return min(first_s * 2 ** min(attempts - 1, 30), PAUSE_S_MAX) * (0.75 + random.random() / 2)

    # Its life.

    async def open(self) -> None:
        """Make the tables: from here on sagas can be started, and run once this has.

        Raises:
            NewerJournalError: a newer release wrote the journal; nothing is touched.
        """
        if not self._open:
            self.loop = asyncio.get_running_loop()
            await self.journal.start()
            self._open = True

    async def start(self) -> None:
        """Register, and take up what is due. Raises as :meth:`open`."""
        await self.open()
        await self.workers.register()
        await self.workers.look()
        self._started = True
        self.intake.start()
        for kind in self.kinds.values():
            if kind.cron is not None:
                self.tasks.spawn(start_by_the_clock(self, kind), name=f"cron of {kind.name}")
        self.intake.wake()

    async def drain(self, timeout_s: float) -> bool:
        """Stop every saga at its next boundary and set it free for other processes. False when time ran out."""
        self.draining = True
        for course in list(self.running.values()):
            course.close(0)
        try:
            async with asyncio.timeout(timeout_s):
                while self.running:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            _log.warning("%d sagas of %r did not come to a boundary in time", len(self.running), self.module)
        self.announce()
        return not self.running

    async def stop(self) -> None:
        """Leave everything as it is on disk, and end."""
        if not self._open:
            return
        self._open = False
        self.draining = True
        for course in list(self.running.values()):
            course.close(0)
        for course in list(self.running.values()):
            course.lose()
        await self.runners.stop()
        await self.journal.close()
        await self.tasks.stop()
        self.watch.close()
        if self._started:
            self._started = False
            await self.workers.leave()
            self.announce()

    def wake(self) -> None:
        """Something may have happened in another process."""
        self.intake.wake()
        self.watch.look()

    def announce(self) -> None:
        if self._announce is not None:
            self._announce(self.module)

    # Starting.

    def kind_of(self, function: Callable[..., Any]) -> Kind:
        kind = self.kinds.get(function)
        if kind is None:
            raise UnknownSagaError(
                f"{getattr(function, '__qualname__', function)!r} is not a saga of module {self.module!r}",
                "Decorate it with @module.saga; a module starts its own sagas only",
            )
        return kind

    def start_row(
        self, kind: Kind, data: bytes, key: str, parent: str, *, owned: bool
    ) -> tuple[str, int, TraceContext | None, tuple[Any, ...]]:
        """A new saga: its id, when it begins, its trace, and what the journal is told."""
        now_ms = self.now_ms()
        saga = f"{now_ms:011x}{os.urandom(9).hex()[:17]}"
        trace = self._trace()
        row = (
            saga, kind.name, key, kind.version, self.owner if owned else None, 0, now_ms, now_ms, now_ms,
            data.decode(), checksum(data), trace.to_traceparent() if trace is not None else "", parent,
        )  # fmt: skip
        return saga, now_ms, trace, row

    def _trace(self) -> TraceContext | None:
        context = CURRENT.get(None)
        trace = context.trace if context is not None else self.tracer.root()
        return trace.child() if trace is not None else None

    def launch(self, kind: Kind, data: bytes, key: str, parent: str = "") -> asyncio.Future[str]:
        """Start a saga; the future gives its id when it is on disk.

        Raises SagaBusyError.
        """
        if not self._open:
            raise SagaBusyError(f"the sagas of {self.module!r} are closed", "Start sagas between open and stop")
        if self.workers.trouble is not None:
            raise SagaBusyError(f"the journal of {self.module!r} cannot be written: {self.workers.trouble}",
                                "See the disk and the database; sagas that run go on when it can be")  # fmt: skip
        owned = (
            self._started
            and not self.draining
            and not self.workers.lost
            and len(self.running) < self.settings.running_max
        )
        saga, now_ms, trace, row = self.start_row(kind, data, key, parent, owned=owned)
        outcome: asyncio.Future[str] = self.loop.create_future()
        write = Write(self.owner if owned else "", [("start", row)], (kind.name, key) if key else None)
        course = Course(self, kind, saga, key, 1, now_ms, now_ms, data, trace, parent) if owned else None
        if course is not None:
            self.running[saga] = course

        def written(done: asyncio.Future[str | None]) -> None:
            error = done.exception()
            if error is not None:
                self.running.pop(saga, None)
                if isinstance(error, LostSagasError):
                    self.lose()
                    again = self.launch(kind, data, key, parent)  # this time for whoever takes it up
                    again.add_done_callback(lambda one: _hand_on(one, outcome))
                elif not outcome.done():
                    outcome.set_exception(self._refusal(error))
                return
            other = done.result()
            self.counts["started"] += 1
            if other is not None and other != saga:
                self.running.pop(saga, None)
            elif course is None:
                self.intake.wake()
                self.announce()
            else:
                self.run(course)
            if not outcome.done():
                outcome.set_result(other or saga)

        self.journal.combiner.put(write).add_done_callback(written)
        return outcome

    def _refusal(self, error: BaseException) -> BaseException:
        if isinstance(error, SeamlineError):
            return error
        self.workers.suspect(error)
        refused = SagaBusyError(
            f"the saga was not started: its journal cannot be written ({error})", "See the disk and the database"
        )
        refused.__cause__ = error
        return refused

    def run(self, course: Course) -> None:
        """Let a saga that belongs to this worker go on."""
        if course.kind.timeout_ms:
            self.tasks.spawn(self._time_out(course), name="saga timeout")
        self.runners.start(live(course))

    async def _time_out(self, course: Course) -> None:
        due_ms = course.created_ms + course.kind.timeout_ms
        while (left_ms := due_ms - self.now_ms()) > 0:
            await self.clock.sleep(left_ms / 1000)
            if self.running.get(course.id) is not course:
                return
        course.stop(SagaTimedOut(f"saga {course.id!r} took longer than its {course.kind.timeout_ms / 1000:g} s", ""))

    def expect(self, connection: AsyncConnection) -> None:
        """A saga was started in a transaction of the module: take it up once that is on disk."""

        def committed() -> None:
            self.intake.wake()
            self.announce()

        self.database.after_commit(connection, committed)

    # Children.

    async def begin_child(
        self, course: Course, wait: Wait[Any], kind: Kind, arguments: tuple[Any, ...], key: str
    ) -> None:
        """Start a child, or find the one that was, and hear of its end."""
        data = kind.input.encode(kind.arguments(arguments, {}))
        saga = await self.launch(kind, data, key, f"{course.id} {wait.name}")
        self.watch.child(saga, wait)
        if course.stopping is not None:
            self.cancel_child(wait, course.stopping)

    def cancel_child(self, wait: Wait[Any], error: Exception) -> None:
        name, _, key = wait.name.partition("/")
        self.tasks.spawn(self._cancel_by_key(name, key, str(error)), name="cancel of a child saga")

    async def _cancel_by_key(self, kind: str, key: str, reason: str) -> None:
        rows = await self.journal.store.read("SELECT id FROM seamline_sagas WHERE type = ? AND key = ?", (kind, key))
        for (saga,) in rows:
            try:
                await self.tell(saga, "cancel", "", reason)
            except SeamlineError:
                _log.debug("child saga %s had ended before it was cancelled", saga)

    async def tell(self, saga: str, kind: str, name: str, body: str) -> int:
        """Send a message to a saga, wherever it is; its number. Raises UnknownSagaError or SagaEndedError."""
        number = await self.journal.post(saga, kind, name, body, self.now_ms())
        await self.deliver()
        self.intake.wake()
        self.announce()
        return number

    async def deliver(self) -> None:
        """Bring new messages to the sagas that run here."""
        if not self.running:
            return
        news = await self.journal.news(self.owner)
        fresh = [saga for saga, count in news.items() if saga in self.running and self.running[saga].mail.seen < count]
        if not fresh:
            return
        found = await self.journal.messages(fresh)
        for saga, messages in found.items():
            course = self.running.get(saga)
            if course is not None:
                course.mail.deliver(messages)

    # Writing.

    async def keep(self, course: Course, statements: list[Statement], post: Any = None) -> None:
        """Write for a saga; return when it is on disk. What cannot be written now is tried until it can.

        Raises CancelledError when this worker has lost its sagas.
        """
        pause_s = 0.05
        while True:
            try:
                await self.journal.combiner.add(Write(self.owner, statements, None, post))
            except LostSagasError:
                self.lose()
                raise asyncio.CancelledError from None
            except Exception as error:
                self.workers.suspect(error)
                if course.lost:
                    raise asyncio.CancelledError from None
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, WRITE_PAUSE_S_MAX)
            else:
                return

    async def end(self, course: Course, status: str, result: str) -> None:
        """The saga has ended: the last of its journal and its result."""
        await course.pen.settle()
        now_ms = self.now_ms()
        work = course.work() if course.notes else ""
        course.pen.dirty = False
        statements = course.pen.statements()
        statements.append(("end", (status, result, now_ms, now_ms, work, course.id)))
        if course.mail.seen:
            statements.append(("clear", (course.id,)))
        if course.listened:
            statements.append(("unwait", (course.id,)))
        post = None
        if course.parent:
            parent, _, name = course.parent.partition(" ")
            post = (parent, "child", name, result, now_ms)
        await self.keep(course, statements, post)
        self.counts["ended"] += 1
        if course.trace is not None and course.trace.sampled:
            self.tracer.record(course.trace, 0, course.kind.label, "internal", self.module, self.module,
                               max(now_ms - course.created_ms, 0) / 1000, status)  # fmt: skip
        self.watch.ended(course.id, status, result)
        if post is not None:
            await self.deliver()
            self.intake.wake()
        if self._announce is not None:
            self.announce()

    async def renew(self, course: Course, data: bytes) -> None:
        """Begin again with new input and an empty journal, under the same id."""
        now_ms = self.now_ms()
        run = course.run + 1
        took = [("take", (course.id, number)) for number in course.pen.taken]
        renewed: list[Statement] = [("renew", (run, now_ms, now_ms, data.decode(), checksum(data), course.id))]
        await self.keep(course, [*took, *renewed, ("drop", (course.id,))])
        again = Course(self, course.kind, course.id, course.key, run, course.created_ms, now_ms, data, course.trace,
                       course.parent)  # fmt: skip
        again.notes = course.notes
        again.mail.go_on(course.mail)
        self.running[course.id] = again
        self.loop.call_soon(self.run, again)

    def left(self, course: Course) -> None:
        """A course has come to its end in this process."""
        if self.running.get(course.id) is course:
            del self.running[course.id]
            if len(self.running) == self.settings.running_max - 1:
                self.intake.wake()
        self._gone.set()
        if course.leaving and not course.lost:
            self.intake.wake()

    def dropped(self, course: Course, error: Exception | None) -> None:
        """A course broke off: somebody else's, or this engine's own failure. Its journal is as it was."""
        if error is not None:
            _log.error("saga %s broke off; it is taken up again soon", course.id, exc_info=error)

    def lose(self) -> None:
        """This worker lost its place: everything it runs is somebody else's now."""
        self.workers.lost = True
        courses = list(self.running.values())
        self.running.clear()
        for course in courses:
            course.lose()
        if courses:
            _log.warning("%d sagas of %r were taken over by another process", len(courses), self.module)

    def complain(self, course: Course, place: str, name: str, error: Exception, trouble: Trouble) -> None:
        """A step failed: say so, though not a thousand times a second."""
        now_s = self.pace.monotonic()
        if now_s - self._complained.get(name, -10.0) >= 1.0:
            self._complained[name] = now_s
            _log.warning("saga %s, place %s, %s: attempt %d failed: %s: %s",
                         course.id, place, name, trouble.attempts, type(error).__name__, error)  # fmt: skip

    def publisher(self) -> Callable[..., Any]:
        if self.publish is None:
            raise UnknownSagaError(
                f"module {self.module!r} publishes no events here", "Declare an event in its contract"
            )
        return self.publish


def _hand_on(done: asyncio.Future[str], outcome: asyncio.Future[str]) -> None:
    error = done.exception()
    if outcome.done():
        return
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(done.result())
