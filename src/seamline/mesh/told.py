"""What a call leaves behind: a count on each side, and a span where its trace is recorded."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.kernel.signal.metrics import QUICK
from seamline.kernel.signal.trace import Happening, TraceContext, Tracer, exception_event, new_span_id, said
from seamline.mesh.local import seen_by_caller
from seamline.mesh.outcome import NO_FAILURES, OK, status_of
from seamline.mesh.service import facts_of
from seamline.module.errors import CallError, InternalError
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.mesh.balance import Replica
    from seamline.mesh.service import Entry
    from seamline.module.context import CallContext
    from seamline.module.contract import MethodSpec


class Tried(list["Replica"]):
    """The replicas that one call was sent to, in order."""

    hedged = False


class Told:
    """The caller's side of a method: its counters, and the spans of its calls."""

    __slots__ = ("callee", "caller", "entry", "facts", "name", "quick", "stats", "tracer")

    def __init__(self, tracer: Tracer, caller: str, callee: str, spec: MethodSpec) -> None:
        self.tracer = tracer
        self.caller = caller
        self.callee = callee
        self.name = spec.full_name
        self.facts = facts_of(spec)
        self.stats = tracer.flows.stats(caller, callee, spec.full_name, "client")
        self.quick = QUICK[: int(tracer.slow_s * 1e6)]
        """What is not in here took long enough to be looked at more closely."""
        self.entry: Entry | None = None
        """What serves the method, if it is served in this process."""

    def failed_fast(
        self, error: BaseException, context: CallContext, parent: CallContext | None, started: float
    ) -> BaseException:
        """What the caller sees of an error on the short way; it is counted."""
        seconds = monotonic() - started
        assert self.entry is not None
        seen = seen_by_caller(error, self.entry, context)
        status = status_of(seen)
        self.stats.record(seconds, "" if status == OK else status)
        trace = context.origin
        if trace is not None and (trace.sampled or self.keeps(trace, status, seconds)):
            self.spans(context, parent, started, seconds, seen, error)
        return seen

    def slow(self, context: CallContext, parent: CallContext | None, started: float, seconds: float) -> None:
        """Count a call on the short way that was not quick."""
        self.stats.record(seconds)
        trace = context.origin
        if trace is not None and (trace.sampled or self.keeps(trace, OK, seconds)):
            self.spans(context, parent, started, seconds)

    def spans(
        self,
        context: CallContext,
        parent: CallContext | None,
        started: float,
        seconds: float,
        seen: BaseException | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Record both spans of a call that took the short way."""
        trace = context.origin
        assert trace is not None
        client = new_span_id()
        parent_id = parent.span_id() if parent is not None else trace.span_id
        record, name, caller, callee, facts = self.tracer.record, self.name, self.caller, self.callee, self.facts
        if seen is None:
            record(trace, client, parent_id, name, "client", caller, callee, started, seconds, OK, "", facts)
            record(trace, context.span_id(), client, name, "server", callee, caller, started, seconds, OK, "", facts)
            return
        status, message, told = told_of(seen, facts)
        record(trace, client, parent_id, name, "client", caller, callee, started, seconds, status, message, told)
        events = [exception_event(error, self.tracer.at_ns(started + seconds))] if error and status != OK else None
        served_as = context.span_id()
        record(
            trace, served_as, client, name, "server", callee, caller, started, seconds, status, message, told, events
        )

    def keeps(self, trace: TraceContext, status: str, seconds: float) -> bool:
        """Whether a trace that was not recorded is from here on."""
        return (seconds > self.tracer.slow_s or status not in NO_FAILURES) and self.tracer.keep(trace)

    def ended(
        self, context: CallContext, span_id: int, parent_id: int, started: float, error: BaseException | None,
        tried: Tried,
    ) -> None:  # fmt: skip
        """Count a call on the long way, and record its span."""
        seconds = monotonic() - started
        status = status_of(error)
        self.stats.inflight -= 1
        self.stats.record(seconds, "" if status == OK else status)
        trace = context.origin
        if trace is None or not (trace.sampled or self.keeps(trace, status, seconds)):
            return
        _, message, facts = told_of(error, self.facts)
        if tried:
            endpoint = tried[-1].endpoint
            facts = {**facts, "server.address": endpoint.address, "seamline.workload": endpoint.workload}
        if len(tried) > 1:
            facts = {**facts, "seamline.attempts": len(tried), "seamline.hedged": tried.hedged}
        self.tracer.record(
            trace, span_id, parent_id, self.name, "client", self.caller, self.callee, started, seconds, status, message,
            facts,
        )  # fmt: skip

    def refused(self, parent: CallContext | None, error: CallError) -> None:
        """Tell of a call that was not made."""
        self.stats.record(0.0, error.connect)
        trace = parent.origin if parent is not None else None
        if parent is None or trace is None or not (trace.sampled or self.keeps(trace, error.connect, 0.0)):
            return
        self.tracer.record(
            trace, new_span_id(), parent.span_id(), self.name, "client", self.caller, self.callee, monotonic(), 0.0,
            error.connect, said(error), self.facts,
        )  # fmt: skip


def served(
    tracer: Tracer,
    entry: Entry,
    context: CallContext,
    parent_id: int,
    started: float,
    seconds: float,
    failure: BaseException | None,
) -> None:
    """Record the span of a handler that has ended, if its trace is recorded, or is to be from here on."""
    trace = context.origin
    if trace is None:
        return
    status, message, facts = told_of(failure, entry.facts)
    if not trace.sampled and not ((seconds > tracer.slow_s or status not in NO_FAILURES) and tracer.keep(trace)):
        return
    events: list[Happening] | None = None
    if failure is not None and status not in NO_FAILURES:
        # What the handler raised is behind what its caller sees.
        raised = failure.__context__ if isinstance(failure, InternalError) else None
        events = [exception_event(raised or failure, tracer.at_ns(started + seconds))]
    tracer.record(
        trace, context.span_id(), parent_id, entry.name, "server", entry.module, context.caller, started, seconds,
        status, message, facts, events,
    )  # fmt: skip


def told_of(error: BaseException | None, facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Status, message and attributes of the span of a call that ended with ``error``."""
    if isinstance(error, Fault):
        return OK, "", {**facts, "seamline.fault": type(error).__name__}
    return status_of(error), said(error) if error is not None else "", facts
