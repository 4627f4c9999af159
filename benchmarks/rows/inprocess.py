"""Calls inside one process, and what tracing adds to them and to remote calls."""

from __future__ import annotations

import dataclasses
from statistics import median

from benchmarks.figures import Row, against_budget, compare, spread
from benchmarks.ours.sides import frames_side
from benchmarks.rows import Family
from benchmarks.session import Session
from benchmarks.sides import alternate

BLOCKS_PER_S = 5
ASK_S = 120
NOISE_PERCENT = 0.1  # the least overhead that is told apart from none


def in_process(session: Session) -> list[Row]:
    child, _ = session.server("calls in one process", "benchmarks.ours.inprocess")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    return [
        compare(
            "inprocess_call_overhead_us",
            "µs over a bare await",
            "lower",
            [taken["call"] - taken["bare"] for taken in rounds],
            "one FastAPI dependency",
            [taken["fastapi_depends"] - taken["fastapi_plain"] for taken in rounds],
        ),
        against_budget(
            "tracing_us_per_recorded_span",
            "µs",
            "lower",
            [(taken["traced_always"] - taken["call"]) / taken["spans_per_call"] for taken in rounds],
            2,
        ),
    ]


def tracing(session: Session) -> list[Row]:
    """Server and client CPU of the same remote calls with 1 % of the traces recorded, and with none.

    The spread is that of the quotient of the two, not of the small difference.
    """
    effort = session.effort
    sampled, never = alternate(
        [
            frames_side(session, sample=0.01, name="Seamline, 1 % sampled"),
            frames_side(session, sample=0.0, name="Seamline, never sampled"),
        ],
        effort.load,
        rounds=2 * effort.rounds,
        warm_up_s=effort.warm_up_s,
    )
    added = [
        100
        * (
            (with_it.server_cpu_s + with_it.client_cpu_s)
            / with_it.calls
            / ((without.server_cpu_s + without.client_cpu_s) / without.calls)
            - 1
        )
        for with_it, without in zip(sampled, never, strict=True)
    ]
    value = max(median(added), NOISE_PERCENT)
    row = against_budget("tracing_overhead_percent", "%", "lower", [value] * len(added), 5)
    return [dataclasses.replace(row, spread=round(spread([1 + percent / 100 for percent in added]), 4))]


FAMILIES = (
    Family({"inprocess_call_overhead_us": "≤ 1.5 µs", "tracing_us_per_recorded_span": "≤ 2 µs"}, in_process),
    Family({"tracing_overhead_percent": "≤ 5 %"}, tracing),
)
