"""Which module uses the CPU, and where, although modules share a process.

The kernel sends a signal after every so much CPU time of the process; Python runs its handler in the main thread, in
the context of whatever is at work there, so that the module at work can be asked. What is counted is CPU time since
the signal before, by the thread's own clock, and not signals.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from seamline.kernel.signal.stacks import Frames, Stacks

_log = logging.getLogger(__name__)

STACKS_MAX: Final = 10_000
_OTHERS_NS_MIN: Final = 5_000_000
_REST: Final = "(more stacks than were kept)"


class Profiler:
    """CPU time by module and stack.

    Where SIGPROF or its timer belongs to somebody else, it stands aside; ``trouble`` says so.

    Args:
        hz: samples per second of CPU time; 0 switches it off.
        module_source: the module at work in the main thread, ``""`` between modules.
        folders: of each module's code. Whose the work of other threads is, their stacks tell.
    """

    def __init__(self, hz: float, module_source: Callable[[], str], folders: Mapping[str, str] | None = None) -> None:
        self._period_s = 1 / hz if hz > 0 else 0.0
        self._module_source = module_source
        self._stacks = Stacks(folders)
        self.trouble = ""
        self.running = False
        self.samples = 0
        self.cost_ns = 0
        """CPU time that the profiler itself used in the main thread."""
        self._asked = False
        self._answer: tuple[str, Frames] | None = None
        self._main_ns = self._all_ns = self._others_ns = 0
        self._found: dict[tuple[str, Frames], int] = {}
        self._of_threads: dict[int, dict[Frames, int]] = {}
        self._thread_ns: dict[int, int] = {}

    def start(self) -> None:
        """In the main thread; does nothing where it cannot, and says why in ``trouble``."""
        if self.running or not self._period_s:
            return
        self.trouble = _in_the_way()
        if self.trouble:
            _log.info("no CPU profile: %s", self.trouble)
            return
        self._main_ns, self._all_ns = time.thread_time_ns(), time.process_time_ns()
        signal.signal(signal.SIGPROF, self._on_signal)
        signal.siginterrupt(signal.SIGPROF, False)  # a library's system calls go on as if nothing had been
        signal.setitimer(signal.ITIMER_PROF, self._period_s, self._period_s)
        self.running = True

    def stop(self) -> None:
        """In the main thread. What was found until now can still be taken."""
        if not self.running:
            return
        self.running = False
        if not self._has_signal():
            return
        signal.setitimer(signal.ITIMER_PROF, 0)
        # One that is on its way would end the process by its default action; ignoring throws it away.
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def take(self) -> list[tuple[str, str, int]]:
        """Module, stack and CPU time in nanoseconds, of what was used since it was taken last."""
        if self.running and not self._has_signal():
            self._give_way()
        found, self._found = self._found, {}
        told: dict[tuple[str, str], int] = {}
        for (module, frames), cpu_ns in found.items():
            key = module, self._stacks.spelled(frames) if frames else _REST
            told[key] = told.get(key, 0) + cpu_ns
        for module, stack, cpu_ns in self._take_threads():
            told[module, stack] = told.get((module, stack), 0) + cpu_ns
        self._stacks.forget_some()
        return [(module, stack, cpu_ns) for (module, stack), cpu_ns in told.items()]

    # Asked by the watchdog of the loop, in its own thread.

    def ask(self) -> None:
        """Have the main thread say what it is at, as soon as it runs Python again."""
        if self.running and self._has_signal():
            self._asked = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGPROF)

    def answer(self) -> tuple[str, str] | None:
        """Module and stack, once the main thread has answered."""
        answer, self._answer = self._answer, None
        return (answer[0], self._stacks.spelled(answer[1])) if answer is not None else None

    # In the signal handler.

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        main_ns, all_ns = time.thread_time_ns(), time.process_time_ns()
        used_ns = main_ns - self._main_ns
        others_ns = max(all_ns - self._all_ns - used_ns, 0)
        module = self._module_source()
        frames = self._stacks.note(frame)
        key = module, frames
        if key not in self._found and len(self._found) >= STACKS_MAX:
            key = module, ()
        self._found[key] = self._found.get(key, 0) + used_ns
        self.samples += 1
        if others_ns > used_ns:
            self._look_at_threads()
        self._others_ns += others_ns
        if self._asked:
            self._asked = False
            self._answer = module, frames
        self._main_ns, self._all_ns = time.thread_time_ns(), time.process_time_ns()
        self.cost_ns += self._main_ns - main_ns

    def _look_at_threads(self) -> None:
        main = threading.main_thread().ident
        for ident, frame in sys._current_frames().items():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented
            if ident != main:
                frames = self._stacks.note(frame)
                seen = self._of_threads.setdefault(ident, {})
                if len(seen) < STACKS_MAX:
                    seen[frames] = seen.get(frames, 0) + 1

    # The CPU time of other threads.

    def _take_threads(self) -> list[tuple[str, str, int]]:
        if self._others_ns < _OTHERS_NS_MIN:
            return []
        left_ns, self._others_ns = self._others_ns, 0
        seen, self._of_threads = self._of_threads, {}
        before, self._thread_ns = self._thread_ns, {}
        told: list[tuple[str, str, int]] = []
        for thread in threading.enumerate():
            cpu_ns = _cpu_ns(thread)
            if thread is threading.main_thread() or not cpu_ns:
                continue
            ident = thread.ident or 0
            self._thread_ns[ident] = cpu_ns
            used_ns = min(cpu_ns - before.get(ident, 0), left_ns)
            if used_ns <= 0:
                continue
            left_ns -= used_ns
            told += self._of_thread(thread.name, seen.get(ident, {}), used_ns)
        if left_ns:
            told.append(("", "(threads of libraries)", left_ns))
        return told

    def _of_thread(self, name: str, seen: Mapping[Frames, int], used_ns: int) -> list[tuple[str, str, int]]:
        total = sum(seen.values())
        if not total:
            return [("", f"(thread {name})", used_ns)]
        return [
            (self._stacks.module(frames), f"(thread {name});{self._stacks.spelled(frames)}", used_ns * times // total)
            for frames, times in seen.items()
        ]

    # Somebody else's profiler.

    def _has_signal(self) -> bool:
        return signal.getsignal(signal.SIGPROF) == self._on_signal

    def _give_way(self) -> None:
        self.running = False
        self.trouble = "another profiler took SIGPROF"
        _log.info("no CPU profile any more: %s", self.trouble)
        if abs(signal.getitimer(signal.ITIMER_PROF)[1] - self._period_s) < 0.004:  # the kernel rounds
            signal.setitimer(signal.ITIMER_PROF, 0)


def _in_the_way() -> str:
    if not hasattr(signal, "setitimer"):
        return "this system has no timer of CPU time"
    if threading.current_thread() is not threading.main_thread():
        return "signals reach the main thread only, and this is another"
    if signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL or signal.getitimer(signal.ITIMER_PROF) != (0.0, 0.0):
        return "another profiler uses SIGPROF"
    return ""


def _cpu_ns(thread: threading.Thread) -> int:
    """0 where the system does not say. By the name of a file, because to ask for the clock of a thread that has just
    ended may end the process."""
    try:
        return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
