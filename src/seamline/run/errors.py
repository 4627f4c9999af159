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
    RoleError             SL4711  the control API's caller has a lesser role than the operation needs
  NotSignedInError        SL4710  the control API was asked without a session
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
    """Something about the running processes did not succeed."""

    code: ClassVar[str] = "SL5000"


class AlreadyRunningError(RunError):
    """A data directory has one supervisor, which holds a lock on it as long as it lives.

    ``seamline down`` ends it; ``--data`` names another directory, for a second copy of the application.
    """

    code: ClassVar[str] = "SL5001"


class PortTakenError(RunError):
    """The public address is in use, by the process named if the system tells.

    End that process, or choose with ``--port``, ``--listen`` or ``listen`` under ``[gateway]``.
    """

    code: ClassVar[str] = "SL5002"


class StartFailedError(RunError):
    """A workload ended, or ran out of ``ready_timeout_s`` (``[run]``), before it was ready.

    Its last log lines stand with the error; an exception in a startup hook or a constructor is the usual cause.
    """

    code: ClassVar[str] = "SL5003"


class SwitchFailedError(RunError):
    """One of the new workloads did not become ready, so the new ones were ended and the old ones serve on.

    The error of that workload stands with this one: put it right and switch again.
    """

    code: ClassVar[str] = "SL5004"


class BusyError(RunError):
    """Changes (switch, scale, restart) happen one at a time, and not while the application stops."""

    code: ClassVar[str] = "SL5005"


class UnknownTargetError(RunError):
    """The name is of no workload, module, topology or operation of the running application."""

    code: ClassVar[str] = "SL5006"


class NotRunningError(RunError):
    """Nobody answers on the admin socket in the data directory: start the application with ``seamline up``."""

    code: ClassVar[str] = "SL5007"


class ControlError(RunError):
    """A message on the control or admin socket was malformed, too long, out of turn or not answered in time."""

    code: ClassVar[str] = "SL5008"


class AttestationError(RunError):
    """A process asked for an identity that it may not have, or is not the child that it says it is.

    The supervisor goes by what the kernel says of the process; the refusal is in ``audit/supervisor.jsonl``.
    """

    code: ClassVar[str] = "SL5009"


class NotAllowedError(RunError):
    """The operation is for test suites, and the supervisor was not started by one."""

    code: ClassVar[str] = "SL5010"


class RoleError(NotAllowedError):
    """The session at the control API has a role that may not ask this: viewers look, operators run, admins do all.

    ``seamline admin token --role admin`` makes a token for another session; the refusal is a line of the audit.
    """

    code: ClassVar[str] = "SL4711"


class NotSignedInError(RunError):
    """The control API was asked without a session, or the one-time token or session is wrong, used or too old.

    ``seamline admin token`` makes a token; it is good for one session, and for ten minutes.
    """

    code: ClassVar[str] = "SL4710"
