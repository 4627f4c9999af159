"""A model in this process: on the event loop if it is ``async``, else in threads of its own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from seamline.models.errors import ModelAnswerError
from seamline.models.serving.place import loaded_with
from seamline.models.serving.streaming import iterate
from seamline.module.models import Artefacts, ModelType, is_batched


class Inside:
    """See :class:`~seamline.models.serving.place.Place`.

    Args:
        model: as it was declared.
        make: its instance, wired; called when it is loaded.
        artefacts: its files, if it has any.
    """

    def __init__(self, model: ModelType, make: Callable[[], Awaitable[object]], artefacts: Artefacts | None) -> None:
        self._model = model
        self._make = make
        self._artefacts = artefacts
        self._instance: Any = None
        self._threads: ThreadPoolExecutor | None = None

    async def load(self) -> None:
        model = self._model
        if model.runs_in == "thread":
            self._threads = ThreadPoolExecutor(model.slots, thread_name_prefix=f"model {model.name}")
        self._instance = await self._make()
        load = getattr(self._instance, "load", None)
        if load is not None:
            await self._run(load, *loaded_with(load, self._artefacts))
        for name, arguments in model.warm:
            if is_batched(getattr(model.cls, name)):
                await self.batch(name, [arguments])
            else:
                await self.single(name, contextvars.copy_context(), arguments)

    async def batch(self, method: str, calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        columns = [list(column) for column in zip(*calls, strict=True)]
        results = await self._run(getattr(self._instance, method), *columns)
        if not isinstance(results, Sequence):
            raise ModelAnswerError(
                f"{self._model.name}.{method} gave {type(results).__name__} for {len(calls)} calls",
                "Return a list with one result for each call.",
            )
        return results  # pyright: ignore[reportUnknownVariableType]

    async def single(self, method: str, context: contextvars.Context, arguments: tuple[Any, ...]) -> Any:
        function = getattr(self._instance, method)
        if inspect.iscoroutinefunction(function):
            return await asyncio.get_running_loop().create_task(function(*arguments), context=context)
        return await self._run(partial(context.run, function), *arguments)

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        function = getattr(self._instance, method)
        if self._threads is None or inspect.isasyncgenfunction(function):
            items = function(*arguments)
        else:
            items = iterate(partial(function, *arguments), self._threads)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def unload(self) -> None:
        unload = getattr(self._instance, "unload", None)
        try:
            if unload is not None:
                await self._run(unload)
        finally:
            self._instance = None
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
                self._threads = None

    def stats(self) -> dict[str, Any]:
        return {}

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it where the model runs."""
        if inspect.iscoroutinefunction(function):
            return await function(*arguments)
        if self._threads is None:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments))
