"""What a call ends in, and how that crosses a seam.

One rule for every topology: a fault that the contract declares arrives as itself; a call's own errors (deadline,
refusal) arrive as themselves; anything else that a handler raises is logged where it happened and arrives as
:class:`~seamline.module.errors.InternalError`.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping

import msgspec

from seamline.kernel.codec import CodecError
from seamline.kernel.wire.frames import ErrorBody
from seamline.module.errors import (
    CALL_ERRORS,
    CALL_ERRORS_BY_CONNECT,
    CallError,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    Unauthenticated,
)
from seamline.module.values import Fault

OK = "ok"
CANCELED = "canceled"
"""Nobody waits for the answer any more: no failure of the call."""
FAULT_CODE = "aborted"
"""Connect's code for a declared fault."""


class _After(msgspec.Struct):
    """What travels with Overloaded."""

    retry_after_s: float


_AFTER = msgspec.json.Encoder()
_AFTER_DECODER = msgspec.json.Decoder(_After)


class Refusal(Exception):
    """The mesh's own word on the callee's side; it carries the error that the caller is to see, as it is."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def crossing(error: BaseException, method: str, module: str, faults: Mapping[str, type[Fault]]) -> Exception:
    """What the caller sees of an error that a handler raised."""
    if isinstance(error, Fault) and faults.get(type(error).__name__) is type(error):
        return error.with_traceback(None)
    if isinstance(error, Refusal):
        return error.error.with_traceback(None)
    if isinstance(error, Unauthenticated):  # of the user, who is the same all along the way back to the gateway
        again = Unauthenticated(error.fact, error.remedy)
        again.started = error.started
        return again
    logging.getLogger(f"seamline.{module}").error("%s failed", method, exc_info=error)
    return InternalError(
        f"{method} failed with an error that its contract does not declare", f"See the log of module {module!r}."
    )


NO_FAILURES = frozenset({OK, CANCELED})


def status_of(error: BaseException | None) -> str:
    """How a call ended, for counters and spans. A declared fault is an answer."""
    if error is None or isinstance(error, Fault):
        return OK
    if isinstance(error, CallError):
        return error.connect
    if isinstance(error, TimeoutError):
        return DeadlineExceeded.connect
    return CANCELED if not isinstance(error, Exception) else "internal"


def deadline_exceeded(method: str, seconds: float | None = None) -> DeadlineExceeded:
    """The deadline of a call passed."""
    within = f" within {seconds:g} s" if seconds is not None else " before its deadline"
    return DeadlineExceeded(f"{method} did not answer{within}", "Give it more time, or find out what it waits for.")


def error_body(error: BaseException) -> ErrorBody:
    """An error as it travels."""
    if isinstance(error, Fault):
        name = type(error).__name__
        try:
            return ErrorBody(FAULT_CODE, error.message, name, detail=msgspec.Raw(error.encode()))
        except Exception:
            logging.getLogger("seamline.mesh").exception("the fault %s holds what its fields do not say", name)
            return ErrorBody("internal", f"the fault {name!r} holds what its fields do not say", InternalError.code)
    if isinstance(error, CallError):
        body = ErrorBody(error.connect, error.fact, error.code, error.remedy, retry=not error.started)
        if isinstance(error, Overloaded) and error.retry_after_s:
            body.detail = msgspec.Raw(_AFTER.encode(_After(error.retry_after_s)))
        return body
    return ErrorBody("internal", "the call failed", InternalError.code)


def error_of(body: ErrorBody, method: str, faults: Mapping[str, type[Fault]]) -> Exception:
    """The error that a body tells of."""
    if body.code == FAULT_CODE:
        cls = faults.get(body.error)
        if cls is None:
            return InternalError(
                f"{method} ended in the fault {body.error!r}, which this side's contract does not know",
                "Deploy the caller with the callee's contract.",
            )
        try:
            return cls.decode(bytes(body.detail) or b"{}")
        except CodecError as error:
            return InternalError(f"{method} ended in the fault {body.error!r}, which does not fit: {error.fact}")
    found = CALL_ERRORS.get(body.error) or CALL_ERRORS_BY_CONNECT.get(body.code, InternalError)
    error = found(body.message, body.remedy)
    error.started = not body.retry
    if isinstance(error, Overloaded) and bytes(body.detail):
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            error.retry_after_s = _AFTER_DECODER.decode(bytes(body.detail)).retry_after_s
    return error


def retry_header(error: BaseException) -> list[tuple[bytes, bytes]]:
    """HTTP's ``retry-after``, of an error that says when to come again."""
    after_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    return [(b"retry-after", b"%d" % math.ceil(after_s))] if 0 < after_s < math.inf else []


def overloaded(method: str, why: str) -> Overloaded:
    """The callee refuses before it begins."""
    return Overloaded(f"{method} was refused: {why}", "Try again later, or give the module more replicas.")
