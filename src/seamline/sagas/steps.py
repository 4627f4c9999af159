"""Running one step: its call under its key, the attempts, and what its end means.

A fault is an answer. What certainly failed for good is not tried again. Everything else is, under the same key; where
the attempts run out and one of them may have had its effect, the outcome is unknown, and is asked for before the saga
undoes it.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.signal.trace import exception_event, said
from seamline.mesh.outcome import NO_FAILURES, status_of
from seamline.module.context import CURRENT, NO_DEADLINE, CallContext
from seamline.module.errors import CallError, InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented
from seamline.module.values import Fault
from seamline.sagas.calls import DIRECT, LOCAL, REMOTE, Callee, run_thread
from seamline.sagas.errors import LostSagasError, StepFailed, UntypedStepError
from seamline.sagas.journal.records import LEFT, UNKNOWN, Entry, Trouble, outcome_of
from seamline.sagas.journal.statements import Write

if TYPE_CHECKING:
    from seamline.sagas.course import Course
    from seamline.sagas.saga import Step

_FINAL: Final = (PermissionDenied, InvalidArgument, Unauthenticated, Unimplemented, UntypedStepError)


async def attempt(course: Course, step: Step[Any], *, maybe_begun: bool) -> tuple[Entry, Any]:
    """Run a step to its end. Gives its entry, and its value or the error to raise.

    ``maybe_begun`` says that a process that is gone may have had it under way, with the effect that nobody knows of.
    An entry without a kind is in the journal already. Raises CancelledError when the saga leaves this process first.
    """
    engine, callee, place = course.engine, step.callee, step.place
    maybe_begun = maybe_begun and callee.how != LOCAL  # ours is done when its entry is there, and not otherwise
    data = callee.encode_arguments(step.arguments)
    key = course.key_of(place)
    began_ms = engine.now_ms()
    trouble = course.trouble.get(place)
    if trouble is not None:
        trouble.unknown = trouble.unknown or maybe_begun
    if trouble is not None and trouble.due_ms > began_ms and not await pause(course, step.place, trouble):
        return _final(course, step, data, began_ms, trouble)
    while True:
        entry = Entry(place, "step", step.name, began_ms, input=data)
        if trouble is not None:
            entry.attempts = trouble.attempts + 1
        try:
            value = await call(course, step, entry, key)
        except Fault as fault:
            entry.outcome, entry.error, entry.output = outcome_of(fault)
            value = fault
        except _FINAL as error:
            entry.outcome, entry.error, entry.output = outcome_of(error)
            if maybe_begun or (isinstance(error, Unauthenticated) and error.started):
                entry.outcome = UNKNOWN  # it was cut off while it ran, or before it was asked again
            value = error
        except LostSagasError:
            engine.lose()
            raise asyncio.CancelledError from None
        except Exception as error:
            trouble = failed(course, place, step.name, error, maybe_begun or may_have_run(callee, error))
            limit = step.attempts or engine.settings.step_attempts
            over = (trouble.attempts >= limit and not course.pivoted) or course.stopping is not None or course.ending
            if over or not await pause(course, place, trouble, step.backoff_s):
                course.trouble.pop(place, None)
                return _failed(course, entry, error, trouble)
            continue
        entry.at_ms = engine.now_ms()
        entry.took_ms = entry.at_ms - began_ms
        return entry, value


def left(course: Course, step: Step[Any]) -> Entry:
    """The entry of a step that the saga's code gave up while it was under way."""
    now_ms = course.engine.now_ms()
    course.trouble.pop(step.place, None)
    return Entry(step.place, "step", step.name, now_ms, LEFT, step.callee.encode_arguments(step.arguments))


def _failed(course: Course, entry: Entry, error: Exception, trouble: Trouble) -> tuple[Entry, Exception]:
    if not isinstance(error, CallError):
        error = StepFailed(f"the step {entry.name!r} failed: {type(error).__name__}: {error}")
    kind, entry.error, entry.output = outcome_of(error)
    entry.outcome = UNKNOWN if trouble.unknown else kind
    entry.at_ms = course.engine.now_ms()
    return entry, error


def _final(
    course: Course, step: Step[Any], data: msgspec.Raw, began_ms: int, trouble: Trouble
) -> tuple[Entry, Exception]:
    entry = Entry(step.place, "step", step.name, began_ms, input=data, attempts=trouble.attempts)
    course.trouble.pop(step.place, None)
    return _failed(course, entry, StepFailed(trouble.error), trouble)


async def call(course: Course, step: Step[Any], entry: Entry, key: str) -> Any:
    """One attempt. Fills the entry's output."""
    timeout_s, how = step.timeout_s, step.callee.how
    deadline = NO_DEADLINE if timeout_s is None else monotonic() + timeout_s
    course.check_subject()
    module, for_calls = course.engine.module, key if how in (REMOTE, DIRECT) else None
    context = CallContext(
        module, module, course.kind.label, deadline, course.trace, 1, key, for_calls, course.subject, 0
    )
    failure: BaseException | None = None
    token = CURRENT.set(context)
    started = monotonic()
    try:
        if how == REMOTE:
            value = await step.call(*step.arguments)
            entry.output = step.callee.encode_result(value)
            return value
        if timeout_s is None:
            return await _here(course, step, entry)
        async with asyncio.timeout(timeout_s):
            return await _here(course, step, entry)
    except BaseException as error:
        failure = error
        raise
    finally:
        CURRENT.reset(token)
        tell(course, context, f"step {step.name}", step.place, started, failure)


def tell(
    course: Course, context: CallContext, name: str, place: str, started: float, failure: BaseException | None
) -> None:
    """Count a step, or the undoing of one, and record its span if the saga's trace is recorded or is to be."""
    engine, module, seconds = course.engine, course.engine.module, monotonic() - started
    tracer, trace, status = engine.tracer, context.origin, status_of(failure)
    stats = tracer.flows.stats(module, module, f"{course.kind.label}/{name}", "saga")
    stats.record(seconds, "" if status == "ok" else status)
    if trace is None:
        return
    failed = failure is not None and status not in NO_FAILURES
    if not trace.sampled and not ((failed or seconds > tracer.slow_s) and tracer.keep(trace)):
        return
    facts = {"seamline.saga.id": course.id, "seamline.saga.type": course.kind.name, "seamline.saga.place": place}
    if isinstance(failure, Fault):
        facts["seamline.fault"] = type(failure).__name__
    tracer.record(
        trace, context.span_id(), trace.span_id, name, "internal", module, module, started, seconds, status,
        said(failure) if failed and failure is not None else "", facts,
        [exception_event(failure, tracer.at_ns(started + seconds))] if failed and failure is not None else None,
    )  # fmt: skip


async def _here(course: Course, step: Step[Any], entry: Entry) -> Any:
    if step.callee.how in (LOCAL, DIRECT):
        return await _local(course, step, entry)
    value = await run_thread(step.call, step.arguments)
    entry.output = step.callee.encode_result(value)
    return value


async def _local(course: Course, step: Step[Any], entry: Entry) -> Any:
    """A function of the module: what it writes to the module's database commits together with its entry."""
    engine = course.engine
    seq = 0
    value: Any = None
    try:
        async with engine.database.unit() as unit:
            value = await step.call(*step.arguments)
            entry.output = step.callee.encode_result(value)
            if unit.begun:
                entry.at_ms = engine.now_ms()
                row = course.pen.row(entry)
                await engine.journal.store.write_with(await unit.connection(), Write(engine.owner, [("entry", row)]))
                seq = course.pen.seq
    except Exception:
        # Where the answer to a commit was lost, the journal knows whether it happened.
        if not seq or not await engine.journal.has_entry(course.id, seq):
            raise
    if seq:
        entry.kind = ""
    return value


def may_have_run(callee: Callee, error: Exception) -> bool:
    """Whether a failed attempt may have had its effect."""
    if isinstance(error, CallError):
        return error.started
    if callee.how == LOCAL:
        return False  # rolled back
    return isinstance(error, TimeoutError)


def failed(course: Course, place: str, name: str, error: Exception, unknown: bool) -> Trouble:
    """Note a failed attempt."""
    engine = course.engine
    trouble = course.trouble.get(place)
    if trouble is None:
        trouble = course.trouble[place] = Trouble(name, 0, engine.now_ms(), "")
    trouble.attempts += 1
    trouble.error = str(error) or type(error).__name__
    trouble.unknown = trouble.unknown or unknown
    engine.complain(course, place, name, error, trouble)
    return trouble


async def pause(course: Course, place: str, trouble: Trouble, backoff_s: float | None = None) -> bool:
    """Wait for the next attempt, in memory or out of it. False when the saga is stopped meanwhile."""
    engine = course.engine
    if trouble.due_ms <= engine.now_ms():
        trouble.due_ms = engine.now_ms() + int(engine.pause_s(trouble.attempts, backoff_s) * 1000)
    course.pen.dirty = True
    over = course.pausing(place, trouble.due_ms)
    engine.after((trouble.due_ms - engine.now_ms()) / 1000, over)
    try:
        if trouble.attempts > 1:
            await course.pen.flush()
        course.busy -= 1
        try:
            course.consider_rest()
            await over
            trouble.due_ms = 0
        finally:
            course.busy += 1
    except asyncio.CancelledError:
        if course.leaving or course.halted is not None:
            raise
        return False
    finally:
        over.cancel()
        course.waits.pop(f"{place} again", None)
    return True
