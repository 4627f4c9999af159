"""Which symptoms have one cause, as far as the call graph and the time tell.

A fault shows in the module that has it and in all that wait for it: whoever calls it, directly or not, is slow or fails
as well. So symptoms belong together where one's module reaches the other's; the deepest are the case's roots, and what
reaches a root is explained by it. Two roots that cannot reach each other are two causes, although both reach the front
door; unless they share a process that is itself in trouble, or there are three of them at once, which is likelier one
thing that all share than three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from seamline.observe.incidents import Symptom

AT_ONCE_NS: Final = 12_000_000_000
"""Roots that appear within this time may have one cause."""
DEEPER_NS: Final = 30_000_000_000
"""For so long after a case was noticed, what its roots call may turn out to be what is really wrong."""
JOIN_NS: Final = 120_000_000_000
"""Who waits for a root is explained by it, if noticed within this time of the case's last symptom."""
SEVERAL: Final = 3

_OF_ITS_OWN: Final = frozenset({"saturation", "drift"})
"""What a module has by itself: it does not come from whom it calls."""
_SHARED: Final = frozenset({"latency", "saturation", "lag", "rate"})
"""What modules of one process have in common when the process is in trouble."""


class Graph:
    """Who reaches whom by calls, and who shares a process."""

    def __init__(self, callees: Mapping[str, Iterable[str]], hosts: Mapping[str, Iterable[str]]) -> None:
        self._callees = callees
        self._hosts = hosts
        self._reached: dict[str, frozenset[str]] = {}

    def reached(self, module: str) -> frozenset[str]:
        """All that a call to this module may lead to, without itself."""
        known = self._reached.get(module)
        if known is None:
            found: set[str] = set()
            waiting = [module]
            while waiting:
                for callee in self._callees.get(waiting.pop(), ()):
                    if callee not in found:
                        found.add(callee)
                        waiting.append(callee)
            known = self._reached[module] = frozenset(found - {module})
        return known

    def reaches(self, module: str, other: str) -> bool:
        return other in self.reached(module)

    def sites(self, symptom: Symptom) -> frozenset[str]:
        """The modules that a symptom speaks of: of a workload's, all that live in it, and the workload."""
        if symptom.module.startswith("workload "):
            return frozenset({symptom.module, *self._hosts.get(symptom.module.removeprefix("workload "), ())})
        return frozenset({symptom.module})


@dataclass(slots=True)
class Case:
    """Symptoms that are held to have one cause: ``roots`` are the deepest modules, ``members`` all that show it."""

    began_ns: int
    noticed_ns: int
    last_ns: int
    roots: set[str]
    members: set[str]
    symptoms: dict[str, Symptom] = field(default_factory=dict[str, Symptom])
    shared: set[str] = field(default_factory=set[str])
    """Modules of a process that is itself in trouble."""
    everywhere: bool = False
    """More modules at once than can be coincidence."""

    @classmethod
    def of(cls, symptom: Symptom, graph: Graph) -> Case:
        sites = graph.sites(symptom)
        noticed_ns = symptom.detected_ns
        case = cls(symptom.at_ns or noticed_ns, noticed_ns, noticed_ns, set(sites), set(sites))
        case._take(symptom, sites)
        return case

    def add(self, symptom: Symptom, graph: Graph) -> None:
        sites = graph.sites(symptom)
        deeper = not symptom.supporting and symptom.what not in {"rate", "slo"}
        if (
            deeper
            and not self.members & sites
            and any(graph.reaches(root, site) for root in self.roots for site in sites)
        ):
            self.roots = {root for root in self.roots if not any(graph.reaches(root, site) for site in sites)} | sites
        elif self._weak() and deeper:
            self.roots = set(sites)
        self.members |= sites
        self.began_ns = min(self.began_ns, symptom.at_ns or symptom.detected_ns)
        self.last_ns = max(self.last_ns, symptom.detected_ns)
        self._take(symptom, sites)

    def merge(self, other: Case) -> None:
        self.roots |= other.roots
        self.members |= other.members
        self.shared |= other.shared
        self.symptoms.update(other.symptoms)
        self.began_ns = min(self.began_ns, other.began_ns)
        self.noticed_ns = min(self.noticed_ns, other.noticed_ns)
        self.last_ns = max(self.last_ns, other.last_ns)

    def owns(self, symptom: Symptom, graph: Graph) -> bool:
        """Whether the symptom is held to come from this case's cause."""
        if symptom.series in self.symptoms:
            return True
        sites = graph.sites(symptom)
        if sites & self.roots:
            return True
        since_last = symptom.detected_ns - self.last_ns
        since_noticed = symptom.detected_ns - self.noticed_ns
        if since_last > JOIN_NS:
            return False
        if self.everywhere or (sites & self.shared and symptom.what in _SHARED):
            return True
        if len(sites) > 1 and sites & self.members and since_last <= DEEPER_NS:
            return True
        if symptom.what in _OF_ITS_OWN:
            return bool(sites & self.members) and since_noticed <= DEEPER_NS
        if symptom.supporting or sites & self.members:
            return True
        if any(graph.reaches(site, root) for site in sites for root in self.roots):
            return True
        early = since_noticed <= DEEPER_NS or symptom.what == "rate"
        return early and any(graph.reaches(root, site) for root in self.roots for site in sites)

    def _take(self, symptom: Symptom, sites: frozenset[str]) -> None:
        self.symptoms[symptom.series] = symptom
        if len(sites) > 1 and symptom.what == "saturation":
            self.shared |= sites

    def _weak(self) -> bool:
        """Nothing but changed rates, promises and crowds so far: what follows is nearer to the cause."""
        return all(each.supporting or each.what in {"rate", "slo"} for each in self.symptoms.values())


def sort(symptoms: Iterable[Symptom], graph: Graph) -> list[Symptom]:
    """The deepest first, so that roots stand before those that they explain; what makes no case alone comes last."""

    def order(symptom: Symptom) -> tuple[bool, bool, int, str]:
        weak = symptom.supporting or symptom.what in {"rate", "slo"}
        depth = min((len(graph.reached(site)) for site in graph.sites(symptom)), default=0)
        return weak, len(graph.sites(symptom)) == 1, depth, symptom.series

    return sorted(symptoms, key=order)


def together(case: Case, others: Iterable[Case]) -> list[Case]:
    """Those that began with this one, if they are too many to be coincidence."""
    near = [other for other in others if other is not case and abs(other.noticed_ns - case.noticed_ns) <= AT_ONCE_NS]
    return near if len(near) + 1 >= SEVERAL or any(other.everywhere for other in near) else []
