"""An event loop in a thread of its own, on which the application under test runs.

So an application can outlive one test and its event loop, serve a test that has none, and a test that blocks does
not block it. Calls cross with their results, errors, cancellation and streams.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, TypeVar, cast

from seamline.module import Contract, compile_contract
from seamline.module.contract import BIDI, SERVER_STREAM, MethodSpec
from seamline.testing.errors import TooSlowError

T = TypeVar("T")
C = TypeVar("C", bound=Contract)
_STOP_S = 10.0
Within = Callable[[], AbstractContextManager[None]]


class LoopThread:
    """Runs coroutines for other threads. ``with`` starts and stops it."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end_tasks(), _STOP_S, "ending the tasks that are left")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_S)
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float, what: str) -> T:
        """Block until the coroutine has ended on the loop. Raises TooSlowError after ``timeout_s``."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise TooSlowError(
                f"{what} took more than {timeout_s:g} s", "What it waits for stands in the captured log."
            ) from None

    async def cross(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await the coroutine on the loop, from a coroutine of another loop; being cancelled cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def do(self, function: Callable[[], T]) -> T:
        """Call a function on the loop's thread and wait for its result."""

        async def call() -> T:
            return function()

        return self.run(call(), _STOP_S, "a call on the application's thread")

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _end_tasks(self) -> None:
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


def _new_loop() -> asyncio.AbstractEventLoop:
    """The loop that workers run on: uvloop where it is installed."""
    try:
        import uvloop  # not on Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def crossing_stub(thread: LoopThread, contract: type[C], stub: C, within: Within = nullcontext) -> C:
    """``stub``, which lives on the thread's loop, for use in a test on any other loop.

    Each call is made ``within`` a context.
    """
    methods = compile_contract(contract).methods.values()
    members = {spec.name: _crossing_method(thread, spec, getattr(stub, spec.name), within) for spec in methods}

    def shown(_: Any) -> str:
        return f"{stub!r} in a test"

    return cast("C", type(f"Crossing{contract.__name__}", (contract,), {**members, "__repr__": shown})())


def _crossing_method(
    thread: LoopThread, spec: MethodSpec, method: Callable[..., Any], within: Within
) -> Callable[..., Any]:
    def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = spec.signature.bind(None, *args, **kwargs)
        if spec.stream_parameter is not None:
            items = given.arguments[spec.stream_parameter]
            given.arguments[spec.stream_parameter] = _pulled(items, asyncio.get_running_loop())
        return method(*given.args[1:], **given.kwargs)

    async def call(_: Any, *args: Any, **kwargs: Any) -> Any:
        return await thread.cross(_call(within, lambda: bound(args, kwargs)))

    async def stream(_: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        iterator = bound(args, kwargs)
        try:
            while True:
                item = await thread.cross(_call(within, lambda: _next(iterator)))
                if item is _END:
                    return
                yield item
        finally:
            await thread.cross(iterator.aclose())

    return stream if spec.kind in (SERVER_STREAM, BIDI) else call


async def _call(within: Within, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with within():
        return await call()


_END: Any = object()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)


async def _pulled(items: AsyncIterator[Any], home: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """The items of an iterator that lives on the loop ``home``."""
    while True:
        item = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_next(items), home))
        if item is _END:
            return
        yield item
