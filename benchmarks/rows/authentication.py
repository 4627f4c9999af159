"""What it costs the gateway to know who is asking."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 1
ASK_S = 240


def signed_in(session: Session) -> list[Row]:
    """The same request without ``[auth]``, and with a session, an API key and a token that were seen before."""
    child, _ = session.server("requests of somebody", "benchmarks.ours.signed_in", str(session.folder))
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    return [
        against_budget(f"signed_in_by_{kind}_us", "µs", "lower", [max(t[kind] - t["open"], 0.1) for t in rounds], 60)
        for kind in ("session", "api_key", "token")
    ]


FAMILIES = (Family({f"signed_in_by_{kind}_us": "≤ 60 µs" for kind in ("session", "api_key", "token")}, signed_in),)
