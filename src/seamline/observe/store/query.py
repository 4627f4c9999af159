"""What can be asked of the store, and what it answers.

Times are nanoseconds since the epoch; ``since_ns`` is within, ``until_ns`` is not, and 0 leaves that end open. Ids are
hexadecimal. A page is continued by giving its ``next`` as ``cursor`` of the same question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from seamline.observe.records import Side

T = TypeVar("T")

ROWS_MAX = 1_000
"""The longest page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: list[T]
    next: str = ""
    """The cursor of the next page, empty on the last."""
    notes: tuple[str, ...] = ()
    """What people should know of this answer: that history could not be read, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceQuery:
    """Traces with a span that fits ``module``, ``name``, ``status``, ``slower_than_ms`` and ``attributes`` together."""

    module: str = ""
    name: str = ""
    """Of a span: a method (``Checkout.place``), a route, a topic."""
    status: str = ""
    """``ok``, ``failed`` (anything else), or a code such as ``unavailable``."""
    slower_than_ms: float = 0.0
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Attributes, of the span or its resource, whose value reads so; ``true`` and ``42`` find booleans and numbers."""
    text: str = ""
    """Words that all stand in a span's name, message, exceptions or text attributes; the last may be unfinished."""
    roots_only: bool = False
    """The span is one without a parent."""
    since_ns: int = 0
    until_ns: int = 0
    limit: int = 50
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace at a glance. ``name``, ``module`` and ``status`` are those of its root, or of its earliest span."""

    trace_id: str
    name: str
    module: str
    started_ns: int
    duration_ns: int
    spans: int
    errors: int
    modules: list[str]
    """In the order in which they first appear."""
    status: str
    rooted: bool = True
    """The root is there."""

    @property
    def duration_ms(self) -> float:
        return self.duration_ns / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    module: str = ""
    """A module or a workload."""
    severity: int = 0
    """At least; OpenTelemetry's numbers (9 info, 13 warning, 17 error)."""
    text: str = ""
    """Words that all stand in the line, its exception or its attributes; the last may be unfinished."""
    trace_id: str = ""
    since_ns: int = 0
    until_ns: int = 0
    limit: int = 200
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class EdgeSummary:
    """The calls on one edge in a time, as counted on one side; ``method`` is empty where it is of all methods."""

    caller: str
    callee: str
    side: Side
    calls: int
    errors: int
    retries: int
    inflight: int
    """As last told."""
    rate: float
    """Calls per second."""
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    codes: dict[str, int]
    method: str = ""

    @property
    def error_ratio(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesQuery:
    """Calls over time. ``module`` is the callee of what is counted on the server's, event's or public side.

    Without any name it is the whole application. A ``step_ns`` of 0 gives about 120 steps.
    """

    caller: str = ""
    callee: str = ""
    method: str = ""
    side: Side | Literal[""] = ""
    """Empty: the callee's side where it counts, else the caller's; never both, or a call would count twice."""
    module: str = ""
    since_ns: int
    until_ns: int
    step_ns: int = 0


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time: ``at_ns`` has where each step begins, each column a value a step, None where there is none.

    The columns of ``red`` are ``calls``, ``errors``, ``rate``, ``error_ratio``, ``mean_ms``, ``p50_ms``, ``p95_ms``,
    ``p99_ms``; those of a metric are ``value``, and of a histogram ``rate``, ``mean``, ``p50``, ``p95`` and ``p99``;
    ``value`` is the mean of a gauge, and of a counter how much it grew a second.
    """

    name: str
    unit: str
    at_ns: list[int]
    columns: dict[str, list[float | None]]
    step_ns: int = 0
    kind: Literal["red", "gauge", "counter", "histogram"] = "red"
    module: str = ""
    workload: str = ""
    replica: int = 0
    attributes: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class MetricName:
    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    modules: list[str]
    series: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class StoreSize:
    hot_bytes: int
    history_bytes: int
    spans: int
    """In SQLite; ``history_spans`` in Parquet."""
    history_spans: int
    logs: int
    history_logs: int
    oldest_ns: int
    newest_ns: int
    dropped: dict[str, int]
    """By kind, since the store was made."""
    bytes_by_module: dict[str, int]
    """Of the spans and logs in SQLite."""

    @property
    def bytes(self) -> int:
        return self.hot_bytes + self.history_bytes
