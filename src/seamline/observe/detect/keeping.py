"""Incidents from their first symptom to their end: opened, explained, told, closed, opened again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from seamline.kernel.lifetime import TaskOwner
from seamline.observe.detect import causes, words
from seamline.observe.detect.causes import Case, Graph
from seamline.observe.detect.detector import Detector
from seamline.observe.explain.interface import Explanation
from seamline.observe.incidents import Entry, EntryKind, Incident, Note, State, Summary, Symptom
from seamline.observe.records import Mark
from seamline.observe.windows import Window

SETTLE: Final = 2
"""Windows from the first symptom until the incident is opened: what begins together is put together first."""
QUIET: Final = 15
"""Windows without a symptom, after which it is closed; twice as many for each time that it came back."""
QUIET_MAX: Final = 150
REOPENED_WITHIN_NS: Final = 600_000_000_000
MARKS_BEFORE_NS: Final = 600_000_000_000
FROZEN_NS: Final = 1_800_000_000_000
"""For so long an open incident keeps its modules' past from being added to."""
EXPLAINED_AFTER_NS: Final = 8_000_000_000
"""What came after its beginning, before it is looked into."""
EXPLAINED_AGAIN_NS: Final = (6_000_000_000, 20_000_000_000, 60_000_000_000, 180_000_000_000)
"""How long after the first look it is looked into again; and whenever symptoms were added, but not more often than
the first of these."""
BEFORE_MAX: Final = 150
"""Windows of the time before that an explanation compares with."""
CALM_MIN: Final = 15
"""Windows without an incident that an explanation compares with, if there are so many."""
TROUBLED_NS: Final = 20_000_000_000
"""So long before it was noticed an incident is thought to have begun, at most: a slow drift may seem much older."""
FLOWS_MAX: Final = 60_000
"""Edges by windows that are held for explaining."""
SYMPTOMS_MAX: Final = 100
TIMELINE_MAX: Final = 200

_CHANGES: Final = frozenset({"release", "switch", "scale", "restart", "crash", "settings", "policy", "secret", "other"})
"""Not a drill: who looks for a cause must not be told where it was put."""
_log = logging.getLogger("seamline.incidents")


class Explain(Protocol):
    """Ranks suspects; called in a thread."""

    def __call__(
        self, before: Sequence[Window], after: Sequence[Window], symptoms: Sequence[Symptom], marks: Sequence[Mark]
    ) -> Explanation: ...


class Keeps(Protocol):
    """Where incidents are kept."""

    def put_incident(self, incident: Incident) -> None: ...


class Tells(Protocol):
    """Who is told of an incident's new state; must not wait."""

    def tell(self, incident: Incident, state: State) -> None: ...


@dataclass(slots=True)
class _Open:
    """An incident that goes on, or did until some minutes ago."""

    case: Case
    incident: Incident
    first: int
    """The number of the window with its first symptom."""
    opened: bool = False
    quiet: int = 0
    looked_ns: list[int] = field(default_factory=list[int])
    seen: int = 0
    """How many symptoms there were at the last look."""
    look: asyncio.Task[None] | None = None


class Incidents:
    """Feed it with windows in their order, from one task. It owns the detector.

    Args:
        explain: ranks suspects; without it an incident says only what is seen.
        summarise: puts the outcome into sentences.
        store: keeps each state.
        notify: tells people.
        show: hears of each change of an incident, to show it at once.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        explain: Explain | None = None,
        summarise: Callable[[Incident], Awaitable[Summary]] | None = None,
        store: Keeps | None = None,
        notify: Tells | None = None,
        show: Callable[[Incident], None] | None = None,
    ) -> None:
        self.detector = detector
        self._explain = explain
        self._summarise = summarise
        self._store = store
        self._notify = notify
        self._show = show
        self._cases: list[_Open] = []
        self._closed: list[_Open] = []
        self._troubled: deque[tuple[int, int]] = deque(maxlen=100)
        """From when to when there were incidents that are over."""
        self._dismissed: set[str] = set()
        self._marks: deque[Mark] = deque(maxlen=1_000)
        self._windows: deque[Window] = deque()
        self._flows = 0
        self._hosts: dict[str, list[str]] = {}
        self._number = 0
        self._now_ns = 0
        self._last = 0
        self._tasks = TaskOwner("incidents")

    @property
    def open(self) -> list[Incident]:
        """Those that go on, the newest first."""
        return [copied(each.incident) for each in reversed(self._cases) if each.opened]

    def resume(self, known: Iterable[Incident], past: Iterable[Window] = ()) -> None:
        """After a restart: go on with what was open, number from the last, and learn from the windows before.

        What those windows show opens nothing anew; it is the incident that is known already.
        """
        for window in past:
            self._note(window)
            self.detector.feed(window)
        graph = Graph(self.detector.callees(), self._hosts)
        for incident in sorted(known, key=lambda each: each.number):
            self._last = max(self._last, incident.number)
            if incident.status == "open" and incident.symptoms:
                deepest, *others = causes.sort(incident.symptoms, graph)
                case = Case.of(deepest, graph)
                for symptom in others:
                    case.add(symptom, graph)
                looked_ns = [incident.explained_ns] if incident.explained_ns else []
                self._cases.append(_Open(case, copied(incident), 0, opened=True, looked_ns=looked_ns))

    def feed(self, window: Window) -> None:
        """Take in one window: find symptoms, place them, open, look into and close incidents."""
        self._note(window)
        begun = self.detector.feed(window)
        active = self.detector.active
        self._dismissed &= active.keys()
        graph = Graph(self.detector.callees(), self._hosts)
        for symptom in causes.sort(begun, graph):
            self._place(symptom, graph)
        self._recover(self.detector.ended)
        for each in list(self._cases):
            if self._number - each.first >= SETTLE and not each.opened:
                self._open(each)
            self._age(each, active)
        self._closed = [each for each in self._closed if self._now_ns - each.incident.ended_ns < REOPENED_WITHIN_NS]
        self.detector.frozen = frozenset(
            module
            for each in self._cases
            if self._now_ns - each.case.began_ns < FROZEN_NS
            for module in each.case.members
        )
        for each in self._cases:
            if each.opened and self._explain is not None and self._due(each):
                each.look = self._tasks.spawn(self._look(each, self._explain), name=f"explain {each.incident.id}")

    async def idle(self) -> None:
        """Until all explanations under way have ended."""
        while looks := [each.look for each in [*self._cases, *self._closed] if each.look and not each.look.done()]:
            await asyncio.wait(looks)

    async def stop(self) -> None:
        await self._tasks.stop()

    def acknowledge(self, name: str, by: str) -> bool:
        """Somebody looks after it. False if it is not open."""
        each = self._find(name)
        if each is None:
            return False
        each.incident.acknowledged_by, each.incident.acknowledged_ns = by, self._now_ns
        self._enter(each, "note", f"{by} looks after it")
        self._put(each)
        return True

    def note(self, name: str, by: str, text: str) -> bool:
        """Write something down. False if it is neither open nor newly closed."""
        each = self._find(name) or next((each for each in self._closed if each.incident.id == name), None)
        if each is None:
            return False
        each.incident.notes.append(Note(self._now_ns, by, text))
        self._put(each)
        return True

    def close(self, name: str, by: str) -> bool:
        """Close it by hand: what it still shows opens nothing until it has ended. False if it is not open."""
        each = self._find(name)
        if each is None:
            return False
        self._dismissed |= each.case.symptoms.keys() & self.detector.active.keys()
        self._close(each, f"closed by {by}")
        self._closed.remove(each)
        return True

    def _find(self, name: str) -> _Open | None:
        return next((each for each in self._cases if each.opened and each.incident.id == name), None)

    def _note(self, window: Window) -> None:
        self._number += 1
        self._now_ns = window.end_ns
        self._marks.extend(mark for mark in window.marks if mark.kind in _CHANGES)
        for name, workload in window.workloads.items():
            if workload.modules:
                self._hosts[name] = workload.modules
        self._windows.append(window)
        self._flows += len(window.edges)
        while len(self._windows) > 2 * BEFORE_MAX or (self._flows > FLOWS_MAX and len(self._windows) > 1):
            self._flows -= len(self._windows.popleft().edges)

    def _place(self, symptom: Symptom, graph: Graph) -> None:
        if symptom.series in self._dismissed:
            return
        known = next((each for each in self._cases if symptom.series in each.case.symptoms), None)
        each = known or next((each for each in reversed(self._cases) if each.case.owns(symptom, graph)), None)
        if each is not None:
            each.case.add(symptom, graph)
            self._add(each, symptom)
            return
        back = next((each for each in self._closed if self._is_back(each, symptom)), None)
        if back is not None:
            self._reopen(back, symptom, graph)
        elif not symptom.supporting:
            case = Case.of(symptom, graph)
            incident = Incident("", "", began_ns=case.began_ns, detected_ns=symptom.detected_ns)
            each = _Open(case, incident, self._number)
            self._cases.append(each)
            self._add(each, symptom)
            self._merge(each)

    def _is_back(self, each: _Open, symptom: Symptom) -> bool:
        same = any(old.module == symptom.module and old.what == symptom.what for old in each.case.symptoms.values())
        return symptom.series in each.case.symptoms or (symptom.module in each.case.roots and same)

    def _merge(self, each: _Open) -> None:
        """If too many began at once, they are one: the oldest takes the others in."""
        cases = {id(other.case): other for other in self._cases}
        near = [cases[id(case)] for case in causes.together(each.case, [other.case for other in self._cases])]
        if not near:
            return
        oldest, *rest = sorted([each, *near], key=lambda one: (not one.opened, one.first))
        oldest.case.everywhere = True
        for other in rest:
            oldest.case.merge(other.case)
            for symptom in other.incident.symptoms:
                self._add(oldest, symptom)
            self._cases.remove(other)
            if other.opened:
                other.incident.status, other.incident.ended_ns = "closed", self._now_ns
                self._enter(other, "closed", f"it is one with {oldest.incident.id}")
                self._put(other)

    def _add(self, each: _Open, symptom: Symptom) -> None:
        incident = each.incident
        incident.began_ns = min(incident.began_ns or symptom.at_ns, symptom.at_ns or symptom.detected_ns)
        incident.symptoms = [old for old in incident.symptoms if old.series != symptom.series]
        if len(incident.symptoms) < SYMPTOMS_MAX:
            incident.symptoms.append(symptom)
            self._enter(each, "symptom", words.symptom(symptom), symptom.detected_ns)
        each.quiet = 0
        incident.title = words.title(incident.symptoms, each.case.roots, everywhere=each.case.everywhere)
        incident.severity = words.severity(incident.symptoms)
        if each.opened:
            self._put(each)

    def _open(self, each: _Open) -> None:
        self._last += 1
        incident = each.incident
        incident.id = f"INC-{self._last}"
        each.opened = True
        begin_ns = incident.began_ns - MARKS_BEFORE_NS
        incident.marks = [mark for mark in self._marks if begin_ns <= mark.at_ns <= self._now_ns]
        for mark in incident.marks[-20:]:
            self._enter(each, "mark", f"{mark.kind}: {mark.title}", mark.at_ns)
        self._enter(each, "began", "it began, as far as can be told", incident.began_ns)
        incident.timeline.sort(key=lambda entry: entry.at_ns)
        _log.warning("%s opened: %s", incident.id, incident.title)
        self._put(each)
        self._tell(each, "opened")

    def _reopen(self, each: _Open, symptom: Symptom, graph: Graph) -> None:
        self._closed.remove(each)
        self._cases.append(each)
        incident = each.incident
        incident.status, incident.ended_ns = "open", 0
        incident.reopened += 1
        each.case.last_ns = symptom.detected_ns
        each.case.add(symptom, graph)
        self._enter(each, "reopened", "it is back", symptom.detected_ns)
        self._add(each, symptom)
        if incident.reopened <= 2:  # who was told three times knows that it comes and goes
            self._tell(each, "reopened")

    def _recover(self, ended: Iterable[Symptom]) -> None:
        for symptom in ended:
            for each in self._cases:
                if symptom.series in each.case.symptoms:
                    self._enter(each, "recovered", f"{symptom.series} is as before")

    def _age(self, each: _Open, active: dict[str, Symptom]) -> None:
        # A budget burns on for a while by what has already failed: alone it keeps open what it alone has opened.
        symptoms = each.case.symptoms
        weighty = [series for series, symptom in symptoms.items() if symptom.what != "slo"] or symptoms
        each.quiet = 0 if any(series in active for series in weighty) else each.quiet + 1
        if each.opened and each.quiet >= min(QUIET << min(each.incident.reopened, 4), QUIET_MAX):
            self._close(each, "nothing is out of the usual any more")

    def _close(self, each: _Open, why: str) -> None:
        incident = each.incident
        incident.status = "closed"
        incident.ended_ns = self._now_ns
        self._enter(each, "closed", why)
        self._cases.remove(each)
        self._closed.append(each)
        self._troubled.append((max(incident.began_ns, incident.detected_ns - TROUBLED_NS), self._now_ns))
        _log.warning("%s closed: %s", incident.id, why)
        self._put(each)
        if incident.reopened <= 2:
            self._tell(each, "closed")

    def _due(self, each: _Open) -> bool:
        """Whether there is enough after its beginning to look, or something new since the last look."""
        if (each.look and not each.look.done()) or self._now_ns - each.incident.began_ns < EXPLAINED_AFTER_NS:
            return False
        if not each.looked_ns:
            return True
        if self._now_ns - each.looked_ns[-1] < EXPLAINED_AGAIN_NS[0]:
            return False
        done = len(each.looked_ns) - 1
        passed = self._now_ns - each.looked_ns[0]
        more = len(each.incident.symptoms) > each.seen
        return more or (done < len(EXPLAINED_AGAIN_NS) and passed >= EXPLAINED_AGAIN_NS[done])

    async def _look(self, each: _Open, explain: Explain) -> None:
        incident = each.incident
        each.looked_ns.append(self._now_ns)
        each.seen = len(incident.symptoms)
        try:
            length_ns = self._windows[-1].length_ns
            earlier = self._calm([w for w in self._windows if w.end_ns <= incident.began_ns - length_ns])[-BEFORE_MAX:]
            later = [w for w in self._windows if w.at_ns >= incident.began_ns]
            found = await asyncio.to_thread(explain, earlier, later, list(incident.symptoms), list(incident.marks))
        except Exception:
            _log.exception("%s could not be explained", incident.id)
        else:
            await self._explained(each, found)

    def _calm(self, windows: list[Window]) -> list[Window]:
        """Without those of other incidents, which are not what is usual; with them where hardly any is left."""
        calm = [w for w in windows if not any(begin < w.end_ns and w.at_ns < end for begin, end in self._troubled)]
        return calm if len(calm) >= CALM_MIN else windows

    async def _explained(self, each: _Open, found: Explanation) -> None:
        incident = each.incident
        first = incident.explained_ns == 0
        was = incident.suspects[0] if incident.suspects and not incident.abstained else None
        incident.suspects, incident.abstained = list(found.suspects), found.abstained
        incident.reason, incident.confidence = found.reason, found.confidence
        incident.explained_ns = self._now_ns
        now = incident.suspects[0] if incident.suspects and not incident.abstained else None
        other = (now is None) != (was is None) or (now and was and (now.module, now.kind) != (was.module, was.kind))
        if first or other:
            self._enter(each, "explained", words.outcome(now, found.reason))
            if self._summarise is not None:
                try:
                    incident.summary = await self._summarise(copied(incident))
                except Exception:
                    _log.exception("%s could not be put into words", incident.id)
        self._put(each)
        if now is not None and (was is None or was.module != now.module):
            self._tell(each, "explained")

    def _enter(self, each: _Open, kind: EntryKind, text: str, at_ns: int = 0) -> None:
        timeline = each.incident.timeline
        timeline.append(Entry(at_ns or self._now_ns, kind, text))
        if len(timeline) > TIMELINE_MAX:
            del timeline[TIMELINE_MAX // 2]  # how it began and how it stands are worth more than what lies between

    def _put(self, each: _Open) -> None:
        incident = copied(each.incident)
        if self._store is not None:
            self._store.put_incident(incident)
        if self._show is not None:
            self._show(incident)

    def _tell(self, each: _Open, state: State) -> None:
        if self._notify is not None:
            self._notify.tell(copied(each.incident), state)


def copied(incident: Incident) -> Incident:
    """Of its own lists; what stands in them does not change."""
    return msgspec.structs.replace(
        incident,
        symptoms=list(incident.symptoms),
        suspects=list(incident.suspects),
        marks=list(incident.marks),
        notes=list(incident.notes),
        timeline=list(incident.timeline),
    )
