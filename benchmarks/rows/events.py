"""Events acknowledged durable, and from publisher to handler, beside brokers and their Python clients.

The own log is in the publisher's process and has no network hop; the brokers are processes of their own on the same
machine. Who syncs before acknowledging stands in docs/performance.md.
"""

from __future__ import annotations

from benchmarks.driver import Measure
from benchmarks.figures import Row, compare
from benchmarks.peers import nats_jetstream, redis_streams
from benchmarks.processes import Child, all_cores, python
from benchmarks.rows import Family
from benchmarks.session import START_S, Session
from benchmarks.sides import Side, alternate

PACED_PER_S = 500


def _side(session: Session, name: str, module: str, *arguments: str) -> Side:
    child = session.start(Child(python(module, *arguments), cores=all_cores(), name=name))
    child.answer(START_S)
    return Side(name=name, servers=(), driver=child)


def _per_s(measures: list[Measure]) -> list[float]:
    return [measure.per_s for measure in measures]


def published(session: Session) -> list[Row]:
    effort = session.effort
    nats = str(nats_jetstream.server(session))
    ours, jetstream, faststream, redis = alternate(
        [
            _side(session, "Seamline", "benchmarks.ours.publisher", str(session.folder / "log")),
            _side(session, "NATS JetStream", "benchmarks.peers.nats_jetstream.publisher", nats),
            _side(session, "FastStream on JetStream", "benchmarks.peers.faststream_nats.publisher", nats),
            _side(
                session,
                "Redis Streams",
                "benchmarks.peers.redis_streams.publisher",
                str(redis_streams.server(session, "always")),
            ),
        ],
        effort.load,
        rounds=effort.rounds,
        warm_up_s=effort.warm_up_s,
    )
    mine = _per_s(ours)
    unit = "events/s acknowledged, 64 publishers"
    return [
        compare("events_per_s_vs_jetstream", unit, "higher", mine, "NATS JetStream, no sync", _per_s(jetstream)),
        compare("events_per_s_vs_faststream", unit, "higher", mine, "FastStream on JetStream", _per_s(faststream)),
        compare("events_per_s_vs_redis", unit, "higher", mine, "Redis Streams, sync always", _per_s(redis)),
    ]


def handled(session: Session) -> list[Row]:
    effort = session.effort
    paced = {"loop": "paced", "rate": PACED_PER_S, "seconds": 2 * effort.seconds}
    ours, theirs = alternate(
        [
            _side(session, "Seamline", "benchmarks.ours.round_trip", str(session.folder / "log")),
            _side(
                session,
                "NATS JetStream",
                "benchmarks.peers.nats_jetstream.round_trip",
                str(nats_jetstream.server(session)),
            ),
        ],
        paced,
        rounds=effort.rounds,
        warm_up_s=effort.warm_up_s,
    )
    peer = "NATS JetStream, push, no sync, no effect stored"
    return [
        compare(
            "event_to_handler_p50_ms", f"ms at {PACED_PER_S}/s", "lower",
            [m.p50_ms for m in ours], peer, [m.p50_ms for m in theirs],
        ),
        compare(
            "event_to_handler_p99_ms", f"ms at {PACED_PER_S}/s", "lower",
            [m.p99_ms for m in ours], peer, [m.p99_ms for m in theirs],
        ),
    ]  # fmt: skip


FAMILIES = (
    Family(
        {"events_per_s_vs_jetstream": "≥ 3", "events_per_s_vs_faststream": "", "events_per_s_vs_redis": ""}, published
    ),
    Family({"event_to_handler_p50_ms": "", "event_to_handler_p99_ms": ""}, handled),
)
