"""What can be wrong with a module, and what a call can end in.

ModuleError                 SL2xxx  found by the checks, before anything starts
CallError                           a call did not succeed; the same classes in every topology
  InvalidArgument           SL3001  the arguments do not fit: do not retry
  PermissionDenied          SL3002  policy says no: do not retry
  Unauthenticated           SL3003  the caller's identity was not proven: do not retry
  DeadlineExceeded          SL3004  the time is up; whether it happened is not known
  Unavailable               SL3005  the callee could not be reached, or went away
        Unreachable             SL3005  nobody answers where it should be: waited for, then raised
  Overloaded                SL3006  refused before it began: safe to retry elsewhere, later
  InternalError             SL3007  the handler failed with something the contract does not declare
  Unimplemented             SL3008  the callee does not know the method (another version runs there)
Fault                               a contract's own typed errors (see fault.py)
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class ModuleError(SeamlineError):
    """A module, contract or wiring is wrong. Found before anything starts."""

    code = "SL2000"


class ContractError(ModuleError):
    """SL2101: a contract's method is not written as a contract's method must be."""

    code = "SL2101"


class UntypedParameterError(ModuleError):
    """SL2102: a parameter or result has no type."""

    code = "SL2102"


class UnserialisableParameterError(ModuleError):
    """SL2103: values of a parameter's or result's type cannot cross a seam."""

    code = "SL2103"


class UnknownContractError(ModuleError):
    """SL2104: something asks for a contract that no module provides."""

    code = "SL2104"


class InsideImportError(ModuleError):
    """SL2105: a module imports the inside of another module."""

    code = "SL2105"


class WiringCycleError(ModuleError):
    """SL2106: constructors need each other in a circle."""

    code = "SL2106"


class DuplicateModuleError(ModuleError):
    """SL2107: two modules have the same name, or two provide the same contract."""

    code = "SL2107"


class ServiceError(ModuleError):
    """SL2108: a service does not implement what its module provides."""

    code = "SL2108"


class WiringError(ModuleError):
    """SL2109: a type is asked for that nothing provides."""

    code = "SL2109"


class ModuleImportError(ModuleError):
    """SL2110: a module named in seamline.toml cannot be imported, or has no Module in it."""

    code = "SL2110"


class EventError(ModuleError):
    """SL2111: an event, or a handler of events, is not declared as it must be."""

    code = "SL2111"


class SagaError(ModuleError):
    """SL2112: a saga is not declared as it must be."""

    code = "SL2112"


class BreakingChangeError(ModuleError):
    """SL2113: a contract or event is no longer what others were promised; what they run, or have stored, breaks."""

    code = "SL2113"


class CallError(SeamlineError):
    """A call did not succeed. ``connect`` is its code in the Connect protocol."""

    code = "SL3000"
    connect: ClassVar[str] = "unknown"
    started: bool = True
    """False when the handler certainly never ran, so that any method may be tried again."""


class InvalidArgument(CallError):  # these read as what happened, as in gRPC's status names
    """SL3001: the arguments do not fit the method's types."""

    code = "SL3001"
    connect = "invalid_argument"
    started = False


class PermissionDenied(CallError):
    """SL3002: policy does not permit the caller to call the method."""

    code = "SL3002"
    connect = "permission_denied"
    started = False


class Unauthenticated(CallError):
    """SL3003: the caller's identity was not proven."""

    code = "SL3003"
    connect = "unauthenticated"
    started = False


class DeadlineExceeded(CallError):
    """SL3004: the deadline passed before the answer came."""

    code = "SL3004"
    connect = "deadline_exceeded"


class Unavailable(CallError):
    """SL3005: the callee could not be reached, or went away before it answered."""

    code = "SL3005"
    connect = "unavailable"


class Unreachable(Unavailable):
    """SL3005: nobody answers where the callee should be; it may be about to come back. The handler never ran."""

    started = False


class Overloaded(CallError):
    """SL3006: the callee refused before it began, to protect what it is already doing."""

    code = "SL3006"
    connect = "resource_exhausted"
    started = False
    retry_after_s: float = 0.0
    """When there should be room again, in seconds; 0 where nobody knows."""


class InternalError(CallError):
    """SL3007: the handler failed with an error that its contract does not declare."""

    code = "SL3007"
    connect = "internal"


class Unimplemented(CallError):
    """SL3008: the callee does not know the method; it may run another version."""

    code = "SL3008"
    connect = "unimplemented"
    started = False


CALL_ERRORS: dict[str, type[CallError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument,
        PermissionDenied,
        Unauthenticated,
        DeadlineExceeded,
        Unavailable,
        Overloaded,
        InternalError,
        Unimplemented,
    )
}
CALL_ERRORS_BY_CONNECT: dict[str, type[CallError]] = {cls.connect: cls for cls in CALL_ERRORS.values()}
