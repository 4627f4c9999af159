"""How things are now: the newest windows added up by edge, module and workload, and what to think of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from seamline.observe.incidents import Incident
from seamline.observe.windows import Flow, Window

NOW_S: Final = 30.0
"""What "now" means in figures: long enough for an edge with a call a second."""
State = Literal["good", "warn", "bad", "idle"]
_ERRORS_BAD: Final = 0.05
_ERRORS_WARN: Final = 0.01
_LAG_WARN_MS: Final = 100.0


@dataclass(slots=True)
class Course:
    """Calls that were added up over ``seconds``."""

    seconds: float
    flow: Flow = field(default_factory=Flow)

    @property
    def rate(self) -> float:
        return self.flow.calls / self.seconds if self.seconds else 0.0

    @property
    def error_ratio(self) -> float:
        return self.flow.error_ratio

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
        calls = self.inward.flow.calls
        return self.cpu_share * self.inward.seconds * 1000 / calls if calls else None


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


def newest(windows: Sequence[Window], seconds: float = NOW_S) -> list[Window]:
    """The windows of the last ``seconds`` that are known."""
    end_ns = windows[-1].end_ns if windows else 0
    return [each for each in windows if each.at_ns >= end_ns - int(seconds * 1e9)]


def picture(
    windows: Sequence[Window], names: Iterable[str], status: Mapping[str, Any], incidents: Sequence[Incident]
) -> Picture:
    """``windows`` added up; ``names`` are the modules that there are, ``status`` is what the supervisor says."""
    seconds = sum(each.length_ns for each in windows) / 1e9
    workloads = [_workload(each, windows, seconds) for each in status.get("workloads", ())]
    edges = _edges(windows, seconds)
    modules: dict[str, ModuleNow] = {}
    heard = {each.callee for each in edges} | {each.caller for each in edges if each.caller}
    for name in dict.fromkeys([*names, *sorted(heard)]):
        homes = [each.name for each in workloads if name in each.modules]
        modules[name] = _module(name, homes, windows, seconds)
    _judge(modules, workloads, incidents)
    public = Course(seconds)
    for edge in edges:
        if edge.kind == "public":
            public.flow.add(edge.all.flow)
    return Picture(seconds, edges, modules, workloads, public)


def _edges(windows: Sequence[Window], seconds: float) -> list[Edge]:
    """As the caller counted, which has the network in it; as the callee did where no caller told."""
    found: dict[tuple[str, str, str], Edge] = {}
    told = {(key[0], key[1], key[2]) for window in windows for key in window.edges if key[3] == "client"}
    for window in windows:
        for (told_by, callee, method, side), flow in window.edges.items():
            kind: Literal["call", "public", "event"]
            caller = told_by
            if side == "event":
                kind = "event"
            elif side == "http" or (side == "server" and not caller):
                kind, caller = "public", ""
            elif side == "client" or (side == "server" and (caller, callee, method) not in told):
                kind = "call"
            else:
                continue
            edge = found.setdefault((caller, callee, kind), Edge(caller, callee, kind, Course(seconds)))
            edge.all.flow.add(flow)
            edge.methods.setdefault(method, Course(seconds)).flow.add(flow)
    return sorted(found.values(), key=lambda each: (each.caller, each.callee, each.kind))


def _module(name: str, homes: list[str], windows: Sequence[Window], seconds: float) -> ModuleNow:
    found = ModuleNow(name, homes, Course(seconds))
    cpu_ns = 0
    for window in windows:
        for flow in inward(window, name):
            found.inward.flow.add(flow)
        one = window.modules.get(name)
        if one is not None:
            cpu_ns += one.cpu_ns
            found.events_lag = one.events_lag
            found.dead_letters += one.dead_letters
            found.errors_logged += one.errors_logged
    found.cpu_share = cpu_ns / 1e9 / seconds if seconds else 0.0
    return found


def inward(window: Window, module: str = "", method: str = "") -> Iterator[Flow]:
    """What came to a module, or to all. The callee counts what comes from another process, else the caller does."""
    for (caller, callee, name, side), flow in window.edges.items():
        if (module and callee != module) or (method and name != method):
            continue
        if (side == "client" and (caller, callee, name, "server") not in window.edges) or side in {
            "server",
            "http",
            "event",
        }:
            yield flow


def door(window: Window) -> Iterator[Flow]:
    """What came from outside."""
    return (flow for key, flow in window.edges.items() if key[3] == "http")


def _workload(status: Mapping[str, Any], windows: Sequence[Window], seconds: float) -> WorkloadNow:
    replicas: list[Mapping[str, Any]] = list(status["replicas"])
    found = WorkloadNow(status["name"], list(status["modules"]), replicas)
    for window in windows:
        one = window.workloads.get(found.name)
        if one is not None:
            found.cpu_share += one.cpu_s / seconds
            found.rss_bytes = one.rss_bytes
            found.loop_lag_ms = max(found.loop_lag_ms, one.loop_lag_ms)
    ill = [each for each in replicas if each["state"] not in {"ready", "draining", "stopped"}]
    if any(each.get("crash_loop") for each in replicas):
        found.state, found.why = "bad", "keeps crashing"
    elif ill:
        found.state, found.why = "warn", f"{len(ill)} of {len(replicas)} {ill[0]['state']}"
    elif found.loop_lag_ms > _LAG_WARN_MS:
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
            module.why = f"{module.inward.error_ratio:.1%} of its answers are errors"
        if module.name in suspected:
            module.state, module.why = "bad", f"suspected in {suspected[module.name]}"
        elif ill is not None:
            module.state, module.why = ill.state, f"{ill.name}: {ill.why}"
        elif module.name in touched and module.state != "bad":
            module.state, module.why = "warn", f"affected by {touched[module.name]}"
        elif module.dead_letters and module.state in {"good", "idle"}:
            module.state, module.why = "warn", f"{module.dead_letters} new dead letters"


def strip(windows: Sequence[Window], *, module: str = "", method: str = "", steps: int = 150) -> dict[str, list[Any]]:
    """Rate, errors and latency over time, of the public door or of one module, in whole steps: columns for a chart.

    Where nothing comes from outside, all that is answered counts.
    """
    outside = not module and any(key[3] == "http" for window in windows for key in window.edges)
    width_ns = max((windows[-1].end_ns - windows[0].at_ns) // steps, windows[0].length_ns) if windows else 0
    width_ns = -(-width_ns // windows[0].length_ns) * windows[0].length_ns if windows else 0
    rows: dict[int, Flow] = {}
    for window in windows:
        row = rows.setdefault(window.at_ns // width_ns, Flow())
        for flow in door(window) if outside else inward(window, module, method):
            row.add(flow)
    if len(rows) > 1 and windows[-1].end_ns % width_ns:
        rows.pop(max(rows))  # it is not whole yet
    width_s = width_ns / 1e9
    return {
        "at": [index * width_s for index in rows],
        "rate": [round(row.calls / width_s, 3) for row in rows.values()],
        "errors": [round(row.errors / width_s, 3) for row in rows.values()],
        "p50": [round(row.quantile_ms(0.5), 3) if row.calls else None for row in rows.values()],
        "p95": [round(row.quantile_ms(0.95), 3) if row.calls else None for row in rows.values()],
    }
