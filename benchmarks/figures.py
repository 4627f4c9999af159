"""Medians, spread, percentiles, and the row that is reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    ``ratio`` above 1 means better than the peer, whichever way ``unit`` points.
    ``spread`` is (largest - smallest) / median over the rounds' ratios: 0.1 means that rounds agree within a tenth.
    """

    name: str
    unit: str
    value: float
    peer: str
    peer_value: float
    ratio: float
    rounds: int
    spread: float

    def to_json(self) -> dict[str, str | float | int]:
        return asdict(self)


def compare(name: str, unit: str, better: Better, ours: Sequence[float], peer: str, theirs: Sequence[float]) -> Row:
    """A row from the rounds of both sides; round *i* of ours was run next to round *i* of theirs."""
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{name}: {len(ours)} rounds of ours beside {len(theirs)} of {peer!r}")
    value, peer_value = median(ours), median(theirs)
    return Row(
        name=name,
        unit=unit,
        value=_rounded(value),
        peer=peer,
        peer_value=_rounded(peer_value),
        ratio=_rounded(_ratio(better, value, peer_value)),
        rounds=len(ours),
        spread=_rounded(spread([_ratio(better, a, b) for a, b in zip(ours, theirs, strict=True)])),
    )


def against_budget(name: str, unit: str, better: Better, ours: Sequence[float], budget: float) -> Row:
    """A row whose peer is the design's budget: ratio above 1 means within it."""
    return compare(name, unit, better, ours, f"budget {budget:g} {unit}", [budget] * len(ours))


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median; 0 for a single value."""
    middle = median(values)
    return (max(values) - min(values)) / abs(middle) if middle else 0.0


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of values that are already sorted; ``share`` in 0..1."""
    if not sorted_values:
        raise ValueError("no value was measured")
    rank = math.ceil(share * len(sorted_values) - 1e-9)
    return sorted_values[max(1, rank) - 1]


def _ratio(better: Better, value: float, peer_value: float) -> float:
    numerator, denominator = (value, peer_value) if better == "higher" else (peer_value, value)
    return numerator / denominator if denominator > 0 else float("nan")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
