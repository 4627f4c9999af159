"""``python -m benchmarks.shop_driver <example> <url>``: the shop's own scenario, with the public mix, against one URL.

The engine and the scenario are those of ``seamline load``: home 1, set currency 2, browse 10, add to cart 2,
view cart 3, checkout 1. Both shops get the same seeds. A step is a page as a shopper waits for it, redirects included;
``calls`` counts HTTP requests, latencies are of steps.
"""

from __future__ import annotations

import importlib
import json
import sys
from time import process_time
from typing import Any

from benchmarks.driver import Measure, run, serve_commands
from seamline.cli.load_client import Target
from seamline.cli.load_engine import Load, Plan, Scenario

TIMEOUT_S = 30


def main() -> None:
    example, url = sys.argv[1], sys.argv[2]
    sys.path.insert(0, example)
    scenario: Scenario = importlib.import_module("boutique.load").scenario
    target = Target.parse(url)
    turns = 0

    async def perform(command: dict[str, Any]) -> Measure:
        nonlocal turns
        turns += 1
        plan = Plan(
            target=target,
            scenario=scenario,
            users=command["in_flight"],
            rate=command.get("rate"),
            duration_s=command["seconds"],
            seed=1000 * turns,
            timeout_s=TIMEOUT_S,
        )
        cpu = process_time()
        tally = await Load(plan).run()
        steps = tally.overall()
        return Measure(
            calls=tally.requests - tally.failed,
            errors=tally.failed + tally.failed_steps,
            elapsed_s=tally.elapsed_s,
            client_cpu_s=process_time() - cpu,
            p50_ms=steps.quantile_ms(0.50) or 0.0,
            p99_ms=steps.quantile_ms(0.99) or 0.0,
            first_error=json.dumps(tally.to_json()["failures"][:2]) if tally.failed_steps else "",
        )

    run(lambda: serve_commands(perform))


if __name__ == "__main__":
    main()
