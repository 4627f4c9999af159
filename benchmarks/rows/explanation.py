"""What it costs to look for the cause of an incident, in a thread beside the taking in of telemetry."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget
from benchmarks.rows import Family
from benchmarks.session import Session

ASK_S = 120


def looking(session: Session) -> list[Row]:
    """One look at five minutes of windows: of a shop with 14 modules, and of 100 modules with 400 edges."""
    child, _ = session.server("explanation", "benchmarks.ours.explanation", str(session.folder))
    rows: list[Row] = []
    for name, edges, modules, budget in (("shop", 50, 14, 250), ("large", 400, 100, 2_500)):
        asked = {"do": "explain", "edges": edges, "modules": modules}
        child.ask(asked, ASK_S)
        taken = [child.ask(asked, ASK_S)["ms"] for _ in range(session.effort.rounds)]
        rows.append(against_budget(f"explanation_{name}_ms", "ms of CPU", "lower", taken, budget))
    return rows


FAMILIES = (Family({"explanation_shop_ms": "", "explanation_large_ms": ""}, looking),)
