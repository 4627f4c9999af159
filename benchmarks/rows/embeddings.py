"""How fast sentences become vectors, and what it costs to ask for them through a contract."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget, compare
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 1
ASK_S = 240


def embedded(session: Session) -> list[Row]:
    child, _ = session.server("sentences embedded", "benchmarks.ours.embeddings")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    called, direct, int8, rss_mb, loaded_s = (
        [taken[name] for taken in rounds] for name in ("called", "direct", "int8", "rss_mb", "loaded_s")
    )
    unit = "sentences per CPU second"
    return [
        compare("embeddings_per_s", unit, "higher", called, "the library, called directly", direct),
        against_budget("embeddings_direct_per_s", unit, "higher", direct, 240),
        compare("embeddings_int8_per_s", unit, "higher", int8, "float32", direct),
        against_budget("embeddings_rss_mb", "MB", "lower", rss_mb, 220),
        against_budget("embeddings_load_s", "s", "lower", loaded_s, 0.5),
    ]


FAMILIES = (
    Family(
        {
            "embeddings_per_s": "≥ 0.9 of the library's",
            "embeddings_direct_per_s": "≥ 240",
            "embeddings_int8_per_s": "≥ 2 times",
            "embeddings_rss_mb": "≤ 220 MB",
            "embeddings_load_s": "≤ 0.5 s",
        },
        embedded,
    ),
)
