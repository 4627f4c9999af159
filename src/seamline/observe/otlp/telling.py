"""Our records as OTLP: the way back of :mod:`.mapping`, and what only we have as spans, log records and metrics.

A module is a service: ``service.name`` is the module, ``service.instance.id`` the workload and replica it ran in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from seamline.observe import records
from seamline.observe.otlp import mapping, messages
from seamline.observe.otlp.messages import DELTA, Bag, Value
from seamline.observe.prometheus import DURATION_BOUNDS_S, durations
from seamline.observe.records import OK, Attribute, Batch, Source

CALL_DURATION: Final = "seamline.call.duration"
CALL_ERRORS: Final = "seamline.call.errors"
_KIND_NUMBERS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_SCOPE: Final = "seamline"


class Whole(NamedTuple):
    """What the resource of everything says."""

    application: str
    deployment: str


class Item(NamedTuple):
    """One thing to be told, and who told it."""

    source: Source
    thing: Any


class Measured(NamedTuple):
    """A point or an edge's traffic, and its time."""

    at_ns: int
    start_ns: int
    thing: records.Point | records.Traffic


def items(batch: Batch) -> dict[str, list[Item]]:
    """By signal."""
    source = batch.source
    found: dict[str, list[Item]] = {
        "traces": [Item(source, span) for span in batch.spans],
        "logs": [Item(source, line) for line in (*batch.logs, *batch.marks)],
        "metrics": [],
    }
    times = (batch.at_ns, batch.at_ns - batch.interval_ns)
    # Traffic of others was counted from their spans, which are sent themselves.
    for thing in (*batch.points, *(batch.traffic if source.workload else ())):
        found["metrics"].append(Item(source, Measured(*times, thing)))
    return found


class Teller:
    """Makes export requests.

    Args:
        whole: what is said of everything.
        json: ids as hexadecimal and 64-bit integers as decimal text, which is what the JSON form has.
    """

    def __init__(self, whole: Whole, *, json: bool) -> None:
        self._whole = whole
        self._id: Callable[[bytes], Any] = bytes.hex if json else bytes
        self._wide: Callable[[int], Any] = str if json else int

    def request(self, signal: str, told: Iterable[Item]) -> messages.Request:
        match signal:
            case "traces":
                return self.traces(told)
            case "logs":
                return self.logs(told)
            case _:
                return self.metrics(told)

    def traces(self, told: Iterable[Item]) -> messages.Traces:
        blocks = _Blocks(self._whole)
        for source, span in told:
            resource = span.resource or self._resource(source, span.module, span.workload, span.replica)
            attributes = dict(span.attributes)
            scope = (span.scope or ("" if span.resource else _SCOPE), _taken(attributes, mapping.SCOPE_ATTRIBUTES))
            blocks.put(resource, scope, self._span(span, attributes))
        return messages.Traces([
            messages.ResourceSpans(resource, [messages.ScopeSpans(scope, found) for scope, found in scopes])
            for resource, scopes in blocks.all()
        ])  # fmt: skip

    def _span(self, span: records.Span, attributes: dict[str, Attribute]) -> messages.Span:
        dropped, events, links = (
            _number(attributes.pop(key, 0))
            for key in (mapping.DROPPED_ATTRIBUTES, mapping.DROPPED_EVENTS, mapping.DROPPED_LINKS)
        )
        code = mapping.STATUS_OK if attributes.pop(mapping.STATUS_CODE, "") == "OK" else 0
        if span.status != OK:
            code = mapping.STATUS_ERROR
        if not span.resource:
            if span.peer:
                attributes.setdefault("peer.service", span.peer)
            if span.status != OK:
                attributes.setdefault("error.type", span.status)
        return messages.Span(
            self._id(span.trace_id),
            self._id(span.span_id),
            span.trace_state,
            self._id(span.parent_id),
            span.name,
            _KIND_NUMBERS[span.kind],
            self._wide(span.start_ns),
            self._wide(span.start_ns + span.duration_ns),
            Bag(attributes),
            dropped,
            [self._event(event) for event in span.events],
            events,
            [self._link(link) for link in span.links],
            links,
            messages.Status(span.message, code) if code or span.message else None,
        )

    def _event(self, event: records.SpanEvent) -> messages.Event:
        attributes = dict(event.attributes)
        dropped = _number(attributes.pop(mapping.DROPPED_ATTRIBUTES, 0))
        return messages.Event(self._wide(event.at_ns), event.name, Bag(attributes), dropped)

    def _link(self, link: records.SpanLink) -> messages.Link:
        attributes = dict(link.attributes)
        dropped = _number(attributes.pop(mapping.DROPPED_ATTRIBUTES, 0))
        return messages.Link(
            self._id(link.trace_id), self._id(link.span_id), link.trace_state, Bag(attributes), dropped
        )

    def logs(self, told: Iterable[Item]) -> messages.Logs:
        blocks = _Blocks(self._whole)
        for source, line in told:
            if isinstance(line, records.Mark):
                blocks.put(self._resource(source, "", "", 0), (_SCOPE, {}), self._mark(line))
                continue
            resource = line.resource or self._resource(source, line.module, line.workload, line.replica)
            attributes = dict(line.attributes)
            scope = (line.logger, _taken(attributes, mapping.SCOPE_ATTRIBUTES))
            blocks.put(resource, scope, self._log(line, attributes))
        return messages.Logs([
            messages.ResourceLogs(resource, [messages.ScopeLogs(scope, found) for scope, found in scopes])
            for resource, scopes in blocks.all()
        ])  # fmt: skip

    def _log(self, line: records.Log, attributes: dict[str, Attribute]) -> messages.LogRecord:
        if line.exception:
            attributes[mapping.STACKTRACE] = line.exception
        dropped = _number(attributes.pop(mapping.DROPPED_ATTRIBUTES, 0))
        event_name = attributes.pop(mapping.EVENT_NAME, "")
        severity = min(max(line.severity, 1), 24)
        body = attributes.pop(mapping.BODY, line.message or None)
        return messages.LogRecord(
            self._wide(line.at_ns),
            severity,
            str(attributes.pop(mapping.SEVERITY_TEXT, "") or mapping.severity_text(severity)),
            Value(body),
            Bag(attributes),
            dropped,
            1 if line.trace_id else 0,
            self._id(line.trace_id),
            self._id(line.span_id),
            self._wide(line.at_ns),
            str(event_name),
        )

    def _mark(self, mark: records.Mark) -> messages.LogRecord:
        attributes: dict[str, Attribute] = {**mark.attributes, "seamline.modules": list(mark.modules)}
        at_ns = self._wide(mark.at_ns)
        return messages.LogRecord(
            at_ns,
            mapping.INFO,
            "INFO",
            Value(mark.title),
            Bag(attributes),
            observed_time_unix_nano=at_ns,
            event_name=f"seamline.{mark.kind}",
        )

    def metrics(self, told: Iterable[Item]) -> messages.Metrics:
        blocks = _Blocks(self._whole)
        known: dict[tuple[object, ...], messages.Metric] = {}
        for source, measured in told:
            thing = measured.thing
            found = self._point(thing, measured) if isinstance(thing, records.Point) else self._calls(thing, measured)
            for module, metric in found:
                if not _merged(known, (source.workload, source.replica, source.pid, module), metric):
                    blocks.put(self._resource(source, module, "", 0), (_SCOPE, {}), metric)
        return messages.Metrics([
            messages.ResourceMetrics(resource, [messages.ScopeMetrics(scope, found) for scope, found in scopes])
            for resource, scopes in blocks.all()
        ])  # fmt: skip

    def _point(self, point: records.Point, measured: Measured) -> Iterable[tuple[str, messages.Metric]]:
        metric = messages.Metric(point.name, point.unit)
        attributes = Bag(dict(point.attributes))
        if point.kind == "histogram":
            edges = sorted(point.buckets.items(), key=lambda edge: float(edge[0]))
            bounds = [float(upper) for upper, _ in edges if upper != "inf"]
            counts = [count for _, count in edges]
            if len(counts) == len(bounds) and counts:
                counts.append(0)  # there is always one above the last bound
            metric.histogram = self._histogram(measured, attributes, point.count, point.value, bounds, counts)
        else:
            start_ns = measured.start_ns if point.kind == "counter" else 0
            number = messages.NumberPoint(
                self._wide(start_ns), self._wide(measured.at_ns), cast("Any", _real(point.value)), None, attributes
            )
            if point.kind == "counter":
                metric.sum = messages.Sum([number], DELTA, True)
            else:
                metric.gauge = messages.Gauge([number])
        yield point.module, metric

    def _calls(self, traffic: records.Traffic, measured: Measured) -> Iterable[tuple[str, messages.Metric]]:
        # Counted at the caller, it is the caller's; else the callee's.
        module = traffic.caller if traffic.side in ("client", "sql", "model") else traffic.callee
        edge: dict[str, Attribute] = {
            "seamline.caller": traffic.caller,
            "seamline.callee": traffic.callee,
            "seamline.method": traffic.method,
            "seamline.side": traffic.side,
        }
        counts = durations(traffic.histogram)
        whole = messages.Metric(CALL_DURATION, "s")
        whole.histogram = self._histogram(
            measured, Bag(edge), traffic.calls, traffic.sum_ns / 1e9, list(DURATION_BOUNDS_S), counts
        )
        yield module, whole
        for code, count in traffic.codes.items():
            metric = messages.Metric(CALL_ERRORS, "{call}")
            point = messages.NumberPoint(
                self._wide(measured.start_ns),
                self._wide(measured.at_ns),
                None,
                self._wide(count),
                Bag({**edge, "error.type": code}),
            )
            metric.sum = messages.Sum([point], DELTA, True)
            yield module, metric

    def _histogram(
        self, measured: Measured, attributes: Bag, count: int, total: float, bounds: list[float], counts: list[int]
    ) -> messages.Histogram:
        point = messages.HistogramPoint(
            self._wide(measured.start_ns),
            self._wide(measured.at_ns),
            self._wide(count),
            cast("Any", _real(total)),
            [self._wide(number) for number in counts],
            bounds,
            attributes,
        )
        return messages.Histogram([point], DELTA)

    def _resource(self, source: Source, module: str, workload: str, replica: int) -> dict[str, Attribute]:
        whole = self._whole
        name = workload or source.workload
        told = {
            "service.name": module or whole.application or "seamline",
            "service.namespace": whole.application,
            "service.instance.id": f"{name}/{replica if workload else source.replica}" if name else "",
            "service.version": source.versions.get(module, ""),
            "deployment.environment.name": whole.deployment,
            "seamline.topology": source.topology,
        }
        return {key: value for key, value in told.items() if value}


class _Blocks:
    """Things under their resource and scope; what looks alike stands together."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole
        self._found: dict[str, tuple[messages.Resource, dict[str, tuple[messages.Scope, list[Any]]]]] = {}

    def put(self, resource: Mapping[str, Attribute], scope: tuple[str, Attribute], thing: object) -> None:
        key = repr(resource)
        block = self._found.get(key)
        if block is None:
            attributes = dict(resource)
            dropped = _number(attributes.pop(mapping.DROPPED_ATTRIBUTES, 0))
            block = self._found[key] = (messages.Resource(Bag(attributes), dropped), {})
        inner = repr(scope)
        if inner not in block[1]:
            block[1][inner] = (_scope(*scope), [])
        block[1][inner][1].append(thing)

    def all(self) -> Iterable[tuple[messages.Resource, list[tuple[messages.Scope, list[Any]]]]]:
        return [(resource, list(scopes.values())) for resource, scopes in self._found.values()]


def _scope(told: str, attributes: Attribute) -> messages.Scope:
    name, mark, version = told.rpartition("@")
    if not mark or not name:  # npm's names begin with one
        name, version = told, ""
    found = dict(attributes) if isinstance(attributes, dict) else {}
    dropped = _number(found.pop(mapping.DROPPED_ATTRIBUTES, 0))
    return messages.Scope(name, version, Bag(found), dropped)


def _merged(
    known: dict[tuple[object, ...], messages.Metric], teller: tuple[object, ...], metric: messages.Metric
) -> bool:
    """Whether its points were put to those of the same metric."""
    kind = "gauge" if metric.gauge else "sum" if metric.sum else "histogram"
    first = known.setdefault((*teller, metric.name, metric.unit, kind), metric)
    if first is metric:
        return False
    getattr(first, kind).data_points.extend(getattr(metric, kind).data_points)
    return True


def _taken(attributes: dict[str, Attribute], key: str) -> Attribute:
    return attributes.pop(key, {})


def _number(value: Attribute) -> int:
    return value if isinstance(value, int) else 0


def _real(value: float) -> float:
    """JSON knows no others, and nobody can add them up."""
    return value if value - value == 0 else 0.0
