"""Whether what comes now is distributed as what came then: numbers, words, and vectors.

The size of a change is the population stability index (PSI), the Kolmogorov-Smirnov distance or the maximum mean
discrepancy; whether there is one at all is asked of the chi-square and Kolmogorov distributions, and of permutations.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Any, Final

from seamline.models.watch.chance import chi_square_tail, kolmogorov_tail, skewed_tail

_SHARE_MIN: Final = 1e-4
"""An empty bin's share, lest the index be infinite."""
PERMUTATIONS: Final = 200


@dataclass(frozen=True, slots=True)
class Change:
    """``size`` of a change; ``p`` is how likely chance alone makes one as large."""

    size: float
    p: float


NONE: Final = Change(0.0, 1.0)


def population_stability(before: Sequence[int], now: Sequence[int]) -> Change:
    """PSI of counts in the same bins. Its chance is that of the chi-square test of homogeneity."""
    total_before, total_now = sum(before), sum(now)
    if not total_before or not total_now:
        return NONE
    index = statistic = 0.0
    ratio = sqrt(total_before / total_now)
    degrees = -1
    for was, is_ in zip(before, now, strict=True):
        if not was and not is_:
            continue
        expected, seen = max(was / total_before, _SHARE_MIN), max(is_ / total_now, _SHARE_MIN)
        index += (seen - expected) * log(seen / expected)
        statistic += (ratio * is_ - was / ratio) ** 2 / (was + is_)
        degrees += 1
    return Change(index, chi_square_tail(statistic, degrees))


def kolmogorov_smirnov(before: Sequence[float], now: Sequence[float]) -> Change:
    """The largest distance between the distribution functions of two samples, both sorted.

    With ties the chance is overstated, so that too little is noticed and not too much.
    """
    first, second = len(before), len(now)
    if not first or not second:
        return NONE
    distance = 0.0
    for value in {*before, *now}:
        below = bisect_right(before, value) / first - bisect_right(now, value) / second
        distance = max(distance, abs(below))
    return Change(distance, kolmogorov_tail(distance, first, second))


def quantile_bins(values: Sequence[float], bins: int = 10) -> list[float]:
    """The upper bounds of bins that hold about as many of ``values`` (sorted) each, without that of the last."""
    bounds: list[float] = []
    for number in range(1, bins):
        bound = values[min(len(values) * number // bins, len(values) - 1)]
        if (not bounds or bound > bounds[-1]) and bound < values[-1]:
            bounds.append(bound)
    return bounds


def bin_of(bounds: Sequence[float], value: float) -> int:
    return bisect_left(bounds, value)


def mean_discrepancy(before: Any, now: Any, *, seed: int = 0) -> Change:
    """The unbiased squared maximum mean discrepancy of two sets of vectors (A. Gretton et al., "A kernel two-sample
    test", JMLR 2012), with a Gaussian kernel as wide as the median distance.

    Its chance is that of a Pearson curve fitted to what permutations give, so that it may be smaller than one in their
    number. Takes and needs numpy.

    Args:
        before: an array of vectors, one a row.
        now: likewise.
        seed: of the permutations.
    """
    import numpy as np

    first, second = len(before), len(now)
    if first < 2 or second < 2:
        return NONE
    pooled: Any = np.vstack([before, now]).astype(np.float64)
    squares = (pooled * pooled).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * pooled @ pooled.T, 0.0)
    middle = float(np.median(distances[np.triu_indices(len(pooled), 1)]))
    kernel = np.exp(-distances / (middle or 1.0))
    np.fill_diagonal(kernel, 0.0)
    dice = np.random.default_rng(seed)
    chosen = np.zeros((PERMUTATIONS + 1, len(pooled)))
    chosen[0, :first] = 1.0
    for row in chosen[1:]:
        row[dice.permutation(len(pooled))[:first]] = 1.0
    inside = ((chosen @ kernel) * chosen).sum(axis=1)
    towards = (chosen @ kernel).sum(axis=1)
    across = towards - inside
    outside = kernel.sum() - inside - 2.0 * across
    found = inside / (first * (first - 1)) + outside / (second * (second - 1)) - 2.0 * across / (first * second)
    chance = found[1:]
    mean, variance = float(chance.mean()), float(chance.var())
    skewness = float(((chance - mean) ** 3).mean()) / variance**1.5 if variance > 0 else 0.0
    size = float(found[0])
    return Change(max(size, 0.0), skewed_tail(size, mean, variance, skewness))
