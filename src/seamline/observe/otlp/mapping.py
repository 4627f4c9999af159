"""OTLP into our records: exact in times, ids and the types of attributes; what has no field of its own becomes an
attribute under ``otel.``, as OpenTelemetry's specification does for formats that lack it."""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

import msgspec

from seamline.observe import records
from seamline.observe.otlp import messages
from seamline.observe.otlp.bounds import BATCH_MAX, EVENTS_MAX, EXPANDED_BYTES_MAX, LINKS_MAX, MalformedError
from seamline.observe.otlp.codes import code_of
from seamline.observe.otlp.edges import Edges
from seamline.observe.otlp.measures import Measures
from seamline.observe.otlp.messages import Bag, Value
from seamline.observe.otlp.names import Names
from seamline.observe.otlp.values import cut
from seamline.observe.records import OK, Attribute, Batch, Kind, Source

KINDS: Final[tuple[Kind, ...]] = ("internal", "internal", "server", "client", "producer", "consumer")
STATUS_OK, STATUS_ERROR = 1, 2
SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
"""Four numbers each, from 1."""
INFO: Final = 9

DROPPED_ATTRIBUTES: Final = "otel.dropped_attributes_count"
DROPPED_EVENTS: Final = "otel.dropped_events_count"
DROPPED_LINKS: Final = "otel.dropped_links_count"
STATUS_CODE: Final = "otel.status_code"
SCOPE_ATTRIBUTES: Final = "otel.scope.attributes"
SEVERITY_TEXT: Final = "otel.severity_text"
EVENT_NAME: Final = "otel.event_name"
BODY: Final = "otel.body"
"""A log line's body where that is no text."""
STACKTRACE: Final = "exception.stacktrace"

T = TypeVar("T")

_EARLY_NS: Final = 3600 * 10**9
_DAY_NS: Final = 86_400 * 10**9
_NO_BAG: Final = Bag()


class Taken(NamedTuple):
    """What became of a request."""

    batches: list[Batch]
    rejected: int = 0
    reason: str = ""


class Told(NamedTuple):
    """What a resource and a scope say of all that is below them."""

    module: str
    resource: dict[str, Attribute]
    weight: int
    """About how many bytes all of it has."""
    scope: str = ""
    scope_attributes: dict[str, Attribute] | None = None


class Mapper:
    """Maps requests, one after the other; remembers what later ones are read with.

    Args:
        own: names that no foreign service may have.
        now_ns: when it begins, by the wall clock.
        history_days: what is older is refused, since it would be thrown away.
    """

    def __init__(self, own: Collection[str], now_ns: int, history_days: float) -> None:
        self._names = Names(own)
        self.edges = Edges(self._names)
        self._measures = Measures(now_ns)
        self._age_ns = int(max(history_days, 1) * _DAY_NS)

    def take(self, request: messages.Request, now_ns: int) -> Taken:
        match request:
            case messages.Traces():
                return self.traces(request, now_ns)
            case messages.Logs():
                return self.logs(request, now_ns)
            case messages.Metrics():
                return self.metrics(request, now_ns)

    def traces(self, request: messages.Traces, now_ns: int) -> Taken:
        asked = _Request()
        good: list[tuple[Told, messages.Span, bytes, bytes, bytes]] = []
        for block in request.resource_spans or ():
            if not block.scope_spans:
                continue
            told = self._told(block.resource, now_ns)
            for inner in block.scope_spans:
                within = _scoped(told, inner.scope)
                for span in inner.spans or ():
                    trace_id, span_id = identifier(span.trace_id, 16), identifier(span.span_id, 8)
                    if not trace_id or not span_id:
                        asked.refuse("a span's traceId has 16 bytes and its spanId 8, not all zero")
                    elif self._timely(span.start_time_unix_nano, now_ns, asked) and asked.holds(within):
                        good.append((within, span, trace_id, span_id, identifier(span.parent_span_id, 8)))
        for within, span, trace_id, span_id, _ in good:
            if span.kind in (3, 4):
                self.edges.calling(trace_id, span_id, within.module, (span.attributes or _NO_BAG).values)
        spans = [self._span(*each, now_ns) for each in good]
        if not spans:
            return asked.taken([])
        traffic = self.edges.traffic(spans, now_ns)
        batches = [Batch(Source(""), now_ns, spans=some) for some in _parted(spans)]
        batches[0] = msgspec.structs.replace(batches[0], traffic=traffic)
        return asked.taken(batches)

    def _span(
        self, told: Told, span: messages.Span, trace_id: bytes, span_id: bytes, parent_id: bytes, now_ns: int
    ) -> records.Span:
        attributes = attributes_of(span.attributes, span.dropped_attributes_count)
        kind = KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal"
        peer = ""
        if kind != "internal":
            peer = self.edges.peer(kind, told.module, (trace_id, parent_id), attributes, now_ns)
        status, message = OK, ""
        if span.status is not None:
            message = cut(span.status.message)
            if span.status.code == STATUS_ERROR:
                status = code_of(attributes)
            elif span.status.code == STATUS_OK:
                attributes[STATUS_CODE] = "OK"
        events, links = span.events or [], span.links or []
        _count(attributes, DROPPED_EVENTS, span.dropped_events_count + max(0, len(events) - EVENTS_MAX))
        _count(attributes, DROPPED_LINKS, span.dropped_links_count + max(0, len(links) - LINKS_MAX))
        if told.scope_attributes:
            attributes[SCOPE_ATTRIBUTES] = told.scope_attributes
        return records.Span(
            trace_id,
            span_id,
            parent_id,
            cut(span.name),
            kind,
            told.module,
            peer,
            span.start_time_unix_nano,
            _duration(span.start_time_unix_nano, span.end_time_unix_nano),
            status,
            message,
            attributes,
            [_event(event) for event in events[:EVENTS_MAX]],
            [_link(link) for link in links[:LINKS_MAX]],
            "",
            0,
            told.resource,
            told.scope,
            cut(span.trace_state),
        )

    def logs(self, request: messages.Logs, now_ns: int) -> Taken:
        asked = _Request()
        lines: list[records.Log] = []
        for block in request.resource_logs or ():
            if not block.scope_logs:
                continue
            told = self._told(block.resource, now_ns)
            for inner in block.scope_logs:
                within = _scoped(told, inner.scope)
                for line in inner.log_records or ():
                    at_ns = line.time_unix_nano or line.observed_time_unix_nano or now_ns
                    if self._timely(at_ns, now_ns, asked) and asked.holds(within):
                        lines.append(_log(within, line, at_ns))
        return asked.taken([Batch(Source(""), now_ns, logs=some) for some in _parted(lines)])

    def metrics(self, request: messages.Metrics, now_ns: int) -> Taken:
        asked = _Request()
        points: dict[int, list[records.Point]] = {}
        for block in request.resource_metrics or ():
            if not block.scope_metrics:
                continue
            told = self._told(block.resource, now_ns)
            for inner in block.scope_metrics:
                within = _scoped(told, inner.scope)
                teller = (within.module, within.scope, _digest(within.resource))
                instance = within.resource.get("service.instance.id", "")
                for metric in inner.metrics or ():
                    for at_ns, found in self._measures.points(metric, teller, str(instance), now_ns, asked.refuse):
                        if self._timely(at_ns, now_ns, asked):
                            self._measures.by_time(points, at_ns, found, asked.refuse)
        return asked.taken([Batch(Source(""), at_ns, points=found) for at_ns, found in points.items()])

    def _told(self, resource: messages.Resource | None, now_ns: int) -> Told:
        attributes: dict[str, Attribute] = {}
        if resource is not None:
            attributes = attributes_of(resource.attributes, resource.dropped_attributes_count)
        name = attributes.get("service.name")
        module = self._names.service(name if isinstance(name, str) else "", now_ns)
        return Told(module, attributes, len(msgspec.msgpack.encode(attributes)))

    def _timely(self, at_ns: int, now_ns: int, asked: _Request) -> bool:
        if now_ns - self._age_ns <= at_ns <= now_ns + _EARLY_NS:
            return True
        asked.refuse("a time lies further back than is kept, or more than an hour ahead")
        return False


class _Request:
    """What is refused of one request: how much, and why the first was; and for how much more there is room."""

    def __init__(self) -> None:
        self._refused = 0
        self._reason = ""
        self._room = EXPANDED_BYTES_MAX

    def refuse(self, reason: str) -> None:
        self._refused += 1
        self._reason = self._reason or reason

    def holds(self, told: Told) -> bool:
        """Whether there is room for one more thing that bears all of this."""
        self._room -= told.weight
        if self._room < 0:
            self.refuse("the resource and scope are too large to stand with each of so many")
        return self._room >= 0

    def taken(self, batches: list[Batch]) -> Taken:
        return Taken(batches, self._refused, self._reason)


def _parted(things: list[T]) -> list[list[T]]:
    return [things[begin : begin + BATCH_MAX] for begin in range(0, len(things), BATCH_MAX)]


_HEX = re.compile(r"[0-9a-fA-F]*")


def identifier(told: object, size: int) -> bytes:
    """An id: bytes, or hexadecimal text in JSON. Empty where there is none, or none that is valid."""
    if isinstance(told, str):
        if not _HEX.fullmatch(told) or len(told) % 2:
            return b""
        told = bytes.fromhex(told)
    elif not isinstance(told, bytes):
        raise MalformedError("an id is hexadecimal text")
    return told if len(told) == size and any(told) else b""


def attributes_of(bag: Bag | None, dropped: int = 0) -> dict[str, Attribute]:
    """A dictionary of one's own, which also says how many were dropped on the way."""
    if bag is None:
        attributes: dict[str, Attribute] = {}
    else:
        attributes = bag.values
        dropped += bag.dropped
    if dropped > 0:
        _count(attributes, DROPPED_ATTRIBUTES, dropped)
    return attributes


def scope_name(name: str, version: str) -> str:
    return f"{name}@{version}" if version else name


def _count(attributes: dict[str, Attribute], key: str, count: int) -> None:
    if count > 0:
        attributes[key] = min(count, 2**32 - 1)


def _duration(start_ns: int, end_ns: int) -> int:
    """An end before the start is a clock that was set back: that it took no time is the least wrong."""
    return min(max(end_ns - start_ns, 0), 2**62)


def _scoped(told: Told, scope: messages.Scope | None) -> Told:
    if scope is None:
        return told
    attributes = attributes_of(scope.attributes, scope.dropped_attributes_count)
    name = cut(scope_name(scope.name, scope.version))
    weight = told.weight + len(name) + len(msgspec.msgpack.encode(attributes))
    return told._replace(scope=name, scope_attributes=attributes, weight=weight)


def _event(event: messages.Event) -> records.SpanEvent:
    attributes = attributes_of(event.attributes, event.dropped_attributes_count)
    return records.SpanEvent(min(max(event.time_unix_nano, 0), 2**63 - 1), cut(event.name), attributes)


def _link(link: messages.Link) -> records.SpanLink:
    attributes = attributes_of(link.attributes, link.dropped_attributes_count)
    return records.SpanLink(
        identifier(link.trace_id, 16), identifier(link.span_id, 8), attributes, cut(link.trace_state)
    )


def _log(told: Told, line: messages.LogRecord, at_ns: int) -> records.Log:
    attributes = attributes_of(line.attributes, line.dropped_attributes_count + (line.body.dropped if line.body else 0))
    severity, usual = _severity(line)
    if line.severity_text and line.severity_text != usual:
        attributes[SEVERITY_TEXT] = cut(line.severity_text)
    if line.event_name:
        attributes[EVENT_NAME] = cut(line.event_name)
    if told.scope_attributes:
        attributes[SCOPE_ATTRIBUTES] = told.scope_attributes
    stack = attributes.pop(STACKTRACE, "")
    if not isinstance(stack, str):
        attributes[STACKTRACE], stack = stack, ""
    return records.Log(
        at_ns,
        severity,
        told.module,
        _message(line.body, attributes),
        told.scope,
        "",
        0,
        identifier(line.trace_id, 16),
        identifier(line.span_id, 8),
        stack,
        attributes,
        told.resource,
    )


def severity_text(number: int) -> str:
    """OpenTelemetry's short name of a severity."""
    return f"{SEVERITIES[(number - 1) // 4]}{'' if (number - 1) % 4 == 0 else (number - 1) % 4 + 1}"


def _severity(line: messages.LogRecord) -> tuple[int, str]:
    number = line.severity_number
    if 1 <= number <= 24:
        return number, severity_text(number)
    word = line.severity_text.upper()
    for index, name in enumerate(SEVERITIES):
        if word.startswith(name):
            return 4 * index + 1, ""
    return (21 if word == "CRITICAL" else INFO), ""


def _message(body: Value | None, attributes: dict[str, Attribute]) -> str:
    value = body.value if body is not None else None
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    attributes[BODY] = value
    return cut(msgspec.json.encode(value).decode())


def _digest(resource: dict[str, Attribute]) -> bytes:
    """Of two resources the same if, and only if, they are."""
    return blake2b(msgspec.msgpack.encode(resource, order="sorted"), digest_size=16).digest()
