"""Puts the findings together: who is suspected, how strongly, and whether that is enough to say so.

Each module's evidence adds up as independent hints do, ``1 - (1 - a)(1 - b)...``. What another finding explains better
counts less: a module beside one that eats the processor is slow for it, not by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from seamline.observe.explain import failures, latency, saturation, shape
from seamline.observe.explain import marks as changes
from seamline.observe.explain.finding import Finding
from seamline.observe.explain.interface import Explanation, Profiles, Traces
from seamline.observe.explain.latency import TimeFound
from seamline.observe.explain.picture import Picture
from seamline.observe.explain.saturation import Used
from seamline.observe.incidents import Suspect, SuspectKind, Symptom
from seamline.observe.records import OK, Mark
from seamline.observe.windows import Window

WINDOWS_BEFORE_MIN: Final = 4
WINDOWS_AFTER_MIN: Final = 2
CALLS_MIN: Final = 10
ENOUGH: Final = 0.4
SUSPECTS_MAX: Final = 5
_EXPLAINED: Final = 0.25
"""What is left of a finding that another one explains."""
_STUMBLES: Final = 0.35
"""What is left of a failure whose module was given answers without work by one that it calls."""
_SAY_MORE: Final = frozenset({"cpu", "blocked", "database", "memory", "queue", "network"})
"""Kinds that say why a module became slow; ``latency`` only says that it did."""
_ABOVE: Final = 0.8
_ELSEWHERE: Final = 0.4
"""What is left of a finding far from every symptom."""


def explain(
    before: Sequence[Window],
    after: Sequence[Window],
    symptoms: Sequence[Symptom],
    marks: Sequence[Mark],
    traces: Traces | None = None,
    profile: Profiles | None = None,
) -> Explanation:
    """Rank the suspects.

    Args:
        before: windows of the time when all was well; the more, the better what is usual is known (a minute will do).
        after: windows since it began.
        symptoms: what was noticed; without any, the whole picture is looked at.
        marks: what was changed; marks of drills are left out.
        traces: asked for traces of the modules that are suspected.
        profile: asked for the stacks of a module whose windows have none.
    """
    after = _since_most_began(after, symptoms)
    thin = _too_thin(before, after)
    if thin:
        return Explanation(reason=thin)
    picture = Picture(before, after)
    used = Used(picture)
    began_ns = min((each.at_ns for each in symptoms if each.at_ns), default=after[0].at_ns)
    found = _findings(picture, used, traces, profile)
    found = _unexplained(picture, used, found)
    found = _near(picture, used, found, symptoms)
    strengths = {module: _together(each.weight for each in group) for module, group in _by_module(found).items()}
    denied = any("permission_denied" in flow.codes for window in after for flow in window.edges.values())
    found += changes.proximity(marks, began_ns, strengths, denied)
    found += _drifted(symptoms)
    suspects = sorted((_suspect(module, group) for module, group in _by_module(found).items()), key=_worst_first)
    suspects = [each for each in suspects if each.score >= 0.1][:SUSPECTS_MAX]
    if traces is not None and suspects:
        suspects[0] = _with_trace(picture, suspects[0], traces)
    return _verdict([_numbered(each, place) for place, each in enumerate(suspects)])


def _since_most_began(after: Sequence[Window], symptoms: Sequence[Symptom]) -> Sequence[Window]:
    """Without the windows before most symptoms began: a slow one among them may be older than the cause."""
    began = sorted(each.at_ns for each in symptoms if each.at_ns and each.what != "drift")
    onset_ns = began[(len(began) - 1) // 2] if began else 0
    later = [window for window in after if window.end_ns > onset_ns]
    return later if len(later) >= WINDOWS_AFTER_MIN else after


def _too_thin(before: Sequence[Window], after: Sequence[Window]) -> str:
    if len(before) < WINDOWS_BEFORE_MIN:
        return f"Only {len(before)} windows are known of the time before: too few to say what is usual."
    if len(after) < WINDOWS_AFTER_MIN:
        return f"Only {len(after)} windows are known since it began: it is too early to say."
    calls = sum(flow.calls for window in after for flow in window.edges.values())
    if calls < CALLS_MIN and not any(window.unknown for window in after):
        return f"Only {calls} calls were made since it began: too few to tell."
    return ""


def _findings(picture: Picture, used: Used, traces: Traces | None, profile: Profiles | None) -> list[Finding]:
    time = TimeFound(picture)
    own_errors = failures.own_errors(picture)
    spent = {
        module: max(used.cpu[module].extra if used.cpu[module].sigmas > 2 else 0.0, 0.0)
        + max(used.blocked[module].extra if used.blocked[module].sigmas > 2 else 0.0, 0.0)
        for module in used.cpu
    }
    return [
        *latency.self_time(picture, time),
        *latency.edge_gap(time),
        *latency.database(picture, time),
        *failures.errors(picture, own_errors, traces),
        *failures.unreached(picture, own_errors),
        *failures.dead_letters(picture),
        *saturation.cpu(picture, used, profile),
        *saturation.blocked(picture, used),
        *saturation.loop_lag(used, spent),
        *saturation.memory(picture, used, spent),
        *shape.call_profile(picture),
        *shape.early_return(picture),
        *shape.fewer_statements(picture),
        *shape.traffic(picture),
    ]


def _unexplained(picture: Picture, used: Used, found: Sequence[Finding]) -> list[Finding]:
    """The findings, each worth less where another one explains it."""
    hogs = {each.module for each in found if each.kind in ("cpu", "blocked") and each.weight >= 0.3}
    hogs = {module for module in hogs if used.late(module)}
    beside_hogs = {other for module in hogs for other in used.beside(module)}
    failing = {each.module for each in found if each.kind == "errors" and each.weight >= 0.4}
    leaving_out = {each.module for each in found if each.sign == "early return"}
    misled = _misled(picture, {each.module for each in found if each.kind == "errors"}, leaving_out)
    flooded = any(each.kind == "traffic" and each.weight >= 0.5 for each in found)
    kept: list[Finding] = []
    for each in found:
        weight = each.weight
        if each.kind == "latency" and each.module in beside_hogs - hogs:
            weight *= _EXPLAINED
        if each.kind in ("database", "queue") and each.module in beside_hogs:
            weight *= _EXPLAINED  # who cannot run cannot fetch its answers either
        if each.kind == "network" and ({each.module, each.other} & beside_hogs):
            # The time passes in the queue of a loop that is busy, not on the way.
            weight *= _EXPLAINED
        if each.sign == "call profile" and (failing or _below_changed(picture, each, leaving_out)):
            weight *= _EXPLAINED
        if each.sign == "early return" and not failing <= misled:
            weight *= _EXPLAINED
        if each.module in misled and (each.kind == "errors" or each.sign == "exception"):
            weight *= _STUMBLES  # over an answer that nobody took the trouble to make
        if flooded and each.kind in ("latency", "network", "cpu", "queue", "database"):
            weight *= 0.6
        kept.append(each._replace(weight=weight))
    return kept


def _misled(picture: Picture, failing: set[str], leaving_out: set[str]) -> set[str]:
    """Modules that fail, while one that they call does not: it answers without having worked."""
    idle = {module for module in leaving_out - failing if not picture.calls_to.get(module, set()) & failing}
    return {caller for caller in failing if picture.calls_to.get(caller, set()) & idle}


def _below_changed(picture: Picture, found: Finding, leaving_out: Collection[str]) -> bool:
    """Whether a caller calls differently because one that it calls answers differently."""
    return any(module != found.module and module in picture.calls_to.get(found.module, ()) for module in leaving_out)


def _near(picture: Picture, used: Used, found: Sequence[Finding], symptoms: Sequence[Symptom]) -> list[Finding]:
    """The findings, worth less in modules that the symptoms do not lead to."""
    noticed = {symptom.edge[1] if symptom.edge is not None else symptom.module for symptom in symptoms}
    noticed &= set(picture.modules)
    if not noticed:
        return list(found)
    below, above = picture.below(noticed), picture.above(noticed)
    beside = {other for module in below for other in used.beside(module)}
    kept: list[Finding] = []
    for each in found:
        shared = each.kind in ("cpu", "blocked", "memory") and each.module in beside
        if each.module in below or not each.module or shared:
            kept.append(each)
        else:
            kept.append(each._replace(weight=each.weight * (_ABOVE if each.module in above else _ELSEWHERE)))
    return kept


def _drifted(symptoms: Iterable[Symptom]) -> list[Finding]:
    return [
        Finding(
            symptom.module, "drift", 0.7, f"{symptom.series} has moved away from what it was.",
            symptom.before, symptom.after, symptom.unit, "", f"/modules/{symptom.module}",
        )
        for symptom in symptoms
        if symptom.what == "drift" and symptom.module and symptom.unit != "bytes" and symptom.edge is None
    ]  # fmt: skip


def _by_module(found: Iterable[Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = defaultdict(list)
    for each in found:
        # Changes that concern all modules are suspects of their own, each kind for itself.
        groups[each.module or f" {each.kind}"].append(each)
    return groups


def _together(weights: Iterable[float]) -> float:
    doubt = 1.0
    for weight in weights:
        doubt *= 1.0 - min(max(weight, 0.0), 0.95)
    return 1.0 - doubt


def _suspect(module: str, group: Sequence[Finding]) -> Suspect:
    by_kind: dict[SuspectKind, list[float]] = defaultdict(list)
    for each in group:
        by_kind[each.kind].append(each.weight)
    kind = max(by_kind, key=lambda each: _telling(each, _together(by_kind[each])))
    ordered = sorted(group, key=lambda each: -each.weight)
    method = next((each.method for each in ordered if each.method), "")
    score = round(_together(each.weight for each in group), 3)
    evidence = [each.as_evidence() for each in ordered if each.weight >= 0.03]
    return Suspect(module.strip() if not module.startswith(" ") else "", kind, method, score, evidence)


def _telling(kind: SuspectKind, strength: float) -> tuple[bool, bool, float]:
    return (kind == "release", kind in _SAY_MORE and strength >= 0.25, strength)


def _worst_first(suspect: Suspect) -> tuple[float, str]:
    return (-suspect.score, suspect.module)


def _with_trace(picture: Picture, suspect: Suspect, traces: Traces) -> Suspect:
    """The suspect, with a trace to look at: the one in which it took longest."""
    if not suspect.module or any(each.link.startswith("/traces/") for each in suspect.evidence):
        return suspect
    since, until = picture.span_ns
    slowest = [
        span
        for spans in traces(suspect.module, failed=False, since_ns=since, until_ns=until)
        for span in spans
        if span.module == suspect.module and span.kind != "client" and span.status == OK
    ]
    if not slowest:
        return suspect
    worst = max(slowest, key=lambda span: span.duration_ns)
    finding = Finding(
        suspect.module, suspect.kind, 0.0, f"A trace in which {worst.name} took {worst.duration_ns / 1e6:.0f} ms.",
        None, worst.duration_ns / 1e6, "ms", "", f"/traces/{worst.trace_id.hex()}",
    )  # fmt: skip
    return Suspect(
        suspect.module, suspect.kind, suspect.method, suspect.score, [*suspect.evidence, finding.as_evidence()]
    )


def _numbered(suspect: Suspect, place: int) -> Suspect:
    """Its evidence by ids, ``a1``, ``a2`` of the first suspect, ``b1`` of the second."""
    letter = "abcdefgh"[place]
    named = [
        type(each)(each.kind, each.text, each.before, each.after, each.unit, each.link, f"{letter}{index}", each.score)
        for index, each in enumerate(suspect.evidence, 1)
    ]
    return Suspect(suspect.module, suspect.kind, suspect.method, suspect.score, named)


def _verdict(suspects: list[Suspect]) -> Explanation:
    if not suspects:
        return Explanation(reason="Nothing in the calls, the processor, the memory or the queues stands out.")
    first = suspects[0]
    second = suspects[1].score if len(suspects) > 1 else 0.0
    confidence = round(first.score * (1.0 - 0.5 * second / first.score), 2)
    if first.score < ENOUGH:
        return Explanation(suspects, True, "No evidence is strong enough to name a cause; these are hints.", confidence)
    if not first.module and first.kind != "policy":
        said = "Nothing but a change shortly before stands out."
        return Explanation(suspects, first.score < 0.5, said if first.score < 0.5 else "", confidence)
    return Explanation(suspects, False, "", confidence)
