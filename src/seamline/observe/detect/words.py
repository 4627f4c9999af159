"""Symptoms and incidents in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seamline.observe.incidents import Severity, Suspect, Symptom

_OUTSIDE = frozenset({"", "gateway"})
"""Who calls for visitors."""
_WEIGHT = {"errors": 5, "saturation": 4, "drift": 4, "lag": 4, "latency": 3, "rate": 2, "slo": 1}


def quantity(value: float, unit: str) -> str:
    """A value with its unit, as people write it: ``104 ms``, ``40 %``, ``1.2 GB``."""
    if unit == "ratio":
        return f"{_figure(100 * value)} %"
    if unit == "bytes":
        return f"{_figure(value / 1e9)} GB" if value >= 1e9 else f"{_figure(value / 1e6)} MB"
    if unit == "ms" and value >= 1000:
        return f"{_figure(value / 1000)} s"
    if unit == "burn":
        return f"{_figure(value)} times what is allowed"
    return f"{_figure(value)} {unit}".rstrip()


def symptom(each: Symptom) -> str:
    """One line."""
    if each.what == "slo":
        return f"{each.series}: errors use the budget up at {quantity(each.after, each.unit)}"
    if each.series.endswith(" silent"):
        return f"{each.series}: nothing heard of it for {quantity(each.after, each.unit)}"
    return f"{each.series}: {quantity(each.before, each.unit)} before, {quantity(each.after, each.unit)} now"


def title(symptoms: Sequence[Symptom], roots: Iterable[str], *, everywhere: bool) -> str:
    """What is wrong, by the weightiest symptom of the deepest modules."""
    if not symptoms:
        return "something is not as it was"
    named = set(roots)
    near = [each for each in symptoms if each.module in named and not each.supporting] or list(symptoms)
    top = max(near, key=lambda each: (_WEIGHT[each.what], each.score))
    if everywhere:
        modules = sorted({each.module for each in symptoms})
        return f"{len(modules)} modules at once: {', '.join(modules[:5])}{', ...' if len(modules) > 5 else ''}"
    return _title(top)


def _title(top: Symptom) -> str:
    before, after = quantity(top.before, top.unit), quantity(top.after, top.unit)
    method = top.edge[2] if top.edge and top.edge[2] else top.module
    if top.what == "errors":
        return f"{method} fails: {after} of its calls" if top.unit == "ratio" else f"{top.series}: {after}"
    if top.what == "latency":
        return f"{method} takes {after} instead of {before}"
    if top.what == "rate":
        return f"{method} gets {after} instead of {before}"
    if top.what == "slo":
        return f"{top.series} burns: {after}"
    if top.series.endswith(" silent"):
        return f"{top.module} tells nothing any more"
    return f"{top.series}: {after} instead of {before}"


def severity(symptoms: Iterable[Symptom]) -> Severity:
    """``critical`` if visitors are turned away or a promise burns fast, ``major`` if they notice, else ``minor``."""
    found: Severity = "minor"
    for each in symptoms:
        door = each.edge is not None and each.edge[0] in _OUTSIDE
        if each.what == "slo" and each.after >= 14.4:
            return "critical"
        if each.what == "errors" and each.unit == "ratio" and each.after >= (0.2 if door else 0.5):
            return "critical"
        if each.what in {"errors", "slo"} or (door and each.what == "latency" and each.after >= 2 * each.before):
            found = "major"
    return found


def outcome(suspect: Suspect | None, reason: str) -> str:
    """What an explanation came to."""
    if suspect is None:
        return f"no cause is named: {reason}" if reason else "no cause is named"
    return f"suspected: {suspect.module} ({suspect.kind}{f', {suspect.method}' if suspect.method else ''})"


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.3g}"
