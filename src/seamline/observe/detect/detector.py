"""Finds what is not as it was, in each window as it comes.

Each series is compared with its own past. What is not watched, and why: the callee's side of an edge whose caller
counts too (the difference is for explaining, not for noticing), and the calls of modules of which only silent processes
tell. Marks of drills are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Final

from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.detect import series
from seamline.observe.detect.board import Board
from seamline.observe.detect.edges import EdgeWatch, is_visit
from seamline.observe.detect.level import BLOCK, BLOCKS_READY, Level, Rule
from seamline.observe.detect.promises import Promises
from seamline.observe.detect.seasons import Visitors
from seamline.observe.detect.series import LevelSeries, RareSeries, ScoreSeries
from seamline.observe.incidents import Symptom, What
from seamline.observe.records import Mark
from seamline.observe.windows import EdgeKey, Window

EDGES_MAX: Final = 20_000
SERIES_MAX: Final = 5_000
FORGOTTEN_AFTER: Final = 1_800
"""Windows without a sign of an edge: an hour."""
SILENT_AFTER: Final = 5
"""Windows in which a process tells nothing, though nobody stopped it."""
PLANNED_GRACE: Final = 15
"""Windows after a release, a switch, a scaling or a restart, in which processes may come and go."""
SCORE_PREFIX: Final = "seamline.model."

_STOPPED: Final = -1_000_000
_PLANNED: Final = frozenset({"release", "switch", "scale", "restart"})
_FOR_COMPARISON: Final = Rule(step_ratio=1e9, drift_ratio=1e9, least=0.0)


@dataclass(frozen=True, slots=True)
class Readiness:
    """How many series have enough of a past to be compared with."""

    series: int
    ready: int
    ready_in_s: float
    """Until the first can be; 0 if some are."""


class Detector:
    """Feed it with windows in their order; it says what has newly changed.

    While an incident is open, ``frozen`` names the modules whose past is not added to, lest a fault become the usual.
    """

    def __init__(self, settings: ObserveSettings | None = None) -> None:
        settings = settings or ObserveSettings()
        self._length_s = settings.window_s
        self._board = Board()
        self.promises = Promises(settings.slos, self._board)
        self.visitors = Visitors(self._board)
        self._edges: dict[EdgeKey, EdgeWatch] = {}
        self._levels: dict[str, LevelSeries] = {}
        self._rares: dict[str, RareSeries] = {}
        self._rates: dict[str, Level] = {}
        self._silent: dict[str, int] = {}
        self._number = 0
        self._planned_until = 0
        self.frozen: frozenset[str] = frozenset()
        self.unwatched = 0
        """Series that there is no room to watch, in the last window."""

    @property
    def active(self) -> dict[str, Symptom]:
        """All symptoms that go on, by series."""
        return self._board.active

    @property
    def ended(self) -> list[Symptom]:
        """Those that ended with the last window."""
        return self._board.ended

    def feed(self, window: Window) -> list[Symptom]:
        """The symptoms that this window shows for the first time."""
        self._number += 1
        self._board.turn()
        self.unwatched = 0
        for mark in window.marks:
            if mark.kind in _PLANNED or _is_start(mark):
                self._planned_until = self._number + PLANNED_GRACE
                self._forget_processes(window, mark)
        visits = _visits(window)
        rush = self._rush(window, visits)
        self._feed_edges(window, visits, rush)
        self._feed_absent(window, visits)
        self._feed_modules(window, rush)
        self._feed_workloads(window)
        self._feed_scores(window)
        self._feed_silent(window)
        self.promises.feed(window)
        self.visitors.feed(window)
        return self._board.begun

    def readiness(self) -> Readiness:
        ready = sum(edge.ready for edge in self._edges.values())
        ready += sum(each.level.usual is not None for each in self._levels.values())
        missing = max(BLOCK * BLOCKS_READY - self._number, 1) * self._length_s
        return Readiness(len(self._edges) + len(self._levels), ready, 0.0 if ready else missing)

    def callees(self) -> dict[str, set[str]]:
        """Who calls whom, as seen within the last hour."""
        graph: dict[str, set[str]] = {}
        for edge in self._edges.values():
            if edge.caller and edge.caller != edge.callee and edge.key[3] != "sql":
                graph.setdefault(edge.caller, set()).add(edge.callee)
        return graph

    def _rush(self, window: Window, visits: dict[str, int]) -> dict[str, float]:
        """How much more work than usual came to each module, as a logarithm; only where it is more."""
        rush: dict[str, float] = {}
        for name, count in visits.items():
            rate = self._rates.get(name)
            if rate is None:
                rate = self._rates[name] = Level(_FOR_COMPARISON)
            height = log(count + 1.0)
            if rate.usual is not None and height > rate.usual:
                rush[name] = height - rate.usual
            rate.feed(height, 0.0, window.at_ns, learn=name not in self.frozen)
        return rush

    def _feed_edges(self, window: Window, visits: dict[str, int], rush: dict[str, float]) -> None:
        edges, frozen, number = self._edges, self.frozen, self._number
        present = window.edges
        for key, flow in present.items():
            if flow.calls <= 0:
                continue
            edge = edges.get(key)
            if edge is None:
                if key[3] == "server" and (key[0], key[1], key[2], "client") in present:
                    continue
                if len(edges) >= EDGES_MAX:
                    self.unwatched += 1
                    continue
                edge = edges[key] = EdgeWatch(self._board, key)
            edge.seen = number
            learn = not frozen or (edge.site not in frozen and edge.caller not in frozen)
            edge.feed(flow, window, rush.get(edge.callee, 0.0), learn=learn)
            edge.count(flow.calls, visits.get(edge.caller, 0), window, learn=learn)

    def _feed_absent(self, window: Window, visits: dict[str, int]) -> None:
        number, unknown, old = self._number, window.unknown, self._number - FORGOTTEN_AFTER
        gone: list[EdgeKey] = []
        for key, edge in self._edges.items():
            if edge.seen == number or edge.caller in unknown:
                continue
            edge.pass_by(window, visits.get(edge.caller, 0), learn=edge.caller not in self.frozen)
            if edge.seen < old:
                gone.append(key)
        for key in gone:
            self._edges.pop(key).forget()

    def _feed_modules(self, window: Window, rush: dict[str, float]) -> None:
        for name, module in window.modules.items():
            if not name:
                continue
            self._level(window, f"{name} event lag", module.events_lag, series.EVENT_LAG, "lag", name, "events", 1.0)
            blocked_ms = module.blocked_ns / 1e6
            self._level(window, f"{name} blocked loop", blocked_ms, series.BLOCKED, "saturation", name, "ms", 5.0)
            cores = module.cpu_ns / window.length_ns
            if cores or f"{name} CPU" in self._levels:
                cores *= exp(-rush.get(name, 0.0))  # that more calls need more is no change
                self._level(window, f"{name} CPU", cores, series.CPU, "saturation", name, "cores", 0.02)
            self._rare(window, f"{name} dead letters", module.dead_letters, name, "events")

    def _feed_workloads(self, window: Window) -> None:
        planned = self._number <= self._planned_until
        for name, workload in window.workloads.items():
            site = workload_site(name)
            if workload.rss_bytes > 0:
                held = float(workload.rss_bytes)
                self._level(window, f"{site} memory", held, series.MEMORY, "drift", site, "bytes", 0.0)
            self._level(
                window, f"{site} loop lag", workload.loop_lag_ms, series.LOOP_LAG, "saturation", site, "ms", 2.0
            )
            self._rare(window, f"{site} restarts", 0 if planned else workload.restarts, site, "restarts")

    def _feed_scores(self, window: Window) -> None:
        for (name, module), value in window.points.items():
            if not name.startswith(SCORE_PREFIX):
                continue
            for down in (False, True):
                key = f"{module} {name.removeprefix(SCORE_PREFIX)} {'falls' if down else 'rises'}"
                watch = self._levels.get(key)
                if watch is None:
                    if self._full():
                        continue
                    watch = self._levels[key] = ScoreSeries(self._board, key, module, down=down)
                watch.feed(window, value, learn=module not in self.frozen)

    def _feed_silent(self, window: Window) -> None:
        """A process that tells nothing, and that nobody stopped, hangs or is gone."""
        planned = self._number <= self._planned_until
        silent = {name.rpartition("/")[0] for name in window.silent}
        for name in [name for name in self._silent if name not in silent]:
            del self._silent[name]
            self._board.end(f"{workload_site(name)} silent")
        for name in silent:
            # Who fell silent in the course of a change was stopped by it, and is not waited for.
            count = self._silent[name] = _STOPPED if planned else self._silent.get(name, 0) + 1
            if count == SILENT_AFTER:
                site, waited_ns = workload_site(name), SILENT_AFTER * window.length_ns
                began_ns = window.end_ns - waited_ns
                self._board.begin(
                    Symptom(f"{site} silent", "saturation", site, None, 0.0, waited_ns / 1e9, "s", 10.0, began_ns,
                            window.end_ns)
                )  # fmt: skip

    def _level(
        self, window: Window, key: str, value: float, rule: Rule, what: What, module: str, unit: str, floor: float
    ) -> None:
        watch = self._levels.get(key)
        if watch is None:
            if not isfinite(value) or self._full():
                return
            watch = self._levels[key] = LevelSeries(self._board, key, rule, what, module, unit, floor=floor)
        watch.feed(window, value, learn=module not in self.frozen)

    def _rare(self, window: Window, key: str, count: float, module: str, unit: str) -> None:
        watch = self._rares.get(key)
        if watch is None:
            if not count or self._full():
                return
            watch = self._rares[key] = RareSeries(self._board, key, "errors", module, unit)
        watch.feed(window, count)

    def _full(self) -> bool:
        full = len(self._levels) + len(self._rares) >= SERIES_MAX
        self.unwatched += full
        return full

    def _forget_processes(self, window: Window, mark: Mark) -> None:
        """Other processes, with other modules in them, need not be as large or as busy as those before."""
        for name, workload in window.workloads.items():
            if not mark.modules or not set(mark.modules).isdisjoint(workload.modules):
                for watch in self._levels.values():
                    if watch.module == workload_site(name):
                        watch.forget()
        if mark.kind == "switch" or _is_start(mark):
            # A call to another process takes longer than one within: only what visitors notice of it is a symptom.
            for edge in self._edges.values():
                if edge.key[3] != "http":
                    edge.move()


def _is_start(mark: Mark) -> bool:
    """The application was started, perhaps in another topology than before."""
    return mark.kind == "other" and mark.title.startswith("started as ")


def workload_site(name: str) -> str:
    """How symptoms name a workload where they otherwise name a module."""
    return f"workload {name}"


def _visits(window: Window) -> dict[str, int]:
    """How much work came to each module, counted once: by who asks, or at the door."""
    visits: dict[str, int] = {}
    for (caller, callee, _, side), flow in window.edges.items():
        if is_visit(side) and caller != callee:
            visits[callee] = visits.get(callee, 0) + flow.calls
    return visits
