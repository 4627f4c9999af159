"""What the journal holds: entries, messages, the head of a saga, and how outcomes are written down."""

from __future__ import annotations

import sys
import zlib
from importlib import import_module
from typing import Any, Final, NamedTuple

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.module.errors import CALL_ERRORS, CallError
from seamline.module.values import Fault
from seamline.sagas import errors
from seamline.sagas.errors import DamagedJournalError, StepFailed

FORMAT: Final = 1
"""Of the journal. Raised when an older release could not read what this one writes."""

NULL: Final = msgspec.Raw(b"null")

OK, FAULT, ERROR, UNKNOWN, LEFT = "ok", "fault", "error", "unknown", "left"
"""How a step can end. The saga's own code left a step that it cancelled: whether it was done is not known either."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One thing that happened to a saga, written before the next begins.

    ``place`` says where in the code: its number, within the branch that asked for it where branches run at once.
    """

    place: str
    kind: str
    name: str
    at_ms: int
    outcome: str = OK
    input: msgspec.Raw = NULL
    output: msgspec.Raw = NULL
    error: str = ""
    """A fault's class, or an error's code."""
    attempts: int = 1
    took_ms: int = 0
    message: int = 0
    """The number of the message that answered."""
    then: list[str] = []
    """What was under way or began when this was written."""


class Trouble(msgspec.Struct, omit_defaults=True):
    """A step or compensation that has failed and is tried again."""

    name: str
    attempts: int
    since_ms: int
    error: str
    due_ms: int = 0
    unknown: bool = False
    """Whether it may have had its effect."""
    given_up: bool = False
    """Whether a person should look at it."""


class Waiting(msgspec.Struct, omit_defaults=True):
    """What a saga waits for."""

    place: str
    kind: str
    name: str
    due_ms: int = 0
    shown: msgspec.Raw = NULL


class Work(msgspec.Struct, omit_defaults=True):
    """What people see of a saga at work, and what it remembers of failing attempts."""

    waiting: list[Waiting] = []
    trouble: dict[str, Trouble] = {}
    notes: dict[str, msgspec.Raw] = {}
    refused: dict[str, str] = {}
    """Signals that people sent and that did not fit: why, by the message's number."""
    interrupted: bool = False
    """It left memory in the middle of a step, or before all that a dead process had under way was begun again."""


class Message(NamedTuple):
    n: int
    kind: str
    name: str
    body: str
    time_ms: int


class Head(NamedTuple):
    """A saga's row."""

    id: str
    type: str
    key: str
    version: int
    status: str
    owner: str | None
    due_ms: int | None
    messages: int
    run: int
    created_ms: int
    began_ms: int
    updated_ms: int
    ended_ms: int
    input: str
    crc: int
    result: str
    work: str
    stuck: str
    trace: str
    parent: str
    subject: str
    """The proof of on whose behalf it was started."""


class Outcome(msgspec.Struct, omit_defaults=True):
    """How a saga ended: its result, or the error."""

    outcome: str = OK
    output: msgspec.Raw = NULL
    error: str = ""


_ENCODER = msgspec.json.Encoder()
_ENTRY = msgspec.json.Decoder(Entry)
_OUTCOME = msgspec.json.Decoder(Outcome)
_WORK = msgspec.json.Decoder(Work)


def checksum(data: bytes) -> int:
    return zlib.crc32(data)


def to_text(value: msgspec.Struct) -> str:
    return _ENCODER.encode(value).decode()


def entry_row(saga: str, seq: int, entry: Entry) -> tuple[str, int, str, int]:
    data = _ENCODER.encode(entry)
    return saga, seq, data.decode(), zlib.crc32(data)


def read_entry(saga: str, seq: int, text: str, crc: int) -> Entry:
    """Raises DamagedJournalError."""
    data = text.encode()
    if zlib.crc32(data) != crc:
        raise damaged(saga, f"entry {seq} of its journal does not have the checksum it was written with")
    try:
        return _ENTRY.decode(data)
    except msgspec.MsgspecError as error:
        raise damaged(saga, f"entry {seq} of its journal cannot be read ({error})") from None


def read_work(head: Head) -> Work:
    """Raises DamagedJournalError."""
    try:
        return _WORK.decode(head.work) if head.work else Work()
    except msgspec.MsgspecError as error:
        raise damaged(head.id, f"what it was doing cannot be read ({error})") from None


def damaged(saga: str, fact: str) -> DamagedJournalError:
    return DamagedJournalError(
        f"saga {saga!r}: {fact}", "Restore the database's last copy, or settle the saga by hand and cancel it"
    )


def outcome_of(error: Exception) -> tuple[str, str, msgspec.Raw]:
    """``(outcome, error, output)`` of an error, for an entry or the end."""
    if isinstance(error, Fault):
        cls = type(error)
        return FAULT, f"{cls.__module__}:{cls.__qualname__}", msgspec.Raw(error.encode())
    if isinstance(error, SeamlineError):
        started = error.started if isinstance(error, CallError) else True
        return ERROR, error.code, msgspec.Raw(_ENCODER.encode([error.fact, error.remedy, started]))
    fact = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ERROR, StepFailed.code, msgspec.Raw(_ENCODER.encode([fact[:2000], "", True]))


_ERRORS: dict[str, type[SeamlineError]] = {
    **CALL_ERRORS,
    **{cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.SagasError)},
}


def error_from(saga: str, kind: str, error: str, output: msgspec.Raw) -> Exception:
    """The error that was written down. Raises DamagedJournalError where a fault's class is gone."""
    if kind == FAULT:
        return _fault(saga, error, bytes(output))
    fact, remedy, started = msgspec.json.decode(output, type=tuple[str, str, bool])
    made = _ERRORS.get(error, StepFailed)(fact, remedy)
    if isinstance(made, CallError):
        made.started = started
    return made


def _fault(saga: str, where: str, data: bytes) -> Fault:
    module, _, name = where.partition(":")
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise damaged(saga, f"it met the fault {where!r}, which is no longer there") from None
    if not (isinstance(found, type) and issubclass(found, Fault)):
        raise damaged(saga, f"it met the fault {where!r}, which is no fault any more")
    try:
        return found.decode(data)
    except SeamlineError as error:
        raise damaged(saga, f"its fault {where!r} does not fit any more: {error.fact}") from None


def read_outcome(saga: str, text: str) -> Outcome:
    try:
        return _OUTCOME.decode(text)
    except msgspec.MsgspecError as error:
        raise damaged(saga, f"its result cannot be read ({error})") from None


def end_text(kind: str, error: str, output: msgspec.Raw) -> str:
    return _ENCODER.encode(Outcome(kind, output, error)).decode()
