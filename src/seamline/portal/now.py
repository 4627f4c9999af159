"""How things are now: the newest windows added up by edge, module and workload, and what to think of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from seamline.observe.incidents import Incident
from seamline.observe.windows import Flow, Window

NOW_S: Final = 30.0
"""What "now" means in figures: long enough for an edge with a call a second."""
EdgeName = tuple[str, str, Literal["call", "public", "event"]]
"""Caller, callee and kind."""
State = Literal["good", "warn", "bad", "idle"]
_INWARD: Final = ("server", "http", "event")
_SERVED_FOR_NS: Final = 60_000_000_000
_ERRORS_BAD: Final = 0.05
_ERRORS_WARN: Final = 0.01
_LAG_WARN_MS: Final = 100.0
_LATE_WINDOWS: Final = 3
"""So many of the newest windows must be late before a workload needs a look: one is a start, or a pause."""


@dataclass(slots=True)
class Course:
    """Calls that were added up over ``seconds``."""

    seconds: float
    flow: Flow = field(default_factory=Flow)

    @property
    def rate(self) -> float:
        return self.flow.calls / self.seconds if self.seconds else 0.0

    @property
    def error_ratio(self) -> float | None:
        return self.flow.error_ratio if self.flow.calls else None

    @property
    def p50_ms(self) -> float | None:
        return self.flow.quantile_ms(0.5) if self.flow.calls else None

    @property
    def p95_ms(self) -> float | None:
        return self.flow.quantile_ms(0.95) if self.flow.calls else None

    @property
    def state(self) -> State:
        """A single failed call of few says little; three of a hundred say something."""
        errors, ratio = self.flow.errors, self.flow.error_ratio
        if not self.flow.calls:
            return "idle"
        if errors >= 3 and ratio >= _ERRORS_BAD:
            return "bad"
        return "warn" if errors >= 2 and ratio >= _ERRORS_WARN else "good"


@dataclass(slots=True)
class Edge:
    """Calls of one module to another, or of strangers (``caller`` empty) to a module."""

    caller: str
    callee: str
    kind: Literal["call", "public", "event"]
    all: Course
    methods: dict[str, Course] = field(default_factory=dict[str, Course])


@dataclass(slots=True)
class ModuleNow:
    """One module; ``why`` says what is the matter with it, empty where nothing is."""

    name: str
    workloads: list[str]
    inward: Course
    cpu_share: float = 0.0
    """Of one core."""
    events_lag: float = 0.0
    dead_letters: int = 0
    errors_logged: int = 0
    state: State = "idle"
    why: str = ""

    @property
    def cpu_ms_per_call(self) -> float | None:
        """None where too little was seen to say."""
        calls = self.inward.flow.calls
        return self.cpu_share * self.inward.seconds * 1000 / calls if calls and self.cpu_share else None


@dataclass(slots=True)
class WorkloadNow:
    name: str
    modules: list[str]
    replicas: list[Mapping[str, Any]]
    cpu_share: float = 0.0
    rss_bytes: int = 0
    loop_lag_ms: float = 0.0
    state: State = "good"
    why: str = ""


@dataclass(slots=True)
class Picture:
    """The whole application over the last ``seconds``."""

    seconds: float
    edges: list[Edge]
    modules: dict[str, ModuleNow]
    workloads: list[WorkloadNow]
    public: Course

    @property
    def cpu_ms_per_request(self) -> float | None:
        calls = self.public.flow.calls
        used = sum(each.cpu_share for each in self.workloads) * self.seconds
        return used * 1000 / calls if calls else None


def follows(callee: str, method: str) -> bool:
    """Whether it is how a consumer reads another module's events, and no call of the application's."""
    return method == f"{callee}_events.follow"


def _edge_name(caller: str, callee: str, method: str, side: str) -> EdgeName | None:
    if follows(callee, method):
        return callee, caller, "event"
    if side == "event":
        return caller, callee, "event"
    if side == "http" or (side == "server" and not caller):
        return "", callee, "public"
    return (caller, callee, "call") if side in {"client", "server"} else None


class Row:
    """One window, looked at once: what came to each module by method, and what came from outside."""

    __slots__ = ("calls", "inward", "public", "window")

    def __init__(self, window: Window, inward: dict[str, dict[str, Flow]], public: Flow) -> None:
        self.window = window
        self.inward = inward
        self.public = public
        self.calls = {name: sum(flow.calls for flow in methods.values()) for name, methods in inward.items()}


class Recent:
    """The windows in memory as rows.

    What a module is asked is counted by the module where the caller is in another process, and by the caller otherwise.
    The two do not tell in the same moment: an edge that the callee has counted of late is the callee's to count, until
    the topology changes.
    """

    def __init__(self) -> None:
        self.seen: dict[EdgeName, int] = {}
        """Who had to do with whom, and when that was last seen."""
        self._rows: deque[Row] = deque()
        self._served_ns: dict[tuple[str, str, str], int] = {}
        self._last_ns = 0

    def look(self, windows: Sequence[Window]) -> list[Row]:
        """Rows of these windows, which are the same as last time but for those that have come and gone."""
        if not windows:
            return []
        while self._rows and self._rows[0].window.at_ns < windows[0].at_ns:
            self._rows.popleft()
        for window in windows:
            if window.at_ns > self._last_ns:
                self._rows.append(self._row(window))
                self._last_ns = window.at_ns
        self.seen = {name: at_ns for name, at_ns in self.seen.items() if at_ns >= windows[0].at_ns}
        return list(self._rows)

    def _row(self, window: Window) -> Row:
        if any(each.kind == "switch" for each in window.marks):
            self._served_ns.clear()
        for caller, callee, method, side in window.edges:
            if side == "server":
                self._served_ns[caller, callee, method] = window.at_ns
        since_ns = window.at_ns - _SERVED_FOR_NS
        inward: dict[str, dict[str, Flow]] = {}
        public = Flow()
        for (caller, callee, method, side), flow in window.edges.items():
            name = _edge_name(caller, callee, method, side)
            if name is not None:
                self.seen[name] = window.at_ns
            if side == "http":
                public.add(flow)
            if follows(callee, method):
                continue
            if side in _INWARD or (side == "client" and self._served_ns.get((caller, callee, method), 0) < since_ns):
                inward.setdefault(callee, {}).setdefault(method, Flow()).add(flow)
        return Row(window, inward, public)


def newest(rows: Sequence[Row], seconds: float = NOW_S) -> Sequence[Row]:
    """The rows of the last ``seconds`` that are known."""
    since_ns = rows[-1].window.end_ns - int(seconds * 1e9) if rows else 0
    return [each for each in rows[-500:] if each.window.at_ns >= since_ns]


def picture(
    rows: Sequence[Row],
    names: Iterable[str],
    status: Mapping[str, Any],
    incidents: Sequence[Incident],
    seen: Iterable[EdgeName] = (),
) -> Picture:
    """``rows`` added up.

    Args:
        names: the modules that there are.
        status: what the supervisor says.
        seen: edges that are shown although nothing flows there now.
    """
    windows = [each.window for each in rows]
    seconds = sum(each.length_ns for each in windows) / 1e9
    workloads = [_workload(each, windows, seconds) for each in status.get("workloads", ())]
    edges = _edges(windows, seconds, seen)
    modules: dict[str, ModuleNow] = {}
    heard = {each.callee for each in edges} | {each.caller for each in edges if each.caller}
    for name in dict.fromkeys([*names, *sorted(heard)]):
        homes = [each.name for each in workloads if name in each.modules]
        modules[name] = _module(name, homes, rows, seconds)
    _judge(modules, workloads, incidents)
    public = Course(seconds)
    for row in rows:
        public.flow.add(row.public)
    return Picture(seconds, edges, modules, workloads, public)


def _edges(windows: Sequence[Window], seconds: float, seen: Iterable[EdgeName]) -> list[Edge]:
    """As the caller counted, which has the network in it; as the callee did where no caller told."""
    found = {name: Edge(*name, Course(seconds)) for name in seen}
    told = {(key[0], key[1], key[2]) for window in windows for key in window.edges if key[3] == "client"}
    for window in windows:
        for (caller, callee, method, side), flow in window.edges.items():
            name = _edge_name(caller, callee, method, side)
            twice = side == "server" and (caller, callee, method) in told
            if name is None or twice or not flow.calls or follows(callee, method):
                continue
            edge = found.setdefault(name, Edge(*name, Course(seconds)))
            edge.all.flow.add(flow)
            edge.methods.setdefault(method, Course(seconds)).flow.add(flow)
    return sorted(found.values(), key=lambda each: (each.caller, each.callee, each.kind))


def _module(name: str, homes: list[str], rows: Sequence[Row], seconds: float) -> ModuleNow:
    found = ModuleNow(name, homes, Course(seconds))
    cpu_ns = 0
    for row in rows:
        for flow in row.inward.get(name, {}).values():
            found.inward.flow.add(flow)
        one = row.window.modules.get(name)
        if one is not None:
            cpu_ns += one.cpu_ns
            found.events_lag = one.events_lag
            found.dead_letters += one.dead_letters
            found.errors_logged += one.errors_logged
    found.cpu_share = cpu_ns / 1e9 / seconds if seconds else 0.0
    return found


def _workload(status: Mapping[str, Any], windows: Sequence[Window], seconds: float) -> WorkloadNow:
    replicas: list[Mapping[str, Any]] = list(status["replicas"])
    found = WorkloadNow(status["name"], list(status["modules"]), replicas)
    late = 0
    for window in windows:
        one = window.workloads.get(found.name)
        if one is not None:
            found.cpu_share += one.cpu_s / seconds
            found.rss_bytes = one.rss_bytes
            found.loop_lag_ms = max(found.loop_lag_ms, one.loop_lag_ms)
            late += one.loop_lag_ms > _LAG_WARN_MS
    ill = [each for each in replicas if each["state"] not in {"ready", "draining", "stopped"}]
    if any(each.get("crash_loop") for each in replicas):
        found.state, found.why = "bad", "keeps crashing"
    elif ill:
        found.state, found.why = "warn", f"{len(ill)} of {len(replicas)} {ill[0]['state']}"
    elif late >= _LATE_WINDOWS:
        found.state, found.why = "warn", f"its event loop is {found.loop_lag_ms:.0f} ms late"
    return found


def _judge(modules: Mapping[str, ModuleNow], workloads: Sequence[WorkloadNow], incidents: Sequence[Incident]) -> None:
    suspected = {each.suspects[0].module: each.id for each in incidents if each.suspects}
    touched = {symptom.module: each.id for each in incidents for symptom in each.symptoms}
    homes = {each.name: each for each in workloads}
    for module in modules.values():
        ill = next((homes[each] for each in module.workloads if homes[each].state in {"warn", "bad"}), None)
        module.state = module.inward.state
        if module.state in {"warn", "bad"}:
            module.why = f"{module.inward.flow.error_ratio:.1%} of its answers are errors"
        if module.name in suspected:
            module.state, module.why = "bad", f"suspected in {suspected[module.name]}"
        elif ill is not None:
            module.state, module.why = ill.state, f"{ill.name}: {ill.why}"
        elif module.name in touched and module.state != "bad":
            module.state, module.why = "warn", f"affected by {touched[module.name]}"
        elif module.dead_letters and module.state in {"good", "idle"}:
            module.state, module.why = "warn", f"{module.dead_letters} new dead letters"


def strip(rows: Sequence[Row], *, module: str = "", method: str = "", steps: int = 150) -> dict[str, list[Any]]:
    """Rate, errors and latency over time, of the public door or of one module, in whole steps: columns for a chart.

    Where nothing comes from outside, all that is answered counts.
    """
    outside = not module and any(row.public.calls for row in rows)
    sums: dict[int, Flow] = {}
    width_ns = _step_ns(rows, steps)
    for row in rows:
        step = sums.setdefault(row.window.at_ns // width_ns, Flow())
        for flow in (row.public,) if outside else _flows(row, module, method):
            step.add(flow)
    _drop_unfinished(sums, rows, width_ns)
    width_s = width_ns / 1e9
    return {
        "at": [index * width_s for index in sums],
        "rate": [round(step.calls / width_s, 3) for step in sums.values()],
        "errors": [round(step.errors / width_s, 3) for step in sums.values()],
        "p50": [round(step.quantile_ms(0.5), 3) if step.calls else None for step in sums.values()],
        "p95": [round(step.quantile_ms(0.95), 3) if step.calls else None for step in sums.values()],
    }


def rates(rows: Sequence[Row], module: str, *, method: str = "", steps: int = 40) -> list[float]:
    """Calls a second over time, of one module or method: for a small line."""
    sums: dict[int, int] = {}
    width_ns = _step_ns(rows, steps)
    for row in rows:
        index = row.window.at_ns // width_ns
        flow = row.inward.get(module, {}).get(method) if method else None
        calls = row.calls.get(module, 0) if not method else flow.calls if flow is not None else 0
        sums[index] = sums.get(index, 0) + calls
    _drop_unfinished(sums, rows, width_ns)
    return [calls * 1e9 / width_ns for calls in sums.values()]


def _flows(row: Row, module: str, method: str) -> Iterator[Flow]:
    for name, methods in row.inward.items():
        if not module or name == module:
            yield from (flow for each, flow in methods.items() if not method or each == method)


def _step_ns(rows: Sequence[Row], steps: int) -> int:
    """A step's length: a whole number of windows."""
    if not rows:
        return 1
    length_ns = rows[0].window.length_ns
    span_ns = rows[-1].window.end_ns - rows[0].window.at_ns
    return max(-(-span_ns // (steps * length_ns)), 1) * length_ns


def _drop_unfinished(sums: dict[int, Any], rows: Sequence[Row], width_ns: int) -> None:
    """The first and the last step, where a part of them is out of sight or still to come."""
    if len(sums) > 2 and rows[0].window.at_ns % width_ns:
        sums.pop(min(sums))
    if len(sums) > 1 and rows[-1].window.end_ns % width_ns:
        sums.pop(max(sums))
