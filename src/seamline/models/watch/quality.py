"""How good answers were, once it is known what was right: ranking, calibration, precision and recall."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

_BINS = 10


@dataclass(frozen=True, slots=True)
class Quality:
    """Of so many cases, ``positives`` of which were what the model looks for. None where nothing can be said."""

    cases: int
    positives: int
    auc: float | None
    """The chance that a positive case had a higher score than a negative one."""
    auc_error: float
    """Standard error, after J. Hanley and B. McNeil, "The meaning and use of the area under a ROC curve" (1982)."""
    calibration: float
    """Expected calibration error: how far scores, as probabilities, are from what came true."""
    brier: float
    precision: float | None
    """Of those at or above the threshold, how many were positive."""
    recall: float | None
    """Of the positive ones, how many were at or above the threshold."""


def quality(cases: Sequence[tuple[float, bool]], threshold: float = 0.5) -> Quality:
    """Of scores between 0 and 1, and whether each came true."""
    good = sorted(score for score, came in cases if came)
    bad = sorted(score for score, came in cases if not came)
    auc, error = _auc(good, bad)
    found = sum(score >= threshold for score in good)
    flagged = found + sum(score >= threshold for score in bad)
    return Quality(
        cases=len(cases),
        positives=len(good),
        auc=auc,
        auc_error=error,
        calibration=_calibration(cases),
        brier=sum((score - came) ** 2 for score, came in cases) / len(cases) if cases else 0.0,
        precision=found / flagged if flagged else None,
        recall=found / len(good) if good else None,
    )


def _auc(good: Sequence[float], bad: Sequence[float]) -> tuple[float | None, float]:
    if not good or not bad:
        return None, 0.0
    wins = sum(bisect_left(bad, score) + bisect_right(bad, score) for score in good) / 2
    auc = wins / (len(good) * len(bad))
    above, below = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (len(good) - 1) * (above - auc**2) + (len(bad) - 1) * (below - auc**2)
    return auc, sqrt(max(variance, 0.0) / (len(good) * len(bad)))


def _calibration(cases: Sequence[tuple[float, bool]]) -> float:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for score, came in cases:
        bins[min(max(int(score * _BINS), 0), _BINS - 1)].append((score, came))
    away = (abs(sum(score for score, _ in each) - sum(came for _, came in each)) for each in bins if each)
    return sum(away) / len(cases) if cases else 0.0
