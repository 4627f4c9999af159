"""OTLP's messages, once for both encodings: ``msgspec`` reads and writes the JSON, :mod:`.protobuf` the binary form.

Names and numbers are those of ``opentelemetry-proto`` 1.x; what we have no use for (exemplars, schema URLs, entities)
is not named and therefore passed over. Ids are bytes in the binary form and hexadecimal text in JSON; 64-bit integers
are text in JSON, where a number is taken as well.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from seamline.observe.records import Attribute


class Form(Enum):
    """How a field stands in the binary form."""

    TEXT = "text"
    BYTES = "bytes"
    MESSAGE = "message"
    MESSAGES = "messages"
    PAIRS = "pairs"
    """Attributes: repeated KeyValue."""
    VALUE = "value"
    """One AnyValue."""
    INTEGER = "integer"
    SIGNED = "signed"
    """Zigzag."""
    TRUTH = "truth"
    FIXED32 = "fixed32"
    FIXED64 = "fixed64"
    SFIXED64 = "sfixed64"
    DOUBLE = "double"
    INTEGERS = "integers"
    FIXED64S = "fixed64s"
    DOUBLES = "doubles"


class Field(NamedTuple):
    number: int
    form: Form


class Bag:
    """Attributes of one thing, within bounds; ``dropped`` counts what was beyond them."""

    __slots__ = ("dropped", "values")

    def __init__(self, values: dict[str, Attribute] | None = None, dropped: int = 0) -> None:
        self.values: dict[str, Attribute] = {} if values is None else values
        self.dropped = dropped


class Value:
    """One value of any type, or none."""

    __slots__ = ("dropped", "value")

    def __init__(self, value: Attribute = None, dropped: int = 0) -> None:
        self.value = value
        self.dropped = dropped


class Message(msgspec.Struct, rename="camel", gc=False, omit_defaults=True):
    pass


class Resource(Message):
    attributes: Annotated[Bag | None, Field(1, Form.PAIRS)] = None
    dropped_attributes_count: Annotated[int, Field(2, Form.INTEGER)] = 0


class Scope(Message):
    name: Annotated[str, Field(1, Form.TEXT)] = ""
    version: Annotated[str, Field(2, Form.TEXT)] = ""
    attributes: Annotated[Bag | None, Field(3, Form.PAIRS)] = None
    dropped_attributes_count: Annotated[int, Field(4, Form.INTEGER)] = 0


class Event(Message):
    time_unix_nano: Annotated[int, Field(1, Form.FIXED64)] = 0
    name: Annotated[str, Field(2, Form.TEXT)] = ""
    attributes: Annotated[Bag | None, Field(3, Form.PAIRS)] = None
    dropped_attributes_count: Annotated[int, Field(4, Form.INTEGER)] = 0


class Link(Message):
    trace_id: Annotated[Any, Field(1, Form.BYTES)] = b""
    span_id: Annotated[Any, Field(2, Form.BYTES)] = b""
    trace_state: Annotated[str, Field(3, Form.TEXT)] = ""
    attributes: Annotated[Bag | None, Field(4, Form.PAIRS)] = None
    dropped_attributes_count: Annotated[int, Field(5, Form.INTEGER)] = 0


class Status(Message):
    message: Annotated[str, Field(2, Form.TEXT)] = ""
    code: Annotated[int, Field(3, Form.INTEGER)] = 0


class Span(Message):
    trace_id: Annotated[Any, Field(1, Form.BYTES)] = b""
    span_id: Annotated[Any, Field(2, Form.BYTES)] = b""
    trace_state: Annotated[str, Field(3, Form.TEXT)] = ""
    parent_span_id: Annotated[Any, Field(4, Form.BYTES)] = b""
    name: Annotated[str, Field(5, Form.TEXT)] = ""
    kind: Annotated[int, Field(6, Form.INTEGER)] = 0
    start_time_unix_nano: Annotated[int, Field(7, Form.FIXED64)] = 0
    end_time_unix_nano: Annotated[int, Field(8, Form.FIXED64)] = 0
    attributes: Annotated[Bag | None, Field(9, Form.PAIRS)] = None
    dropped_attributes_count: Annotated[int, Field(10, Form.INTEGER)] = 0
    events: Annotated[list[Event] | None, Field(11, Form.MESSAGES)] = None
    dropped_events_count: Annotated[int, Field(12, Form.INTEGER)] = 0
    links: Annotated[list[Link] | None, Field(13, Form.MESSAGES)] = None
    dropped_links_count: Annotated[int, Field(14, Form.INTEGER)] = 0
    status: Annotated[Status | None, Field(15, Form.MESSAGE)] = None


class ScopeSpans(Message):
    scope: Annotated[Scope | None, Field(1, Form.MESSAGE)] = None
    spans: Annotated[list[Span] | None, Field(2, Form.MESSAGES)] = None


class ResourceSpans(Message):
    resource: Annotated[Resource | None, Field(1, Form.MESSAGE)] = None
    scope_spans: Annotated[list[ScopeSpans] | None, Field(2, Form.MESSAGES)] = None


class Traces(Message):
    """ExportTraceServiceRequest."""

    resource_spans: Annotated[list[ResourceSpans] | None, Field(1, Form.MESSAGES)] = None


class LogRecord(Message):
    time_unix_nano: Annotated[int, Field(1, Form.FIXED64)] = 0
    severity_number: Annotated[int, Field(2, Form.INTEGER)] = 0
    severity_text: Annotated[str, Field(3, Form.TEXT)] = ""
    body: Annotated[Value | None, Field(5, Form.VALUE)] = None
    attributes: Annotated[Bag | None, Field(6, Form.PAIRS)] = None
    dropped_attributes_count: Annotated[int, Field(7, Form.INTEGER)] = 0
    flags: Annotated[int, Field(8, Form.FIXED32)] = 0
    trace_id: Annotated[Any, Field(9, Form.BYTES)] = b""
    span_id: Annotated[Any, Field(10, Form.BYTES)] = b""
    observed_time_unix_nano: Annotated[int, Field(11, Form.FIXED64)] = 0
    event_name: Annotated[str, Field(12, Form.TEXT)] = ""


class ScopeLogs(Message):
    scope: Annotated[Scope | None, Field(1, Form.MESSAGE)] = None
    log_records: Annotated[list[LogRecord] | None, Field(2, Form.MESSAGES)] = None


class ResourceLogs(Message):
    resource: Annotated[Resource | None, Field(1, Form.MESSAGE)] = None
    scope_logs: Annotated[list[ScopeLogs] | None, Field(2, Form.MESSAGES)] = None


class Logs(Message):
    """ExportLogsServiceRequest."""

    resource_logs: Annotated[list[ResourceLogs] | None, Field(1, Form.MESSAGES)] = None


class NumberPoint(Message):
    start_time_unix_nano: Annotated[int, Field(2, Form.FIXED64)] = 0
    time_unix_nano: Annotated[int, Field(3, Form.FIXED64)] = 0
    as_double: Annotated[float | None, Field(4, Form.DOUBLE)] = None
    as_int: Annotated[int | None, Field(6, Form.SFIXED64)] = None
    attributes: Annotated[Bag | None, Field(7, Form.PAIRS)] = None
    flags: Annotated[int, Field(8, Form.INTEGER)] = 0


class Gauge(Message):
    data_points: Annotated[list[NumberPoint] | None, Field(1, Form.MESSAGES)] = None


class Sum(Message):
    data_points: Annotated[list[NumberPoint] | None, Field(1, Form.MESSAGES)] = None
    aggregation_temporality: Annotated[int, Field(2, Form.INTEGER)] = 0
    is_monotonic: Annotated[bool, Field(3, Form.TRUTH)] = False


class HistogramPoint(Message):
    start_time_unix_nano: Annotated[int, Field(2, Form.FIXED64)] = 0
    time_unix_nano: Annotated[int, Field(3, Form.FIXED64)] = 0
    count: Annotated[int, Field(4, Form.FIXED64)] = 0
    sum: Annotated[float | None, Field(5, Form.DOUBLE)] = None
    bucket_counts: Annotated[list[int] | None, Field(6, Form.FIXED64S)] = None
    explicit_bounds: Annotated[list[float] | None, Field(7, Form.DOUBLES)] = None
    attributes: Annotated[Bag | None, Field(9, Form.PAIRS)] = None
    flags: Annotated[int, Field(10, Form.INTEGER)] = 0


class Histogram(Message):
    data_points: Annotated[list[HistogramPoint] | None, Field(1, Form.MESSAGES)] = None
    aggregation_temporality: Annotated[int, Field(2, Form.INTEGER)] = 0


class Buckets(Message):
    offset: Annotated[int, Field(1, Form.SIGNED)] = 0
    bucket_counts: Annotated[list[int] | None, Field(2, Form.INTEGERS)] = None


class ExponentialPoint(Message):
    attributes: Annotated[Bag | None, Field(1, Form.PAIRS)] = None
    start_time_unix_nano: Annotated[int, Field(2, Form.FIXED64)] = 0
    time_unix_nano: Annotated[int, Field(3, Form.FIXED64)] = 0
    count: Annotated[int, Field(4, Form.FIXED64)] = 0
    sum: Annotated[float | None, Field(5, Form.DOUBLE)] = None
    scale: Annotated[int, Field(6, Form.SIGNED)] = 0
    zero_count: Annotated[int, Field(7, Form.FIXED64)] = 0
    positive: Annotated[Buckets | None, Field(8, Form.MESSAGE)] = None
    negative: Annotated[Buckets | None, Field(9, Form.MESSAGE)] = None
    flags: Annotated[int, Field(10, Form.INTEGER)] = 0
    zero_threshold: Annotated[float, Field(14, Form.DOUBLE)] = 0.0


class ExponentialHistogram(Message):
    data_points: Annotated[list[ExponentialPoint] | None, Field(1, Form.MESSAGES)] = None
    aggregation_temporality: Annotated[int, Field(2, Form.INTEGER)] = 0


class Quantile(Message):
    quantile: Annotated[float, Field(1, Form.DOUBLE)] = 0.0
    value: Annotated[float, Field(2, Form.DOUBLE)] = 0.0


class SummaryPoint(Message):
    start_time_unix_nano: Annotated[int, Field(2, Form.FIXED64)] = 0
    time_unix_nano: Annotated[int, Field(3, Form.FIXED64)] = 0
    count: Annotated[int, Field(4, Form.FIXED64)] = 0
    sum: Annotated[float, Field(5, Form.DOUBLE)] = 0.0
    quantile_values: Annotated[list[Quantile] | None, Field(6, Form.MESSAGES)] = None
    attributes: Annotated[Bag | None, Field(7, Form.PAIRS)] = None
    flags: Annotated[int, Field(8, Form.INTEGER)] = 0


class Summary(Message):
    data_points: Annotated[list[SummaryPoint] | None, Field(1, Form.MESSAGES)] = None


class Metric(Message):
    name: Annotated[str, Field(1, Form.TEXT)] = ""
    unit: Annotated[str, Field(3, Form.TEXT)] = ""
    gauge: Annotated[Gauge | None, Field(5, Form.MESSAGE)] = None
    sum: Annotated[Sum | None, Field(7, Form.MESSAGE)] = None
    histogram: Annotated[Histogram | None, Field(9, Form.MESSAGE)] = None
    exponential_histogram: Annotated[ExponentialHistogram | None, Field(10, Form.MESSAGE)] = None
    summary: Annotated[Summary | None, Field(11, Form.MESSAGE)] = None


class ScopeMetrics(Message):
    scope: Annotated[Scope | None, Field(1, Form.MESSAGE)] = None
    metrics: Annotated[list[Metric] | None, Field(2, Form.MESSAGES)] = None


class ResourceMetrics(Message):
    resource: Annotated[Resource | None, Field(1, Form.MESSAGE)] = None
    scope_metrics: Annotated[list[ScopeMetrics] | None, Field(2, Form.MESSAGES)] = None


class Metrics(Message):
    """ExportMetricsServiceRequest."""

    resource_metrics: Annotated[list[ResourceMetrics] | None, Field(1, Form.MESSAGES)] = None


class PartialSuccess(Message):
    """Of any signal: the field is called after what was refused, its number is the same."""

    rejected: Annotated[int, Field(1, Form.INTEGER)] = 0
    error_message: Annotated[str, Field(2, Form.TEXT)] = ""


class Answer(Message):
    """Export...ServiceResponse."""

    partial_success: Annotated[PartialSuccess | None, Field(1, Form.MESSAGE)] = None


class Failure(Message):
    """google.rpc.Status, the body of an answer that is no success."""

    code: Annotated[int, Field(1, Form.INTEGER)] = 0
    message: Annotated[str, Field(2, Form.TEXT)] = ""


Request = Traces | Logs | Metrics
CUMULATIVE: Final = 2
DELTA: Final = 1
