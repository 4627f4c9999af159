"""One version of a model in this process: loaded when it has to be, called through queues."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import TaskOwner
from seamline.models.chat import ChatAnswer, ChatChunk
from seamline.models.errors import ModelLoadError
from seamline.models.serving.cache import Answers
from seamline.models.serving.inside import Inside
from seamline.models.serving.place import Place
from seamline.models.serving.pool import Pool
from seamline.models.serving.queue import Queue, Run
from seamline.models.serving.tokens import TokenLoad
from seamline.module.contract import UNARY, MethodSpec, compile_contract
from seamline.module.errors import Overloaded
from seamline.module.models import Artefacts, ModelType, is_batched

_log = logging.getLogger("seamline.models")
_AGAIN_S: Final = 1.0
_AGAIN_MAX_S: Final = 60.0


class Engine:
    """Serves one version of a model.

    Args:
        model: as it was declared.
        make: its instance, wired; called when it is loaded into this process.
        artefacts: its files, if it has any.
        clock: by which it is unloaded when it is idle, and loaded again when it could not be.
    """

    def __init__(
        self,
        model: ModelType,
        make: Callable[[], Awaitable[object]],
        *,
        artefacts: Artefacts | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.model = model
        self._clock = clock or SystemClock()
        self._place: Place = Pool(model, artefacts) if model.runs_in == "process" else Inside(model, make, artefacts)
        self._owner = TaskOwner(f"model {model.name}")
        self._specs = compile_contract(model.contract).methods
        self._queues = {name: self._queue(spec) for name, spec in self._specs.items() if spec.kind == UNARY}
        self._answers = Answers(model.cache, self._specs) if model.cache is not None else None
        self.tokens = TokenLoad.of(model, self._clock.monotonic)
        """What is still to be read and said, where that is what calls take."""
        self._loading: asyncio.Task[None] | None = None
        self._loaded = False
        self._failures = 0
        self._failed_at = 0.0
        self._failure: ModelLoadError | None = None
        self._streams = 0
        self.streamed = 0
        """Streams that were begun."""
        self._asked_at = 0.0
        self.loaded_s = 0.0
        """How long loading and warming took."""
        self.cold_starts = 0
        """How often it was loaded since a call asked for it."""

    async def start(self) -> None:
        """Load it, if it is to be loaded before it is asked. Raises ModelLoadError."""
        if self.model.loads in ("", "start"):
            await self._ensure()
        elif self.model.loads == "background":
            self._begin_loading()

    async def ready(self) -> None:
        """Loaded and warm. Raises ModelLoadError."""
        await self._ensure()

    @property
    def loaded(self) -> bool:
        return self._loaded

    @property
    def busy(self) -> bool:
        """Whether a call would have to wait."""
        under_way = self._streams + sum(queue.under_way for queue in self._queues.values())
        return under_way >= self.model.slots or any(queue.waiting for queue in self._queues.values())

    async def call(self, method: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        """The answer to one call; ``deadline`` in seconds of the loop's clock. See :meth:`Queue.call`.

        Raises:
            ModelLoadError: it is to be loaded for this call, and cannot.
        """
        if self._answers is not None and self._specs[method].readonly:
            return await self._answers.of(method, arguments, partial(self._asked, method, arguments, deadline))
        return await self._asked(method, arguments, deadline)

    async def _asked(self, method: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        if not self._loaded:
            self._wake()
        queue = self._queues[method]
        work = self.tokens.begin(arguments, cold=not self._loaded) if self.tokens is not None else None
        try:
            if self._is_batched(method):
                answer = await queue.call(arguments, deadline)
            else:
                answer = await queue.call((contextvars.copy_context(), arguments), deadline)
            if work is not None and isinstance(answer, ChatAnswer):
                work.answered(answer)
            return answer
        finally:
            if work is not None:
                work.end()
            if self.model.idle_s:
                self._asked_at = self._clock.monotonic()

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        """The items of a streaming method, as they come. Raises ModelLoadError or Overloaded."""
        model = self.model
        if self._streams >= model.slots + model.waiting_max:
            raise _too_many_streams(model.name, self._streams)
        self._streams += 1
        self.streamed += 1
        work = self.tokens.begin(arguments, cold=not self._loaded) if self.tokens is not None else None
        try:
            if not self._loaded:
                self._wake()
                await self._ensure()
            async with aclosing(self._place.stream(method, arguments)) as items:
                async for item in items:
                    if work is not None and isinstance(item, ChatChunk):
                        work.passed(item)
                        yield item
                        work.read_on()
                    else:
                        yield item
        finally:
            self._asked_at = self._clock.monotonic()
            self._streams -= 1
            if work is not None:
                work.end()

    async def stop(self) -> None:
        for queue in self._queues.values():
            await queue.stop()
        await self._owner.stop()
        await self._unload()

    def stats(self) -> dict[str, Any]:
        """For JSON."""
        cached = {} if self._answers is None else {"cache": self._answers.stats()}
        tokens = {} if self.tokens is None else {"tokens": self.tokens.stats()}
        return {
            "loaded": self._loaded,
            "loaded_s": round(self.loaded_s, 3),
            "cold_starts": self.cold_starts,
            "streams": self._streams,
            "streamed": self.streamed,
            "methods": {name: _shown(queue) for name, queue in self._queues.items()},
            **cached,
            **tokens,
            **self._place.stats(),
        }

    @property
    def streams(self) -> int:
        """Under way."""
        return self._streams

    @property
    def queues(self) -> dict[str, Queue]:
        """By method."""
        return self._queues

    @property
    def answers(self) -> Answers | None:
        """What is kept of earlier answers."""
        return self._answers

    # Loading.

    def _wake(self) -> None:
        """A call is here, and nothing is loaded. Raises ModelLoadError where it was tried in vain a moment ago."""
        if self._failure is not None:
            pause_s = min(_AGAIN_S * 2 ** (self._failures - 1), _AGAIN_MAX_S)
            if self._clock.monotonic() - self._failed_at < pause_s:
                raise self._failure
        if self._loading is None:
            self.cold_starts += 1
            self._begin_loading()

    def _begin_loading(self) -> asyncio.Task[None]:
        if self._loading is None:
            self._loading = self._owner.spawn(self._load(), name=f"load {self.model.name}")
        return self._loading

    async def _ensure(self) -> None:
        while not self._loaded:
            await asyncio.wait([self._begin_loading()])
            if self._failure is not None:
                raise self._failure

    async def _load(self) -> None:
        """Everybody who waits is answered, one way or the other."""
        model, loop = self.model, asyncio.get_running_loop()
        began = loop.time()
        for queue in self._queues.values():
            queue.opens_at = began + self.loaded_s
        try:
            await self._place.load()
        except Exception as raised:
            await self._unload()
            self._failed(raised)
            return
        finally:
            self._loading = None
        self._loaded, self._failure, self._failures = True, None, 0
        self.loaded_s = loop.time() - began
        self._asked_at = self._clock.monotonic()
        _log.info("%s is loaded, after %.1f s", model.name, self.loaded_s)
        for queue in self._queues.values():
            queue.open()
        if model.idle_s:
            self._owner.spawn(self._rest(), name=f"idleness of {model.name}")

    def _failed(self, raised: Exception) -> None:
        error = raised
        if not isinstance(error, ModelLoadError):
            error = ModelLoadError(
                f"{self.model.name} could not be loaded: {type(raised).__name__}: {raised}",
                "Look at its `load`, and at the examples that it is warmed with.",
            )
            error.__cause__ = raised
        self._failure, self._failed_at = error, self._clock.monotonic()
        self._failures += 1
        for queue in self._queues.values():
            queue.fail(error)

    async def _rest(self) -> None:
        """Unload it when nobody has asked for long."""
        idle_s = self.model.idle_s
        while True:
            left_s = self._asked_at + idle_s - self._clock.monotonic()
            if left_s > 0:
                await self._clock.sleep(left_s)
            elif self._working():
                await self._clock.sleep(idle_s)
            else:
                break
        for queue in self._queues.values():
            queue.close()
        self._loaded = False
        _log.info("%s is unloaded: nobody asked for %g s", self.model.name, idle_s)
        # Who asks meanwhile waits for the next load, which begins when this has ended.
        self._loading = self._owner.spawn(self._unload_and_go_on(), name=f"unload {self.model.name}")

    async def _unload_and_go_on(self) -> None:
        await self._unload()
        gc.collect()
        self._loading = None
        if self._streams or any(queue.waiting for queue in self._queues.values()):
            self._wake()

    def _working(self) -> bool:
        return bool(self._streams) or any(queue.waiting or queue.under_way for queue in self._queues.values())

    async def _unload(self) -> None:
        self._loaded = False
        try:
            await self._place.unload()
        except Exception:
            _log.exception("%s could not be unloaded as it wants to be", self.model.name)

    # Queues.

    def _is_batched(self, method: str) -> bool:
        return is_batched(getattr(self.model.cls, method))

    def _queue(self, spec: MethodSpec) -> Queue:
        model, batched = self.model, self._is_batched(spec.name)
        abandoned_s = {"loop": 0.0, "process": model.workers.grace_s}.get(model.runs_in)
        return Queue(
            f"{spec.full_name} of {model.version}",
            partial(self._place.batch, spec.name) if batched else self._one_by_one(spec.name),
            slots=model.slots,
            batch_max=model.batch.max if batched else 1,
            wait_s=model.batch.wait_ms / 1000 if batched else 0.0,
            waiting_max=model.waiting_max,
            open=False,
            abandoned_s=abandoned_s,
        )

    def _one_by_one(self, method: str) -> Run:
        async def run(calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            ((context, arguments),) = calls
            return [await self._place.single(method, context, arguments)]

        return run


def _shown(queue: Queue) -> dict[str, Any]:
    stats = queue.stats
    return {
        "waiting": queue.waiting,
        "under_way": queue.under_way,
        "calls": stats.calls,
        "batches": stats.batches,
        "waited_s": round(stats.waited_s, 6),
        "busy_s": round(stats.busy_s, 6),
        "refused": stats.refused,
        "expired": stats.expired,
        "left": stats.left,
        "given_up": stats.given_up,
    }


def _too_many_streams(name: str, streams: int) -> Overloaded:
    error = Overloaded(f"{name} has {streams} streams under way", "Try again later, or give the model more replicas.")
    error.retry_after_s = 1.0
    return error
