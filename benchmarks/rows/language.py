"""How fast a language model speaks that is run here, and how soon it begins."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget, compare
from benchmarks.rows import Family
from benchmarks.session import Session

BLOCKS_PER_S = 1
ASK_S = 240
TRANSFORMERS_PER_S = 1031
"""Tokens per second of transformers' continuous batching at eight streams, of a model of this size on such a core."""


def spoken(session: Session) -> list[Row]:
    child, _ = session.server("a language model speaks", "benchmarks.ours.language")
    effort = session.effort
    blocks = max(2, round(BLOCKS_PER_S * effort.seconds))
    rounds = [child.ask({"blocks": blocks}, ASK_S) for _ in range(effort.rounds)]
    one, eight, full, first_ms, rss_mb, loaded_s = (
        [taken[name] for taken in rounds] for name in ("one", "eight", "full", "first_ms", "rss_mb", "loaded_s")
    )
    unit = "tokens per CPU second"
    return [
        against_budget("language_tokens_per_s", unit, "higher", eight, TRANSFORMERS_PER_S),
        compare("language_batching", unit, "higher", eight, "one stream", one),
        compare("language_int8_per_s", unit, "higher", eight, "float32", full),
        against_budget("language_first_token_ms", "ms", "lower", first_ms, 30),
        against_budget("language_rss_mb", "MB", "lower", rss_mb, 160),
        against_budget("language_load_s", "s", "lower", loaded_s, 1.0),
    ]


FAMILIES = (
    Family(
        {
            "language_tokens_per_s": "≥ 1,031 (transformers)",
            "language_batching": "≥ 1.5 times",
            "language_int8_per_s": "≥ 1 times",
            "language_first_token_ms": "≤ 30 ms",
            "language_rss_mb": "≤ 160 MB",
            "language_load_s": "≤ 1 s",
        },
        spoken,
    ),
)
