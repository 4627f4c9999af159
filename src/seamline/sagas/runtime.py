"""The sagas of all modules of a process, for whoever hosts them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from seamline.events.runtime import EventsRuntime
from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings.sections import SagasSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database
from seamline.module.module import Module
from seamline.module.principal import Proofs
from seamline.module.wiring import Wiring
from seamline.sagas.engine import Engine
from seamline.sagas.hearing import listen
from seamline.sagas.kinds import compile_sagas
from seamline.sagas.sagas import Sagas

_log = logging.getLogger("seamline.sagas")

CALLEES_WAIT_S: Final = 30.0
"""What a module calls is waited for so long; its sagas then run without, since not all of them may need it."""


class SagasRuntime:
    """One engine for each module that has sagas.

    Args:
        app: the application's name.
        settings: ``[sagas]``.
        clock: what timers go by.
        tracer: where spans go.
        announce: called with a module's name when other processes that host it should give it to :meth:`wake`.
        events: of the same process, for sagas that publish and wait for events.
        pace: what pauses between attempts and leases go by; the machine's clock, also where a test holds ``clock``.
        owner: names this process among those that share a database; worked out when empty.
        reachable: returns when every module that the named one calls can be reached. Its sagas run from then on.
        proofs: keeps with each saga on whose behalf it was started.
    """

    def __init__(
        self,
        app: str,
        settings: SagasSettings,
        clock: Clock,
        *,
        tracer: Tracer | None = None,
        announce: Callable[[str], None] | None = None,
        owner: str = "",
        events: EventsRuntime | None = None,
        pace: Clock | None = None,
        reachable: Callable[[str], Awaitable[None]] | None = None,
        proofs: Proofs | None = None,
    ) -> None:
        self.app = app
        self._reachable = reachable
        self._tasks = TaskOwner("sagas")
        self._events = events
        self._settings = settings
        self._clock = clock
        self._tracer = tracer
        self._announce = announce
        self._owner = owner
        self._pace = pace
        self._proofs = proofs
        self._engines: dict[str, Engine] = {}
        self._wirings: dict[str, Wiring] = {}

    def add(self, module: Module, database: Database, wiring: Wiring) -> None:
        """Take a module's sagas on; its database is open before :meth:`start`.

        Raises ModuleError where one of them is not declared as it must be.
        """
        engine = self._engines[module.name] = Engine(
            module.name,
            database,
            compile_sagas(module.sagas, wiring),
            self._settings,
            self._clock,
            tracer=self._tracer,
            owner=self._owner,
            announce=self._announce,
            pace=self._pace,
            proofs=self._proofs,
        )
        if self._events is not None:
            engine.publish = self._events.events_of(module.name).publish
            listen(engine, self._events)
        self._wirings[module.name] = wiring

    def sagas_of(self, module: Module) -> Sagas:
        """What the module is given for ``Sagas``."""
        return Sagas(self._engines[module.name])

    def engine(self, module: str) -> Engine:
        return self._engines[module]

    async def open(self) -> None:
        """Make the tables: from here on sagas can be started; they run after :meth:`start`. Raises SagasError."""
        for engine in self._engines.values():
            await engine.open()

    async def start(self) -> None:
        """Wire the sagas and take up what is due. Raises SagasError with what is in the way."""
        for name, engine in self._engines.items():
            for kind in engine.kinds.values():
                kind.wired = await self._wirings[name].arguments(kind.function, skip=1)
        for engine in self._engines.values():
            if await self._reached(engine, 0):
                await engine.start()
            else:
                self._tasks.spawn(self._start_later(engine), name=f"start the sagas of {engine.module}")

    async def _start_later(self, engine: Engine) -> None:
        if not await self._reached(engine, CALLEES_WAIT_S):
            _log.warning("the sagas of %s begin, though not everything that it calls is running", engine.module)
        await engine.start()

    async def _reached(self, engine: Engine, wait_s: float) -> bool:
        """Whether all that the module calls can be reached, or could within ``wait_s``."""
        if self._reachable is None:
            return True
        try:
            async with asyncio.timeout(wait_s):
                await self._reachable(engine.module)
        except TimeoutError:
            return False
        return True

    def wake(self, module: str) -> None:
        """Another process that hosts the module announced something."""
        engine = self._engines.get(module)
        if engine is not None:
            engine.wake()

    async def drain(self, timeout_s: float) -> bool:
        """Stop every saga at its next boundary and set it free for other processes. False when time ran out."""
        await self._tasks.stop()
        done = [await engine.drain(timeout_s) for engine in self._engines.values()]
        return all(done)

    async def stop(self) -> None:
        """Leave what goes on as it is on disk."""
        await self._tasks.stop()
        for engine in self._engines.values():
            await engine.stop()

    async def admin(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Answer the command line; see :class:`~seamline.sagas.admin.Admin`. Raises SagasError."""
        from seamline.sagas.admin import Admin  # not needed to run sagas

        return await Admin(self._engines).run(operation, arguments)

    def stats(self) -> dict[str, Any]:
        """For JSON, by module."""
        return {name: engine.counts | {"running": len(engine.running)} for name, engine in self._engines.items()}
