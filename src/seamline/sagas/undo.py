"""Taking back what a failed saga has done: in reverse order or all at once, each until it has succeeded.

One that fails does not keep the others from being undone. While any is left the saga has not ended: it is shown as
stuck and tried again, at longer and longer intervals.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.module.context import CURRENT, CallContext
from seamline.module.values import Fault
from seamline.sagas import steps
from seamline.sagas.calls import REMOTE, THREAD, callee_of, run_thread
from seamline.sagas.errors import LostSagasError
from seamline.sagas.journal.records import Entry, Trouble
from seamline.sagas.journal.statements import Write

if TYPE_CHECKING:
    from seamline.sagas.course import Course
    from seamline.sagas.saga import Step


@dataclasses.dataclass(slots=True)
class Undo:
    """How to take back a step that was done, or of which nobody knows whether it was."""

    place: str
    name: str
    undo: Callable[..., Any]
    arguments: tuple[Any, ...]
    value: Any
    unsettled: Step[Any] | None = None
    """The step, to be asked again: its outcome is not known."""


async def compensate(course: Course, undos: list[Undo]) -> bool:
    """Undo all of these that are not undone yet. False when some are left; the course then says when to go on."""
    left = [undo for undo in undos if undo.place not in course.past.undone]
    if course.kind.parallel:
        done = await asyncio.gather(*(_undo(course, undo) for undo in left))
    else:
        done = [await _undo(course, undo) for undo in reversed(left)]
    if all(done):
        return True
    course.due_ms = min(trouble.due_ms for trouble in course.trouble.values())
    return False


async def _undo(course: Course, undo: Undo) -> bool:
    """One compensation, tried a few times. False when it is left for later."""
    course.busy += 1
    try:
        return await _attempts(course, undo)
    except LostSagasError:
        course.engine.lose()
        raise asyncio.CancelledError from None
    finally:
        course.leave_work()


async def _attempts(course: Course, undo: Undo) -> bool:
    engine = course.engine
    place, name = f"undo {undo.place}", f"undo of {undo.name}"
    trouble = course.trouble.get(place)
    before = trouble.attempts if trouble is not None else 0
    while True:
        if trouble is not None and not await _due(course, place, trouble):
            return False
        try:
            await _run(course, undo)
        except LostSagasError:
            raise
        except Exception as error:
            trouble = steps.failed(course, place, name, error, unknown=False)
        else:
            course.trouble.pop(place, None)
            return True
        trouble.due_ms = engine.now_ms() + int(engine.pause_s(trouble.attempts) * 1000)
        if trouble.given_up or trouble.attempts - before >= engine.settings.step_attempts:
            trouble.given_up = True
            return False


async def _due(course: Course, place: str, trouble: Trouble) -> bool:
    """Whether to try now, or after a moment; False when the saga had better leave memory meanwhile."""
    engine = course.engine
    if course.leaving:
        raise asyncio.CancelledError
    left_ms = trouble.due_ms - engine.now_ms()
    if left_ms <= 0:
        return True
    return not trouble.given_up and left_ms <= engine.idle_ms and await steps.pause(course, place, trouble)


async def _run(course: Course, undo: Undo) -> None:
    engine, module = course.engine, course.engine.module
    if undo.unsettled is not None and not await _settled(course, undo):
        return
    key = f"{course.key_of(undo.place)}:undo"
    arguments = undo.arguments if undo.value is None else (undo.value,)
    callee = callee_of(undo.undo)
    for_calls = None if callee.how in ("local", THREAD) else key
    entry = Entry(undo.place, "undo", undo.name, 0)
    context = CallContext(module, module, course.kind.label, trace=course.trace, idempotency_key=key,
                          key_for_calls=for_calls, subject=course.subject_of_undo, span=0)  # fmt: skip
    failure: BaseException | None = None
    token = CURRENT.set(context)
    started = monotonic()
    try:
        if callee.how == REMOTE:
            await undo.undo(*arguments)
        elif callee.how == THREAD:
            await run_thread(undo.undo, arguments)
        else:
            async with engine.database.unit() as unit:
                made = undo.undo(*arguments)
                if inspect.isawaitable(made):
                    await made
                if unit.begun:
                    entry.at_ms = engine.now_ms()
                    write = Write(engine.owner, [("entry", course.pen.row(entry))])
                    await engine.journal.store.write_with(await unit.connection(), write)
    except BaseException as error:
        failure = error
        raise
    finally:
        CURRENT.reset(token)
        steps.tell(course, context, f"undo {undo.name}", undo.place, started, failure)
    await _note(course, entry)


async def _settled(course: Course, undo: Undo) -> bool:
    """Ask a step of unknown outcome again, under the same key. False when it had no effect, and has none now."""
    step = undo.unsettled
    assert step is not None
    entry = Entry(undo.place, "step", undo.name, 0)
    try:
        undo.value = await steps.call(course, step, entry, course.key_of(undo.place))
    except Fault:
        await _note(course, Entry(undo.place, "undo", undo.name, 0, output=entry.output))
        return False
    undo.unsettled = None
    return True


async def _note(course: Course, entry: Entry) -> None:
    course.past.undone[entry.place] = entry
    if not entry.at_ms:
        entry.at_ms = course.engine.now_ms()
        course.pen.put_down(entry)
        await course.pen.flush()
