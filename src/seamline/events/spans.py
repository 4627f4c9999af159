"""The spans of an event: one where it is published, one for each attempt to handle it."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.kernel.signal.trace import TraceContext, Tracer, exception_event, said
from seamline.mesh import outcome
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.events.record import Record
    from seamline.module.context import CallContext


def status_of(error: BaseException | None) -> str:
    """How an attempt ended; nobody is there whom a fault would be an answer to."""
    return "internal" if isinstance(error, Fault) else outcome.status_of(error)


def facts_of(records: Sequence[Record], operation: str, group: str = "") -> dict[str, Any]:
    """The attributes of a span about events, as OpenTelemetry names them."""
    first = records[0]
    facts: dict[str, Any] = {
        "messaging.system": "seamline",
        "messaging.operation.type": operation,
        "messaging.destination.name": first.source,
        "seamline.event.type": first.type,
    }
    if group:
        facts["messaging.consumer.group.name"] = group
    if len(records) == 1:
        facts["messaging.message.id"] = first.id
    else:
        facts["messaging.batch.message_count"] = len(records)
    return facts


def producer_span(
    tracer: Tracer, call: CallContext, record: Record, started: float, failure: BaseException | None
) -> None:
    """Record that an event was published in the course of ``call``, under the span that the event names."""
    trace = TraceContext.from_traceparent(record.trace)
    if trace is None:
        return
    events = None if failure is None else [exception_event(failure, tracer.at_ns(monotonic()))]
    tracer.record(
        trace, trace.span_id, call.span_id(), f"publish {record.source}.{record.type}", "producer", record.source, "",
        started, monotonic() - started, status_of(failure), said(failure) if failure is not None else "",
        facts_of([record], "send"), events,
    )  # fmt: skip
