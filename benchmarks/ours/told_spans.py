"""``python -m benchmarks.ours.told_spans``: what a span costs the process that makes it, until it has left it.

Ours: recorded, taken, put into a batch and written to the observer's socket. The peer: OpenTelemetry's SDK with its
batch processor and its OTLP exporter over HTTP, to a server in another process. Both spans have the same four
attributes. Answers ``{"blocks": n}`` with medians over n blocks of CPU of the whole process, threads included, in
microseconds a span.
"""

from __future__ import annotations

import http.server
import json
import multiprocessing
import socket
import sys
import threading
import time
from statistics import median
from time import monotonic, process_time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.driver import say
from seamline.kernel.signal.trace import Tracer, new_span_id
from seamline.observe.intake import Encoder
from seamline.observe.records import Batch, Source
from seamline.run.signals import as_span

SPANS = 4_000
FACTS = {"rpc.system": "seamline", "rpc.service": "Cart", "rpc.method": "add", "server.address": "cart"}


class _Taken(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # the library's name
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def _serve(port: multiprocessing.Queue[int]) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Taken)
    port.put(server.server_address[1])
    server.serve_forever()


def main() -> None:
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[int] = context.Queue()
    context.Process(target=_serve, args=(told,), daemon=True).start()
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{told.get()}/v1/traces")
    provider = TracerProvider(resource=Resource({"service.name": "cart"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=2 * SPANS))
    theirs = provider.get_tracer("lib")
    ours, encoder = Tracer(1.0), Encoder()
    ear, mouth = socket.socketpair()
    threading.Thread(target=_listen, args=(ear,), daemon=True).start()

    def told_by_us() -> None:
        trace = ours.root()
        for _ in range(SPANS):
            ours.record(trace, new_span_id(), 0, "Cart.add", "server", "cart", "shop", monotonic(), 0.001,
                        attributes=FACTS)  # fmt: skip
        spans = [as_span(each, "shop", 0) for each in ours.take()]
        mouth.sendall(encoder.encode(Batch(Source("shop"), time.time_ns(), spans=spans)))

    def told_by_them() -> None:
        for _ in range(SPANS):
            theirs.start_span("Cart.add", attributes=FACTS).end()
        provider.force_flush()

    kinds = {"ours": told_by_us, "theirs": told_by_them}
    for kind in kinds.values():
        kind()
    say({"ready": True})
    for line in sys.stdin:
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, kind in kinds.items():
                began = process_time()
                kind()
                found[name].append(1e6 * (process_time() - began) / SPANS)
        say({name: median(values) for name, values in found.items()})


def _listen(ear: socket.socket) -> None:
    while ear.recv(1 << 20):
        pass


if __name__ == "__main__":
    main()
