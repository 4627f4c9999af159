"""``python -m benchmarks.ours.serving``: what it costs to call a model, and what it saves to put calls together.

A model of two layers (384 to 1,536 and back, float32, on the one core that the process has) behind its contract, asked
by 32 callers of which each asks again when it is answered: ``together`` in batches as they come, ``alone`` one by one.
``overhead`` is a model that does nothing, asked by the same callers; ``lone`` the same, asked by one. Answers each
command ``{"blocks": n}`` with medians, of n blocks of each in turns: calls per second of CPU for the first two, µs of
CPU a call for the others.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from benchmarks.driver import say
from seamline import Batch, Contract, Module, batched, readonly
from seamline.models.runtime import ModelsRuntime
from seamline.module.wiring import Wiring

CALLERS = 32
CALLS = {"together": 6000, "alone": 3000, "overhead": 6000, "lone": 1500}


class Layers(Contract):
    @readonly
    async def run(self, values: list[float]) -> float: ...


class Nothing(Contract):
    @readonly
    async def run(self, number: int) -> int: ...


class Dense:
    def load(self) -> None:
        lot = np.random.default_rng(1)
        self.inner = lot.standard_normal((384, 1536), dtype=np.float32)
        self.outer = lot.standard_normal((1536, 384), dtype=np.float32)

    @batched
    def run(self, values: list[list[float]]) -> list[float]:
        hidden = np.maximum(np.asarray(values, dtype=np.float32) @ self.inner, 0)
        return (hidden @ self.outer).sum(axis=1).tolist()


class Echo:
    @batched
    def run(self, number: list[int]) -> list[int]:
        return number


async def opened(runtime: ModelsRuntime, contract: type[Contract], cls: type[Any], batch: Batch) -> Any:
    module = Module("measured", provides=contract)
    module.model(contract, version="1", batch=batch)(cls)
    return await runtime.open(module.models, Wiring(module, {}, {}))


async def block(model: Any, value: Any, callers: int, calls: int) -> float:
    """Seconds of CPU a call."""

    async def caller() -> None:
        for _ in range(calls // callers):
            await model.run(value)

    started = process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (process_time() - started) / (calls // callers * callers)


async def measured(models: Mapping[str, tuple[Any, Any, int]], blocks: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(blocks):
        for name, (model, value, callers) in models.items():
            taken[name].append(await block(model, value, callers, CALLS[name]))
    found = {name: median(values) for name, values in taken.items()}
    return {name: 1 / each if name in ("together", "alone") else 1e6 * each for name, each in found.items()}


async def main() -> None:
    runtime, values = ModelsRuntime(), [0.5] * 384
    models = {
        "together": (await opened(runtime, Layers, Dense, Batch(max=CALLERS)), values, CALLERS),
        "alone": (await opened(ModelsRuntime(), Layers, Dense, Batch(max=1)), values, CALLERS),
        "overhead": (await opened(ModelsRuntime(), Nothing, Echo, Batch(max=CALLERS)), 1, CALLERS),
    }
    models["lone"] = (models["overhead"][0], 1, 1)
    say({"ready": True})
    for line in sys.stdin:
        say(await measured(models, json.loads(line)["blocks"]))


if __name__ == "__main__":
    asyncio.run(main())
