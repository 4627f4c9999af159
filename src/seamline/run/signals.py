"""What one process has to tell, gathered from where it arises: spans, counts of calls, measures, where the CPU went."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from seamline.kernel.settings import TelemetrySettings
from seamline.kernel.signal import here
from seamline.kernel.signal.measures import Measure
from seamline.kernel.signal.metrics import Flow
from seamline.kernel.signal.profile import Profiler
from seamline.kernel.signal.runtime import Runtime
from seamline.kernel.signal.trace import Span as EmittedSpan
from seamline.kernel.signal.trace import Tracer
from seamline.module.context import place
from seamline.observe.records import Batch, Kind, Point, Profile, Side, Source, Span, SpanEvent, SpanLink, Traffic

_COUNTS_EVERY_S: Final = 1.0
_SPANS_MAX: Final = 4000
"""In one batch; more make more batches."""


class Signals:
    """Gathers. Spans are told whenever they are asked for, all else once a second.

    Args:
        settings: how much is looked at.
        tracer: whose spans are told.
        flows: the calls since the last time.
        measures: of parts of the process beside the runtime's.
        folders: a module by the folder of its code.
        versions: a module's version, where it has one.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        tracer: Tracer,
        flows: Callable[[], Sequence[Flow]],
        measures: Sequence[Callable[[], Iterable[Measure]]] = (),
        *,
        folders: Mapping[str, Path] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self._tracer = tracer
        self._flows = flows
        self._measures = measures
        self._versions = dict(versions or {})
        shown = {name: str(folder) for name, folder in (folders or {}).items()}
        self._profiler = Profiler(settings.profile_hz, here.module, shown)
        self._runtime = Runtime(self._profiler, shown)
        self._counted = time.monotonic()
        self._lost = 0
        self._looking = False

    def stop(self) -> None:
        if self._looking:
            self._runtime.stop()
            self._profiler.stop()

    def gather(self) -> Iterable[Batch]:
        """What there is to tell since the last time. In the main thread, on the running loop.

        Where nobody asks, nothing is looked at.
        """
        if not self._looking:
            self._looking = True
            self._profiler.start()
            self._runtime.start()
        standing = place()
        source = Source(standing.workload, standing.replica, os.getpid(), standing.topology, self._versions)
        spans = [as_span(each, standing.workload, standing.replica) for each in self._tracer.take()]
        while len(spans) > _SPANS_MAX:
            yield Batch(source, time.time_ns(), spans=spans[:_SPANS_MAX])
            spans = spans[_SPANS_MAX:]
        lost, self._lost = self._tracer.dropped - self._lost, self._tracer.dropped
        dropped = {"spans": lost} if lost else {}
        now = time.monotonic()
        interval_s = now - self._counted
        if interval_s < _COUNTS_EVERY_S:
            if spans or dropped:
                yield Batch(source, time.time_ns(), spans=spans, dropped=dropped)
            return
        self._counted = now
        yield Batch(
            source,
            time.time_ns(),
            int(interval_s * 1e9),
            spans=spans,
            traffic=[_traffic(each) for each in self._flows()],
            points=[as_point(each) for take in (self._runtime.take, *self._measures) for each in take()],
            profiles=self._profiles(),
            dropped=dropped,
        )

    def _profiles(self) -> list[Profile]:
        found = [Profile(module, stack, cpu_ns) for module, stack, cpu_ns in self._profiler.take()]
        found += [Profile(each.module, each.stack, 0, each.wall_ns) for each in self._runtime.take_blocked()]
        return found


def _traffic(flow: Flow) -> Traffic:
    return Traffic(
        flow.caller, flow.callee, flow.method, cast("Side", flow.side), flow.calls, flow.errors, flow.retries,
        flow.inflight, flow.sum_ns, flow.histogram, flow.codes,
    )  # fmt: skip


def as_point(found: Measure) -> Point:
    """A measure as telemetry knows it."""
    return Point(
        found.name, found.value, found.module, found.kind, found.unit, found.attributes, found.count, found.buckets
    )


def as_span(emitted: EmittedSpan, workload: str, replica: int) -> Span:
    """A span as telemetry knows it."""
    return Span(
        emitted.trace_id.to_bytes(16, "big"),
        emitted.span_id.to_bytes(8, "big"),
        emitted.parent_id.to_bytes(8, "big") if emitted.parent_id else b"",
        emitted.name,
        cast("Kind", emitted.kind),
        emitted.module,
        emitted.peer,
        emitted.start_ns,
        emitted.duration_ns,
        emitted.status,
        emitted.message,
        dict(emitted.attributes or ()),
        [SpanEvent(at_ns, name, dict(attributes or ())) for at_ns, name, attributes in emitted.events or ()],
        [
            SpanLink(trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"))
            for trace_id, span_id in emitted.links or ()
        ],
        workload,
        replica,
        trace_state=emitted.trace_state,
    )
