"""Hedged requests: ask a second replica when the first is slow (after Dean and Barroso, "The Tail at Scale")."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from seamline.module.values import Fault


async def first_answer(
    attempt: Callable[[], Coroutine[Any, Any, Any]], after_s: float, second: Callable[[], bool]
) -> Any:
    """The result of an attempt, or of a second one made after ``after_s`` if ``second`` agrees: the first to answer.

    A fault is an answer. When all attempts fail, the last failure is raised. No task outlives the call.
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(attempt())]
    pending = set(tasks)
    wait_s: float | None = after_s
    failure: BaseException | None = None
    try:
        while pending:
            done, pending = await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                failure = task.exception()
                if failure is None or isinstance(failure, Fault):
                    return task.result()
            if wait_s is not None and not done and second():
                tasks.append(loop.create_task(attempt()))
                pending.add(tasks[-1])
            wait_s = None
        assert failure is not None
        raise failure
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
