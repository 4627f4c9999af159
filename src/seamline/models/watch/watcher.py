"""One model, watched: what it is asked is compared with what it was made with, window by window.

A score is told as its reference until chance no longer explains the difference, and the difference matters; so a
quiet week is a flat line, and whoever watches lines needs to know nothing of samples.
"""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any, Final

from seamline.kernel.clock import Clock
from seamline.kernel.signal.gauges import GAUGES
from seamline.kernel.signal.measures import Measure
from seamline.models.watch.chance import normal_tail
from seamline.models.watch.drift import Change, kolmogorov_smirnov, mean_discrepancy, population_stability
from seamline.models.watch.reference import VECTORS, Numbers, Reference, Row, Words, number_of

_log = logging.getLogger("seamline.models")
TOLD: Final = "seamline.model."
"""What the names of scores begin with; detection watches them."""
CHANCE: Final = 1e-6
"""Of a window in which chance alone is told as a change. With windows of five minutes, one in some years."""
VECTORS_NAME: Final = "embeddings"
LEVELS: Final = (0.1, 0.25, 0.5, 1.0)
"""A drift is told in these steps, and a smaller one as none. Of embeddings it is the root of the discrepancy."""
_UNDECIDED: Final = 1.25
"""A level is left for another when the size is so far beyond it, lest one between two comes and goes."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One feature of one window. ``told`` is the level of the change if it is one, else 0."""

    size: float
    distance: float
    """Of Kolmogorov and Smirnov, for numbers."""
    p: float
    told: float


_NONE: Final = Compared(0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """A score as it was measured last, and as it is told."""

    value: float
    reference: float
    p: float
    told: float


class Watcher:
    """Watches one version of a model in this process.

    Args:
        module: whose model it is.
        model: the name of its contract, or any other.
        version: of the model.
        reference: what it was made with; None where there is none, and its first window is taken for it.
        clock: by which windows end.
        window_s: how long rows are gathered, at least.
        rows_min: so many rows make a window, however long that takes.
        rows_max: of a window with more, a sample is kept.
        share: of the rows, how many are looked at.
    """

    def __init__(
        self,
        module: str,
        model: str,
        version: str,
        reference: Reference | None,
        clock: Clock,
        *,
        window_s: float = 300.0,
        rows_min: int = 200,
        rows_max: int = 2_000,
        share: float = 1.0,
        seed: int | None = None,
    ) -> None:
        self.module = module
        self.model = model
        self.version = version
        self._reference = reference
        self._clock = clock
        self._window_s = window_s
        self._rows_min = rows_min
        self._rows_max = rows_max
        self._share = share
        self._dice = random.Random(seed)
        self._rows: list[Row] = []
        self._vectors: list[Sequence[float]] = []
        self._seen = 0
        self._seen_vectors = 0
        self._due = clock.monotonic() + window_s
        self._comparing: asyncio.Future[dict[str, Compared]] | None = None
        self._usual: dict[str, tuple[float, float]] = {}
        """References and their own standard errors."""
        self.windows = 0
        """How many were compared."""
        self.drift: dict[str, Compared] = {}
        """By feature, as the last window has it; none before the first row."""
        self.scores: dict[str, Measured] = {}
        GAUGES.add(self)
        _IN_PROCESS.add(self)

    def saw(self, row: Row, vector: Sequence[float] | None = None) -> None:
        """The model was asked this and said that. Costs a microsecond."""
        if self._share < 1.0 and self._dice.random() >= self._share:
            return
        self._seen += 1
        if not self.drift and self._reference is not None:
            self.drift = dict.fromkeys(self._reference.features, _NONE)
        _keep(self._rows, row, self._seen, self._rows_max, self._dice)
        if vector is not None:
            self._seen_vectors += 1
            _keep(self._vectors, vector, self._seen_vectors, VECTORS, self._dice)

    def measured(self, name: str, value: float, error: float, *, least: float = 0.03, least_share: float = 0.0) -> None:
        """Tell a score of another kind: how good answers are, how long they take.

        Args:
            error: the value's standard error.
            least: a change from the reference that is smaller does not matter.
            least_share: nor one that is a smaller part of the reference.
        """
        known = self._reference.quality.get(name) if self._reference is not None else None
        usual, doubt = self._usual.setdefault(name, (value, error) if known is None else (known, 0.0))
        away, error = abs(value - usual), hypot(error, doubt)
        p = normal_tail(away / error) if error > 0 else float(away == 0)
        changed = p < CHANCE and away >= max(least, least_share * abs(usual))
        self.scores[name] = Measured(value, usual, p, value if changed else usual)

    def compare(self) -> dict[str, Compared]:
        """End the window now, and say what it was like."""
        found = self._compare(*self._end())
        self._note(found)
        return found

    def take(self) -> list[Measure]:
        """See :class:`~seamline.kernel.signal.gauges.Gauge`. A window that is due is compared in a thread meanwhile."""
        if self._comparing is not None and self._comparing.done():
            comparing, self._comparing = self._comparing, None
            try:
                self._note(comparing.result())
            except Exception:  # one window that cannot be compared must not keep the process from telling its measures
                _log.exception("a window of %s %s could not be compared", self.model, self.version)
        if self._comparing is None and len(self._rows) >= self._rows_min and self._clock.monotonic() >= self._due:
            self._comparing = asyncio.get_running_loop().run_in_executor(None, self._compare, *self._end())
        told = {f"drift.{name}": found.told for name, found in self.drift.items()}
        told |= {name: found.told for name, found in self.scores.items()}
        prefix = f"{TOLD}{self.model}.{self.version}."
        about = {"seamline.model": self.model, "seamline.model.version": self.version}
        return [Measure(prefix + name, value, self.module, "gauge", "", about) for name, value in told.items()]

    def close(self) -> None:
        """Tell nothing any more."""
        GAUGES.drop(self)
        _IN_PROCESS.discard(self)

    def stats(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": len(self._rows),
            "windows": self.windows,
            "drift": {
                name: {"size": round(each.size, 4), "p": each.p, "told": round(each.told, 4)}
                for name, each in self.drift.items()
            },
            "scores": {
                name: {"value": round(each.value, 4), "reference": round(each.reference, 4), "p": each.p}
                for name, each in self.scores.items()
            },
        }

    def _note(self, found: dict[str, Compared]) -> None:
        self.windows += 1
        self.drift = found

    def _end(self) -> tuple[list[Row], list[Sequence[float]]]:
        rows, vectors = self._rows, self._vectors
        self._rows, self._vectors, self._seen, self._seen_vectors = [], [], 0, 0
        self._due = self._clock.monotonic() + self._window_s
        return rows, vectors

    def _compare(self, rows: Sequence[Row], vectors: Sequence[Sequence[float]]) -> dict[str, Compared]:
        reference = self._reference
        if reference is None:
            self._reference = Reference.of(rows, vectors=vectors or None)
            return {}
        chance = CHANCE / (len(reference.features) + 1)
        found = {
            name: _compared(feature, [row.get(name) for row in rows], chance, self.drift.get(name, _NONE).told)
            for name, feature in reference.features.items()
        }
        if reference.vectors is not None and len(vectors) > 1:
            change = mean_discrepancy(reference.vectors.array(), vectors)
            before = self.drift.get(VECTORS_NAME, _NONE).told
            told = level(sqrt(change.size), before) if change.p < chance else 0.0
            found[VECTORS_NAME] = Compared(change.size, 0.0, change.p, told)
        return found


_IN_PROCESS: Final[weakref.WeakSet[Watcher]] = weakref.WeakSet()


def watchers(model: str) -> list[Watcher]:
    """Those of a model in this process: of each version that is watched."""
    return [each for each in list(_IN_PROCESS) if each.model == model]


def _keep(kept: list[Any], new: Any, number: int, most: int, dice: random.Random) -> None:
    """Vitter's reservoir (algorithm R, 1985): each of all has the same chance to be kept."""
    if len(kept) < most:
        kept.append(new)
    elif (place := dice.randrange(number)) < most:
        kept[place] = new


def level(size: float, before: float = 0.0) -> float:
    """The level of a drift of this size, which was told as ``before``."""
    reached = max((each for each in LEVELS if each <= size), default=0.0)
    if before and before / _UNDECIDED <= size < _above(before) * _UNDECIDED:
        return before
    return reached


def _above(told: float) -> float:
    return next((each for each in LEVELS if each > told), float("inf"))


def _compared(feature: Numbers | Words, values: Sequence[Any], chance: float, before: float) -> Compared:
    index = population_stability(feature.counts, feature.count(values))
    distance = Change(0.0, 1.0)
    if isinstance(feature, Numbers):
        numbers = sorted(number for value in values if (number := number_of(value)) is not None)
        distance = kolmogorov_smirnov(feature.sample, numbers)
    p = min(index.p, distance.p)
    return Compared(index.size, distance.size, p, level(index.size, before) if p < chance / 2 else 0.0)
