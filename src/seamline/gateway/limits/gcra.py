"""The generic cell rate algorithm, and what it remembers.

GCRA as in ITU-T I.371 (virtual scheduling): for each name one number, the theoretical arrival time of its next
request. A request conforms if it comes no earlier than the tolerance before that time. A bucket that drips exactly,
without timers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

KEYS_MAX = 50_000
_SAMPLES = 512
_GRAIN_S = 1e-6  # a request that comes at its time to the microsecond has not come too early


class Arrivals:
    """Theoretical arrival times by name, at most ``keys_max``.

    A time that has passed says nothing, so forgetting it loses nothing. When there are too many others, those go that
    would pass first: whoever asked most is forgotten last.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._times: dict[str, float] = {}
        self._keys_max = keys_max

    def __len__(self) -> int:
        return len(self._times)

    def ahead_s(self, name: str, now: float) -> float:
        """How far its next arrival lies in the future."""
        ahead = self._times.get(name, 0.0) - now
        return ahead if ahead > 0 else 0.0

    def put(self, name: str, time: float, now: float) -> None:
        self._times[name] = time
        if len(self._times) > self._keys_max:
            self._forget(now)

    def spend(self, costs_s: Mapping[str, float], now: float) -> dict[str, float]:
        """Move each on by its cost; how far ahead it is then. What gateways tell who adds up for all of them."""
        ahead = {name: self.ahead_s(name, now) + cost for name, cost in costs_s.items()}
        for name, each in ahead.items():
            self.put(name, now + each, now)
        return ahead

    def _forget(self, now: float) -> None:
        times = self._times
        step = max(1, len(times) // _SAMPLES)
        sample = sorted(islice(times.values(), 0, None, step))
        passed = max(now, sample[len(sample) // 8])
        self._times = {name: time for name, time in times.items() if time > passed}


class Meter:
    """``requests`` in each ``period_s``, ``burst`` of them at once, for each name."""

    __slots__ = ("arrivals", "burst", "interval_s", "tolerance_s")

    def __init__(self, requests: int, period_s: float, burst: int = 0, keys_max: int = KEYS_MAX) -> None:
        self.burst = burst or requests
        self.interval_s = period_s / requests
        self.tolerance_s = self.interval_s * (self.burst - 1)
        self.arrivals = Arrivals(keys_max)

    def left_s(self, name: str, now: float) -> float:
        """Below zero: the request does not conform, and would that much later. Else what is left of the tolerance."""
        left = self.tolerance_s - self.arrivals.ahead_s(name, now)
        return left if left < -_GRAIN_S or left > 0 else 0.0

    def spend(self, name: str, now: float) -> None:
        """Count a request that conforms."""
        arrivals = self.arrivals
        arrivals.put(name, now + arrivals.ahead_s(name, now) + self.interval_s, now)
