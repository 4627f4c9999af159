"""``python -m benchmarks.ours.explanation``: what it costs to look for a cause.

``{"do": "explain", "edges": n, "modules": m}`` answers with the milliseconds of CPU that one look at five minutes of
windows takes, at an application of so many edges; one of its modules has become slow.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

from benchmarks.driver import say
from seamline.observe.explain import explain
from seamline.observe.windows import Flow, Window

S = 10**9
BEFORE, AFTER = 140, 10
SLOW = "module1"


def windows(edges: int, modules: int, count: int, first: int, slower_ns: int) -> list[Window]:
    dice = random.Random(first)
    keys = [
        (f"module{index % modules}", f"module{(index * 7 + 1) % modules}", f"method{index}") for index in range(edges)
    ]
    made: list[Window] = []
    for number in range(first, first + count):
        window = Window(number * 2 * S, 2 * S)
        for caller, callee, method in keys:
            calls = dice.randint(20, 60)
            took = calls * (dice.randint(900_000, 1_100_000) + (slower_ns if callee == SLOW else 0))
            for side in ("client", "server"):
                window.edges[caller, callee, method, side] = Flow(
                    calls, 0, took, 0, 0, {40: calls // 2, 41: calls - calls // 2}
                )
        for index in range(modules):
            window.module(f"module{index}").cpu_ns = dice.randint(90, 110) * 1_000_000
        made.append(window)
    return made


def look(edges: int, modules: int) -> dict[str, float]:
    before, after = windows(edges, modules, BEFORE, 0, 0), windows(edges, modules, AFTER, BEFORE, 20_000_000)
    began = time.process_time()
    found = explain(before, after, [], [])
    taken = time.process_time() - began
    assert found.suspects[0].module == SLOW, found
    return {"ms": taken * 1e3}


def main() -> None:
    say({"ready": True})
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        say(look(command["edges"], command["modules"]))


if __name__ == "__main__":
    main()
