"""What goes wrong when a topology is made real.

RunError                  SL5000  starting, placing, switching or stopping did not succeed
  AlreadyRunningError     SL5001  another supervisor holds the data directory
  PortTakenError          SL5002  the public address is in use
  StartFailedError        SL5003  a workload did not become ready
  SwitchFailedError       SL5004  a switch was rolled back; what ran before still runs
  BusyError               SL5005  a switch is under way
  UnknownTargetError      SL5006  no such workload, module, topology or operation
  NotRunningError         SL5007  no supervisor answers at the data directory
  ControlError            SL5008  a peer of a control socket broke the protocol
  AttestationError        SL5009  a process is not the child it says it is
  NotAllowedError         SL5010  an operation for tests, asked of a supervisor that is not under test
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class Exit(IntEnum):
    """The exit statuses of the supervisor and of its workers."""

    STOPPED = 0
    """Asked to stop, and everything in flight was finished."""
    FAILED = 1
    SETTINGS = 3
    """The settings or the application are wrong; nothing was started."""
    START_FAILED = 4
    """A workload did not become ready."""
    FORCED = 5
    """Asked to stop, and the deadline passed with work in flight."""
    PORT_TAKEN = 6
    ALREADY_RUNNING = 7
    ORPHANED = 8
    """A worker whose supervisor is gone."""
    REFUSED = 9
    """A worker that the supervisor did not recognise."""
    FAST = 130
    """A second signal: stopped without draining."""


class RunError(SeamlineError):
    code: ClassVar[str] = "SL5000"


class AlreadyRunningError(RunError):
    code: ClassVar[str] = "SL5001"


class PortTakenError(RunError):
    code: ClassVar[str] = "SL5002"


class StartFailedError(RunError):
    code: ClassVar[str] = "SL5003"


class SwitchFailedError(RunError):
    code: ClassVar[str] = "SL5004"


class BusyError(RunError):
    code: ClassVar[str] = "SL5005"


class UnknownTargetError(RunError):
    code: ClassVar[str] = "SL5006"


class NotRunningError(RunError):
    code: ClassVar[str] = "SL5007"


class ControlError(RunError):
    code: ClassVar[str] = "SL5008"


class AttestationError(RunError):
    code: ClassVar[str] = "SL5009"


class NotAllowedError(RunError):
    code: ClassVar[str] = "SL5010"
