"""What OpenTelemetry's own classes encode is read exactly, in both encodings, and written so that they read it."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
from typing import Any, cast

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from seamline.observe.otlp import bounds, messages, protobuf
from seamline.observe.otlp.bounds import MalformedError, TooMuchError
from seamline.observe.otlp.decoding import Decoding, inflate
from seamline.observe.otlp.mapping import Mapper
from seamline.observe.otlp.telling import Teller, Whole, items
from seamline.observe.otlp.values import encode_hook
from seamline.observe.records import Attribute, Batch, Log, Source, Span, SpanEvent, SpanLink

NOW = time.time_ns()
MIB = 1024 * 1024

texts = st.text(max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
scalars = texts | integers | st.booleans() | st.floats(allow_nan=False) | st.binary(max_size=20) | st.none()
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)
attributes = st.dictionaries(texts, values, max_size=6)
counts = st.integers(0, 2**32 - 1)
times = st.integers(NOW - 3600 * 10**9, NOW)
trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)

events = st.builds(SpanEvent, times, texts, attributes)
links = st.builds(SpanLink, trace_ids, span_ids, attributes, texts)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    failed = draw(st.booleans())
    return Span(
        draw(trace_ids), draw(span_ids), draw(span_ids | st.just(b"")), draw(texts),
        draw(st.sampled_from(["internal", "server", "client", "producer", "consumer"])),
        "shop", "", draw(times), draw(st.integers(0, 10**12)), "unknown" if failed else "ok", draw(texts),
        draw(attributes), draw(st.lists(events, max_size=3)), draw(st.lists(links, max_size=3)),
        resource={"service.name": "shop", **draw(attributes)},
        scope=draw(st.sampled_from(["", "lib", "lib@1.2", "@npm/x@3"])), trace_state=draw(texts),
    )  # fmt: skip


def any_value(value: Attribute) -> AnyValue:
    """By OpenTelemetry's own classes."""
    made = AnyValue()
    match value:
        case None:
            pass
        case bool():
            made.bool_value = value
        case str():
            made.string_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.SetInParent()
            made.array_value.values.extend(any_value(item) for item in value)
        case dict():
            made.kvlist_value.SetInParent()
            made.kvlist_value.values.extend(pairs(value))
    return made


def pairs(told: dict[str, Attribute]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in told.items()]


def peer_request(span: Span) -> ExportTraceServiceRequest:
    """The span as OpenTelemetry's own classes have it."""
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add()
    block.resource.attributes.extend(pairs(span.resource))
    inner = block.scope_spans.add()
    name, mark, version = span.scope.rpartition("@")
    inner.scope.name, inner.scope.version = (name, version) if mark and name else (span.scope, "")
    made = inner.spans.add(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        trace_state=span.trace_state,
        name=span.name,
        kind=("", "internal", "server", "client", "producer", "consumer").index(span.kind),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.start_ns + span.duration_ns,
    )
    made.attributes.extend(pairs(span.attributes))
    for event in span.events:
        made.events.add(time_unix_nano=event.at_ns, name=event.name).attributes.extend(pairs(event.attributes))
    for link in span.links:
        added = made.links.add(trace_id=link.trace_id, span_id=link.span_id, trace_state=link.trace_state)
        added.attributes.extend(pairs(link.attributes))
    made.status.message = span.message
    made.status.code = Status.STATUS_CODE_UNSET if span.status == "ok" else Status.STATUS_CODE_ERROR
    return request


def as_json(request: Any) -> bytes:
    """OTLP's JSON: that of Protocol Buffers, but ids are hexadecimal and enumerations numbers."""

    def fixed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: fixed(inner, name) for name, inner in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [fixed(inner) for inner in cast("list[Any]", value)]
        if key in ("traceId", "spanId", "parentSpanId"):
            return base64.b64decode(value).hex()
        return value

    return json.dumps(fixed(MessageToDict(request, use_integers_for_enums=True))).encode()


def decoding() -> Decoding:
    return Decoding(Mapper((), NOW, 14), 16 * MIB)


def same(one: object, other: object) -> bool:
    """Equal, and of equal types all the way down: True is not 1, and 1 is not 1.0."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)


@settings(max_examples=60, deadline=None)
@given(spans())
def test_spans_are_read_exactly(span: Span):
    """A span that OpenTelemetry's classes encode arrives with every nanosecond, id and type as it was."""
    request = peer_request(span)
    for encoding, body in (("protobuf", request.SerializeToString()), ("json", as_json(request))):
        taken = decoding().take("traces", encoding, "", body, NOW)  # pyright: ignore[reportArgumentType]
        (batch,) = taken.batches
        (found,) = batch.spans
        expected = msgspec.structs.replace(span, peer=found.peer, module=found.module, status=found.status)
        assert same(found, expected)
        assert (found.status == "ok") == (span.status == "ok")
        assert (
            found.module == str(span.resource["service.name"])
            if isinstance(span.resource["service.name"], str)
            else True
        )
        assert taken.rejected == 0


@settings(max_examples=40, deadline=None)
@given(spans())
def test_what_is_written_is_what_opentelemetry_reads(span: Span):
    """Our protobuf of a span is, field by field, what OpenTelemetry's classes hold; our JSON is what they parse."""
    told = items(Batch(Source("w"), NOW, spans=[span]))["traces"]
    ours = ExportTraceServiceRequest.FromString(protobuf.write(Teller(Whole("", ""), json=False).traces(told)))
    theirs = peer_request(span)
    assert normal(ours) == normal(theirs)
    body = msgspec.json.encode(Teller(Whole("", ""), json=True).traces(told), enc_hook=encode_hook)
    (batch,) = decoding().take("traces", "json", "", body, NOW).batches
    assert same(batch.spans[0].attributes, span.attributes)
    assert batch.spans[0].start_ns == span.start_ns
    assert b'"startTimeUnixNano":"' in body  # a number would lose nanoseconds in JavaScript


def normal(request: Any) -> Any:
    """Without the difference between an empty message and none."""
    found = MessageToDict(request)

    kept_empty = ("value", "arrayValue", "kvlistValue")

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(inner) for inner in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        inside = {key: bare(inner) for key, inner in cast("dict[str, Any]", value).items()}
        return {key: inner for key, inner in inside.items() if inner not in ({}, [], None) or key in kept_empty}

    return bare(found)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_logs_are_read_exactly(data: st.DataObject):
    """A log record keeps its body's type, its ids, its times and its attributes, in both encodings."""
    request = ExportLogsServiceRequest()
    block = request.resource_logs.add()
    block.resource.attributes.extend(pairs({"service.name": "shop"}))
    body, told, at_ns = data.draw(values), data.draw(attributes), data.draw(times)
    severity = data.draw(st.integers(1, 24))
    block.scope_logs.add().log_records.add(
        time_unix_nano=at_ns, severity_number=severity, body=any_value(body), attributes=pairs(told),
        trace_id=b"\1" * 16, span_id=b"\2" * 8, event_name="thing.happened",
    )  # fmt: skip
    for encoding, raw in (("protobuf", request.SerializeToString()), ("json", as_json(request))):
        (batch,) = decoding().take("logs", encoding, "", raw, NOW).batches  # pyright: ignore[reportArgumentType]
        (line,) = batch.logs
        assert (line.at_ns, line.severity, line.module) == (at_ns, severity, "shop")
        assert (line.trace_id, line.span_id) == (b"\1" * 16, b"\2" * 8)
        found = dict(line.attributes)
        assert found.pop("otel.event_name") == "thing.happened"
        assert same(found.pop("otel.body", None) if not isinstance(body, str) else line.message, body)
        assert same(found, told)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["traces", "logs", "metrics"]), st.sampled_from(["protobuf", "json"]))
def test_noise_is_refused_or_means_nothing(noise: bytes, signal: Any, encoding: Any):
    """Whatever the bytes, the answer is a batch that can be stored, or a refusal; nothing else escapes."""
    fuzz(noise, signal, encoding)


@settings(max_examples=60, deadline=None)
@given(spans(), st.data())
def test_damaged_requests_are_refused_or_read(span: Span, data: st.DataObject):
    """The same of a good request that was cut, or of which a few bytes were changed."""
    good = peer_request(span)
    for encoding, body in (("protobuf", good.SerializeToString()), ("json", as_json(good))):
        damaged = bytearray(body)
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        fuzz(bytes(damaged), "traces", encoding)
        fuzz(body[: data.draw(st.integers(0, len(body) - 1))], "traces", encoding)


@pytest.mark.torture
@settings(max_examples=20_000, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["traces", "logs", "metrics"]), st.sampled_from(["protobuf", "json"]))
def test_noise_for_long(noise: bytes, signal: Any, encoding: Any):
    """The same, for long."""
    fuzz(noise, signal, encoding)


def fuzz(body: bytes, signal: Any, encoding: Any) -> None:
    try:
        taken = decoding().take(signal, encoding, "", body, NOW)
    except (MalformedError, TooMuchError):
        return
    for batch in taken.batches:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=Batch) is not None


def test_protobuf_agrees_with_opentelemetry_about_what_is_malformed():
    """Of every truncation of a request, ours reads exactly those that OpenTelemetry's classes read."""
    body = peer_request(Span(b"\1" * 16, b"\2" * 8, b"", "work", "server", "", "", NOW, 5, attributes={
        "text": "x" * 130, "list": [1, {"a": 2.5}], "negative": -1,
    }, events=[SpanEvent(NOW, "e")], resource={"service.name": "shop"})).SerializeToString()  # fmt: skip
    for end in range(len(body)):
        assert ours_reads(body[:end]) == theirs_reads(body[:end]), end


def ours_reads(body: bytes) -> bool:
    try:
        protobuf.Reader().read(messages.Traces, body)
    except MalformedError:
        return False
    return True


def theirs_reads(body: bytes) -> bool:
    from google.protobuf.message import DecodeError

    try:
        ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return False
    return True


def test_unknown_fields_are_passed_over():
    """What a newer sender says beyond our knowledge does no harm."""
    extra = b"\x9a\x06\x03abc" + b"\xa0\x06\x07" + b"\xa5\x06\x01\x02\x03\x04" + b"\xa1\x06" + b"\0" * 8
    body = peer_request(Span(b"\1" * 16, b"\2" * 8, b"", "w", "server", "", "", NOW, 5)).SerializeToString()
    (batch,) = decoding().take("traces", "protobuf", "", body + extra, NOW).batches
    assert batch.spans[0].name == "w"
    (batch,) = decoding().take("traces", "json", "", b'{"news":{"a":[1]},' + as_json(
        ExportTraceServiceRequest.FromString(body))[1:], NOW).batches  # fmt: skip
    assert batch.spans[0].name == "w"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"intValue": "9223372036854775807"}, 2**63 - 1),
        ({"intValue": -5}, -5),
        ({"doubleValue": "NaN"}, math.nan),
        ({"doubleValue": "-Infinity"}, -math.inf),
        ({"doubleValue": 3}, 3.0),
        ({"bytesValue": "AQI="}, b"\1\2"),
        ({"bytesValue": "_-8"}, b"\xff\xef"),
        ({"arrayValue": {}}, []),
        ({"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": False}}]}}, {"a": False}),
        ({}, None),
    ],
)
def test_json_values(value: dict[str, Any], expected: Attribute):
    """The forms of a value that JSON allows."""
    assert same(json_attribute(value), expected)


@pytest.mark.parametrize(
    "value",
    [
        {"intValue": "9223372036854775808"}, {"intValue": True}, {"intValue": "x"}, {"intValue": 1.5},
        {"stringValue": 1}, {"boolValue": "true"}, {"bytesValue": "%"}, {"doubleValue": "much"},
        {"stringValue": "a", "intValue": 1}, {"news": 1}, [], "text", {"arrayValue": {"values": 3}},
        {"doubleValue": 10**400},
    ],
)  # fmt: skip
def test_json_values_that_are_none(value: Any):
    """What is no value is refused, and not guessed at."""
    with pytest.raises(MalformedError):
        json_attribute(value)


def json_attribute(value: Any) -> Attribute:
    span = {
        "traceId": "01" * 16,
        "spanId": "02" * 8,
        "startTimeUnixNano": str(NOW),
        "attributes": [{"key": "k", "value": value}],
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    (batch,) = decoding().take("traces", "json", "", body, NOW).batches
    return batch.spans[0].attributes["k"]


def test_nothing_grows_beyond_its_bounds():
    """Too many attributes, events and links, too long texts, too deep nests: cut, and the cut is counted."""
    deep: Attribute = "bottom"
    for _ in range(40):
        deep = [deep]
    span = Span(
        b"\1" * 16, b"\2" * 8, b"", "n" * 50_000, "server", "", "", NOW, 5,
        attributes={f"k{i}": i for i in range(500)},
        events=[SpanEvent(NOW, "e", {"deep": deep, "long": "x" * 50_000, "raw": b"x" * 50_000})] * 500,
        links=[SpanLink(b"\1" * 16, b"\2" * 8)] * 500,
    )  # fmt: skip
    request = peer_request(span)
    request.resource_spans[0].scope_spans[0].spans[0].dropped_attributes_count = 7
    for encoding, body in (("protobuf", request.SerializeToString()), ("json", as_json(request))):
        (batch,) = decoding().take("traces", encoding, "", body, NOW).batches  # pyright: ignore[reportArgumentType]
        (found,) = batch.spans
        assert found.attributes["otel.dropped_attributes_count"] == 500 - bounds.ATTRIBUTES_MAX + 7
        assert found.attributes["otel.dropped_events_count"] == 500 - bounds.EVENTS_MAX
        assert found.attributes["otel.dropped_links_count"] == 500 - bounds.LINKS_MAX
        assert len(found.name) == bounds.TEXT_CHARACTERS_MAX
        event = found.events[0].attributes
        assert event["otel.dropped_attributes_count"] == 2  # the nest and the bytes; a text ends in "…"
        assert len(str(event["long"])) == bounds.TEXT_CHARACTERS_MAX


def test_a_large_resource_does_not_stand_with_each_of_many_spans():
    """A resource is told once and kept with each span: past the bound, spans are rejected, and the answer says so."""
    span = Span(
        b"\1" * 16, b"\2" * 8, b"", "w", "server", "", "", NOW, 5, resource={f"k{i}": "x" * 9000 for i in range(120)}
    )
    request = peer_request(span)
    inner = request.resource_spans[0].scope_spans[0]
    for _ in range(299):
        inner.spans.add().CopyFrom(inner.spans[0])
    taken = decoding().take("traces", "protobuf", "", request.SerializeToString(), NOW)
    assert len(taken.batches[0].spans) == 300 - taken.rejected
    assert taken.rejected > 200
    assert "too large" in taken.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trace_id": b""}, "traceId"),
        ({"trace_id": b"\0" * 16}, "traceId"),
        ({"span_id": b"123"}, "traceId"),
        ({"start_ns": 0}, "further back"),
        ({"start_ns": NOW + 7200 * 10**9}, "ahead"),
        ({"start_ns": 2**63}, "ahead"),
    ],
)
def test_spans_that_cannot_be_kept_are_rejected_alone(change: dict[str, Any], reason: str):
    """One bad span is rejected with a reason; the good one beside it is taken."""
    good = Span(b"\1" * 16, b"\2" * 8, b"", "good", "server", "", "", NOW, 5)
    request = peer_request(good)
    bad = peer_request(msgspec.structs.replace(good, **change)).resource_spans[0].scope_spans[0].spans[0]
    request.resource_spans[0].scope_spans[0].spans.add().CopyFrom(bad)
    taken = decoding().take("traces", "protobuf", "", request.SerializeToString(), NOW)
    assert [span.name for span in taken.batches[0].spans] == ["good"]
    assert taken.rejected == 1
    assert reason in taken.reason


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"rpc.grpc.status_code": 14}, "unavailable"),
        ({"rpc.response.status_code": "DEADLINE_EXCEEDED"}, "deadline_exceeded"),
        ({"rpc.connect_rpc.error_code": "not_found"}, "not_found"),
        ({"http.response.status_code": 503}, "unavailable"),
        ({"http.response.status_code": 500}, "internal"),
        ({"http.status_code": 404}, "not_found"),
        ({"error.type": "timeout"}, "deadline_exceeded"),
        ({"error.type": "500"}, "internal"),
        ({"error.type": "java.lang.NullPointerException"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_codes_of_failures(told: dict[str, Attribute], code: str):
    """What other protocols say went wrong becomes the code that our own calls have."""
    span = Span(b"\1" * 16, b"\2" * 8, b"", "w", "server", "", "", NOW, 5, "unknown", attributes=told)
    (batch,) = decoding().take("traces", "protobuf", "", peer_request(span).SerializeToString(), NOW).batches
    assert batch.spans[0].status == code


def test_a_large_request_is_handed_on_in_parts():
    """What has no room for all may have room for some; the traffic is told once."""
    request = peer_request(Span(b"\1" * 16, b"\2" * 8, b"", "w", "server", "", "", NOW, 5))
    inner = request.resource_spans[0].scope_spans[0]
    for _ in range(2 * bounds.BATCH_MAX + 4):
        inner.spans.add().CopyFrom(inner.spans[0])
    batches = decoding().take("traces", "protobuf", "", request.SerializeToString(), NOW).batches
    assert [len(batch.spans) for batch in batches] == [bounds.BATCH_MAX, bounds.BATCH_MAX, 5]
    assert [sum(t.calls for t in batch.traffic) for batch in batches] == [2 * bounds.BATCH_MAX + 5, 0, 0]


def test_an_explicit_ok_is_told_from_none():
    """Unset and OK are different statuses, and go out again as what they were."""
    request = peer_request(
        Span(b"\1" * 16, b"\2" * 8, b"", "w", "server", "", "", NOW, 5, resource={"service.name": "s"})
    )
    request.resource_spans[0].scope_spans[0].spans[0].status.code = Status.STATUS_CODE_OK
    (batch,) = decoding().take("traces", "protobuf", "", request.SerializeToString(), NOW).batches
    assert batch.spans[0].attributes == {"otel.status_code": "OK"}
    written = protobuf.write(Teller(Whole("", ""), json=False).traces(items(batch)["traces"]))
    assert ExportTraceServiceRequest.FromString(written).resource_spans[0].scope_spans[0].spans[0].status.code == 1


def test_severity_without_a_number_is_read_from_its_name():
    """Senders that only say WARNING or CRITICAL are understood."""
    for text, number in (("WARNING", 13), ("critical", 21), ("Error", 17), ("", 9), ("verbose", 9)):
        body = json.dumps(
            {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": str(NOW), "severityText": text}]}]}]}
        )
        (batch,) = decoding().take("logs", "json", "", body.encode(), NOW).batches
        assert batch.logs[0].severity == number


def test_a_stack_trace_is_the_lines_exception():
    """It stands where our own lines have it, and goes out again under OpenTelemetry's name."""
    line = Log(
        NOW,
        17,
        "s",
        "failed",
        exception="Traceback …",
        attributes={"exception.type": "E"},
        resource={"service.name": "s"},
    )
    written = protobuf.write(
        Teller(Whole("", ""), json=False).logs(items(Batch(Source("w"), NOW, logs=[line]))["logs"])
    )
    record = ExportLogsServiceRequest.FromString(written).resource_logs[0].scope_logs[0].log_records[0]
    assert {pair.key: pair.value.string_value for pair in record.attributes} == {
        "exception.type": "E", "exception.stacktrace": "Traceback …",
    }  # fmt: skip
    (batch,) = decoding().take("logs", "protobuf", "", written, NOW).batches
    assert same(batch.logs[0], line)


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_varint_without_end_is_malformed(size: int):
    """Eleven bytes of continuation are no number, wherever they stand."""
    with pytest.raises(MalformedError):
        protobuf.Reader().read(messages.Traces, b"\x0a" * size + b"\xff" * 11)


def test_groups_and_field_zero_are_malformed():
    """Wire types that no OTLP message has."""
    for body in (b"\x0b", b"\x03\x00", b"\x00\x01", b"\x0f"):
        assert not ours_reads(body)
        assert not theirs_reads(body)


def test_bounded_objects():
    """More objects than are taken at once are refused before they are made."""
    with pytest.raises(TooMuchError):
        protobuf.Reader().read(messages.Traces, b"\x0a\x00" * (bounds.OBJECTS_MAX + 1))
    with pytest.raises(TooMuchError):
        decoding().take("traces", "json", "", b'{"resourceSpans":[' + b"{}," * bounds.OBJECTS_MAX + b"{}]}", NOW)


def test_inflating_stops_at_the_bound():
    """A gzip body is unpacked no further than allowed, is whole, and has nothing behind it."""
    import gzip
    import zlib

    body = b"x" * 1000
    packed = gzip.compress(body)
    assert inflate(packed, "gzip", 1000) == body
    assert inflate(packed + packed, "gzip", 2000) == body * 2
    assert inflate(zlib.compress(body), "deflate", 1000) == body
    for bad in (packed[:-1], packed[:5], b"", packed + b"rest", b"\x1f\x8b" + b"\0" * 20):
        with pytest.raises(MalformedError):
            inflate(bad, "gzip", 5000)
    for bad in (packed + packed, gzip.compress(b"x" * 2000), packed * 200):
        with pytest.raises(TooMuchError):
            inflate(bad, "gzip", 1000 if bad != packed * 200 else 10**9)


def test_packed_and_unpacked_lists_of_numbers():
    """Writers may pack lists of numbers or not; both are read."""
    point = messages.HistogramPoint
    both = struct.pack("<BQ", 6 << 3 | 1, 7) + b"\x32\x10" + struct.pack("<QQ", 8, 9)
    assert protobuf.Reader().read(point, both).bucket_counts == [7, 8, 9]
    assert protobuf.Reader().read(messages.Buckets, b"\x10\x05\x12\x02\x06\x07\x08\x03").bucket_counts == [5, 6, 7]
    assert protobuf.Reader().read(messages.Buckets, b"\x08\x03").offset == -2
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    made = metric.exponential_histogram.data_points.add(scale=-3, count=2**63, zero_threshold=0.5)
    made.positive.offset = -70000
    made.positive.bucket_counts.extend([1, 2**63])
    read = protobuf.Reader().read(messages.Metrics, request.SerializeToString())
    assert ExportMetricsServiceRequest.FromString(protobuf.write(read)) == request
