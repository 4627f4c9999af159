"""How sagas begin: at once and here, in a transaction of the module, by the clock, and as children of others."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.errors import SeamlineError
from seamline.kernel.signal.trace import TraceContext
from seamline.module.context import CURRENT
from seamline.module.principal import Subject
from seamline.sagas.course import Course
from seamline.sagas.errors import LostSagasError, SagaBusyError, UnknownSagaError
from seamline.sagas.journal.records import checksum
from seamline.sagas.journal.statements import Write
from seamline.sagas.kinds import Kind

if TYPE_CHECKING:
    from seamline.sagas.engine import Engine
    from seamline.sagas.saga import Wait

_log = logging.getLogger("seamline.sagas")

CRON_LOOK_S: Final = 30.0


class Beginning(NamedTuple):
    """A new saga: its id, when it begins, its trace, on whose behalf, and what the journal is told."""

    saga: str
    now_ms: int
    trace: TraceContext | None
    subject: Subject | None
    row: tuple[Any, ...]


class Starts:
    """Starts the sagas of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def kind_of(self, function: Callable[..., Any]) -> Kind:
        engine = self._engine
        kind = engine.kinds.get(function)
        if kind is None:
            raise UnknownSagaError(
                f"{getattr(function, '__qualname__', function)!r} is not a saga of module {engine.module!r}",
                "Decorate it with @module.saga; a module starts its own sagas only",
            )
        return kind

    def row(self, kind: Kind, data: bytes, key: str, parent: str, *, owned: bool) -> Beginning:
        """A new saga."""
        engine = self._engine
        now_ms = engine.now_ms()
        saga = f"{now_ms:011x}{os.urandom(9).hex()[:17]}"
        trace = self._trace()
        proof, subject = self._deferred(saga)
        row = (
            saga, kind.name, key, kind.version, engine.owner if owned else None, 0, now_ms, now_ms, now_ms,
            data.decode(), checksum(data), trace.to_traceparent() if trace is not None else "", parent,
            proof,
        )  # fmt: skip
        return Beginning(saga, now_ms, trace, subject, row)

    def _deferred(self, saga: str) -> tuple[str, Subject | None]:
        """On whose behalf it is started, and the proof of that which waits with it."""
        context, proofs = CURRENT.get(None), self._engine.proofs
        if context is None or context.subject is None or proofs is None:
            return "", None
        return proofs.defer(context.subject, self._engine.module, f"saga:{saga}")

    def _trace(self) -> TraceContext | None:
        context = CURRENT.get(None)
        trace = context.origin if context is not None else self._engine.tracer.root()
        return trace.child() if trace is not None else None

    def launch(self, kind: Kind, data: bytes, key: str, parent: str = "") -> asyncio.Future[str]:
        """Start a saga; the future gives its id when it is on disk.

        Raises SagaBusyError.
        """
        engine = self._engine
        if not engine.opened:
            raise SagaBusyError(f"the sagas of {engine.module!r} are closed", "Start sagas between open and stop")
        if engine.workers.trouble is not None:
            raise SagaBusyError(f"the journal of {engine.module!r} cannot be written: {engine.workers.trouble}",
                                "See the disk and the database; sagas that run go on when it can be")  # fmt: skip
        owned = engine.has_room
        saga, now_ms, trace, subject, row = self.row(kind, data, key, parent, owned=owned)
        outcome: asyncio.Future[str] = engine.loop.create_future()
        write = Write(engine.owner if owned else "", [("start", row)], (kind.name, key) if key else None)
        course = Course(engine, kind, saga, key, 1, now_ms, now_ms, data, trace, parent) if owned else None
        if course is not None:
            course.subject = subject
            call = CURRENT.get(None)
            course.parent_span = call.span_id() if call is not None else 0
            engine.running[saga] = course

        def written(done: asyncio.Future[str | None]) -> None:
            error = done.exception()
            if error is not None:
                engine.running.pop(saga, None)
                if isinstance(error, LostSagasError):
                    engine.lose()
                    again = self.launch(kind, data, key, parent)  # this time for whoever takes it up
                    again.add_done_callback(lambda one: _hand_on(one, outcome))
                elif not outcome.done():
                    outcome.set_exception(self._refusal(error))
                return
            other = done.result()
            engine.counts["started"] += 1
            if other is not None and other != saga:
                engine.running.pop(saga, None)
            elif course is None:
                engine.intake.wake()
                engine.announce()
            else:
                engine.run(course)
            if not outcome.done():
                outcome.set_result(other or saga)

        engine.journal.combiner.put(write).add_done_callback(written)
        return outcome

    def _refusal(self, error: BaseException) -> BaseException:
        if isinstance(error, SeamlineError):
            return error
        self._engine.workers.suspect(error)
        refused = SagaBusyError(
            f"the saga was not started: its journal cannot be written ({error})", "See the disk and the database"
        )
        refused.__cause__ = error
        return refused

    def expect(self, connection: AsyncConnection) -> None:
        """A saga was started in a transaction of the module: take it up once that is on disk."""
        engine = self._engine

        def committed() -> None:
            engine.intake.wake()
            engine.announce()

        engine.database.after_commit(connection, committed)

    async def begin_child(
        self, course: Course, wait: Wait[Any], kind: Kind, arguments: tuple[Any, ...], key: str
    ) -> None:
        """Start a child, or find the one that was, and hear of its end."""
        engine = self._engine
        data = kind.input.encode(kind.arguments(arguments, {}))
        saga = await self.launch(kind, data, key, f"{course.id} {wait.name}")
        engine.watch.child(saga, wait)
        if course.stopping is not None:
            self.cancel_child(wait, course.stopping)

    def cancel_child(self, wait: Wait[Any], error: Exception) -> None:
        name, _, key = wait.name.partition("/")
        self._engine.tasks.spawn(self._cancel_by_key(name, key, str(error)), name="cancel of a child saga")

    async def _cancel_by_key(self, kind: str, key: str, reason: str) -> None:
        engine = self._engine
        rows = await engine.journal.store.read("SELECT id FROM seamline_sagas WHERE type = ? AND key = ?", (kind, key))
        for (saga,) in rows:
            try:
                await engine.tell(saga, "cancel", "", reason)
            except SeamlineError:
                _log.debug("child saga %s had ended before it was cancelled", saga)


def _hand_on(done: asyncio.Future[str], outcome: asyncio.Future[str]) -> None:
    error = done.exception()
    if outcome.done():
        return
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(done.result())


async def start_by_the_clock(engine: Engine, kind: Kind) -> None:
    """Start a saga at each time of its schedule; its key makes it one among all processes."""
    assert kind.cron is not None
    last = engine.clock.now()
    while (due := kind.cron.after(last)) is not None:
        while (left_s := (due - engine.clock.now()).total_seconds()) > 0:
            # The wall clock may be set: look again now and then.
            await engine.clock.sleep(min(left_s, CRON_LOOK_S))
        now = engine.clock.now()
        while (later := kind.cron.after(due)) is not None and later <= now:
            due = later  # times that were slept through are one
        last = due
        if engine.draining:
            return
        data = kind.input.encode(kind.arguments((), {}))
        try:
            await engine.starts.launch(kind, data, f"cron {due.isoformat(timespec='minutes')}")
        except Exception as error:
            _log.error("saga %s was not started by the clock: %s", kind.name, error)
