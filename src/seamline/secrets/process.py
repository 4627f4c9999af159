"""A process that holds secrets leaves no picture of its memory behind."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def protect_memory() -> None:
    """No core dump, and no other process of this user may read the memory or the environment (Linux).

    A debugger and a profiler of the same user are kept out, too; root is not.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
