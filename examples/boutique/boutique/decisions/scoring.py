"""Two models of one shape: a bias, and for each input a function of it. What each added is why.

One is a line for each input (logistic regression), the other steps (boosted trees of depth one). Both were trained by
``training/train.py`` and are a page of JSON each.
"""

from __future__ import annotations

from bisect import bisect_right
from math import exp, log1p
from pathlib import Path

import msgspec

from boutique.decisions import Inputs, Reason, Score

WEIGHTS = Path(__file__).parent / "weights"
NAMES = Inputs.__dataclass_fields__.keys()
_REASONS_MAX = 6


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """``slope`` times the logarithm of one more than the input, less ``middle``; or the value of the step it is on."""

    slope: float = 0.0
    middle: float = 0.0
    bounds: list[float] = []
    steps: list[float] = []

    def at(self, value: float) -> float:
        if self.steps:
            return self.steps[bisect_right(self.bounds, value)]
        return self.slope * (seen(value) - self.middle)


class Additive(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it is stored."""

    version: str
    bias: float
    curves: dict[str, Curve]

    def score(self, inputs: Inputs) -> Score:
        given = [(name, curve, float(getattr(inputs, name))) for name, curve in self.curves.items()]
        effects = [(name, value, curve.at(value)) for name, curve, value in given]
        odds = self.bias + sum(effect for _, _, effect in effects)
        effects.sort(key=lambda each: -abs(each[2]))
        reasons = tuple(Reason(*each) for each in effects[:_REASONS_MAX] if each[2])
        return Score(1.0 / (1.0 + exp(-max(min(odds, 40.0), -40.0))), reasons, self.version)


def seen(value: float) -> float:
    """An input as the logistic model sees it: money and counts by their magnitude."""
    return log1p(max(value, 0.0))


def versions() -> list[str]:
    return sorted(path.stem for path in WEIGHTS.glob("[!r]*.json"))


def load(version: str) -> Additive:
    """Raises FileNotFoundError."""
    return msgspec.json.decode((WEIGHTS / f"{version}.json").read_bytes(), type=Additive)
