"""Those who wait for a saga's end: in this process at once, in another one by its word or a modest look."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from seamline.sagas.errors import SagaBusyError
from seamline.sagas.journal.records import Message

if TYPE_CHECKING:
    from seamline.sagas.engine import Engine
    from seamline.sagas.saga import Wait

LOOK_S: Final = 0.02
LOOK_S_MAX: Final = 0.5


class Watch:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, list[asyncio.Future[tuple[str, str]]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._look = asyncio.Event()

    def wait(self, saga: str) -> asyncio.Future[tuple[str, str]]:
        """Its status and its outcome, as soon as it has ended."""
        future: asyncio.Future[tuple[str, str]] = self._engine.loop.create_future()
        self._waiting.setdefault(saga, []).append(future)
        if saga not in self._engine.running:
            self.look()
        return future

    def child(self, saga: str, wait: Wait[Any]) -> None:
        """Tell a parent in memory of its child's end."""

        def ended(outcome: asyncio.Future[tuple[str, str]]) -> None:
            if outcome.cancelled() or outcome.exception() is not None:
                return
            if wait.future is not None and not wait.future.done():
                wait.future.set_result(Message(0, "child", wait.name, outcome.result()[1], 0))

        self.wait(saga).add_done_callback(ended)

    def ended(self, saga: str, status: str, result: str) -> None:
        for future in self._waiting.pop(saga, ()):
            if not future.done():
                future.set_result((status, result))

    def forget(self, saga: str, future: asyncio.Future[tuple[str, str]]) -> None:
        """Nobody waits any more."""
        waiting = self._waiting.get(saga)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[saga]

    def look(self) -> None:
        """Look soon for ends that were not seen here."""
        if not self._waiting:
            return
        self._look.set()
        if self._task is None or self._task.done():
            self._task = self._engine.tasks.spawn(self._work(), name="saga results")

    async def _work(self) -> None:
        pause_s = LOOK_S
        while elsewhere := [saga for saga in self._waiting if saga not in self._engine.running]:
            self._look.clear()
            try:
                for saga, status, result in await self._engine.journal.ended(elsewhere):
                    self.ended(saga, status, result)
            except Exception as error:
                self._engine.workers.suspect(error)
            try:
                await asyncio.wait_for(self._look.wait(), pause_s)
                pause_s = LOOK_S
            except TimeoutError:
                pause_s = min(pause_s * 1.5, LOOK_S_MAX)

    def close(self) -> None:
        gone = SagaBusyError("this process ends; the saga goes on elsewhere", "Ask for its result again, by its key")
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(gone)
        self._waiting.clear()
