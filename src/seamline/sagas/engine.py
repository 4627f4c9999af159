"""The engine of one module's sagas in one process: takes them up, runs them, and gives them back.

Every process that hosts the module has an engine, and registers as a worker in the module's database. A saga belongs
to one worker at a time. A worker that is not heard of loses its registration, and with it the right to write: what it
still tries is refused in the transaction that would have kept it. Its sagas are taken up by others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final

from seamline.kernel.clock import Clock, SystemClock, now_ms
from seamline.kernel.lifetime import Runners, TaskOwner
from seamline.kernel.settings.sections import SagasSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database
from seamline.module.principal import Proofs
from seamline.sagas.course import Course
from seamline.sagas.errors import LostSagasError, SagaTimedOut, UnknownSagaError
from seamline.sagas.intake import Intake
from seamline.sagas.journal import open_journal
from seamline.sagas.journal.records import Trouble
from seamline.sagas.journal.statements import Statement, Write
from seamline.sagas.kinds import Kind
from seamline.sagas.life import live
from seamline.sagas.starts import Starts, start_by_the_clock
from seamline.sagas.watch import Watch
from seamline.sagas.workers import Workers

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
        proofs: keeps with each saga on whose behalf it was started; nobody's when None.
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
        proofs: Proofs | None = None,
    ) -> None:
        self.module = module
        self.database = database
        self.kinds = kinds
        self.by_name = {kind.name: kind for kind in kinds.values()}
        self.settings = settings
        self.clock = clock
        self.pace = pace or SystemClock()
        self.tracer = tracer or Tracer(0.0)
        self.proofs = proofs
        self.idle_ms = int(settings.idle_s * 1000)
        self.stuck_ms = int(settings.stuck_after_s * 1000)
        self.journal = open_journal(database)
        self.workers = Workers(self.journal, owner, self.pace, settings.lease_s)
        self.tasks = TaskOwner(f"sagas of {module}")
        self.running: dict[str, Course] = {}
        self.watch = Watch(self)
        self.intake = Intake(self)
        self.starts = Starts(self)
        self.draining = False
        self.counts = {"started": 0, "ended": 0, "taken_up": 0, "stuck": 0}
        self.loop: asyncio.AbstractEventLoop
        self.heard: set[str] = set()
        """The events that are heard of for sagas that wait for them."""
        self.publish: Callable[..., Any] | None = None
        self._announce = announce
        self.runners = Runners()
        self._gone = asyncio.Event()
        self.opened = False
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

    def after(self, seconds: float, future: asyncio.Future[Any]) -> None:
        """Let ``future`` go after a pause, or as soon as ``clock`` is moved on by as much."""

        async def wait(clock: Clock) -> None:
            await clock.sleep(seconds)
            if not future.done():
                future.set_result(None)

        clocks = {self.clock} if isinstance(self.clock, SystemClock) else {self.clock, self.pace}
        timers = [self.tasks.spawn(wait(clock), name="saga pause") for clock in clocks]
        future.add_done_callback(lambda _: [timer.cancel() for timer in timers])

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
        if not self.opened:
            self.loop = asyncio.get_running_loop()
            await self.journal.start()
            self.opened = True

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
        if not self.opened:
            return
        self.opened = False
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

    # Running.

    @property
    def has_room(self) -> bool:
        """Whether a saga that is started now runs here; otherwise it is left to whoever takes it up."""
        return (
            self._started
            and not self.draining
            and not self.workers.lost
            and len(self.running) < self.settings.running_max
        )

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
