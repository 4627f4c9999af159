"""Calls inside one process: a coroutine awaited in the caller's own task, bounded by the deadline."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from time import monotonic
from typing import Any

from seamline.mesh.outcome import Refusal, crossing, deadline_exceeded
from seamline.mesh.service import Entry
from seamline.module.context import CURRENT, NO_DEADLINE, CallContext


@types.coroutine
def bounded(coroutine: Coroutine[Any, Any, Any], deadline: float, method: str) -> Generator[Any, Any, Any]:
    """Await ``coroutine`` until ``deadline`` (``time.monotonic``).

    A timer costs more than a short call: it is set only when the coroutine first waits.
    """
    try:
        waiting = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    if deadline == NO_DEADLINE:
        return (yield from _resume(coroutine, waiting))
    return (yield from _timed(coroutine, waiting, deadline, method))


def _resume(coroutine: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """What ``yield from`` does, for a coroutine that has taken its first step."""
    while True:
        try:
            sent = yield waiting
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:
            step: Callable[[Any], Any] = coroutine.throw
            sent = error
        else:
            step = coroutine.send
        try:
            waiting = step(sent)
        except StopIteration as stop:
            return stop.value


def _timed(coroutine: Coroutine[Any, Any, Any], waiting: Any, deadline: float, method: str) -> Generator[Any, Any, Any]:
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(max(deadline - monotonic(), 0.0), expire)
    try:
        result = yield from _resume(coroutine, waiting)
    except asyncio.CancelledError:
        if expired and task.uncancel() <= cancelling:
            raise Refusal(deadline_exceeded(method)) from None
        raise
    except Exception:
        if not expired:
            raise
    else:
        if not expired:
            return result
    finally:
        timer.cancel()
    # It ended in its own way after its time was up: too late, as over a wire, where nobody waits any more.
    task.uncancel()
    raise Refusal(deadline_exceeded(method))


async def call_local(entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> Any:
    """Run a unary handler under ``context``; its errors are turned into what crosses a seam."""
    token = CURRENT.set(context)
    try:
        return await bounded(entry.handler(*arguments), context.deadline, entry.name)
    except BaseException as error:
        raise seen_by_caller(error, entry, context) from None
    finally:
        CURRENT.reset(token)


def seen_by_caller(error: BaseException, entry: Entry, context: CallContext) -> BaseException:
    """What the caller sees: a declared fault as itself, and DeadlineExceeded once the call's own time is up.

    A ``CancelledError`` is the caller's own only if somebody cancelled it; one that a handler lets slip, from a task
    of its own that was cancelled, is an error as any other.
    """
    if not isinstance(error, Exception):
        task = asyncio.current_task()
        if not isinstance(error, asyncio.CancelledError) or task is None or task.cancelling():
            return error
    elif context.deadline <= monotonic() and entry.faults.get(type(error).__name__) is not type(error):
        return deadline_exceeded(entry.name)
    return crossing(error, entry.name, entry.module, entry.faults)


async def stream_local(entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> AsyncGenerator[Any]:
    """Iterate a streaming handler under ``context``, item by item."""
    iterator: AsyncIterator[Any] | None = None
    try:
        while True:
            token = CURRENT.set(context)
            try:
                if context.deadline <= monotonic():
                    raise Refusal(deadline_exceeded(entry.name))  # noqa: TRY301  # as if the handler had been cut off
                if iterator is None:
                    iterator = aiter(entry.handler(*arguments))
                item = await bounded(_next(iterator), context.deadline, entry.name)
            except _Ended:
                return
            except BaseException as error:
                raise seen_by_caller(error, entry, context) from None
            finally:
                CURRENT.reset(token)
            yield item
    finally:
        await _close(iterator, entry, context)


async def _close(iterator: AsyncIterator[Any] | None, entry: Entry, context: CallContext) -> None:
    close = getattr(iterator, "aclose", None)
    if close is None:
        return
    token = CURRENT.set(context)
    try:
        await close()
    except Exception as error:
        crossing(error, f"{entry.name}, whose stream was left,", entry.module, {})  # logged; nobody waits for it
    finally:
        CURRENT.reset(token)


class _Ended(Exception):
    """The stream has no more items; StopAsyncIteration cannot leave a coroutine."""


async def _next(iterator: AsyncIterator[Any]) -> Any:
    try:
        return await anext(iterator)
    except StopAsyncIteration:
        raise _Ended from None
