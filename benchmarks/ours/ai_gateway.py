"""``python -m benchmarks.ours.ai_gateway <port of the stub> <folder> [guarded]``: the AI gateway with keys and budgets.

Every call's key is looked up and may ask this model, its cost is reserved and settled by tokens, money and requests, it
is routed between two targets with fallback and circuit, and accounted for. ``guarded`` looks for personal data and
injections besides, so that nothing is passed on unread.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.driver import run, say
from benchmarks.sockets import listen
from seamline.kernel.lifetime import spare_the_collector
from seamline.kernel.settings import AiBudgetSettings, AiGatewaySettings, AiModelSettings, AiTargetSettings
from seamline.models.gateway.gateway import AiGateway
from seamline.models.gateway.keys import Keys

MODEL = "stub"
_MUCH = 10**12


def settings(stub: int, *, guarded: bool = False) -> AiGatewaySettings:
    target = AiTargetSettings(
        engine=f"openai:http://127.0.0.1:{stub}/v1", input_price=0.15, output_price=0.6, connections_max=512
    )
    return AiGatewaySettings(
        guardrails=("size", "lists", "pii", "injection") if guarded else (),
        models={MODEL: AiModelSettings(targets=(target, target))},
        budgets=(
            AiBudgetSettings(name="tenant", by="tenant", money=_MUCH / 1000, period="month"),
            AiBudgetSettings(name="key", by="key", tokens=_MUCH, requests=_MUCH, period="hour"),
        ),
    )


async def main() -> None:
    stub, folder = int(sys.argv[1]), Path(sys.argv[2])
    asked = settings(stub, guarded="guarded" in sys.argv[3:])
    keys = Keys(folder / asked.keys)
    text, _ = keys.make("bench", models=[MODEL], user="ann", tenant="shop")
    keys.close()
    gateway = AiGateway.open(asked, folder)
    await gateway.start()
    listening = listen()
    await gateway.serve(listening)
    say({"ready": True, "port": listening.getsockname()[1], "key": text})
    spare_the_collector()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
