"""Spans, logs and stores that the tests of the telemetry store share."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from seamline.kernel.clock import Clock, ManualClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.records import Batch, Kind, Log, Source, Span
from seamline.observe.store import TelemetryReader, TelemetryStore

S = 10**9
START = datetime(2026, 3, 14, 12, tzinfo=UTC)
NOW = int(START.timestamp()) * S
MODULES = ("frontend", "cart", "checkout", "payments", "email")


def clock() -> ManualClock:
    return ManualClock(START)


@contextmanager
def opened(
    folder: Path, settings: ObserveSettings | None = None, at: Clock | None = None
) -> Generator[tuple[TelemetryStore, TelemetryReader]]:
    store = TelemetryStore(folder, settings or ObserveSettings(), at or clock())
    store.start()
    reader = TelemetryReader(folder, timeout_s=30)
    try:
        yield store, reader
    finally:
        store.close()
        reader.close()


def add(store: TelemetryStore, spans: Iterable[Span] = (), logs: Iterable[Log] = (), workload: str = "w") -> None:
    store.add(Batch(Source(workload), store.now_ns(), S, spans=list(spans), logs=list(logs)))
    store.flush(30)


def trace(number: int, at_ns: int, *, seed: int = 0, failed: bool = False, module: str = "") -> list[Span]:
    """A trace of the same shape for the same number: a root and up to five below it."""
    lot = random.Random(seed * 1_000_003 + number)
    trace_id = lot.randbytes(16)
    spans: list[Span] = []
    kinds: tuple[Kind, ...] = ("server", "client")
    for index in range(1 + lot.randrange(6)):
        who = module or ("frontend" if index == 0 else lot.choice(MODULES))
        spans.append(
            Span(
                trace_id,
                (index + 1).to_bytes(8, "big"),
                lot.choice(spans).span_id if spans else b"",
                f"{who.title()}.{lot.choice(('get', 'place', 'list'))}",
                kinds[index % 2],
                who,
                lot.choice(MODULES),
                at_ns + index * 1000,
                int(lot.lognormvariate(15, 1)),
                "unavailable" if failed and index == 0 else "ok",
                "the card service is down" if failed and index == 0 else "",
                {"order.number": number, "user": f"u{number % 7}", "paid": number % 2 == 0},
            )
        )
    return spans


def by_id(spans: Iterable[Span]) -> list[Span]:
    return sorted(spans, key=lambda each: each.span_id)
