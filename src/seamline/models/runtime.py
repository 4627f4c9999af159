"""The models of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from seamline.models.serving.engine import Engine, served
from seamline.module.context import NO_DEADLINE, current
from seamline.module.models import ModelType
from seamline.module.wiring import Wiring


class ModelsRuntime:
    """Loads the models of the modules that are hosted here."""

    def __init__(self) -> None:
        self._engines: list[Engine] = []

    async def open(self, models: Sequence[ModelType], wiring: Wiring) -> object:
        """Load the versions of one contract; what provides it. The first that was declared answers.

        Raises:
            ModelLoadError: one could not be loaded.
        """
        engines = [Engine(model, partial(wiring.build, model.cls)) for model in models]
        self._engines += engines
        await asyncio.gather(*(engine.start() for engine in engines))
        first = engines[0]
        return served(models[0].contract, lambda: first, _deadline)

    def stats(self) -> dict[str, Any]:
        """By model; for JSON."""
        return {engine.model.name: engine.stats() for engine in self._engines}

    async def stop(self) -> None:
        for engine in reversed(self._engines):
            await engine.stop()


def _deadline() -> float:
    call = current()
    return call.deadline if call is not None else NO_DEADLINE
