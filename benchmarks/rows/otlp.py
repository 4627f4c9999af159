"""OTLP in and out, beside OpenTelemetry's own classes for Python."""

from __future__ import annotations

from benchmarks.figures import Row, compare
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 2
ASK_S = 300
ROWS = {"protobuf_in": "≤ 20 µs with the store", "json_in": "", "protobuf_out": "", "json_out": ""}


def otlp(session: Session) -> list[Row]:
    """CPU per span. The peer of the way in makes no records, names and edges of what it reads; ours does."""
    child, _ = session.server("OTLP", "benchmarks.ours.otlp")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]

    def row(kind: str) -> Row:
        way = kind.rpartition("_")[2]
        peer = "opentelemetry-proto, parsed and walked" if way == "in" else "OpenTelemetry SDK's encoder"
        ours, theirs = [taken[kind] for taken in rounds], [taken[f"peer_{way}"] for taken in rounds]
        return compare(f"otlp_{kind}_us", "µs per span", "lower", ours, peer, theirs)

    return [row(kind) for kind in ROWS]


def told(session: Session) -> list[Row]:
    """CPU of the application's process per span, from its making until it has left."""
    child, _ = session.server("told spans", "benchmarks.ours.told_spans")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    peer = "OpenTelemetry SDK, batched, OTLP over HTTP"
    ours, theirs = [each["ours"] for each in rounds], [each["theirs"] for each in rounds]
    return [compare("span_told_us", "µs per span", "lower", ours, peer, theirs)]


FAMILIES = (
    Family({"span_told_us": ""}, told),
    Family({f"otlp_{kind}_us": goal for kind, goal in ROWS.items()}, otlp),
)
