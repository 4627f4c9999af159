"""What it costs to call a model, and what putting calls together saves."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget, compare
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 1
ASK_S = 240


def called(session: Session) -> list[Row]:
    child, _ = session.server("models, called", "benchmarks.ours.serving")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    together, alone = ([taken[name] for taken in rounds] for name in ("together", "alone"))
    return [
        compare("micro_batching", "calls per CPU second", "higher", together, "the same, one by one", alone),
        against_budget("model_call_overhead_us", "µs", "lower", [taken["overhead"] for taken in rounds], 15),
        against_budget("model_lone_call_us", "µs", "lower", [taken["lone"] for taken in rounds], 150),
    ]


FAMILIES = (
    Family(
        {"micro_batching": "≥ 3 times", "model_call_overhead_us": "≤ 15 µs", "model_lone_call_us": "≤ 150 µs"}, called
    ),
)
