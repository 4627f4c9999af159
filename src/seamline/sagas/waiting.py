"""What a saga waits for: time, signals, events, people, and sagas that it started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.sagas import hearing
from seamline.sagas.errors import ApprovalExpired, StepFailed, WaitExpired
from seamline.sagas.journal.records import OK, Entry, Message, error_from, outcome_of, read_outcome

if TYPE_CHECKING:
    from seamline.sagas.course import Course
    from seamline.sagas.saga import Wait

EXPIRED: Final = Message(0, "expired", "", "null", 0)


async def wait(course: Course, wanted: Wait[Any]) -> Any:
    """Wait for something that has its place in the journal. Raises what it ends with."""
    place = wanted.place
    if course.past.at:
        entry = await course.past.recall(place, wanted.kind, wanted.name)
        if entry is not None:
            return _answer(course, wanted, entry)
    await course.past.begins(place, wanted.name)
    if course.stopping is not None and wanted.kind != "child":
        raise asyncio.CancelledError
    entry = _entry(course, wanted, await _message(course, wanted))
    course.went_on()
    course.now_ms = max(course.now_ms, entry.at_ms)
    course.pen.put_down(entry)
    if course.busy or course.waits:
        course.engine.loop.call_soon(course.pen.flush_soon)
    if course.stopping is not None:
        raise asyncio.CancelledError
    return _answer(course, wanted, entry)


def _entry(course: Course, wanted: Wait[Any], message: Message) -> Entry:
    now_ms = course.engine.now_ms()
    entry = Entry(wanted.place, wanted.kind, wanted.name, now_ms, input=wanted.shown, message=message.n)
    if message is EXPIRED:
        if wanted.kind != "sleep":
            entry.outcome, entry.error, entry.output = outcome_of(_expired(wanted))
        return entry
    if message.n:
        course.pen.taken.append(message.n)
    if wanted.kind == "child":
        ended = read_outcome(course.id, message.body)
        entry.outcome, entry.error, entry.output = ended.outcome, ended.error, ended.output
        return entry
    if wanted.kind == "event":
        course.past.heard.add(hearing.heard_id(message.body))
    entry.output = msgspec.Raw(message.body.encode())
    try:
        wanted.read(bytes(entry.output))
    except SeamlineError as error:
        misfit = StepFailed(f"the {wanted.kind} {wanted.name!r} does not fit: {error.fact}", "Send what it waits for")
        entry.outcome, entry.error, entry.output = outcome_of(misfit)
    return entry


def _answer(course: Course, wanted: Wait[Any], entry: Entry) -> Any:
    try:
        if entry.outcome == OK:
            return wanted.read(bytes(entry.output))
        error = error_from(course.id, entry.outcome, entry.error, entry.output)
    except SeamlineError as unreadable:
        course.halt(unreadable)
        raise asyncio.CancelledError from None
    raise error


async def _message(course: Course, wanted: Wait[Any]) -> Message:
    found = course.mail.find(wanted)
    if found is not None:
        return found
    engine = course.engine
    due_ms = wanted.due_ms = 0 if wanted.timeout_s is None else course.now_ms + int(wanted.timeout_s * 1000)
    future = wanted.future = engine.loop.create_future()
    wanted.since = engine.pace.monotonic()
    course.waits[wanted.place] = wanted
    course.underway[wanted.place] = wanted.name
    timer = None
    try:
        if wanted.kind != "sleep" or due_ms - engine.now_ms() > engine.idle_ms:
            course.pen.dirty = True  # people are to see what it waits for
        if course.pen.dirty or not course.pen.idle:
            await course.pen.flush()
        course.listened = course.listened or wanted.kind == "event"
        if wanted.begin is not None:
            await wanted.begin()
        found = course.mail.find(wanted)
        if found is not None:
            return found
        if course.leaving or (course.stopping is not None and wanted.kind != "child"):
            raise asyncio.CancelledError
        if due_ms:
            timer = engine.at(due_ms, future, EXPIRED)
        if not future.done():
            engine.loop.call_soon(course.consider_rest)
        return await future
    finally:
        if timer is not None:
            timer.cancel()
        course.waits.pop(wanted.place, None)
        course.underway.pop(wanted.place, None)


def _expired(wanted: Wait[Any]) -> SeamlineError:
    what = f"{wanted.name!r} within {wanted.timeout_s:g} s"
    if wanted.kind == "approval":
        return ApprovalExpired(f"nobody approved or refused {what}", "Ask again, or let the saga go another way")
    return WaitExpired(f"no {wanted.kind} {what}", "Catch it where that is to be expected")
