"""Sees that the event loop stands still, and what holds it up: a thread looks at the loop's thread from outside.

While the loop waits it is left alone. While it works it is asked to show that it turns; how long that takes is its lag.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import FrameType
from typing import Final, NamedTuple

from seamline.kernel.signal.profile import Profiler
from seamline.kernel.signal.stacks import Stacks, is_library

LOOK_S: Final = 0.05
IDLE_LOOK_S: Final = 0.1
"""Where the loop only waited at the last look."""

BLOCKED_S: Final = 0.1
BLOCKS_MAX: Final = 100
LAGS_MAX: Final = 1_000

_LOOP: Final = frozenset({"_run_once", "run_forever", "run_until_complete"})


class Blocked(NamedTuple):
    """The loop stood still in ``stack`` of ``module``."""

    module: str
    stack: str
    wall_ns: int


class Watchdog:
    """Watches the loop and the thread that start it."""

    def __init__(self, profiler: Profiler | None, stacks: Stacks) -> None:
        self._profiler = profiler
        self._stacks = stacks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = 0
        self._asked_s = 0.0
        """When the loop was asked to show that it turns; 0 when it has."""
        self._seen: list[tuple[str, str]] = []
        self._found: list[Blocked] = []
        self._lags_s: list[float] = []
        self._end = threading.Lock()
        """Held until the end: to wait for it takes half of the time that an Event takes."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._end.acquire()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._end.release()
            self._thread.join()
            self._thread = None

    def take(self) -> list[Blocked]:
        found, self._found = self._found, []
        return found

    def take_lags(self) -> list[float]:
        """How late the loop was, in seconds, at each look; 0 where it had nothing to do."""
        lags_s, self._lags_s = self._lags_s, []
        return lags_s

    # In the watchdog's thread.

    def _watch(self) -> None:
        pause_s, looked_s, used_s = LOOK_S, time.monotonic(), self._cpu_s()
        while not self._end.acquire(timeout=pause_s):
            now_s, now_used_s = time.monotonic(), self._cpu_s()
            late_s = now_s - looked_s - pause_s
            frame = sys._current_frames().get(self._watched)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented
            pause_s = LOOK_S
            if self._asked_s:
                self._look(frame)
            elif frame is None or waits(frame):
                self._lag(0.0)
                pause_s = IDLE_LOOK_S
            else:
                self._asked_s = now_s
                if late_s >= BLOCKED_S and now_used_s - used_s >= BLOCKED_S:
                    # It worked and let no other thread run Python. What it is at now comes right after that.
                    self._look(frame)
                    self._asked_s = now_s - late_s
                if not self._ask():
                    return
            del frame
            looked_s, used_s = now_s, now_used_s

    def _ask(self) -> bool:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._turns)
        except RuntimeError:  # it was closed
            return False
        return True

    def _look(self, frame: FrameType | None) -> None:
        if frame is None or waits(frame):
            return
        noted = self._stacks.note(frame)
        if not self._seen and self._profiler is not None:
            self._profiler.ask()
        self._seen.append((self._stacks.module(noted), self._stacks.spelled(noted)))
        self._stacks.forget_some()

    def _cpu_s(self) -> float:
        """Of the watched thread, which outlives this one."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self._watched))

    # On the loop.

    def _turns(self) -> None:
        wall_s = time.monotonic() - self._asked_s
        seen, self._seen = self._seen, []
        self._asked_s = 0.0
        self._lag(wall_s)
        answer = self._profiler.answer() if self._profiler is not None else None
        if wall_s < BLOCKED_S:
            return
        for module, stack in seen:
            if len(self._found) < BLOCKS_MAX:
                whose = answer[0] if answer is not None else module
                self._found.append(Blocked(whose, stack, int(wall_s * 1e9 / len(seen))))

    def _lag(self, seconds: float) -> None:
        if len(self._lags_s) < LAGS_MAX:
            self._lags_s.append(seconds)


def waits(frame: FrameType) -> bool:
    """Whether the loop itself is innermost: nothing holds it up, it merely gets no CPU."""
    if frame.f_code.co_name == "select" and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    return is_library(code.co_filename) and (code.co_name in _LOOP or code is asyncio.Runner.run.__code__)
