"""``python -m benchmarks.ours.telemetry FOLDER``: what it costs to keep telemetry, and to find it again.

Commands: ``{"do": "ingest", "spans": n}`` keeps n spans in a new store and hands the same ones to OpenTelemetry's SDK,
whose exporter only writes them to a file; ``{"do": "build", "spans": n}`` makes a large store, of which
``{"do": "ask", "rounds": n}`` then asks.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from msgspec.structs import replace

from benchmarks.driver import say
from benchmarks.peers.otel_file import OtelFile
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.records import Batch, Kind, Log, Source, Span, Traffic
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.observe.store.query import LogQuery, TraceQuery

MODULES = ("frontend", "cart", "catalog", "checkout", "currency", "payments", "shipping", "email", "ads", "advice")
BATCH = 500
TEMPLATES = 2_000
S = 10**9
SETTINGS = ObserveSettings(size_max_mb=100_000, hot_s=24 * 3600)


def template(lot: random.Random) -> list[Span]:
    """A request of the shop: five to eleven spans of several modules, with the attributes that ours have."""
    spans: list[Span] = []
    kinds: tuple[Kind, ...] = ("server", "client")
    for index in range(lot.randint(5, 11)):
        module = lot.choice(MODULES) if index else "frontend"
        failed = lot.random() < 0.005
        attributes = {
            "rpc.system": "seamline", "rpc.service": module.title(), "http.request.method": "GET",
            "http.response.status_code": 503 if failed else 200, "user.id": f"u{lot.randrange(5_000)}",
        }  # fmt: skip
        method = lot.choice(("get", "list", "place", "quote", "render"))
        spans.append(
            Span(
                b"", lot.randbytes(8), lot.choice(spans).span_id if spans else b"", f"{module.title()}.{method}",
                kinds[index % 2], module, lot.choice(MODULES), lot.randrange(10**7), int(lot.lognormvariate(14, 1)),
                "unavailable" if failed else "ok", "the card service is down" if failed else "", attributes,
                workload=module,
            )
        )  # fmt: skip
    return spans


def batches(count: int, seed: int, since_ns: int, until_ns: int) -> Iterator[list[Span]]:
    """About ``count`` spans of requests that began evenly over the time."""
    lot = random.Random(seed)
    templates = [template(lot) for _ in range(min(TEMPLATES, count))]
    step = (until_ns - since_ns) * 8 // count
    batch: list[Span] = []
    at, made = since_ns, 0
    while made + len(batch) < count:
        trace_id = lot.randbytes(16)
        batch += [replace(span, trace_id=trace_id, start_ns=at + span.start_ns) for span in lot.choice(templates)]
        at += step
        if len(batch) >= BATCH:
            made += len(batch)
            yield batch
            batch = []
    yield batch


def ingest(folder: Path, count: int) -> dict[str, float]:
    now = time.time_ns()
    given = list(batches(count, 1, now - 600 * S, now))
    number = sum(map(len, given))
    store = TelemetryStore(folder / "ingest", SETTINGS, SystemClock())
    store.start()
    began = time.process_time()
    _fill(store, given)
    ours = time.process_time() - began
    kept = TelemetryReader(folder / "ingest").size()
    assert kept.spans == number, kept
    store.close()
    peer = OtelFile(folder / "spans.otlp", given)
    theirs = peer.export()
    shutil.rmtree(folder / "ingest")
    return {"ours": number / ours, "theirs": number / theirs, "bytes": kept.hot_bytes / number}


def _fill(store: TelemetryStore, given: Iterator[list[Span]] | list[list[Span]]) -> None:
    source = Source("shop")
    for spans in given:
        while store.full:
            time.sleep(0.005)
        store.add(Batch(source, store.now_ns(), S, spans=spans))
    store.flush(120)


def build(folder: Path, count: int) -> dict[str, float]:
    """Spans of six hours, a log line for every fifth, and the counts of the last quarter of an hour."""
    store = TelemetryStore(folder / "large", SETTINGS, SystemClock())
    store.start()
    now = time.time_ns()
    began = time.process_time()
    _fill(store, batches(count, 2, now - 6 * 3600 * S, now))
    words = ("order", "cart", "payment", "declined", "shipped", "retry", "timeout", "cache", "user", "basket")
    lot = random.Random(3)
    for begin in range(0, count // 5, BATCH):
        lines = [
            Log(
                now - (count // 5 - number) * 10**6, 17 if number % 50 == 0 else 9, lot.choice(MODULES),
                f"{lot.choice(words)} {lot.choice(words)} of order-{number} in {lot.randrange(100)} ms",
            )
            for number in range(begin, begin + BATCH)
        ]  # fmt: skip
        while store.full:
            time.sleep(0.005)
        store.add(Batch(Source("shop"), now, S, logs=lines))
    _count(store, now)
    store.flush(300)
    took = time.process_time() - began
    store.close()
    held = sum(each.stat().st_size for each in (folder / "large").rglob("*") if each.is_file())
    return {"cpu_s": took, "bytes": held}


def _count(store: TelemetryStore, now: int) -> None:
    """An edge between any two modules on both sides, told every second: 180 in all."""
    pairs = [(caller, callee) for caller in MODULES for callee in MODULES if caller != callee]
    for second in range(900):
        traffic = [
            Traffic(caller, callee, "get", side, 20, 1, histogram={40 + second % 9: 15, 44: 4, 60: 1}, sum_ns=10**8)
            for caller, callee in pairs
            for side in ("client", "server")
        ]
        store.add(Batch(Source("shop"), now - (900 - second) * S, S, traffic=traffic))
        if second % 60 == 59:
            store.flush(60)


def ask(folder: Path, rounds: int) -> dict[str, float]:
    reader = TelemetryReader(folder / "large", timeout_s=60)
    now = time.time_ns()
    ids = iter([each.trace_id for each in reader.traces(TraceQuery(limit=1000)).items] * 10)
    day = now - 24 * 3600 * S
    searches = {
        "newest": TraceQuery(),
        "failed": TraceQuery(module="cart", status="failed"),
        "user": TraceQuery(attributes={"user.id": "u77"}),
        "rare": TraceQuery(module="payments", slower_than_ms=60, since_ns=day),
        "words": TraceQuery(text="card serv"),
        "nothing": TraceQuery(attributes={"user.id": "nobody"}),
    }
    questions: dict[str, Callable[[], object]] = {
        "trace": lambda: reader.trace(next(ids)),
        "graph": lambda: reader.graph(now - 900 * S, now),
        "log": lambda: reader.logs(LogQuery(text="payment declined", severity=17)),
        **{f"search_{name}": lambda q=q: reader.traces(q) for name, q in searches.items()},
    }
    found: dict[str, list[float]] = {name: [] for name in questions}
    for _ in range(rounds):
        for name, question in questions.items():
            repeat = 50 if name == "trace" else 1
            began = time.thread_time()
            for _ in range(repeat):
                question()
            found[name].append((time.thread_time() - began) * 1e3 / repeat)
    reader.close()
    return {name: median(values) for name, values in found.items()}


async def seal(folder: Path, count: int) -> dict[str, float]:
    """The size of ``count`` spans in Parquet, and a trace by id from there."""
    clock = SystemClock()
    store = TelemetryStore(folder / "past", ObserveSettings(keep_traces=1.0, hot_s=3600), clock)
    store.start()
    hour = time.time_ns() // (3600 * S) * 3600 * S
    _fill(store, list(batches(count, 4, hour - 600 * S, hour - 300 * S)))
    reader = TelemetryReader(folder / "past", timeout_s=60)
    id_ = reader.traces(TraceQuery(limit=1)).items[0].trace_id
    clock.offset_s = 2 * 3600
    await store.tend()
    taken: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        assert reader.trace(id_)
        taken.append((time.perf_counter() - began) * 1e3)
    size = reader.size()
    store.close()
    reader.close()
    shutil.rmtree(folder / "past")
    return {"mb_per_200k": size.history_bytes / size.history_spans * 0.2, "trace_ms": median(taken)}


def main() -> None:
    folder = Path(sys.argv[1])
    say({"ready": True})
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        if command["do"] == "ingest":
            say(ingest(folder, command["spans"]))
        elif command["do"] == "build":
            say(build(folder, command["spans"]))
        elif command["do"] == "seal":
            say(asyncio.run(seal(folder, command["spans"])))
        else:
            say(ask(folder, command["rounds"]))


if __name__ == "__main__":
    main()
