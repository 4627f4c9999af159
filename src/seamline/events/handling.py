"""One handler of a module, ready to run: what it asks for is wired, and its effect commits with the note of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.context import EventContext
from seamline.events.errors import RevokedEventError
from seamline.events.lanes import Parcel
from seamline.events.record import SUBJECT, Record
from seamline.events.spans import facts_of, status_of
from seamline.kernel.signal.trace import TraceContext, Tracer, exception_event, new_span_id, said
from seamline.kernel.store import Database
from seamline.mesh.outcome import CANCELED, NO_FAILURES, OK
from seamline.module.context import CURRENT, CallContext
from seamline.module.errors import EventError, Unauthenticated, Unavailable
from seamline.module.module import EventHandler, Module
from seamline.module.principal import Proofs, Subject
from seamline.module.wiring import Wiring, needs, place_of

_LINKS_MAX = 128

Settle = Callable[[AsyncConnection | None], Awaitable[None]]
"""Says that the handler's effect happened: in its transaction, or by itself where it has none."""


class Handling:
    """Runs one :class:`EventHandler`."""

    def __init__(
        self, module: Module, handler: EventHandler, database: Database, wiring: Wiring, tracer: Tracer,
        proofs: Proofs | None = None,
    ) -> None:  # fmt: skip
        self.handler = handler
        self.group = f"{module.name}.{handler.group}"
        self._module = module.name
        self._database = database
        self._wiring = wiring
        self._tracer = tracer
        self._proofs = proofs
        self._arguments: dict[str, Any] = {}
        self._context_name = _context_parameter(module, handler)

    async def prepare(self) -> None:
        """Make what the handler asks for."""
        self._arguments = await self._wiring.arguments(self.handler.function, skip=1, without=(EventContext,))

    def wanted(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Those that the handler's ``where`` lets through."""
        where = self.handler.where
        return list(parcels) if where is None else [parcel for parcel in parcels if where(parcel.event)]

    async def run(self, parcels: Sequence[Parcel], settle: Settle, *, replayed: bool) -> None:
        """One attempt at one event, or one batch.

        Raises:
            LostLeaseError: a partition went to another process; nothing was kept.
            RevokedEventError: on whose behalf it was published is no longer good; nothing was kept.
        """
        first = parcels[0].delivery.record
        subject = await self._subject(first)
        context = self._call_context(first, self._trace(first if len(parcels) == 1 else None), subject)
        token = CURRENT.set(context)
        failure: BaseException | None = None
        started = monotonic()
        try:
            with self._proofs.bound(subject) if self._proofs is not None else nullcontext():
                await self._act(parcels, settle, replayed)
        except Unauthenticated as error:
            failure = error
            if self._proofs is None or subject is None or self._proofs.refuses(subject) is None:
                raise
            raise _revoked(error) from None
        except BaseException as error:
            failure = error
            raise
        finally:
            CURRENT.reset(token)
            self._ended(context, [parcel.delivery.record for parcel in parcels], started, failure)

    def _ended(
        self, context: CallContext, records: Sequence[Record], started: float, failure: BaseException | None
    ) -> None:
        """Count an attempt, and record its span if its trace is recorded or is to be."""
        tracer, seconds, status = self._tracer, monotonic() - started, status_of(failure)
        if isinstance(failure, Unavailable) and not failure.started:
            status = CANCELED  # a callee was not there yet: no attempt at the event
        first = records[0]
        stats = tracer.flows.stats(first.source, self._module, f"{first.type}/{self.handler.group}", "event")
        stats.record(seconds, "" if status == OK else status)
        trace = context.origin
        assert trace is not None
        failed = status not in NO_FAILURES
        if not trace.sampled and not ((failed or seconds > tracer.slow_s) and tracer.keep(trace)):
            return
        told = [TraceContext.from_traceparent(record.trace) for record in records[:_LINKS_MAX]]
        tracer.record(
            trace, context.span_id(), trace.span_id, f"{first.source}.{first.type}", "consumer", self._module,
            first.source, started, seconds, status, said(failure) if failure is not None else "",
            facts_of(records, "process", self.group),
            [exception_event(failure, tracer.at_ns(started + seconds))] if failure is not None and failed else None,
            [(each.trace_id, each.span_id) for each in told if each is not None],
        )  # fmt: skip

    def dead(self, record: Record, error: BaseException) -> None:
        """Tell that the event was given up."""
        tracer = self._tracer
        method = f"{record.type}/{self.handler.group}"
        tracer.flows.stats(record.source, self._module, method, "event").record(0.0, "dead_letter")
        trace = TraceContext.from_traceparent(record.trace) or tracer.root()
        if tracer.keep(trace):
            tracer.record(
                trace, new_span_id(), trace.span_id, f"dead letter {record.source}.{record.type}", "internal",
                self._module, record.source, monotonic(), 0.0, "dead_letter", said(error),
                facts_of([record], "settle", self.group),
            )  # fmt: skip

    async def _act(self, parcels: Sequence[Parcel], settle: Settle, replayed: bool) -> None:
        if self.handler.outside:
            await self._call(parcels, replayed)
            await settle(None)
            return
        async with self._database.unit() as unit:
            await self._call(parcels, replayed)
            wrote = unit.begun
            if wrote:
                await settle(await unit.connection())
        if not wrote:
            await settle(None)

    async def _subject(self, record: Record) -> Subject | None:
        """On whose behalf the event was published; a batch, which has many, is nobody's."""
        text = record.headers.get(SUBJECT)
        if text is None or self._proofs is None or self.handler.batch:
            return None
        try:
            return await self._proofs.resume(text, self._module, f"event:{record.id}")
        except Unauthenticated as error:
            raise _revoked(error) from None

    async def _call(self, parcels: Sequence[Parcel], replayed: bool) -> None:
        handler = self.handler
        arguments = self._arguments
        given: Any
        if handler.batch:
            given = [parcel.event for parcel in parcels]
        else:
            given = parcels[0].event
            if self._context_name:
                arguments = {**arguments, self._context_name: self._context(parcels[0], replayed)}
        async with asyncio.timeout(handler.timeout_s):
            await handler.function(given, **arguments)

    def _trace(self, record: Record | None) -> TraceContext:
        """The publisher's trace goes on; a batch, which has many, begins one."""
        parent = TraceContext.from_traceparent(record.trace) if record is not None and record.trace else None
        return parent or self._tracer.root()

    def _call_context(self, record: Record, trace: TraceContext, subject: Subject | None) -> CallContext:
        return CallContext(
            self._module,
            record.source,
            f"{record.source}.{record.type}",
            monotonic() + self.handler.timeout_s,
            trace,
            idempotency_key=self.idempotency_key(record),
            subject=subject,
            span=0,
        )

    def idempotency_key(self, record: Record) -> str:
        return f"{self.group}:{record.source}:{record.id}"

    def _context(self, parcel: Parcel, replayed: bool) -> EventContext:
        record = parcel.delivery.record
        return EventContext(
            id=record.id,
            source=record.source,
            key=record.key,
            time=datetime.fromtimestamp(record.time_ms / 1000, UTC),
            attempt=parcel.attempts + 1,
            headers={name: value for name, value in record.headers.items() if name != SUBJECT},
            idempotency_key=self.idempotency_key(record),
            replayed=replayed,
        )


def _revoked(error: Unauthenticated) -> RevokedEventError:
    return RevokedEventError(error.fact, "Decide what becomes of it: replay the dead letter, or drop it.")


def _context_parameter(module: Module, handler: EventHandler) -> str:
    """The name of the parameter that wants the EventContext, or nothing. Raises EventError."""
    function = handler.function
    if not inspect.iscoroutinefunction(function):
        raise EventError(
            f"the event handler {function.__qualname__} of module {module.name!r} is not async",
            "Write `async def`.",
            place=place_of(function),
        )
    names = [name for name, (wanted, _) in needs(function, skip=1).items() if wanted is EventContext]
    if names and handler.batch:
        raise EventError(
            f"the batch handler {function.__qualname__} of module {module.name!r} asks for an EventContext",
            "A batch has many: let the event carry what you need, or handle events one at a time.",
            place=place_of(function),
        )
    return names[0] if names else ""
