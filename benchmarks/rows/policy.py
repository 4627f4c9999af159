"""What it costs to ask policy: of modules, and of people and arguments."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget, compare
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 5
ASK_S = 120


def asked(session: Session) -> list[Row]:
    child, _ = session.server("policy, asked", "benchmarks.ours.policy_checks")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    attribute = [taken["attribute"] for taken in rounds]
    peer = "cedarpy, 50 policies parsed before"
    return [
        against_budget("policy_module_to_module_us", "µs", "lower", [taken["table"] for taken in rounds], 1),
        against_budget("policy_user_and_argument_us", "µs", "lower", attribute, 30),
        compare("policy_beside_cedar_us", "µs", "lower", attribute, peer, [taken["cedar"] for taken in rounds]),
    ]


FAMILIES = (
    Family(
        {
            "policy_module_to_module_us": "≤ 1 µs",
            "policy_user_and_argument_us": "≤ 30 µs",
            "policy_beside_cedar_us": "",
        },
        asked,
    ),
)
