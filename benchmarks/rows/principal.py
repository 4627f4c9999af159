"""What it costs that the user travels with each call."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 1
ASK_S = 240


def on_behalf(session: Session) -> list[Row]:
    """Calls of nobody and of a user, in one process and over mutual TLS, in turns."""
    child, _ = session.server(
        "calls on behalf of a user", "benchmarks.ours.principal", str(session.folder / "identity")
    )
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]

    def added(name: str, kind: str, base: str, budget: float) -> Row:
        return against_budget(name, "µs", "lower", [max(t[kind] - t[base], 0.01) for t in rounds], budget)

    return [
        added("inprocess_call_for_a_user_us", "local_user", "bare", 1.5),
        added("remote_call_for_a_user_added_us", "remote_user", "remote_nobody", 6),
        against_budget("proof_of_a_user_made_us", "µs", "lower", [t["proof_made"] for t in rounds], 150),
        against_budget("proof_of_a_user_checked_us", "µs", "lower", [t["proof_checked"] for t in rounds], 300),
    ]


FAMILIES = (
    Family(
        {
            "inprocess_call_for_a_user_us": "≤ 1.5 µs",
            "remote_call_for_a_user_added_us": "≤ 6 µs",
            "proof_of_a_user_made_us": "≤ 150 µs, once in 50 s",
            "proof_of_a_user_checked_us": "≤ 300 µs, once in 50 s",
        },
        on_behalf,
    ),
)
