"""What a batch of a given size takes, learned as it runs.

A line through the runs, ``fixed + each * size``, by least squares in which an older run counts less.
"""

from __future__ import annotations

from typing import Final

_KEEP: Final = 0.95
"""What a run still counts when the next has come: half after 14."""


class Cost:
    """Feed it with runs; ask it how long one will take."""

    def __init__(self) -> None:
        self._runs = self._sizes = self._squares = self._times = self._products = 0.0

    def learn(self, size: int, seconds: float) -> None:
        self._runs = self._runs * _KEEP + 1
        self._sizes = self._sizes * _KEEP + size
        self._squares = self._squares * _KEEP + size * size
        self._times = self._times * _KEEP + seconds
        self._products = self._products * _KEEP + size * seconds

    def of(self, size: int) -> float:
        """Seconds that a batch of ``size`` is expected to take; 0 while nothing is known."""
        if not self._runs:
            return 0.0
        mean_size, mean_s = self._sizes / self._runs, self._times / self._runs
        spread = self._squares / self._runs - mean_size * mean_size
        if spread < 1e-9:  # always of one size: a larger one takes as much more, a smaller one no less
            return mean_s * max(size / mean_size, 1.0)
        each = max((self._products / self._runs - mean_size * mean_s) / spread, 0.0)
        fixed = mean_s - each * mean_size
        if fixed < 0:
            return mean_s * size / mean_size
        return fixed + each * size
