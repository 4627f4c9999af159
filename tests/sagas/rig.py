"""What the tests of sagas share: a module with a database, and an engine that can be stopped, lost and started anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from seamline.kernel.clock import Clock, ManualClock, SystemClock
from seamline.kernel.settings.sections import SagasSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database
from seamline.module import Contract, Module
from seamline.module.wiring import Wiring
from seamline.sagas import Sagas
from seamline.sagas.engine import Engine
from seamline.sagas.runtime import SagasRuntime

FAST = SagasSettings(step_attempts=3, step_backoff_s=0.001, idle_s=0.05)


STARTED: list[Host] = []
"""Those that a failing test left behind."""


class Host:
    """One process's share in the sagas of a module, as far as sagas can tell."""

    def __init__(
        self,
        module: Module,
        database: Database,
        clock: Clock | None = None,
        settings: SagasSettings = FAST,
        *,
        owner: str = "elsewhere/1/1",
        stubs: dict[type[Contract], object] | None = None,
        tracer: Tracer | None = None,
        announce: Callable[[str], None] | None = None,
        others: dict[type[Any], Any] | None = None,
        reachable: Callable[[str], Awaitable[None]] | None = None,
        pace: Clock | None = None,
    ) -> None:
        self.module = module
        self.database = database
        self.clock = clock or SystemClock()
        found = stubs or {}
        platform: dict[type[Any], Callable[[Module], Any]] = {
            Contract: lambda _: found.__getitem__,
            Database: lambda _: database,
            Clock: lambda _: self.clock,
            Sagas: lambda module: self.runtime.sagas_of(module),  # noqa: PLW0108  # there is no runtime yet
            **{kind: (lambda _, value=value: value) for kind, value in (others or {}).items()},
        }
        self.wiring = Wiring(module, dict.fromkeys(found, "other"), platform)
        self.runtime = SagasRuntime(
            "shop", settings, self.clock, tracer=tracer, announce=announce, owner=owner,
            pace=pace or self.clock, reachable=reachable,
        )  # fmt: skip
        self.runtime.add(module, database, self.wiring)

    @property
    def sagas(self) -> Sagas:
        return self.runtime.sagas_of(self.module)

    @property
    def engine(self) -> Engine:
        return self.runtime.engine(self.module.name)

    async def start(self) -> Host:
        STARTED.append(self)
        await self.runtime.start()
        return self

    async def stop(self) -> None:
        if self in STARTED:
            STARTED.remove(self)
        await self.runtime.drain(5)
        await self.runtime.stop()

    async def crash(self) -> None:
        """End without a word to anybody: the registration stays, and what ran is cut off where it stands."""
        STARTED.remove(self)
        engine = self.engine
        engine.draining = True
        for course in list(engine.running.values()):
            course.lose()
        engine.workers.leave = _nothing  # type: ignore[method-assign]
        await engine.stop()


async def _nothing() -> None:
    return


@asynccontextmanager
async def hosting(
    module: Module, database: Database, clock: Clock | None = None, **options: Any
) -> AsyncGenerator[Host]:
    host = Host(module, database, clock, **options)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


def settings(**changed: Any) -> SagasSettings:
    return replace(FAST, **changed)


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout_s: float = 20) -> Any:
    """Wait, however busy the machine is, for something to become true."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.002)


async def later(clock: ManualClock, seconds: float, step_s: float = 0.25) -> None:
    """Move a clock on, and let what wakes do its work at each step."""
    while seconds > 0:
        clock.advance(min(step_s, seconds))
        seconds -= step_s
        await settled()


async def settled(ticks: int = 30) -> None:
    for _ in range(ticks):
        await asyncio.sleep(0.0005)
