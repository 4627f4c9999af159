"""From the first line of a saga's code to its end: it succeeds, is undone, is given back, or waits for a person."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.module.context import CURRENT, CallContext
from seamline.sagas.course import Course
from seamline.sagas.errors import SagaCancelled, SagaUseError
from seamline.sagas.journal.records import OK, Entry, Trouble, checksum, end_text, outcome_of
from seamline.sagas.journal.statements import Statement
from seamline.sagas.saga import Renewed, Saga
from seamline.sagas.undo import compensate


async def live(course: Course) -> None:
    """Run a saga until it ends, or leaves memory."""
    course.task = task = asyncio.current_task()
    assert task is not None
    engine = course.engine
    token = CURRENT.set(CallContext(engine.module, engine.module, course.kind.label, trace=course.trace,
                                    subject=course.subject))  # fmt: skip
    try:
        try:
            await _live(course)
        except asyncio.CancelledError:
            if course.lost or task.cancelling():
                raise
            await leave(course)
    except asyncio.CancelledError:
        if not course.lost:
            engine.dropped(course, None)
    except Exception as error:  # of the engine's own making, or of its database
        engine.dropped(course, error)
    finally:
        CURRENT.reset(token)
        engine.left(course)


async def set_aside(course: Course) -> None:
    """Give a saga back as it was: its journal cannot be read."""
    course.task = asyncio.current_task()
    try:
        await leave(course)
    finally:
        course.engine.left(course)


async def _live(course: Course) -> None:
    kind = course.kind
    if course.mail.messages:
        course.engine.loop.call_soon(course.mail.answer)
    try:
        given = dict(zip(kind.input.names, kind.input.decode(course.data), strict=True))
    except SeamlineError as error:
        course.halt(course.past.mismatch("0", f"the input {course.data.decode()}", error.fact))
        return await leave(course)
    value: Any = None
    raised: Exception | None = None
    try:
        value = await kind.function(Saga(course), **kind.wired, **given)
    except asyncio.CancelledError:
        if not (course.closed or course.stopping):
            raised = SagaUseError("its code was cancelled from within", "Do not cancel the saga's own task")
    except Renewed as renewed:
        if not course.closed and course.stopping is None:
            return await _renew(course, renewed.arguments)
    except Exception as error:
        raised = error
    return await _ended(course, value, raised)


async def _ended(course: Course, value: Any, raised: Exception | None) -> None:
    """The code has come to its end, one way or another."""
    await _settle(course)
    if course.leaving:
        return await leave(course)
    if course.halted is None and course.failure is None:
        left_over = course.past.left_over()
        if left_over is not None:
            course.halt(left_over)
    if course.halted is not None:
        return await leave(course)
    failure = course.failure or course.stopping or raised
    if failure is None and course.places.unstarted > 0:
        failure = SagaUseError(
            f"saga {course.id!r} ended with {course.places.unstarted} steps that were not awaited", "Await each of them"
        )
    if failure is None:
        failure = await _succeed(course, value)
    if failure is not None:
        await _fail(course, failure)
    return None


async def _settle(course: Course) -> None:
    """Wait for what was begun and not waited for, such as the other branches when one of them failed."""
    await course.past.play_out()
    course.ending = True
    course.wake_waits()
    while course.busy:
        course.quiet = course.engine.loop.create_future()
        await course.quiet
    course.past.break_off()


async def _renew(course: Course, arguments: tuple[Any, ...]) -> None:
    """Begin again with new input and an empty journal, under the same id."""
    await _settle(course)
    data = course.kind.input.encode(course.kind.arguments(arguments, {}))
    engine = course.engine
    now_ms = engine.now_ms()
    run = course.run + 1
    took = [("take", (course.id, number)) for number in course.pen.taken]
    renewed: list[Statement] = [("renew", (run, now_ms, now_ms, data.decode(), checksum(data), course.id))]
    await engine.keep(course, [*took, *renewed, ("drop", (course.id,))])
    again = Course(engine, course.kind, course.id, course.key, run, course.created_ms, now_ms, data, course.trace,
                   course.parent)  # fmt: skip
    again.notes = course.notes
    again.subject = course.subject
    again.parent_span = course.parent_span
    again.mail.go_on(course.mail)
    engine.running[course.id] = again
    engine.loop.call_soon(engine.run, again)


async def _succeed(course: Course, value: Any) -> Exception | None:
    """End well; or say why not."""
    try:
        output = msgspec.Raw(course.kind.result.encode(value))
    except Exception as error:  # whatever the codec's library raises
        return SagaUseError(f"saga {course.id!r} gave what its result's type does not allow: {error}")
    # A step that failed without an answer may have had its effect after all: not with this saga's blessing.
    unsettled = [undo for undo in course.undos if undo.unsettled is not None]
    if unsettled:
        await course.pen.flush()
        if not await compensate(course, unsettled):
            await leave(course)
            return None
    await _end(course, "succeeded", end_text(OK, "", output))
    return None


async def _fail(course: Course, failure: Exception) -> None:
    """Undo everything, and end badly."""
    kind, error, output = outcome_of(failure)
    if course.failure is None:
        if course.pivoted:
            return await _go_on_later(course, failure)
        course.failure = failure
        course.pen.put_down(
            Entry("", "failed", type(failure).__name__, course.now_ms, kind, output=output, error=error)
        )
        course.pen.taken += course.mail.cancels
        if course.undos:
            course.pen.dirty = True
            await course.pen.flush()
    if course.undos and not await compensate(course, course.undos):
        return await leave(course)
    status = "cancelled" if isinstance(failure, SagaCancelled) else "failed"
    return await _end(course, status, end_text(kind, error, output))


async def _go_on_later(course: Course, failure: Exception) -> None:
    """Past the point of no return: the step that failed is asked again, as if for the first time."""
    place = next((place for place, error in course.raised.items() if error is failure), None)
    if place is None:
        course.halt(
            SagaUseError(
                f"saga {course.id!r} failed past its point of no return: {type(failure).__name__}: {failure}",
                f"Correct its code, then `seamline sagas retry {course.id}`",
            )
        )
        return await leave(course)
    now_ms = course.engine.now_ms()
    entries = (*course.pen.pending, *course.past.order)
    name = next((entry.name for entry in entries if entry.place == place), "")
    trouble = course.trouble.setdefault(f"again {place}", Trouble(name, 0, now_ms, ""))
    trouble.attempts += 1
    trouble.error = str(failure)
    trouble.given_up = True
    course.due_ms = trouble.due_ms = now_ms + int(course.engine.pause_s(trouble.attempts) * 1000)
    course.pen.put_down(Entry(place, "again", name, now_ms))
    return await leave(course)


async def _end(course: Course, status: str, result: str) -> None:
    """The saga has ended: the last of its journal and its result."""
    engine = course.engine
    await course.pen.settle()
    now_ms = engine.now_ms()
    work = course.work() if course.notes else ""
    course.pen.dirty = False
    statements = course.pen.statements()
    statements.append(("end", (status, result, now_ms, now_ms, work, course.id)))
    if course.mail.seen:
        statements.append(("clear", (course.id,)))
    if course.listened:
        statements.append(("unwait", (course.id,)))
    post = None
    if course.parent:
        parent, _, name = course.parent.partition(" ")
        post = (parent, "child", name, result, now_ms)
    await engine.keep(course, statements, post)
    engine.counts["ended"] += 1
    _tell(course, status, max(now_ms - course.created_ms, 0) / 1000)
    engine.watch.ended(course.id, status, result)
    if post is not None:
        await engine.deliver()
        engine.intake.wake()
    engine.announce()


def _tell(course: Course, status: str, seconds: float) -> None:
    """Count a saga that has ended, and record its span if its trace is recorded."""
    engine, trace = course.engine, course.trace
    module, tracer = engine.module, engine.tracer
    code = {"succeeded": "", "cancelled": "canceled"}.get(status, "aborted")
    tracer.flows.stats(module, module, course.kind.label, "saga").record(seconds, code)
    if trace is None or not trace.sampled:
        return
    facts = {"seamline.saga.id": course.id, "seamline.saga.type": course.kind.name, "seamline.saga.status": status}
    tracer.record(
        trace, trace.span_id, course.parent_span, course.kind.label, "internal", module, module, monotonic() - seconds,
        seconds, code or "ok", "", facts,
    )  # fmt: skip


async def leave(course: Course) -> None:
    """Give the saga back to the journal."""
    if course.lost:
        return
    if course.shown is None:
        course.interrupted = course.cut or (course.interrupted and (course.halted is not None or course.past.replaying))
        course.shown = course.work()
    course.pen.dirty = False
    statements = course.pen.statements()
    await course.pen.settle()
    now_ms = course.engine.now_ms()
    rest = (course.mail.seen, course.due_ms, course.status, course.shown, course.stuck(), now_ms, course.id)
    await course.engine.keep(course, [*statements, ("rest", rest)])
