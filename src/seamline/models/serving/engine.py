"""One version of a model in this process: loaded once, warmed, called through queues, emptied before it stops."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any

from seamline.mesh.outcome import Refusal
from seamline.models.errors import ModelAnswerError, ModelLoadError
from seamline.models.serving.queue import Queue, Run
from seamline.models.serving.streaming import iterate
from seamline.module.contract import SERVER_STREAM, UNARY, MethodSpec, compile_contract
from seamline.module.errors import DeadlineExceeded, Overloaded
from seamline.module.models import ModelType, is_batched

_log = logging.getLogger("seamline.models")


class Engine:
    """Serves one version of a model.

    Args:
        model: as it was declared.
        make: its instance, wired; called once.
    """

    def __init__(self, model: ModelType, make: Callable[[], Awaitable[object]]) -> None:
        self.model = model
        self._make = make
        self._instance: Any = None
        self._specs = compile_contract(model.contract).methods
        self._threads: ThreadPoolExecutor | None = None
        self._queues: dict[str, Queue] = {}
        self._streams = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self.loaded_s = 0.0
        """How long loading and warming took."""

    async def start(self) -> None:
        """Load and warm it. Raises ModelLoadError."""
        model = self.model
        if model.runs_in == "thread":
            self._threads = ThreadPoolExecutor(model.concurrency, thread_name_prefix=f"model {model.name}")
        began = time.monotonic()
        self._instance = await self._make()
        try:
            load = getattr(self._instance, "load", None)
            if load is not None:
                await self._blocking(load)
            self._queues = {name: self._queue(spec) for name, spec in self._specs.items() if spec.kind == UNARY}
            for name, arguments in model.warm:
                await self.call(name, arguments, float("inf"))
        except Exception as error:
            await self.stop()
            raise ModelLoadError(
                f"{model.name} could not be loaded: {type(error).__name__}: {error}",
                "Look at its `load`, and at the examples that it is warmed with.",
            ) from error
        self.loaded_s = time.monotonic() - began
        _log.info("%s is loaded, after %.1f s", model.name, self.loaded_s)

    async def call(self, method: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        """The answer to one call; ``deadline`` in seconds of the loop's clock. See :meth:`Queue.call`."""
        queue = self._queues[method]
        if not self._is_batched(method):
            return await queue.call((contextvars.copy_context(), arguments), deadline)
        return await queue.call(arguments, deadline)

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        """The items of a streaming method, as they come."""
        self._streams += 1
        self._calm.clear()
        try:
            function = getattr(self._instance, method)
            if self._threads is None or inspect.isasyncgenfunction(function):
                items = function(*arguments)
            else:
                items = iterate(partial(function, *arguments), self._threads)
            async with aclosing(items):
                async for item in items:
                    yield item
        finally:
            self._streams -= 1
            if not self._streams:
                self._calm.set()

    async def drain(self, timeout_s: float) -> bool:
        """Until nothing waits or is under way. False when time ran out."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._calm.wait()
                for queue in self._queues.values():
                    await queue.idle()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        for queue in self._queues.values():
            await queue.stop()
        unload = getattr(self._instance, "unload", None)
        if unload is not None:
            await self._blocking(unload)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._instance = None

    def stats(self) -> dict[str, Any]:
        """By method; for JSON."""
        return {
            name: {
                "waiting": queue.waiting,
                "under_way": queue.under_way,
                "calls": queue.stats.calls,
                "batches": queue.stats.batches,
                "waited_s": round(queue.stats.waited_s, 6),
                "busy_s": round(queue.stats.busy_s, 6),
                "refused": queue.stats.refused,
                "expired": queue.stats.expired,
                "left": queue.stats.left,
            }
            for name, queue in self._queues.items()
        }

    # How a method runs.

    def _is_batched(self, method: str) -> bool:
        return is_batched(getattr(self.model.cls, method))

    def _queue(self, spec: MethodSpec) -> Queue:
        model, name = self.model, spec.name
        function = getattr(self._instance, name)
        run = self._in_batches(spec, function) if self._is_batched(name) else self._one_by_one(function)
        batched = self._is_batched(name)
        return Queue(
            f"{spec.full_name} of {model.version}",
            run,
            slots=model.concurrency,
            batch_max=model.batch.max if batched else 1,
            wait_s=model.batch.wait_ms / 1000 if batched else 0.0,
            waiting_max=model.waiting_max,
        )

    def _in_batches(self, spec: MethodSpec, function: Callable[..., Any]) -> Run:
        async def run(calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            columns = [list(column) for column in zip(*calls, strict=True)]
            results = await self._blocking(function, *columns)
            if not isinstance(results, Sequence):
                raise ModelAnswerError(
                    f"{spec.full_name} gave {type(results).__name__} for {len(calls)} calls",
                    "Return a list with one result for each call.",
                )
            return results  # pyright: ignore[reportUnknownVariableType]

        return run

    def _one_by_one(self, function: Callable[..., Any]) -> Run:
        async def run(calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            ((context, arguments),) = calls
            return [await self._blocking(function, *arguments, context=context)]

        return run

    async def _blocking(
        self, function: Callable[..., Any], *arguments: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Call it where the model runs: in a thread, or here if it is ``async``."""
        if inspect.iscoroutinefunction(function):
            coroutine = function(*arguments)
            if context is None:
                return await coroutine
            return await asyncio.get_running_loop().create_task(coroutine, context=context)
        if self._threads is None:
            return function(*arguments)
        call = partial(function, *arguments) if context is None else partial(context.run, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def served(contract: type[Any], engine: Callable[[], Engine], deadline: Callable[[], float]) -> object:
    """What provides the contract: each method asks the engine in force.

    Args:
        contract: of which each method is unary or a server's stream.
        engine: the one that answers the next call.
        deadline: of the call at work.
    """
    methods: dict[str, Any] = {}
    for name, spec in compile_contract(contract).methods.items():
        make = _streaming if spec.kind == SERVER_STREAM else _answering
        methods[name] = make(name, engine, deadline)
    return type(f"{contract.__name__}Model", (contract,), methods)()


def _answering(name: str, engine: Callable[[], Engine], deadline: Callable[[], float]) -> Callable[..., Any]:
    async def answer(_self: object, *arguments: Any) -> Any:
        try:
            return await engine().call(name, arguments, deadline())
        except (Overloaded, DeadlineExceeded) as error:
            raise Refusal(error) from None  # the platform's own word, not a failure of the model

    return answer


def _streaming(name: str, engine: Callable[[], Engine], _deadline: Callable[[], float]) -> Callable[..., Any]:
    async def stream(_self: object, *arguments: Any) -> AsyncGenerator[Any]:
        async with aclosing(engine().stream(name, arguments)) as items:
            async for item in items:
                yield item

    return stream
