"""``python -m benchmarks.ours.otlp``: what OTLP costs on its way in and out, in µs of one thread's CPU per span.

Answers each command ``{"blocks": n}`` with medians over n blocks of each kind, taken in turns. A block is a request of
512 spans with six attributes, of which one is different each time.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from statistics import median
from time import thread_time
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.driver import say
from seamline.observe.otlp import protobuf
from seamline.observe.otlp.decoding import Decoding
from seamline.observe.otlp.mapping import Mapper
from seamline.observe.otlp.telling import Teller, Whole, items
from seamline.observe.otlp.values import encode_hook
from seamline.observe.records import Batch, Source

SPANS = 512
REQUESTS = 16


def main() -> None:
    recorded = [_recorded() for _ in range(REQUESTS)]
    bodies = [encode_spans(spans).SerializeToString() for spans in recorded]
    now_ns = time.time_ns()
    decoding = Decoding(Mapper((), now_ns, 14), 2**24)
    taken = [decoding.take("traces", "protobuf", "", body, now_ns).batches[0] for body in bodies]
    batches = [_as_ours(batch, now_ns) for batch in taken]
    plain, text = Teller(Whole("shop", ""), json=False), Teller(Whole("shop", ""), json=True)
    texts = [_json(text, batch) for batch in taken]
    kinds: dict[str, Callable[[int], object]] = {
        "protobuf_in": lambda i: decoding.take("traces", "protobuf", "", bodies[i], now_ns),
        "json_in": lambda i: decoding.take("traces", "json", "", texts[i], now_ns),
        "peer_in": lambda i: _walk(ExportTraceServiceRequest.FromString(bodies[i])),
        "protobuf_out": lambda i: protobuf.write(plain.traces(items(batches[i])["traces"])),
        "json_out": lambda i: _json(text, batches[i]),
        "peer_out": lambda i: encode_spans(recorded[i]).SerializeToString(),
    }
    for kind in kinds.values():
        _block(kind)
    say({"ready": True})
    for line in sys.stdin:
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, kind in kinds.items():
                found[name].append(_block(kind))
        say({name: median(values) for name, values in found.items()})


def _block(kind: Callable[[int], object]) -> float:
    began = thread_time()
    for number in range(REQUESTS):
        kind(number)
    return 1e6 * (thread_time() - began) / (REQUESTS * SPANS)


def _recorded() -> tuple[ReadableSpan, ...]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "cart", "service.instance.id": os.urandom(4).hex()}))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("lib", "1.0")
    same = {"http.request.method": "GET", "http.route": "/cart/{id}", "url.scheme": "http", "server.address": "cart"}
    for _ in range(SPANS):
        told = {**same, "http.response.status_code": 200, "user.id": f"u-{random.randrange(10**6)}"}
        tracer.start_span("GET /cart/{id}", kind=trace.SpanKind.SERVER, attributes=told).end()
    return memory.get_finished_spans()


def _as_ours(batch: Batch, now_ns: int) -> Batch:
    spans = [msgspec.structs.replace(span, resource={}, workload="shop") for span in batch.spans]
    return Batch(Source("shop"), now_ns, spans=spans)


def _json(teller: Teller, batch: Batch) -> bytes:
    return msgspec.json.encode(teller.traces(items(batch)["traces"]), enc_hook=encode_hook)


def _walk(request: Any) -> list[tuple[Any, ...]]:
    """What whoever reads with OpenTelemetry's own classes must do at least: look at every field from Python."""
    found: list[tuple[Any, ...]] = []
    for block in request.resource_spans:
        for inner in block.scope_spans:
            for span in inner.spans:
                told: dict[str, Any] = {}
                for pair in span.attributes:
                    kind = pair.value.WhichOneof("value")
                    told[pair.key] = getattr(pair.value, kind) if kind else None
                found.append((
                    span.trace_id, span.span_id, span.trace_state, span.parent_span_id, span.name, span.kind,
                    span.start_time_unix_nano, span.end_time_unix_nano, told, span.dropped_attributes_count,
                    list(span.events), list(span.links), span.status.code, span.status.message,
                ))  # fmt: skip
    return found


if __name__ == "__main__":
    main()
