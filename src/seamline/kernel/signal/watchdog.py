"""Sees that the event loop stands still, and what holds it up: a thread looks at the loop's thread from outside."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import FrameType
from typing import Final, NamedTuple

from seamline.kernel.signal.profile import Profiler
from seamline.kernel.signal.stacks import Stacks, is_library

BEAT_S: Final = 0.05
"""The loop shows this often that it turns."""

BLOCKED_S: Final = 0.1
BLOCKS_MAX: Final = 100

_LOOP: Final = frozenset({"_run_once", "run_forever", "run_until_complete"})


class Blocked(NamedTuple):
    """The loop stood still in ``stack`` of ``module``."""

    module: str
    stack: str
    wall_ns: int


class Watchdog:
    """Watches the thread that starts it, which calls :meth:`beat` every ``BEAT_S``."""

    def __init__(self, profiler: Profiler | None, stacks: Stacks) -> None:
        self._profiler = profiler
        self._stacks = stacks
        self._watched = 0
        self._due_s = 0.0
        self._seen: list[tuple[str, str]] = []
        self._found: list[Blocked] = []
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._watched = threading.get_ident()
        self._due_s = time.monotonic() + BEAT_S
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def take(self) -> list[Blocked]:
        found, self._found = self._found, []
        return found

    def beat(self) -> float:
        """The loop turns. By how many seconds it is late."""
        now_s = time.monotonic()
        late_s = max(now_s - self._due_s, 0.0)
        self._due_s = now_s + BEAT_S
        seen, self._seen = self._seen, []
        if seen and late_s >= BLOCKED_S:
            answer = self._profiler.answer() if self._profiler is not None else None
            for module, stack in seen:
                if len(self._found) < BLOCKS_MAX:
                    whose = answer[0] if answer is not None else module
                    self._found.append(Blocked(whose, stack, int((late_s + BEAT_S) * 1e9 / len(seen))))
        return late_s

    def _watch(self) -> None:
        wait_s = BLOCKED_S
        while not self._end.wait(wait_s):
            left_s = self._due_s + BLOCKED_S - time.monotonic()
            if left_s > 0:
                wait_s = left_s
                continue
            wait_s = BLOCKED_S
            self._look()

    def _look(self) -> None:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented
        if frame is None or waits(frame):
            return
        noted = self._stacks.note(frame)
        if not self._seen and self._profiler is not None:
            self._profiler.ask()
        self._seen.append((self._stacks.module(noted), self._stacks.spelled(noted)))
        self._stacks.forget_some()


def waits(frame: FrameType) -> bool:
    """Whether the loop itself is innermost: nothing holds it up, it merely gets no CPU."""
    if frame.f_code.co_name == "select" and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    return is_library(code.co_filename) and (code.co_name in _LOOP or code is asyncio.Runner.run.__code__)
