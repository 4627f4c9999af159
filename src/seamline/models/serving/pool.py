"""A model in processes of its own, which are replaced when they die, have grown or have served long enough."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from seamline.kernel.lifetime import TaskOwner
from seamline.models.errors import ModelError
from seamline.models.serving.errors import WorkerLost
from seamline.models.serving.messages import Answered, Begin
from seamline.models.serving.outcomes import decoded_error
from seamline.models.serving.process import ModelProcess, StreamFailed, name_of
from seamline.models.serving.suspects import Suspects
from seamline.module.contract import MethodSpec, compile_contract
from seamline.module.models import Artefacts, ModelType

_log = logging.getLogger("seamline.models")
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 30.0
_END_S: Final = 5.0
_LOOK_S: Final = 0.2
_GROWTH_MAX: Final = 2


class Pool:
    """See :class:`~seamline.models.serving.place.Place`."""

    def __init__(self, model: ModelType, artefacts: Artefacts | None) -> None:
        self._model = model
        self._spec = compile_contract(model.contract)
        self._begin = Begin(
            name_of(model.cls),
            name_of(model.contract),
            sys.path.copy(),
            max(model.concurrency, 1),
            str(artefacts.folder) if artefacts else "",
            artefacts.digest if artefacts else "",
            [(name, self._spec.methods[name].encode_request(arguments)) for name, arguments in model.warm],
        )
        self._processes: list[ModelProcess] = []
        """Those that are given calls, or will be when they are ready."""
        self._living: set[ModelProcess] = set()
        """Also those that are on their way out."""
        self._wanted: deque[asyncio.Future[ModelProcess]] = deque()
        self._suspects = Suspects(model.name)
        self._owner = TaskOwner(f"processes of {model.name}")
        self._broken: ModelError | None = None
        self._failures = 0
        self._replacing = False
        self._restarts = 0
        self._recycled = 0

    async def load(self) -> None:
        count = self._model.workers.count
        started = await asyncio.gather(*(self._start() for _ in range(count)), return_exceptions=True)
        failures = [each for each in started if isinstance(each, BaseException)]
        if failures:
            await self.unload()
            raise failures[0]
        for process in self._processes:
            self._owner.spawn(self._keep(process), name="process of a model")
        if self._model.workers.rss_max_mb:
            self._owner.spawn(self._look(), name="growth of a model")

    async def batch(self, method: str, calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        spec = self._spec.methods[method]
        bodies = [spec.encode_request(call) for call in calls]
        results: list[Any] = [None] * len(bodies)
        alone = [place for place, body in enumerate(bodies) if len(bodies) == 1 or self._suspects.knows(method, body)]
        together = [place for place in range(len(bodies)) if place not in alone] if alone else range(len(bodies))
        if together:
            found = await self._together(spec, [bodies[place] for place in together])
            for place, result in zip(together, found, strict=True):
                results[place] = result
        for place, result in zip(alone, await self._each(spec, [bodies[place] for place in alone]), strict=True):
            results[place] = result
        return results

    async def single(self, method: str, context: contextvars.Context, arguments: tuple[Any, ...]) -> Any:  # noqa: ARG002  # another process has no part in it
        spec = self._spec.methods[method]
        result = await self._alone(spec, spec.encode_request(arguments))
        if isinstance(result, Exception):
            raise result
        return result

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        spec = self._spec.methods[method]
        call = spec.encode_request(arguments)
        self._suspects.check(method, call)
        async with self._free() as process:
            try:
                async with aclosing(process.stream(method, call)) as items:
                    async for item in items:
                        yield spec.result.decode(item)
            except StreamFailed as failed:
                raise decoded_error(failed.args[0], spec.full_name, self._spec.faults) from None
            except WorkerLost as lost:
                self._suspects.note(method, call, lost)
                raise
        self._suspects.clear(method, call)

    async def unload(self) -> None:
        await self._owner.stop()
        self._processes.clear()
        for process in self._living:
            process.close()
        if self._living:
            await asyncio.wait([process.ended for process in self._living], timeout=_END_S)
        for waiting in self._wanted:
            waiting.cancel()
        self._wanted.clear()

    def stats(self) -> dict[str, Any]:
        return {
            "processes": [
                {
                    "pid": each.pid,
                    "rss_mb": round(each.rss_bytes / 1_048_576, 1),
                    "served": each.served,
                    "under_way": each.under_way,
                }
                for each in self._processes
            ],
            "restarts": self._restarts,
            "recycled": self._recycled,
            "poison": self._suspects.refused,
        }

    # Calls.

    async def _together(self, spec: MethodSpec, bodies: Sequence[bytes]) -> Sequence[Any]:
        """Several in one process. Where it dies nobody knows by whose fault: each is tried for itself, if it may be."""
        try:
            return await self._asked(spec, bodies)
        except WorkerLost as lost:
            for body in bodies:
                self._suspects.note(spec.name, body, lost)
            if not spec.idempotent:
                return [lost] * len(bodies)
        return await self._each(spec, bodies)

    async def _each(self, spec: MethodSpec, bodies: Sequence[bytes]) -> Sequence[Any]:
        return await asyncio.gather(*(self._alone(spec, body) for body in bodies))

    async def _alone(self, spec: MethodSpec, body: bytes) -> Any:
        """One call in a process; in another one, once, where the first dies and the method may be called again."""
        for last in (not spec.idempotent, True):
            poison = self._suspects.poison(spec.name, body)
            if poison is not None:
                return poison
            try:
                (result,) = await self._asked(spec, [body])
            except WorkerLost as lost:
                self._suspects.note(spec.name, body, lost)
                if last:
                    return self._suspects.poison(spec.name, body) or lost
            except Exception as error:  # the model's own, which is this call's
                self._suspects.clear(spec.name, body)
                return error
            else:
                self._suspects.clear(spec.name, body)
                return result
        raise AssertionError  # the last attempt returns

    async def _asked(self, spec: MethodSpec, bodies: Sequence[bytes]) -> list[Any]:
        async with self._free() as process:
            answered = await process.ask(spec.name, bodies)
        if answered.error:
            raise decoded_error(answered.error, spec.full_name, self._spec.faults)
        return self._results(spec, answered)

    def _results(self, spec: MethodSpec, answered: Answered) -> list[Any]:
        return [
            decoded_error(each.error, spec.full_name, self._spec.faults)
            if each.error
            else spec.result.decode(each.result)
            for each in answered.answers
        ]

    # Processes.

    @asynccontextmanager
    async def _free(self) -> AsyncGenerator[ModelProcess]:
        """A process with room, for as long as it is needed. Raises ModelLoadError where none can be started."""
        process = self._found()
        if process is None:
            process = await self._given()
        try:
            yield process
        finally:
            process.under_way -= 1
            self._after(process)

    def _found(self) -> ModelProcess | None:
        each = max(self._model.concurrency, 1)
        able = [process for process in self._processes if process.useful and process.under_way < each]
        if not able:
            return None
        process = min(able, key=lambda process: process.under_way)
        process.under_way += 1
        return process

    async def _given(self) -> ModelProcess:
        if self._broken is not None:
            raise self._broken
        wanted: asyncio.Future[ModelProcess] = asyncio.get_running_loop().create_future()
        self._wanted.append(wanted)
        try:
            return await wanted
        except asyncio.CancelledError:
            if wanted.done() and not wanted.cancelled() and wanted.exception() is None:  # given, and not taken
                process = wanted.result()
                process.under_way -= 1
                self._hand_out()
            raise

    def _hand_out(self) -> None:
        while self._wanted:
            if self._wanted[0].done():
                self._wanted.popleft()
                continue
            process = self._found()
            if process is None:
                return
            self._wanted.popleft().set_result(process)

    def _after(self, process: ModelProcess) -> None:
        """It has finished something: it may go on, or has to go."""
        workers = self._model.workers
        worn = (workers.requests_max and process.served >= workers.requests_max) or (
            workers.rss_max_mb and process.rss_bytes > workers.rss_max_mb * 1_048_576
        )
        if process.retiring:
            if not process.under_way:
                process.close()
        elif worn and process.useful and not self._replacing:
            self._replacing = True
            self._owner.spawn(self._replace(process), name="replacement of a model's process")
        self._hand_out()

    async def _start(self) -> ModelProcess:
        process = ModelProcess(self._model.name, self._model.workers.grace_s)
        self._living.add(process)
        process.ended.add_done_callback(lambda _: self._living.discard(process))
        self._processes.append(process)
        try:
            await process.start(self._begin)
            await asyncio.wait([process.ready])
            process.ready.result()
        except BaseException:
            self._processes.remove(process)
            process.close()
            if not process.pid:
                self._living.discard(process)
            raise
        self._broken = None
        self._hand_out()
        return process

    async def _keep(self, process: ModelProcess) -> None:
        """Another one when it ends, unless it was to."""
        await asyncio.wait([process.ended])  # which is others', too, and must not be cancelled with this task
        why = process.ended.result()
        if process in self._processes:
            self._processes.remove(process)
        if process.retiring:
            return
        if process.served:
            self._failures = 0
        while True:
            pause_s = min(_BACKOFF_S * 2 ** (self._failures - 1), _BACKOFF_MAX_S) if self._failures else 0.0
            self._failures += 1
            _log.warning("a process of %s was lost: %s; starting another in %.1f s", self._model.name, why, pause_s)
            await asyncio.sleep(pause_s)
            self._restarts += 1
            try:
                process = await self._start()
            except (ModelError, OSError) as error:
                self._fail(error)
                why = str(error)
                continue
            self._owner.spawn(self._keep(process), name="process of a model")
            return

    def _fail(self, error: ModelError | OSError) -> None:
        """None can be started; where none is left, who waits is told."""
        if any(each.useful for each in self._processes):
            return
        broken = error if isinstance(error, ModelError) else ModelError(str(error))
        self._broken = broken
        for waiting in self._wanted:
            if not waiting.done():
                waiting.set_exception(broken)
        self._wanted.clear()

    async def _replace(self, old: ModelProcess) -> None:
        """The new one first, so that nobody waits."""
        try:
            new = await self._start()
        except (ModelError, OSError) as error:
            _log.warning("a process of %s cannot be replaced: %s", self._model.name, error)
            return
        finally:
            self._replacing = False
        self._recycled += 1
        old.retiring = True
        self._owner.spawn(self._keep(new), name="process of a model")
        if not old.under_way:
            old.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for process in self._processes:
                process.look(self._model.workers.rss_max_mb * 1_048_576 * _GROWTH_MAX)
