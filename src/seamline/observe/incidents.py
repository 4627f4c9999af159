"""What an incident is: its symptoms, what is suspected and on what evidence, and how it went.

Kept as JSON in the store, shown by the portal and the command line. How incidents are found is ``observe.detect``'s,
how suspects are ranked ``observe.explain``'s. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from seamline.observe.records import Mark

What = Literal["errors", "latency", "rate", "lag", "saturation", "drift", "slo"]
Severity = Literal["minor", "major", "critical"]
EntryKind = Literal["began", "symptom", "recovered", "mark", "explained", "note", "closed", "reopened"]
State = Literal["opened", "explained", "closed", "reopened"]
"""What people are told of an incident."""
SuspectKind = Literal[
    "code",
    "latency",
    "errors",
    "network",
    "cpu",
    "memory",
    "blocked",
    "database",
    "queue",
    "release",
    "switch",
    "settings",
    "policy",
    "dependency",
    "traffic",
    "drift",
]


class Symptom(msgspec.Struct, frozen=True):
    """A series that is not as it was. ``score`` says by how many times its usual spread, at least."""

    series: str
    """Its name for people and as a key, such as ``frontend > checkout Checkout.place errors``."""
    what: What
    module: str
    edge: tuple[str, str, str] | None = None
    """Caller, callee and method, where the series is of an edge."""
    before: float = 0.0
    after: float = 0.0
    unit: str = ""
    """``ratio``, ``ms``, ``calls/s``, ``events``, ``bytes``, ``burn``."""
    score: float = 0.0
    at_ns: int = 0
    """When it began, as far as can be told."""
    detected_ns: int = 0
    supporting: bool = False
    """It belongs to an incident, and alone makes none: that there are more visitors is no fault."""


class Evidence(msgspec.Struct, frozen=True):
    """One thing that a person can check. ``link`` is a path of the portal."""

    kind: str
    text: str
    before: float | None = None
    after: float | None = None
    unit: str = ""
    link: str = ""
    id: str = ""
    """By which a claim names it, ``e1``, ``e2`` and so on within an incident."""
    score: float = 0.0
    """What it adds to its suspect's."""


class Suspect(msgspec.Struct, frozen=True):
    module: str
    kind: SuspectKind
    method: str = ""
    score: float = 0.0
    evidence: list[Evidence] = []


class Claim(msgspec.Struct, frozen=True):
    text: str
    evidence: list[str] = []


class Summary(msgspec.Struct, frozen=True):
    """An incident in a few sentences; ``by`` is ``template`` or the model's name."""

    claims: list[Claim] = []
    by: str = "template"

    @property
    def text(self) -> str:
        return " ".join(claim.text for claim in self.claims)


class Entry(msgspec.Struct, frozen=True):
    """A line of an incident's timeline."""

    at_ns: int
    kind: EntryKind
    text: str


class Note(msgspec.Struct, frozen=True):
    at_ns: int
    by: str
    text: str


class Incident(msgspec.Struct):
    """One cause, as far as can be told, with all that it was noticed by."""

    id: str
    title: str
    status: Literal["open", "closed"] = "open"
    severity: Severity = "minor"
    began_ns: int = 0
    detected_ns: int = 0
    ended_ns: int = 0
    """0 while it is open."""
    symptoms: list[Symptom] = []
    suspects: list[Suspect] = []
    """The likeliest first."""
    abstained: bool = True
    """Nothing is suspected, for want of evidence: ``reason`` says what is missing."""
    reason: str = ""
    confidence: float = 0.0
    marks: list[Mark] = []
    """What was changed in the ten minutes before."""
    summary: Summary = Summary()
    explained_ns: int = 0
    """0 until it was looked into."""
    notes: list[Note] = []
    timeline: list[Entry] = []
    acknowledged_by: str = ""
    acknowledged_ns: int = 0
    reopened: int = 0

    @property
    def number(self) -> int:
        return number_of(self.id)


def number_of(name: str) -> int:
    """The number in an incident's id, 0 if it is none: ``INC-7`` is 7."""
    prefix, _, digits = name.partition("-")
    return int(digits) if prefix == "INC" and digits.isascii() and digits.isdigit() else 0


def encode(incident: Incident) -> bytes:
    return msgspec.json.encode(incident)


_DECODER = msgspec.json.Decoder(Incident)


def decode(data: bytes | str) -> Incident:
    return _DECODER.decode(data)
