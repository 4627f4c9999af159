"""An incident in a few sentences, by a template: what was noticed, what is suspected and why, what was changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from seamline.observe.incidents import Claim, Incident, Summary, Suspect, SuspectKind, Symptom

_CAUSES: Final[dict[SuspectKind, str]] = {
    "code": "{module}'s own code",
    "latency": "{module} itself, which became slower",
    "errors": "{module}, which fails by itself",
    "network": "the way to {module}: the network, or the connections there",
    "cpu": "{module}, which uses up the processor",
    "memory": "{module}, which keeps more and more memory",
    "blocked": "{module}, which holds up the event loop",
    "database": "{module}'s database",
    "queue": "{module}, which does not get its events handled",
    "release": "the new release of {module}",
    "switch": "the change of topology or scale",
    "settings": "the change of settings",
    "policy": "the change of policy",
    "dependency": "something that {module} depends on",
    "traffic": "more traffic than usual at {module}",
    "drift": "{module}, whose results have drifted",
}
_CLAIMS_OF_EVIDENCE: Final = 3


def cause(suspect: Suspect) -> str:
    """A suspect in words: ``payments itself, which became slower``."""
    if not suspect.module and suspect.kind not in ("switch", "settings", "policy"):
        return "something that was changed for all"
    return _CAUSES[suspect.kind].format(module=suspect.module)


def summary_of(incident: Incident) -> Summary:
    """The template's summary."""
    claims = [Claim(_noticed(incident))]
    if incident.abstained or not incident.suspects:
        claims.append(Claim(f"The cause is not known. {incident.reason}".strip()))
        if incident.suspects:
            hints = [f"{cause(each)}" for each in incident.suspects[:2]]
            ids = [each.evidence[0].id for each in incident.suspects[:2] if each.evidence]
            claims.append(Claim(f"Hints point to {' or '.join(hints)}.", ids))
        return Summary(claims)
    first = incident.suspects[0]
    shown = [each for each in first.evidence if each.id][:_CLAIMS_OF_EVIDENCE]
    claims.append(Claim(f"The likeliest cause is {cause(first)}.", [each.id for each in shown]))
    claims += [Claim(each.text, [each.id]) for each in shown]
    others = [each for each in incident.suspects[1:3] if each.score >= 0.3 and each.evidence]
    claims += [Claim(f"Less likely is {cause(each)}.", [each.evidence[0].id]) for each in others]
    return Summary(claims)


def _noticed(incident: Incident) -> str:
    began = datetime.fromtimestamp(incident.began_ns / 1e9, UTC).strftime("%H:%M:%S") if incident.began_ns else ""
    when = f"Since {began} UTC: " if began else ""
    symptoms = sorted(incident.symptoms, key=lambda each: -each.score)
    if not symptoms:
        return f"{when}{incident.title}."
    rest = len(symptoms) - 1
    more = f" and {rest} other series" if rest > 1 else " and another series" if rest else ""
    return f"{when}{_said(symptoms[0])}{more}."


def _said(symptom: Symptom) -> str:
    unit = "" if symptom.unit in ("", "ratio") else f" {symptom.unit}"
    return f"{symptom.series} went from {_figure(symptom.before)} to {_figure(symptom.after)}{unit}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
