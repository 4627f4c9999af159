"""Processes that a test started: remembered, and looked for when they should be gone."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from seamline.testing.errors import LeftoverError

_GONE_S = 3.0
_seen: set[psutil.Process] = set()


def watch(pid: int) -> None:
    """Remember a process that the kit started."""
    _seen.update(family(pid))


def family(pid: int) -> set[psutil.Process]:
    """The process and all below it; empty when it is gone. A process id that is used again is another process."""
    try:
        process = psutil.Process(pid)
        found = {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()
    _seen.update(found)
    return found


def expect_gone(processes: Iterable[psutil.Process], within_s: float = _GONE_S) -> None:
    """Raises LeftoverError, and kills what it names, when one still runs after a grace."""
    _, alive = psutil.wait_procs([each for each in processes if _runs(each)], timeout=within_s)
    alive = [each for each in alive if _runs(each)]
    if not alive:
        return
    names = ", ".join(f"{each.pid} ({' '.join(_command(each))[:120]})" for each in alive)
    for each in alive:
        each.kill()
    raise LeftoverError(f"processes outlived their test and were killed: {names}", "Who should have ended them?")


def expect_all_gone() -> None:
    """At the end of a session. Raises LeftoverError."""
    expect_gone(_seen, 0.5)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return _runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
