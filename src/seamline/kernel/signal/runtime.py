"""How the process itself fares: CPU, memory, garbage collection, how late the event loop is and what holds it up."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import threading
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from seamline.kernel.signal.measures import Histogram, Measure
from seamline.kernel.signal.profile import Profiler
from seamline.kernel.signal.stacks import Stacks, shown_file
from seamline.kernel.signal.watchdog import Blocked, Watchdog

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MEMORY_FRAMES: Final = 12


class Runtime:
    """Measures of this process, by OpenTelemetry's names where it has one.

    Args:
        profiler: asked which module is at work when the loop stands still; without it, or where it stands aside, the
            stack tells.
        folders: of each module's code.
    """

    def __init__(self, profiler: Profiler | None = None, folders: Mapping[str, str] | None = None) -> None:
        self._stacks = Stacks(folders)
        self._watchdog = Watchdog(profiler, self._stacks)
        self._lag = Histogram(_SECONDS)
        self._pauses = Histogram(_SECONDS)
        self._pause_began_s = 0.0
        self._collections = [(0, 0, 0)] * 3
        self._counted: dict[tuple[str, str], float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._follows_memory = False

    def start(self) -> None:
        """On the event loop that is to be watched."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._collections = _collections()
        self._counted = {key: value for key, value, _ in _totals()}
        gc.callbacks.append(self._collected)
        self._watchdog.start()

    def stop(self) -> None:
        if self._loop is None:
            return
        self._loop = None
        gc.callbacks.remove(self._collected)
        self._watchdog.stop()
        self.end_memory()

    def take(self) -> list[Measure]:
        """What is, and what came to pass since it was taken last; on the loop."""
        found = [
            Measure("process.memory.usage", _rss_bytes(), unit="By"),
            Measure("process.thread.count", threading.active_count(), unit="{thread}"),
            Measure("process.unix.file_descriptor.count", _open_files(), unit="{file_descriptor}"),
        ]
        if self._loop is not None:
            found.append(Measure("seamline.tasks", len(asyncio.all_tasks(self._loop)), unit="{task}"))
        for (name, what), total, (attribute, unit) in _totals():
            grown = total - self._counted.get((name, what), 0.0)
            self._counted[name, what] = total
            found.append(Measure(name, grown, "", "counter", unit, {attribute: what}))
        found += self._take_collections()
        for lag_s in self._watchdog.take_lags():
            self._lag.add(lag_s)
        for name, histogram in (("seamline.loop.lag", self._lag), ("seamline.gc.pause", self._pauses)):
            taken = histogram.take(name, "", "s", {})
            if taken is not None:
                found.append(taken)
        return found

    def take_blocked(self) -> list[Blocked]:
        """When the loop stood still for 100 ms or more since it was taken last: module, stack, nanoseconds."""
        return self._watchdog.take()

    # Memory, which costs so much to follow that somebody must ask for it.

    def begin_memory(self) -> None:
        """Follow each allocation from now on. Everything is about half as fast meanwhile."""
        if not self._follows_memory:
            self._follows_memory = True
            tracemalloc.start(_MEMORY_FRAMES)

    def take_memory(self, top: int = 20) -> list[tuple[str, str, int]]:
        """Module, stack and bytes of what was allocated since :meth:`begin_memory` and is still there, the most first.

        The module is a guess: whose code is the innermost one of the stack. It takes a while: ask in another thread.
        """
        if not self._follows_memory:
            return []
        ours = [tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__)]
        kept = tracemalloc.take_snapshot().filter_traces(ours).statistics("traceback")
        return [
            (
                self._stacks.module_of([frame.filename for frame in each.traceback][::-1]),
                ";".join(f"{shown_file(frame.filename)}:{frame.lineno}" for frame in each.traceback),
                each.size,
            )
            for each in kept[:top]
        ]

    def end_memory(self) -> None:
        if self._follows_memory:
            self._follows_memory = False
            tracemalloc.stop()

    # What comes to pass.

    def _collected(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._pause_began_s = time.perf_counter()
        elif self._pause_began_s:
            self._pauses.add(time.perf_counter() - self._pause_began_s)

    def _take_collections(self) -> list[Measure]:
        before, self._collections = self._collections, _collections()
        names = ("cpython.gc.collections", "cpython.gc.collected_objects", "cpython.gc.uncollectable_objects")
        units = ("{collection}", "{object}", "{object}")
        return [
            Measure(name, now - then, "", "counter", unit, {"cpython.gc.generation": str(generation)})
            for generation, pair in enumerate(zip(self._collections, before, strict=True))
            for name, unit, now, then in zip(names, units, *pair, strict=True)
        ]


def _collections() -> list[tuple[int, int, int]]:
    return [(each["collections"], each["collected"], each["uncollectable"]) for each in gc.get_stats()]


def _totals() -> list[tuple[tuple[str, str], float, tuple[str, str]]]:
    """Name and kind, the total since the start, and how the kind is called and counted."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    switch, fault = ("process.context_switch.type", "{context_switch}"), ("process.paging.fault_type", "{fault}")
    return [
        (("process.cpu.time", "user"), used.ru_utime, ("cpu.mode", "s")),
        (("process.cpu.time", "system"), used.ru_stime, ("cpu.mode", "s")),
        (("process.context_switches", "voluntary"), used.ru_nvcsw, switch),
        (("process.context_switches", "involuntary"), used.ru_nivcsw, switch),
        (("process.paging.faults", "major"), used.ru_majflt, fault),
    ]


def _rss_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a path for each of ten thousand is not needed
    except OSError:
        return 0
