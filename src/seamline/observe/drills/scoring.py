"""What came of drills: found or not, how soon, and who was suspected; beside what others would have said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from seamline.observe.drills.catalog import FAULTS
from seamline.observe.incidents import Incident


class Guess(msgspec.Struct, frozen=True):
    module: str
    kind: str
    score: float = 0.0


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that was planted."""

    topology: str
    number: int
    fault: str
    module: str = ""
    method: str = ""
    struck: int = 0
    """How often it had an effect; 0: it could not be planted, and ``refused`` says why."""
    refused: str = ""
    detected_s: float | None = None
    explained_s: float | None = None
    abstained: bool = True
    guesses: list[Guess] = []
    others: dict[str, list[str]] = {}
    """Rankings of modules by plain methods."""
    modules: int = 0
    """Of how many modules one was to be found."""
    incidents: int = 0
    """How many were opened; one would do."""

    @property
    def counts(self) -> bool:
        return not self.refused and self.struck > 0

    def right(self, within: int = 1) -> bool:
        """Whether the module is among the first guesses."""
        return self.module in [each.module for each in self.guesses[:within]]

    @property
    def right_kind(self) -> bool:
        return bool(self.guesses) and self.right() and self.guesses[0].kind in FAULTS[self.fault].kinds


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which nothing was planted."""

    topology: str
    seconds: float
    incidents: list[str] = []
    """Titles of those that were opened all the same."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Some rounds, added up."""

    name: str
    planted: int
    detected: int
    detected_s: float | None
    explained_s: float | None
    """Medians, from the moment of planting."""
    first: float
    top3: float
    kind: float
    abstained: int
    chance: float
    others: dict[str, float]
    """The share of first guesses that were right, by method."""


def score(name: str, rounds: Sequence[Round]) -> Score:
    counted = [each for each in rounds if each.counts]
    found = [each for each in counted if each.detected_s is not None]
    methods = sorted({method for each in counted for method in each.others})

    def share(hit: Callable[[Round], bool]) -> float:
        return sum(map(hit, counted)) / len(counted) if counted else 0.0

    return Score(
        name=name,
        planted=len(counted),
        detected=len(found),
        detected_s=_median([each.detected_s for each in found]),
        explained_s=_median([each.explained_s for each in found]),
        first=share(Round.right),
        top3=share(lambda each: each.right(3)),
        kind=share(lambda each: each.right_kind),
        abstained=sum(each.abstained for each in found),
        chance=sum(1 / each.modules for each in counted if each.modules) / len(counted) if counted else 0.0,
        others={method: share(lambda each, method=method: _first(each, method)) for method in methods},
    )


def scores(rounds: Sequence[Round]) -> list[Score]:
    """By fault, by topology, and all."""
    faults = [name for name in FAULTS if any(each.fault == name for each in rounds)]
    topologies = sorted({each.topology for each in rounds})
    return [
        *(score(name, [each for each in rounds if each.fault == name]) for name in faults),
        *(score(name, [each for each in rounds if each.topology == name]) for name in topologies),
        score("all", rounds),
    ]


def guesses_of(incident: Incident) -> list[Guess]:
    return [Guess(each.module, each.kind, each.score) for each in incident.suspects]


def table(found: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, for people."""
    methods = sorted({method for each in found for method in each.others})
    heads = ["fault", "detected", "after", "explained after", "first guess", "top 3", "kind", *methods, "chance"]
    rows = [
        [
            each.name, f"{each.detected} of {each.planted}", _seconds(each.detected_s), _seconds(each.explained_s),
            f"{each.first:.2f}", f"{each.top3:.2f}", f"{each.kind:.2f}",
            *(f"{each.others.get(method, 0.0):.2f}" for method in methods), f"{each.chance:.2f}",
        ]
        for each in found
        if each.planted
    ]  # fmt: skip
    return heads, rows


def markdown(found: Sequence[Score]) -> str:
    heads, rows = table(found)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _first(each: Round, method: str) -> bool:
    return each.others.get(method, [""])[:1] == [each.module]


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return median(known) if known else None


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"
