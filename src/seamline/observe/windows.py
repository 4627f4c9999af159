"""What is known of one span of time: the batches of all processes, laid side by side.

A process tells every second, in its own rhythm and by its own clock; detection and explanation look at windows of two
seconds that are the same for all. :class:`Windows` makes the ones into the others. It splits a batch at a window's
border, waits no longer for a process than for its next telling, and says of whom nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.signal.metrics import BUCKETS, quantile_ms
from seamline.observe.records import Batch, Mark, Point, Profile, Traffic

CPU: Final = "process.cpu.time"
RSS: Final = "process.memory.usage"
LOOP_LAG: Final = "seamline.loop.lag"
RESTARTS: Final = "seamline.restarts"
EVENTS_LAG: Final = "seamline.events.lag"
DEAD_LETTERS: Final = "seamline.events.dead_letters"
DB_WAIT: Final = "seamline.db.wait"
"""The points that a window knows by name; of the others it keeps the value."""
DEAD_LETTER: Final = "dead_letter"
"""The code under which a consumer counts an event that it gave up."""

_ERROR_SEVERITY: Final = 17
_GRACE_S: Final = 2.5
_SILENT_S: Final = 60.0
_EARLY_NS: Final = 1_000_000_000
_LATE_NS: Final = 30_000_000_000
_SKEW_NS: Final = 5_000_000_000
_STEP_NS: Final = 10_000_000_000
_GAP_S: Final = 30.0
_STACKS_MAX: Final = 50

_UNITS_MS: Final = {"ns": 1e-6, "us": 1e-3, "s": 1000.0}

EdgeKey = tuple[str, str, str, str]
"""Caller, callee, method and side."""
_K = TypeVar("_K", int, str)
_Teller = tuple[str, int, int]
"""Workload, replica and pid."""


class Flow(msgspec.Struct, gc=False):
    """The calls of one edge, as counted on one side."""

    calls: int = 0
    errors: int = 0
    sum_ns: int = 0
    retries: int = 0
    inflight: int = 0
    histogram: dict[int, int] = msgspec.field(default_factory=dict[int, int])
    codes: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    @property
    def mean_ms(self) -> float:
        return self.sum_ns / self.calls / 1e6 if self.calls else 0.0

    @property
    def error_ratio(self) -> float:
        return self.errors / self.calls if self.calls else 0.0

    def quantile_ms(self, share: float) -> float:
        """The latency below which ``share`` of the calls lie; 0 when there were none."""
        dense = [0] * BUCKETS
        for bucket, count in self.histogram.items():
            dense[bucket] = count
        return quantile_ms(dense, share)

    def add(self, other: Flow | Traffic) -> None:
        self.calls += other.calls
        self.errors += other.errors
        self.sum_ns += other.sum_ns
        self.retries += other.retries
        self.inflight += other.inflight
        for bucket, count in other.histogram.items():
            self.histogram[bucket] = self.histogram.get(bucket, 0) + count
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count


class ModuleWindow(msgspec.Struct, gc=False):
    """What one module used and left undone, all its replicas together."""

    cpu_ns: int = 0
    blocked_ns: int = 0
    """Wall time in which an event loop stood still in this module's code."""
    events_lag: float = 0.0
    """Events that wait for this module, as last told."""
    dead_letters: int = 0
    errors_logged: int = 0
    db_wait_ms: float = 0.0
    stacks: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """CPU in nanoseconds by stack."""
    blocked_stacks: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class WorkloadWindow(msgspec.Struct, gc=False):
    """What the processes of one workload used."""

    cpu_s: float = 0.0
    rss_bytes: int = 0
    """Of the largest replica."""
    loop_lag_ms: float = 0.0
    """Of the slowest replica."""
    restarts: int = 0
    replicas: int = 0
    """How many told."""
    modules: list[str] = msgspec.field(default_factory=list[str])
    """Those whose calls it told of; more than one share its fate."""


class Window(msgspec.Struct, gc=False):
    """What is known of the time from ``at_ns`` to ``at_ns + length_ns``."""

    at_ns: int
    length_ns: int
    edges: dict[EdgeKey, Flow] = msgspec.field(default_factory=dict[EdgeKey, Flow])
    modules: dict[str, ModuleWindow] = msgspec.field(default_factory=dict[str, ModuleWindow])
    workloads: dict[str, WorkloadWindow] = msgspec.field(default_factory=dict[str, WorkloadWindow])
    points: dict[tuple[str, str], float] = msgspec.field(default_factory=dict[tuple[str, str], float])
    """By name and module: the sum of what a counter grew, the largest of what gauges showed."""
    marks: list[Mark] = msgspec.field(default_factory=list[Mark])
    silent: list[str] = msgspec.field(default_factory=list[str])
    """Processes (``workload/replica``) that told within the last minute, and nothing of this window."""
    unknown: list[str] = msgspec.field(default_factory=list[str])
    """Modules of which only silent processes tell: that no call of theirs is counted says nothing."""

    @property
    def end_ns(self) -> int:
        return self.at_ns + self.length_ns

    def module(self, name: str) -> ModuleWindow:
        known = self.modules.get(name)
        if known is None:
            known = self.modules[name] = ModuleWindow()
        return known

    def workload(self, name: str) -> WorkloadWindow:
        known = self.workloads.get(name)
        if known is None:
            known = self.workloads[name] = WorkloadWindow()
        return known

    def add_traffic(self, traffic: Traffic) -> None:
        key = (traffic.caller, traffic.callee, traffic.method, traffic.side)
        flow = self.edges.get(key)
        if flow is None:
            flow = self.edges[key] = Flow()
        flow.add(traffic)
        if traffic.side == "event" and DEAD_LETTER in traffic.codes:
            self.module(traffic.callee).dead_letters += traffic.codes[DEAD_LETTER]

    def add_profile(self, profile: Profile) -> None:
        module = self.module(profile.module)
        module.cpu_ns += max(profile.cpu_ns, 0)
        module.blocked_ns += max(profile.blocked_ns, 0)
        for stacks, spent in ((module.stacks, profile.cpu_ns), (module.blocked_stacks, profile.blocked_ns)):
            if spent > 0 and (profile.stack in stacks or len(stacks) < _STACKS_MAX):
                stacks[profile.stack] = stacks.get(profile.stack, 0) + spent

    def add_point(self, point: Point, workload: str) -> None:
        """``workload`` is the one that told; a point may name another, which the supervisor looks after."""
        value = point.value
        if not math.isfinite(value):
            return
        if point.kind == "counter" and value < 0:
            value = 0.0  # a counter that was set back by a restart has not grown by less than nothing
        self._add_known(point, value, point.attributes.get("workload", workload))
        key = (point.name, point.module)
        if point.kind == "gauge":
            self.points[key] = max(value, self.points.get(key, value))
        else:
            self.points[key] = self.points.get(key, 0.0) + value

    def _add_known(self, point: Point, value: float, workload: str) -> None:
        name = point.name
        if name == EVENTS_LAG:
            module = self.module(point.module)
            module.events_lag = max(module.events_lag, value)
        elif name == DEAD_LETTERS:
            self.module(point.module).dead_letters += int(value)
        elif name == DB_WAIT:
            self.module(point.module).db_wait_ms += _milliseconds(value, point.unit)
        elif not workload:
            return
        elif name == CPU:
            self.workload(workload).cpu_s += value
        elif name == RSS:
            held = self.workload(workload)
            held.rss_bytes = max(held.rss_bytes, int(value))
        elif name == LOOP_LAG:
            held = self.workload(workload)
            lag = _longest(point) if point.kind == "histogram" else value
            held.loop_lag_ms = max(held.loop_lag_ms, _milliseconds(lag, point.unit))
        elif name == RESTARTS:
            self.workload(workload).restarts += int(value)


class _Source(msgspec.Struct, gc=False):
    """One process as a teller: how its clock stands to ours, and until when it has told."""

    offset_ns: int = 0
    last_at_ns: int = 0
    told_until_ns: int = 0
    late_in_a_row: int = 0
    modules: set[str] = msgspec.field(default_factory=set[str])


class Windows:
    """Makes windows of ``length_s`` out of batches. Feed it with :meth:`add`, and take what is whole with :meth:`take`.

    A window is whole when every process that tells has told of it, or 2.5 seconds after its end. What comes later is
    counted in :attr:`late` (calls) and not in a window. A process whose clock differs by more than five seconds is read
    by its own rhythm; when our own clock is moved, the windows begin anew.
    """

    def __init__(self, length_s: float = 2.0, clock: Clock | None = None) -> None:
        self._length_ns = max(int(length_s * 1e9), 1)
        self._clock = clock or SystemClock()
        self._sources: dict[_Teller, _Source] = {}
        self._open: dict[int, Window] = {}
        self._told: dict[int, set[_Teller]] = {}
        self._base_ns = 0
        self._base_monotonic = 0.0
        self._next = 0
        self.late = 0
        self.jumps = 0
        self._begin_at(self._wall_ns())

    def add(self, batch: Batch) -> None:
        now_ns = self._now_ns()
        teller = (batch.source.workload, batch.source.replica, batch.source.pid)
        if batch.interval_ns <= 0:
            end_ns, interval_ns = min(max(batch.at_ns, now_ns - _LATE_NS), now_ns), 0
        else:
            source = self._sources.get(teller)
            if source is None:
                source = self._sources[teller] = _Source()
                source.offset_ns = _first_offset(batch.at_ns, now_ns)
            end_ns, interval_ns = _at(source, batch.at_ns, now_ns), batch.interval_ns
            source.told_until_ns = max(source.told_until_ns, end_ns)
            _note_modules(source.modules, batch)
        parts = self._parts(end_ns, interval_ns)
        for index, begin, end in parts:
            if index < self._next:
                self.late += sum(_share(traffic.calls, begin, end) for traffic in batch.traffic)
                continue
            window = self._window(index)
            if interval_ns:
                self._told[index].add(teller)
            for traffic in batch.traffic:
                part = _part_of(traffic, begin, end)
                if part is not None:
                    window.add_traffic(part)
        at = max(parts[-1][0], self._next)
        self._add_moments(self._window(at), batch)

    def _add_moments(self, window: Window, batch: Batch) -> None:
        workload = batch.source.workload
        for profile in batch.profiles:
            window.add_profile(profile)
        for point in batch.points:
            window.add_point(point, workload)
        for log in batch.logs:
            if log.severity >= _ERROR_SEVERITY:
                window.module(log.module).errors_logged += 1
        window.marks.extend(batch.marks)
        if batch.interval_ns > 0 and workload:
            window.workload(workload)

    def take(self) -> list[Window]:
        """The windows that became whole since the last time, oldest first; also those in which nothing happened."""
        now_ns = self._now_ns()
        whole: list[Window] = []
        if (now_ns - self._next * self._length_ns) / 1e9 > _GAP_S + _GRACE_S:
            whole = self._flush()  # nobody looked for long (the machine slept): what lies between is not known
            self._next = now_ns // self._length_ns
            return whole
        silent_ns = now_ns - int(_SILENT_S * 1e9)
        self._sources = {teller: s for teller, s in self._sources.items() if s.told_until_ns >= silent_ns}
        while True:
            end_ns = (self._next + 1) * self._length_ns
            waited_ns = now_ns - end_ns
            if waited_ns < 0:
                return whole
            if waited_ns < _GRACE_S * 1e9 and not self._all_told(end_ns):
                return whole
            whole.append(self._close(self._next))
            self._next += 1

    def forget(self, workloads: Iterable[str]) -> None:
        """These workloads were stopped on purpose: that they tell no more is nothing to say."""
        gone = set(workloads)
        self._sources = {teller: source for teller, source in self._sources.items() if teller[0] not in gone}

    def _all_told(self, end_ns: int) -> bool:
        # Who has been silent for longer than the grace holds nobody up.
        awake_ns = end_ns - int(_GRACE_S * 1e9) - self._length_ns
        awake = [s for s in self._sources.values() if s.told_until_ns >= awake_ns]
        return bool(awake) and all(s.told_until_ns >= end_ns for s in awake)

    def _close(self, index: int) -> Window:
        window = self._window(index)
        del self._open[index]
        told = self._told.pop(index)
        heard: set[str] = set()
        missed: set[str] = set()
        for teller, source in self._sources.items():
            if teller in told:
                heard |= source.modules
            elif source.told_until_ns < window.end_ns:
                window.silent.append(f"{teller[0]}/{teller[1]}")
                missed |= source.modules
        window.silent.sort()
        window.unknown = sorted(missed - heard)
        for teller in told:
            if teller[0]:
                held = window.workload(teller[0])
                held.replicas += 1
                held.modules = sorted({*held.modules, *self._sources[teller].modules})
        return window

    def _window(self, index: int) -> Window:
        window = self._open.get(index)
        if window is None:
            window = self._open[index] = Window(index * self._length_ns, self._length_ns)
            self._told[index] = set()
        return window

    def _parts(self, end_ns: int, interval_ns: int) -> list[tuple[int, float, float]]:
        """Which windows an interval lies in, and from which to which share of it."""
        begin_ns = end_ns - interval_ns
        first, last = begin_ns // self._length_ns, max(end_ns - 1, begin_ns) // self._length_ns
        if first == last:
            return [(first, 0.0, 1.0)]
        if last - first > _GAP_S * 1e9 / self._length_ns:
            return [(last, 0.0, 1.0)]
        parts: list[tuple[int, float, float]] = []
        for index in range(first, last + 1):
            begin = max(index * self._length_ns - begin_ns, 0) / interval_ns
            end = min((index + 1) * self._length_ns - begin_ns, interval_ns) / interval_ns
            parts.append((index, begin, end))
        return parts

    def _flush(self) -> list[Window]:
        return [self._close(index) for index in sorted(self._open)]

    def _begin_at(self, wall_ns: int) -> None:
        self._base_ns, self._base_monotonic = wall_ns, self._clock.monotonic()
        self._next = wall_ns // self._length_ns
        self._open.clear()
        self._told.clear()
        self._sources.clear()

    def _now_ns(self) -> int:
        # Measured by the clock that never runs backwards, so that a small correction of the wall clock is no gap.
        now_ns = self._base_ns + int((self._clock.monotonic() - self._base_monotonic) * 1e9)
        wall_ns = self._wall_ns()
        if abs(wall_ns - now_ns) > _STEP_NS:
            self.jumps += 1
            self._begin_at(wall_ns)
            return wall_ns
        return now_ns

    def _wall_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1e9)


def merged(windows: Iterable[Window]) -> Window:
    """All of them as one, for a look at minutes instead of seconds: counts are added, levels are the highest."""
    found = list(windows)
    if not found:
        return Window(0, 0)
    whole = Window(found[0].at_ns, sum(window.length_ns for window in found))
    for window in found:
        for key, flow in window.edges.items():
            whole.edges.setdefault(key, Flow()).add(flow)
        for name, module in window.modules.items():
            _merge_module(whole.module(name), module)
        for name, workload in window.workloads.items():
            held = whole.workload(name)
            held.cpu_s += workload.cpu_s
            held.rss_bytes = max(held.rss_bytes, workload.rss_bytes)
            held.loop_lag_ms = max(held.loop_lag_ms, workload.loop_lag_ms)
            held.restarts += workload.restarts
            held.replicas = max(held.replicas, workload.replicas)
            held.modules = sorted({*held.modules, *workload.modules})
        for key, value in window.points.items():
            whole.points[key] = max(value, whole.points.get(key, value))
        whole.marks.extend(window.marks)
    return whole


def _merge_module(held: ModuleWindow, module: ModuleWindow) -> None:
    held.cpu_ns += module.cpu_ns
    held.blocked_ns += module.blocked_ns
    held.events_lag = max(held.events_lag, module.events_lag)
    held.dead_letters += module.dead_letters
    held.errors_logged += module.errors_logged
    held.db_wait_ms += module.db_wait_ms
    for mine, theirs in ((held.stacks, module.stacks), (held.blocked_stacks, module.blocked_stacks)):
        for stack, spent in theirs.items():
            mine[stack] = mine.get(stack, 0) + spent


def _at(source: _Source, at_ns: int, now_ns: int) -> int:
    """The end of an interval in our time, by what is known of the teller's clock."""
    told_ns = at_ns + source.offset_ns
    stepped_back = at_ns < source.last_at_ns - _EARLY_NS
    too_late = now_ns - told_ns > _LATE_NS
    source.late_in_a_row = source.late_in_a_row + 1 if too_late else 0
    if stepped_back or told_ns > now_ns + _EARLY_NS or source.late_in_a_row >= 3:
        source.offset_ns = now_ns - at_ns
        source.late_in_a_row = 0
        told_ns = now_ns
    source.last_at_ns = at_ns
    return min(told_ns, now_ns)


def _first_offset(at_ns: int, now_ns: int) -> int:
    behind_ns = now_ns - at_ns
    return 0 if -_EARLY_NS <= behind_ns <= _SKEW_NS else behind_ns


def _note_modules(modules: set[str], batch: Batch) -> None:
    for traffic in batch.traffic:
        modules.add(traffic.caller if traffic.side == "client" else traffic.callee)


def _share(count: int, begin: float, end: float) -> int:
    return round(count * end) - round(count * begin)


def _part_of(traffic: Traffic, begin: float, end: float) -> Traffic | None:
    """What of these counts falls between two shares of their interval; counts are whole, and their sums agree."""
    if begin <= 0.0 and end >= 1.0:
        return traffic
    calls = _share(traffic.calls, begin, end)
    if calls <= 0:
        return None
    share = calls / traffic.calls
    return Traffic(
        traffic.caller,
        traffic.callee,
        traffic.method,
        traffic.side,
        calls,
        min(_share(traffic.errors, begin, end), calls),
        _share(traffic.retries, begin, end),
        traffic.inflight if end >= 1.0 else 0,
        int(traffic.sum_ns * share),
        _part_of_counts(traffic.histogram, begin, end),
        _part_of_counts(traffic.codes, begin, end),
    )


def _part_of_counts(counts: Mapping[_K, int], begin: float, end: float) -> dict[_K, int]:
    part: dict[_K, int] = {}
    seen = 0
    for key, count in counts.items():
        before, seen = seen, seen + count
        here = (round(seen * end) - round(before * end)) - (round(seen * begin) - round(before * begin))
        if here > 0:
            part[key] = here
    return part


def _longest(point: Point) -> float:
    """The longest that a histogram knows of, as far as its bounds tell; at least the mean."""
    mean = point.value / point.count if point.count else 0.0
    bounds = [float(bound) for bound, count in point.buckets.items() if count]
    return max([mean, *(bound for bound in bounds if math.isfinite(bound))])


def _milliseconds(value: float, unit: str) -> float:
    return value * _UNITS_MS.get(unit, 1.0)
