"""From the moment in which a program's key is revoked to the last request that is answered with it, under load."""

from __future__ import annotations

from statistics import median

from benchmarks.figures import Row, against_budget
from benchmarks.rows import Family
from benchmarks.session import Session

ROUNDS_PER_S = 5
ASK_S = 240
TOPOLOGIES = ("monolith", "services")
BUDGET_MS = 250
CHECK_BUDGET_NS = 1000


def time_to_last(session: Session) -> list[Row]:
    """The middle and the worst of many revocations, in one process and in several."""
    found: list[Row] = []
    each = max(3, round(ROUNDS_PER_S * session.effort.seconds))
    for topology in TOPOLOGIES:
        child, _ = session.server(
            f"revocation, {topology}",
            "benchmarks.ours.revocation",
            str(session.folder / f"revoked-{topology}"),
            topology,
        )
        rounds = [child.ask({"rounds": each}, ASK_S)["ms"] for _ in range(session.effort.rounds)]
        for kind, figure in (("p50", median), ("max", max)):
            name, values = f"revocation_{kind}_ms_{topology}", [figure(taken) for taken in rounds]
            found.append(against_budget(name, "ms", "lower", values, BUDGET_MS))
    return found


def check(session: Session) -> list[Row]:
    """What it costs a call to ask whether its subject is revoked, with ten thousand entries that are not about it."""
    child, _ = session.server("check of revocations", "benchmarks.ours.revocation_check")
    rounds = [child.ask({"calls": 200_000}, ASK_S)["ns"] for _ in range(session.effort.rounds)]
    return [against_budget("revocation_check_ns", "ns", "lower", rounds, CHECK_BUDGET_NS)]


FAMILIES = (
    Family(
        {f"revocation_{kind}_ms_{name}": "≤ 250 ms" for name in TOPOLOGIES for kind in ("p50", "max")}, time_to_last
    ),
    Family({"revocation_check_ns": "≤ 1 µs"}, check),
)
