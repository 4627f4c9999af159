"""What telemetry is made of, on its way from where it arises to where it is kept.

Times are nanoseconds since the epoch, durations nanoseconds. Ids are bytes as in W3C Trace Context: 16 of a trace, 8 of
a span, none where there is none. Attribute names follow OpenTelemetry's semantic conventions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    Attribute = bool | int | float | str | bytes | list["Attribute"] | dict[str, "Attribute"] | None
else:
    Attribute = Any  # msgspec reads no union of text and bytes; MessagePack tells them apart by itself
Kind = Literal["internal", "server", "client", "producer", "consumer"]
Side = Literal["client", "server", "http", "event", "saga", "sql", "model"]
"""Where a count was taken: at the caller, at the callee, at the public door, at a consumer, and so on."""
OK: Final = "ok"
CANCELED: Final = "canceled"
"""Nobody waited for it any more: its caller had gone, or another attempt was faster. No failure."""


def is_failure(status: str) -> bool:
    return status not in (OK, CANCELED)


class SpanEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    at_ns: int
    name: str
    attributes: dict[str, Attribute] = {}


class SpanLink(msgspec.Struct, frozen=True, array_like=True, gc=False):
    trace_id: bytes
    span_id: bytes
    attributes: dict[str, Attribute] = {}
    trace_state: str = ""


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One finished piece of work. ``module`` is who did it, ``peer`` the other end if there is one.

    ``status`` is ``ok`` or the code of the error as in the Connect protocol (``unavailable``, ``internal``, ...).
    Of a service that is not ours, ``module`` is its ``service.name``, and ``resource`` and ``scope`` are what it said
    of itself.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: Kind
    module: str
    peer: str
    start_ns: int
    duration_ns: int
    status: str = OK
    message: str = ""
    attributes: dict[str, Attribute] = {}
    events: list[SpanEvent] = []
    links: list[SpanLink] = []
    workload: str = ""
    replica: int = 0
    resource: dict[str, Attribute] = {}
    scope: str = ""
    trace_state: str = ""


class Log(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line. ``severity`` is OpenTelemetry's number, 1 to 24 (9 info, 13 warning, 17 error)."""

    at_ns: int
    severity: int
    module: str
    message: str
    logger: str = ""
    workload: str = ""
    replica: int = 0
    trace_id: bytes = b""
    span_id: bytes = b""
    exception: str = ""
    attributes: dict[str, Attribute] = {}
    resource: dict[str, Attribute] = {}


class Traffic(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What happened on one edge in one interval, counted and not sampled.

    ``histogram`` has the calls by bucket of ``kernel.signal.metrics``; only buckets that are not empty.
    """

    caller: str
    callee: str
    method: str
    side: Side
    calls: int
    errors: int = 0
    retries: int = 0
    inflight: int = 0
    sum_ns: int = 0
    histogram: dict[int, int] = {}
    codes: dict[str, int] = {}
    """Errors by status."""


class Point(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A measurement: what a gauge shows, or by how much a counter grew in the interval."""

    name: str
    value: float
    module: str = ""
    kind: Literal["gauge", "counter", "histogram"] = "gauge"
    unit: str = ""
    attributes: dict[str, str] = {}
    count: int = 0
    """Of a histogram; ``value`` is the sum."""
    buckets: dict[str, int] = {}
    """Of a histogram: count by upper bound, ``inf`` the last."""


class Profile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """CPU that one stack of one module used in the interval; frames from the outermost in, joined by ``;``."""

    module: str
    stack: str
    cpu_ns: int
    blocked_ns: int = 0
    """Wall time in which the event loop stood still in this stack."""


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something was changed: a release, a switch, settings, policy, a restart, a crash."""

    at_ns: int
    kind: Literal["release", "switch", "scale", "restart", "crash", "settings", "policy", "secret", "drill", "other"]
    title: str
    modules: list[str] = []
    """Empty where it concerns all."""
    attributes: dict[str, Attribute] = {}


class Source(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The process that tells."""

    workload: str
    replica: int = 0
    pid: int = 0
    topology: str = ""
    versions: dict[str, str] = {}


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one process has to tell of an interval that ended at ``at_ns``."""

    source: Source
    at_ns: int
    interval_ns: int = 0
    spans: list[Span] = []
    logs: list[Log] = []
    traffic: list[Traffic] = []
    points: list[Point] = []
    profiles: list[Profile] = []
    marks: list[Mark] = []
    dropped: dict[str, int] = {}
    """How many of each kind were not told, because there was no room."""
