"""Who holds a lease: a name for this process that another can ask the machine about.

``<label>@<machine>:<pid>:<started>``: with the process's start time, so that a pid that is used again is not taken for
its old owner.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Final

_STARTED: Final = 19
"""``starttime`` of proc(5), counted from the state."""


def process_owner(label: str = "") -> str:
    """The name of this process."""
    return f"{label or 'process'}@{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether the process of that name has certainly ended; False for one of another machine, which cannot be asked."""
    machine, _, process = owner.rpartition("@")[2].partition(":")
    pid, _, started = process.partition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


@functools.cache
def _machine() -> str:
    # The name alone is shared by containers that do not see each other's processes; the pid namespace is not.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").partition("-")[0]
    return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"


def _started(pid: int) -> str:
    """When the process began, in ticks since the machine did; empty when there is none, or only its corpse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in {"Z", "X"} else fields[_STARTED - 1]
