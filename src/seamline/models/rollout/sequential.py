"""Tests that may be looked at after every call, and stopped whenever one likes.

Two of them:

- :class:`Evidence`, exact at any time, for outcomes between 0 and 1 (errors, slow answers, bad grades): an e-process.
  Each call is a bet on which of two versions answered it, as in R. Turner, A. Ly and P. Grünwald, "Generic E-variables
  for exact sequential k-sample tests that allow for optional stopping" (Journal of Statistical Planning and Inference
  230, 2024), for calls that are given to a version by lot. That is above 1/alpha, ever, in a share of alpha of all
  runs in which nothing is worse (Ville's inequality).
- :func:`compare_means`, for any numbers, by the mixture sequential probability ratio test of R. Johari, P. Koomen,
  L. Pekelis and D. Walsh, "Always Valid Inference" (Operations Research 70(3), 2022). Its variance is estimated, so it
  is right for many calls; with fewer than 50 a side it says nothing.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

_SIZES: Final = (0.7, 1.6, 3.0)
"""What is bet on, as logarithms of odds: odds of a bad answer that are twice, five and twenty times the champion's."""
_KNOWN: Final = 10
"""Calls of the champion before anything is bet."""
_START_EVERY: Final = 250
_STARTS: Final = 4
BURN_IN: Final = 50


class Evidence:
    """That a canary's outcomes are worse than the champion's.

    A canary may go bad late, so the bet is begun anew after every 250 of its calls; the j-th begins with a stake of
    1/(j(j+1)), and all stakes together are 1. Of the many, those that have most are kept: to drop one loses only power.
    """

    __slots__ = ("_begun", "canary_bad", "canary_calls", "champion_bad", "champion_calls", "stakes")

    def __init__(self) -> None:
        self.champion_calls = self.canary_calls = 0
        self.champion_bad = self.canary_bad = 0.0
        self._begun = 0
        self.stakes: list[list[float]] = []
        """Logarithm of what each has now, by what is bet on."""

    def champion(self, bad: float, share: float) -> None:
        """The champion gave an answer; ``share`` of the calls to either of the two goes to the canary."""
        if self.stakes and 0 < share < 1:
            usual = self._usual()
            for place, size in enumerate(_SIZES):
                mixed = usual + share * (_worse(usual, size) - usual)
                self._multiply(place, bad * usual / mixed + (1 - bad) * (1 - usual) / (1 - mixed))
        self.champion_calls += 1
        self.champion_bad += bad

    def canary(self, bad: float, share: float) -> None:
        """The canary did."""
        if self.champion_calls >= _KNOWN and self.canary_calls // _START_EVERY + 1 > self._begun:
            self._start()
        if self.stakes and 0 < share < 1:
            usual = self._usual()
            for place, size in enumerate(_SIZES):
                worse = _worse(usual, size)
                mixed = usual + share * (worse - usual)
                self._multiply(place, bad * worse / mixed + (1 - bad) * (1 - worse) / (1 - mixed))
        self.canary_calls += 1
        self.canary_bad += bad

    @property
    def log(self) -> float:
        """The logarithm of the evidence; that of independent processes may be added up."""
        if not self.stakes:
            return 0.0
        every = [each for stake in self.stakes for each in stake]
        top = max(every)
        return top + math.log(sum(math.exp(each - top) for each in every))

    def _usual(self) -> float:
        return (self.champion_bad + 0.5) / (self.champion_calls + 1)

    def _start(self) -> None:
        number = self._begun = self.canary_calls // _START_EVERY + 1
        stake = -math.log(number * (number + 1)) - math.log(len(_SIZES))
        self.stakes.append([stake] * len(_SIZES))
        if len(self.stakes) > _STARTS:
            self.stakes.remove(min(self.stakes[:-1], key=max))

    def _multiply(self, place: int, factor: float) -> None:
        step = math.log(factor)
        for stake in self.stakes:
            stake[place] += step


def _worse(usual: float, size: float) -> float:
    odds = usual / (1 - usual) * math.exp(size)
    return odds / (1 + odds)


class Moments(msgspec.Struct):
    """Numbers, as far as their mean and variance go; those of several processes can be put together."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared distances from the mean."""

    def add(self, value: float) -> None:
        """By Welford's recurrence (1962)."""
        self.count += 1
        away = value - self.mean
        self.mean += away / self.count
        self.squares += away * (value - self.mean)

    def merged(self, other: Moments) -> Moments:
        """T. Chan, G. Golub and R. LeVeque, 1979."""
        count = self.count + other.count
        if not count:
            return Moments()
        away = other.mean - self.mean
        mean = self.mean + away * other.count / count
        return Moments(count, mean, self.squares + other.squares + away * away * self.count * other.count / count)

    @property
    def variance(self) -> float:
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


class Difference(NamedTuple):
    """What is known of the difference of two means (second minus first), at any time."""

    difference: float
    low: float
    high: float
    p: float
    """Always valid: it may be looked at after every call."""


def compare_means(first: Moments, second: Moments, *, alpha: float = 0.05, effect: float = 0.0) -> Difference | None:
    """How two versions differ; None while too little is known.

    Args:
        effect: the difference that one hopes to find; a tenth of the standard deviation if zero. Another is found as
            well, with more calls.
    """
    if min(first.count, second.count) < BURN_IN:
        return None
    variance = first.variance / first.count + second.variance / second.count
    difference = second.mean - first.mean
    if variance <= 0:
        return Difference(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    spread = effect or math.sqrt((first.variance + second.variance) / 2) / 10
    prior = spread * spread
    log_ratio = 0.5 * math.log(variance / (variance + prior)) + (
        prior * difference * difference / (2 * variance * (variance + prior))
    )
    reach = 2 * variance * (variance + prior) / prior * (math.log(1 / alpha) + 0.5 * math.log1p(prior / variance))
    half = math.sqrt(reach)
    return Difference(difference, difference - half, difference + half, min(1.0, math.exp(-min(log_ratio, 700.0))))
