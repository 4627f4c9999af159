"""Two stretches of time side by side: how each window differs from what was usual before.

Everything is told as *extra*: seconds of latency a second, errors a second, beyond what the calls that were made would
have cost before. What a module does itself is what it served less the calls that it made, so the extra at the public
door is the sum of the extras of those who cause it; a caller that only waits has none of its own. A caller that waits
for several at once is given less than its share, never more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from seamline.observe.windows import Flow, Window

MAD_TO_SIGMA: Final = 1.4826
_SERVES: Final = ("http", "event")
_BOTH_SIDES_SHARE: Final = 0.3
"""The callee's own count stands for an edge if, over all windows, it has at least so much of the caller's."""

EdgeMethod = tuple[str, str, str]
"""Caller, callee and method."""


class Change(NamedTuple):
    """How a series went from one stretch to the other; ``sigmas`` by its own usual spread."""

    before: float
    after: float
    sigmas: float

    @property
    def extra(self) -> float:
        return self.after - self.before

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before > 0 else float("inf") if self.after > 0 else 1.0


def change(
    before: Sequence[float], after: Sequence[float], floor: float, level: Callable[[Sequence[float]], float] = median
) -> Change:
    """The change of a series' median, or of its ``level``. A spread below ``floor`` counts as ``floor``."""
    if not before or not after:
        return Change(0.0, 0.0, 0.0)
    usual, now = median(before), level(after)
    spread = MAD_TO_SIGMA * median(abs(each - usual) for each in before)
    return Change(usual, now, (now - usual) / max(spread, floor, 1e-12))


class Sides(NamedTuple):
    """One edge's method in one window, as the caller and as the callee counted it."""

    client: Flow | None
    server: Flow | None


class Slice:
    """One window, put in order: who served what, for whom, and which calls that took."""

    def __init__(self, window: Window, two_sided: Collection[EdgeMethod]) -> None:
        self.window = window
        self.seconds = window.length_ns / 1e9
        self.edges: dict[EdgeMethod, Sides] = {}
        self.between: dict[tuple[str, str], list[tuple[EdgeMethod, Flow, Flow]]] = defaultdict(list)
        """What both sides counted, by caller and callee."""
        self.served: dict[str, dict[tuple[str, str], Flow]] = defaultdict(dict)
        """By module, then by caller and method."""
        self.made: dict[str, dict[EdgeMethod, Flow]] = defaultdict(dict)
        self.sql: dict[str, dict[str, Flow]] = defaultdict(dict)
        self.door: dict[str, Flow] = {}
        clients: dict[EdgeMethod, Flow] = {}
        servers: dict[EdgeMethod, Flow] = {}
        for (caller, callee, method, side), flow in window.edges.items():
            if side == "client":
                clients[caller, callee, method] = flow
            elif side == "server":
                servers[caller, callee, method] = flow
            elif side == "sql":
                self.sql[caller or callee][method] = flow
            elif side in _SERVES:
                self.served[callee][f"{side} {caller}", method] = flow
                if side == "http":
                    self.door.setdefault(callee, Flow()).add(flow)
        for key in clients.keys() | servers.keys():
            caller, callee, method = key
            client, server = clients.get(key), servers.get(key)
            self.edges[key] = Sides(client, server)
            if client is not None and server is not None:
                self.between[caller, callee].append((key, client, server))
            served = server if key in two_sided or client is None else client
            if served is not None:
                self.served[callee][caller, method] = served
            if client is not None:
                self.made[caller][key] = client

    def calls_served(self, module: str) -> int:
        return sum(flow.calls for flow in self.served.get(module, {}).values())

    def errors_of_its_own(self, module: str) -> int:
        """Errors that it served less those that its own calls ended in."""
        served = sum(flow.errors for flow in self.served.get(module, {}).values())
        return served - sum(flow.errors for flow in self.made.get(module, {}).values())


class Usual:
    """What a call takes in most windows, by whatever it is named by; some bad ones among them do no harm."""

    def __init__(self) -> None:
        self._means_ns: dict[object, list[float]] = {}
        self._usual_ns: dict[object, float] = {}

    def learn(self, key: object, flow: Flow) -> None:
        if flow.calls:
            self._means_ns.setdefault(key, []).append(flow.sum_ns / flow.calls)

    def extra_s(self, key: object, flow: Flow) -> float:
        """By how much these calls took longer than usual, all together; 0 where nothing is known."""
        usual_ns = self._usual_ns.get(key)
        if usual_ns is None:
            means_ns = self._means_ns.get(key)
            if means_ns is None:
                return 0.0
            usual_ns = self._usual_ns[key] = median(means_ns)
        return (flow.sum_ns - flow.calls * usual_ns) / 1e9


class Picture:
    """The stretches before and after, and the extras in them."""

    def __init__(self, before: Sequence[Window], after: Sequence[Window]) -> None:
        self.two_sided = both_sides(before, after)
        self.before = [Slice(window, self.two_sided) for window in before]
        self.after = [Slice(window, self.two_sided) for window in after]
        self._usual = Usual()
        self._methods: dict[str, dict[str, tuple[Flow, Flow]]] = {}
        for each in self.before:
            for key, (client, server) in each.edges.items():
                if client is not None:
                    self._usual.learn(("client", *key), client)
                if server is not None:
                    self._usual.learn(("server", *key), server)
            for module, flows in each.served.items():
                for key, flow in flows.items():
                    self._usual.learn((module, *key), flow)
            for module, flows in each.sql.items():
                for statement, flow in flows.items():
                    self._usual.learn(("sql", module, statement), flow)
        slices = self.before + self.after
        self.modules = sorted({module for each in slices for module in (*each.served, *each.made) if module})
        self.edges = sorted({key for each in slices for key in each.edges})
        self.calls_to: dict[str, set[str]] = defaultdict(set)
        for caller, callee, _ in self.edges:
            self.calls_to[caller].add(callee)
        for each in slices:
            for module, flows in each.served.items():
                for caller, _ in flows:
                    side, _, source = caller.partition(" ")
                    if side == "event" and source and source != module:
                        self.calls_to[source].add(module)

    def change(
        self,
        measure: Callable[[Slice], float | None],
        floor: float,
        level: Callable[[Sequence[float]], float] = median,
    ) -> Change:
        """Of what ``measure`` makes of each window; windows of which it makes nothing are left out."""
        return change(_measured(self.before, measure), _measured(self.after, measure), floor, level)

    def extra_served_s(self, each: Slice, module: str) -> float:
        """Extra seconds in what the module served, a second."""
        flows = each.served.get(module, {})
        return sum(self._usual.extra_s((module, *key), flow) for key, flow in flows.items()) / each.seconds

    def extra_self_s(self, each: Slice, module: str) -> float:
        """Extra seconds that the module took itself, a second."""
        made = each.made.get(module, {})
        spent = sum(self._usual.extra_s(("client", *key), flow) for key, flow in made.items())
        return self.extra_served_s(each, module) - spent / each.seconds

    def extra_gap_s(self, each: Slice, caller: str, callee: str) -> float:
        """Extra seconds between caller and callee that the callee knows nothing of, a second."""
        extra = 0.0
        for key, client, server in each.between.get((caller, callee), ()):
            mean_ns = server.sum_ns / server.calls if server.calls else 0.0
            at_server = Flow(calls=client.calls, sum_ns=int(mean_ns * client.calls))
            extra += self._usual.extra_s(("client", *key), client) - self._usual.extra_s(("server", *key), at_server)
        return extra / each.seconds

    def extra_sql_s(self, each: Slice, module: str) -> float:
        flows = each.sql.get(module, {})
        return sum(self._usual.extra_s(("sql", module, key), flow) for key, flow in flows.items()) / each.seconds

    def below(self, modules: Iterable[str]) -> set[str]:
        """These and all that they reach by calls and events."""
        found: set[str] = set()
        waiting = list(modules)
        while waiting:
            module = waiting.pop()
            if module not in found:
                found.add(module)
                waiting.extend(self.calls_to.get(module, ()))
        return found

    def above(self, modules: Iterable[str]) -> set[str]:
        """Those that reach one of these."""
        wanted = set(modules)
        return {module for module in self.calls_to if self.below([module]) & wanted}

    def methods_of(self, module: str) -> dict[str, tuple[Flow, Flow]]:
        """What the module served by method, before and after."""
        known = self._methods.get(module)
        if known is not None:
            return known
        found = self._methods[module] = {}
        for side, slices in enumerate((self.before, self.after)):
            for each in slices:
                for (_, method), flow in each.served.get(module, {}).items():
                    found.setdefault(method, (Flow(), Flow()))[side].add(flow)
        return found

    @property
    def span_ns(self) -> tuple[int, int]:
        """From when to when the stretch after lasted."""
        if not self.after:
            return (0, 0)
        return (self.after[0].window.at_ns, max(each.window.end_ns for each in self.after))


def both_sides(*stretches: Sequence[Window]) -> set[EdgeMethod]:
    """The edges that are counted by the callee, too: it is another process.

    Decided once for all windows: two processes do not tell in the same moment, and a window may have one side only.
    """
    calls: dict[EdgeMethod, list[int]] = {}
    for stretch in stretches:
        for window in stretch:
            for (caller, callee, method, side), flow in window.edges.items():
                if side in ("client", "server"):
                    calls.setdefault((caller, callee, method), [0, 0])[side == "server"] += flow.calls
    return {key for key, (client, server) in calls.items() if server and server >= client * _BOTH_SIDES_SHARE}


def hosts(slices: Sequence[Slice], modules: Iterable[str]) -> Mapping[str, list[str]]:
    """Which modules each workload hosts, as it told; where it did not, as far as the names tell.

    A workload that is named as a module hosts that one; the modules that remain are in those that are not.
    """
    names = set(modules)
    told: dict[str, set[str]] = defaultdict(set)
    for each in slices:
        for workload, known in each.window.workloads.items():
            told[workload].update(name for name in known.modules if name in names)
    rest = sorted(names - told.keys())
    return {
        workload: sorted(hosted) or ([workload] if workload in names else rest)
        for workload, hosted in sorted(told.items())
    }


def _measured(slices: Sequence[Slice], measure: Callable[[Slice], float | None]) -> list[float]:
    return [value for each in slices if (value := measure(each)) is not None]
