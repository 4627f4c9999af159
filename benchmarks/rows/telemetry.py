"""What it costs to keep telemetry, and to find it among much."""

from __future__ import annotations

from statistics import median

from benchmarks.figures import Row, against_budget, compare
from benchmarks.rows import Family
from benchmarks.session import QUICK, Session

ASK_S = 3_600
INGESTED = 100_000
SEALED = 200_000
MANY = 10_000_000
SEARCHES = ("newest", "failed", "user", "rare", "words", "nothing")


def keeping(session: Session) -> list[Row]:
    """Spans per second of CPU, with their words, indexes and counts; the peer encodes and appends to a file."""
    child, _ = session.server("telemetry store", "benchmarks.ours.telemetry", str(session.folder))
    count = INGESTED // 10 if session.effort is QUICK else INGESTED
    child.ask({"do": "ingest", "spans": count}, ASK_S)
    rounds = [child.ask({"do": "ingest", "spans": count}, ASK_S) for _ in range(session.effort.rounds)]
    ours, theirs = [taken["ours"] for taken in rounds], [taken["theirs"] for taken in rounds]
    sealed = child.ask({"do": "seal", "spans": SEALED}, ASK_S)
    peer = "OpenTelemetry SDK, OTLP to a file"
    return [
        compare("telemetry_ingest_spans_per_s", "spans/s of CPU", "higher", ours, peer, theirs),
        against_budget("telemetry_parquet_mb", "MB for 200,000 spans", "lower", [sealed["mb_per_200k"]], 7),
        against_budget("telemetry_past_trace_ms", "ms", "lower", [sealed["trace_ms"]], 8),
    ]


def finding(session: Session) -> list[Row]:
    """Questions to a store of ten million spans and two million lines, in milliseconds of CPU."""
    child, _ = session.server("large telemetry store", "benchmarks.ours.telemetry", str(session.folder))
    count = MANY // 100 if session.effort is QUICK else MANY
    built = child.ask({"do": "build", "spans": count}, ASK_S)
    rounds = [child.ask({"do": "ask", "rounds": 5}, ASK_S) for _ in range(session.effort.rounds)]

    def row(name: str, key: str, budget: float) -> Row:
        return against_budget(name, "ms", "lower", [taken[key] for taken in rounds], budget)

    searches = [median(taken[f"search_{name}"] for name in SEARCHES) for taken in rounds]
    slowest = [max(taken[f"search_{name}"] for name in SEARCHES) for taken in rounds]
    return [
        row("telemetry_trace_ms", "trace", 0.05),
        row("telemetry_graph_ms", "graph", 12),
        row("telemetry_log_search_ms", "log", 100),
        against_budget("telemetry_search_ms", "ms", "lower", searches, 100),
        against_budget("telemetry_search_slowest_ms", "ms", "lower", slowest, 1_000),
        against_budget("telemetry_bytes_per_span", "B on disk", "lower", [built["bytes"] / count], 260),
    ]


FAMILIES = (
    Family(
        {
            "telemetry_ingest_spans_per_s": "≥ 75,000/s",
            "telemetry_parquet_mb": "≤ 7 MB",
            "telemetry_past_trace_ms": "≤ 8 ms",
        },
        keeping,
    ),
    Family(
        {
            "telemetry_trace_ms": "≤ 0.05 ms",
            "telemetry_graph_ms": "≤ 12 ms",
            "telemetry_log_search_ms": "",
            "telemetry_search_ms": "",
            "telemetry_search_slowest_ms": "",
            "telemetry_bytes_per_span": "",
        },
        finding,
    ),
)
