"""What our processes tell gets to a backend, and what cannot be sent harms nobody."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.observe.otlp_rig import place, until

from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings.observe import TelemetrySettings
from seamline.kernel.signal.metrics import bucket_of
from seamline.kernel.wire.http1 import Exchange, HttpRequest, HttpServer
from seamline.observe.otlp import OtlpExporter, exporter
from seamline.observe.records import (
    Batch,
    Log,
    Mark,
    Point,
    Source,
    Span,
    SpanEvent,
    SpanLink,
    Traffic,
)

NOW = time.time_ns()
SECOND = 10**9
SOURCE = Source("shop", 2, 41, "services", {"cart": "1.4.2"})
PROTOCOLS: tuple[Literal["http/protobuf", "http/json", "grpc"], ...] = ("http/protobuf", "http/json", "grpc")


def span(name: str = "Cart.add", **more: Any) -> Span:
    return Span(b"\1" * 16, b"\2" * 8, b"\3" * 8, name, "server", "cart", "frontend", NOW - 7, 5, **more)


FULL = Batch(
    SOURCE,
    NOW,
    SECOND,
    [
        span(
            status="unavailable",
            message="down",
            attributes={"a": 1, "b": [True, "x", 2.5, b"\0"], "c": {"d": None}},
            events=[SpanEvent(NOW - 6, "retry", {"n": 1})],
            links=[SpanLink(b"\4" * 16, b"\5" * 8, {"w": "y"}, "k=v")],
            workload="shop",
            replica=2,
            trace_state="k=v",
        ),
        Span(
            b"\1" * 16, b"\6" * 8, b"", "Cart.pay", "client", "cart", "payments", NOW - 9, 3, workload="shop", replica=2
        ),
    ],
    [Log(NOW, 17, "cart", "broke", "cart.lines", "shop", 2, b"\1" * 16, b"\2" * 8, "Traceback …", {"line": 3})],
    [
        Traffic(
            "frontend",
            "cart",
            "Cart.add",
            "server",
            3,
            1,
            sum_ns=3_000_000,
            histogram={bucket_of(1000): 3},
            codes={"internal": 1},
        )
    ],
    [
        Point("process.cpu.time", 1.5, "", "counter", "s"),
        Point("queue", 4.0, "cart", "gauge"),
        Point("took", 12.0, "cart", "histogram", "ms", {"k": "v"}, 3, {"5.0": 2, "10.0": 0, "inf": 1}),
    ],
    marks=[Mark(NOW, "release", "cart 1.4.2", ["cart"], {"by": "ada"})],
)


@asynccontextmanager
async def sending(
    url: str,
    protocol: Literal["http/protobuf", "http/json", "grpc"] = "http/protobuf",
    clock: ManualClock | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncGenerator[OtlpExporter]:
    settings = TelemetrySettings(otlp=url, otlp_protocol=protocol, otlp_headers=headers or {})
    out = OtlpExporter(settings, application="boutique", deployment="test", clock=clock)
    out.start()
    try:
        yield out
    finally:
        await out.stop(1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_out_and_in_again(
    protocol: Literal["http/protobuf", "http/json", "grpc"], monkeypatch: pytest.MonkeyPatch
):
    """What one Seamline sends, another takes in: every field of spans, logs, metrics and marks."""
    monkeypatch.setattr(exporter, "LINGER_S", 0.0)
    async with place(grpc=True) as here:
        url = f"http://{here.grpc_target}" if protocol == "grpc" else here.url
        async with sending(url, protocol) as out:
            out.add(FULL)
            await until(lambda: out.sent.total() == 8)
            assert out.dropped.total() == 0
        failed, paid = sorted(here.spans, key=lambda found: found.name)
        sent = FULL.spans[0]
        for name in ("trace_id", "span_id", "parent_id", "name", "kind", "module", "start_ns", "duration_ns",
                     "status", "message", "events", "links", "trace_state"):  # fmt: skip
            assert getattr(failed, name) == getattr(sent, name), name
        assert failed.attributes == {**sent.attributes, "error.type": "unavailable", "peer.service": "frontend"}
        assert failed.resource == {
            "service.name": "cart", "service.namespace": "boutique", "service.instance.id": "shop/2",
            "service.version": "1.4.2", "deployment.environment.name": "test", "seamline.topology": "services",
        }  # fmt: skip
        assert (paid.module, paid.peer) == ("cart", "payments")
        line, mark = sorted(here.logs, key=lambda found: found.message)
        assert (line.at_ns, line.severity, line.module, line.message) == (NOW, 17, "cart", "broke")
        assert (line.trace_id, line.exception, line.attributes) == (b"\1" * 16, "Traceback …", {"line": 3})
        assert (mark.message, mark.attributes["otel.event_name"]) == ("cart 1.4.2", "seamline.release")
        assert mark.attributes["seamline.modules"] == ["cart"]
        points = {point.name: point for point in here.points}
        assert (points["process.cpu.time"].value, points["process.cpu.time"].module) == (1.5, "boutique")
        assert (points["queue"].value, points["queue"].kind, points["queue"].module) == (4.0, "gauge", "cart")
        assert points["took"].buckets == {"5.0": 2, "10.0": 0, "inf": 1}
        assert (points["took"].value, points["took"].count) == (12.0, 3)
        calls = points["seamline.call.duration"]
        assert (calls.count, calls.value) == (3, 0.003)
        assert {bound: n for bound, n in calls.buckets.items() if n} == {"0.001024": 3}
        assert calls.attributes["seamline.callee"] == "cart"
        assert points["seamline.call.errors"].value == 1.0


# Against a backend that misbehaves


@dataclass
class Backend:
    """Answers as ``answer`` says, and remembers what it was sent."""

    port: int = 0
    answer: Callable[[Exchange], None] = lambda exchange: exchange.respond(200)
    requests: list[tuple[HttpRequest, bytes]] = field(default_factory=list[tuple[HttpRequest, bytes]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[bytes]:
        return [request.path for request, _ in self.requests]


@asynccontextmanager
async def backend(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Backend]:
    here = Backend()

    async def handle(exchange: Exchange) -> None:
        body = await exchange.request.read_all()
        if exchange.request.header(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        here.requests.append((exchange.request, body))
        here.answer(exchange)

    runners = Runners()
    http = HttpServer(handle, runners=runners)
    server = await asyncio.get_running_loop().create_server(http.protocol, "127.0.0.1", 0, ssl=tls)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        await http.close()
        await runners.stop()


async def passing(clock: ManualClock, condition: Callable[[], bool], step_s: float = 0.25) -> float:
    """Move the clock until the condition holds; how far it was moved."""
    moved = 0.0
    async with asyncio.timeout(20):
        while not condition():
            clock.advance(step_s)
            moved += step_s
            await asyncio.sleep(0.005)
    return moved


async def test_the_requests_are_what_opentelemetrys_classes_read():
    """Spans, logs and metrics as protobuf, at the paths of the specification, with the headers asked for."""
    clock = ManualClock()
    async with backend() as there, sending(there.url + "/otlp/", clock=clock, headers={"X-Key": "s3cret"}) as out:
        out.add(FULL)
        await passing(clock, lambda: out.sent.total() == 8)
        found = {request.path: body for request, body in there.requests}
        assert set(found) == {b"/otlp/v1/traces", b"/otlp/v1/logs", b"/otlp/v1/metrics"}
        request = there.requests[0][0]
        assert request.header(b"x-key") == b"s3cret"
        assert request.header(b"content-type") == b"application/x-protobuf"
        spans = ExportTraceServiceRequest.FromString(found[b"/otlp/v1/traces"])
        assert spans.resource_spans[0].scope_spans[0].spans[0].status.code == 2
        assert ExportLogsServiceRequest.FromString(found[b"/otlp/v1/logs"]).resource_logs
        metrics = ExportMetricsServiceRequest.FromString(found[b"/otlp/v1/metrics"])
        sums = [m for r in metrics.resource_metrics for m in r.scope_metrics[0].metrics if m.HasField("sum")]
        assert all(metric.sum.aggregation_temporality == 1 for metric in sums)
        assert {point.start_time_unix_nano for m in sums for point in m.sum.data_points} == {NOW - SECOND}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_be_sent_again_is(status: int):
    """After these statuses the same request comes again, later each time, and arrives once."""
    clock = ManualClock()
    async with backend() as there, sending(there.url, clock=clock) as out:
        there.answer = lambda e: e.respond(status if len(there.requests) < 3 else 200)
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        moved = await passing(clock, lambda: out.sent["traces"] == 1)
        assert len(there.requests) == 3
        assert moved >= 1.0 + 0.5 + 1.0  # the linger, and at least half of each pause
        assert out.dropped.total() == 0
        assert out.trouble == ""


@pytest.mark.parametrize("header", ["seconds", "date"])
async def test_retry_after_is_heeded(header: str):
    """The backend's own delay counts, as seconds or as a date."""
    clock = ManualClock()
    async with backend() as there, sending(there.url, clock=clock) as out:

        def answer(exchange: Exchange) -> None:
            told = "30" if header == "seconds" else formatdate(clock.now().timestamp() + 30, usegmt=True)
            first = len(there.requests) == 1
            exchange.respond(503 if first else 200, [(b"retry-after", told.encode())])

        there.answer = answer
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: len(there.requests) == 1)
        await until(lambda: bool(out.trouble and clock._sleepers))  # pyright: ignore[reportPrivateUsage]
        clock.advance(28)
        await asyncio.sleep(0.05)
        assert len(there.requests) == 1
        clock.advance(3)
        await until(lambda: out.sent["traces"] == 1)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 301])
async def test_what_may_not_be_sent_again_is_dropped(status: int):
    """Other statuses are final: dropped at once, counted, said once; the next batch is sent."""
    clock = ManualClock()
    async with backend() as there, sending(there.url, clock=clock) as out:
        there.answer = lambda e: e.respond(status if len(there.requests) == 1 else 200)
        out.add(Batch(SOURCE, NOW, spans=[span()] * 3))
        await passing(clock, lambda: out.dropped["traces"] == 3)
        assert str(status) in out.trouble
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: out.sent["traces"] == 1)
        assert len(there.requests) == 2


async def test_a_signal_that_the_backend_does_not_know_does_not_hold_up_the_others():
    """A backend for traces alone gets its traces."""
    clock = ManualClock()
    async with backend() as there, sending(there.url, clock=clock) as out:
        there.answer = lambda e: e.respond(200 if e.request.path == b"/v1/traces" else 503)
        out.add(FULL)
        await passing(clock, lambda: out.sent["traces"] == 2)
        await passing(clock, lambda: out.dropped["logs"] == 2 and out.dropped["metrics"] == 4, 5.0)


async def test_a_backend_that_is_away(caplog: pytest.LogCaptureFixture):
    """Nobody listens: after the last attempt it is dropped and counted, said in one line, and said when it is over."""
    clock = ManualClock()
    async with backend() as there:
        port = there.port
    with caplog.at_level(logging.INFO, "seamline.observe"):
        async with sending(f"http://ada:s3cret@127.0.0.1:{port}/?key=s3cret", clock=clock) as out:
            out.add(Batch(SOURCE, NOW, spans=[span()]))
            await passing(clock, lambda: out.dropped["traces"] == 1, 5.0)
            assert out.trouble.startswith(f"Telemetry does not get to http://127.0.0.1:{port}/")
            assert len(caplog.records) == 1
            assert "s3cret" not in caplog.text + out.trouble


async def test_the_queue_is_bounded():
    """While the backend is away, no more than the bound waits; what does not fit is counted."""
    clock = ManualClock()
    async with sending("http://127.0.0.1:9", clock=clock) as out:
        for _ in range(120):
            out.add(Batch(SOURCE, NOW, spans=[span()] * 500, points=[Point("p", 1.0)] * 500))
        assert out.dropped == dict.fromkeys(("traces", "metrics"), 120 * 500 - exporter.QUEUED_MAX)


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_servers_certificate_is_checked(trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Over TLS nothing is sent, secret headers least of all, to whom the machine does not trust."""
    certificate, tls = self_signed(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    clock = ManualClock()
    async with backend(tls) as there, sending(f"https://localhost:{there.port}", clock=clock) as out:
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: bool(out.sent or out.trouble))
        assert (out.sent["traces"], len(there.requests)) == ((1, 1) if trusted else (0, 0))
        assert trusted or "certificate" in out.trouble.lower()


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), today, today + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, private)
    return certificate, tls


async def test_what_waits_is_sent_at_the_end():
    """Stopping sends what is queued, and what the backend refuses then is dropped without another try."""
    clock = ManualClock()
    async with backend() as there:
        async with sending(there.url, clock=clock) as out:
            out.add(Batch(SOURCE, NOW, spans=[span()] * 1200))
        assert out.sent["traces"] == 1200
        assert len(there.requests) == 3
        there.answer = lambda e: e.respond(503)
        async with sending(there.url, clock=clock) as out:
            out.add(Batch(SOURCE, NOW, spans=[span()] * 600))
        assert out.dropped["traces"] == 600


async def test_a_backend_that_never_answers_does_not_hold_up_the_end():
    """Stopping takes no longer than it is given; what was under way is counted as dropped."""
    async with backend() as there:
        there.answer = lambda _: None
        out = OtlpExporter(TelemetrySettings(otlp=there.url))
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await asyncio.wait_for(out.stop(0.2), 10)
        assert out.dropped["traces"] == 1


async def test_what_the_backend_rejects_in_part_is_counted():
    """A partial success is a success whose rest is gone."""
    clock = ManualClock()
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    said = json.dumps({"partialSuccess": {"rejectedSpans": "2"}}).encode()
    answers = {"http/protobuf": partial.SerializeToString(), "http/json": said}
    for protocol in PROTOCOLS[:2]:
        async with backend() as there, sending(there.url, protocol, clock) as out:
            kind = b"application/json" if protocol == "http/json" else b"application/x-protobuf"
            there.answer = lambda e, kind=kind, body=answers[protocol]: e.respond(200, [(b"content-type", kind)], body)
            out.add(Batch(SOURCE, NOW, spans=[span()] * 3))
            await passing(clock, lambda out=out: out.sent["traces"] == 3)
            assert out.dropped["traces refused by the backend"] == 2


@pytest.mark.parametrize("answer", [b"\xff\xff", b"{", b"[]", b'{"partialSuccess":3}', b"x" * 100_000])
async def test_an_answer_that_makes_no_sense(answer: bytes):
    """Whatever the backend says behind its status, the export goes on."""
    clock = ManualClock()
    async with backend() as there, sending(there.url, clock=clock) as out:
        there.answer = lambda e: e.respond(200, [(b"content-type", b"application/json")], answer)
        for _ in range(2):
            out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: out.sent["traces"] + out.dropped["traces"] == 2, 5.0)


async def test_a_record_that_cannot_be_encoded_does_not_end_the_export(caplog: pytest.LogCaptureFixture):
    """It is dropped with its request, and what comes after it is sent."""
    clock = ManualClock()
    async with backend() as there, sending(there.url, clock=clock) as out:
        out.add(Batch(SOURCE, NOW, spans=[span(attributes={"n": object()})]))
        await passing(clock, lambda: out.dropped["traces"] == 1)
        out.add(Batch(SOURCE, NOW, points=[Point("p", 1.0, kind="histogram", buckets={"what": 1})]))
        await passing(clock, lambda: out.dropped["metrics"] == 1)
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: out.sent["traces"] == 1)
        assert "could not be made into a request" in caplog.text


async def test_grpc_tries_again_only_where_it_may():
    """RESOURCE_EXHAUSTED with a delay and UNAVAILABLE are tried again, INVALID_ARGUMENT is not."""
    clock = ManualClock()
    async with place(grpc=True) as here, sending(f"http://{here.grpc_target}", "grpc", clock) as out:
        here.full = True
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: bool(out.trouble))
        here.full = False
        await passing(clock, lambda: out.sent["traces"] == 1)
    async with sending("http://127.0.0.1:9", "grpc", clock) as out:
        out.add(Batch(SOURCE, NOW, spans=[span()]))
        await passing(clock, lambda: "unavailable" in out.trouble)
        assert out.dropped["traces"] == 0


async def test_foreign_traffic_is_not_sent_twice():
    """Counts that were made from others' spans are not sent as ours; their spans are, with their own resource."""
    clock = ManualClock()
    theirs = span(resource={"service.name": "billing"}, scope="lib@1")
    batch = Batch(Source(""), NOW, spans=[theirs], traffic=FULL.traffic)
    async with backend() as there, sending(there.url, clock=clock) as out:
        out.add(batch)
        await passing(clock, lambda: out.sent["traces"] == 1)
        assert there.paths() == [b"/v1/traces"]
        block = ExportTraceServiceRequest.FromString(there.requests[0][1]).resource_spans[0]
        assert [pair.value.string_value for pair in block.resource.attributes] == ["billing"]
        assert (block.scope_spans[0].scope.name, block.scope_spans[0].scope.version) == ("lib", "1")
