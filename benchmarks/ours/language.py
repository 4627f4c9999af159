"""``python -m benchmarks.ours.language``: the boutique's model of four million parameters speaks, on one core.

``one`` and ``eight`` are streams at once, with its weights in 8 bits; ``full`` is eight with float32. Each stream is
read by a task of the same process, through the engine: 100 tokens behind a prompt of 60, of which 59 are known. Answers
each command ``{"blocks": n}`` with medians over n blocks of each in turns, in tokens per second of CPU; with
``first_ms``, from the question to the first token of eight that ask at once, by the clock, in the calmest block; with
the size of the process, and how long loading took.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import psutil

from benchmarks.driver import run, say
from seamline.models.runtimes.llama.engine import LlamaEngine
from seamline.models.runtimes.opening import open_llama
from seamline.models.runtimes.tokens import Sampling

WEIGHTS = Path(__file__).parents[2] / "examples/boutique/boutique/assistant/weights/tiny-1"
STREAMS, TOKENS, PROMPT = 8, 100, 60


async def main() -> None:
    began = perf_counter()
    engine = open_llama(WEIGHTS, weights="int8")
    loaded_s = perf_counter() - began
    text = (WEIGHTS / "tokenizer_config.json").read_text(encoding="utf-8") * 2
    prompt = engine.tokenizer.encode(text)[: PROMPT - 1]

    async def stream(engine: LlamaEngine, number: int) -> tuple[int, float]:
        asked, first, count = perf_counter(), 0.0, 0
        # The last token differs, so that each has an answer of its own. Drawn at a high temperature, none ends early.
        how = Sampling(tokens_max=TOKENS, temperature=4.0, seed=number)
        async for token in engine.generate([*prompt, 300 + number], how):
            first = first or perf_counter() - asked
            count += token.id >= 0
        return count, first

    firsts: list[float] = []

    async def streams(engine: LlamaEngine, count: int) -> int:
        done = await asyncio.gather(*(stream(engine, number) for number in range(count)))
        if count == STREAMS:
            firsts.append(median(first for _, first in done))
        return sum(tokens for tokens, _ in done)

    await streams(engine, 1)
    size_mb = psutil.Process().memory_info().rss / 1e6
    full = open_llama(WEIGHTS)
    kinds: dict[str, Callable[[], Awaitable[int]]] = {
        "one": lambda: streams(engine, 1),
        "eight": lambda: streams(engine, STREAMS),
        "full": lambda: streams(full, STREAMS),
    }
    for kind in kinds.values():
        await kind()
    say({"ready": True})
    for line in sys.stdin:  # nothing else is to run on this event loop
        firsts.clear()
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, kind in kinds.items():
                started = process_time()
                count = await kind()
                taken[name].append(count / (process_time() - started))
        figures = {name: median(values) for name, values in taken.items()}
        say(figures | {"first_ms": min(firsts) * 1000, "rss_mb": size_mb, "loaded_s": loaded_s})


if __name__ == "__main__":
    run(main)
