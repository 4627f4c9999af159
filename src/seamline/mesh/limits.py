"""Limits that keep one slow or failing part from taking the rest with it.

Sources: adaptive concurrency after the gradient idea of Netflix' concurrency-limits, retry budget after Finagle,
circuit breaker after Nygard, outlier ejection after Envoy.
"""

from __future__ import annotations

import math
from collections import deque

PRIORITIES = {"critical": 2, "normal": 1, "sheddable": 0}
_SHARE = (0.7, 0.9, 1.0)
"""How much of the limit each priority may fill: sheddable work goes first."""


class ConcurrencyLimit:
    """How many calls may be under way at once, learned from their latency.

    The limit grows by a square root of itself while calls take as long as they do at their best, and shrinks in
    proportion when they take longer: what queues is refused instead. A fixed limit does not move.

    Args:
        fixed: the limit, or 0 to learn it.
        first: where learning starts.
    """

    __slots__ = ("_best", "_fixed", "_high", "_in_window", "_sum", "inflight", "limit")

    WINDOW = 64
    FLOOR, CEILING = 16, 10_000
    TOLERANCE = 2.0

    def __init__(self, fixed: int = 0, first: int = 256) -> None:
        self._fixed = fixed
        self.limit: float = fixed or first
        self.inflight = 0
        self._best = math.inf
        self._sum = 0.0
        self._in_window = 0
        self._high = 0

    def admit(self, priority: int) -> bool:
        """Take a place, unless the share that the priority may fill is full."""
        if self.inflight >= self.limit * (_SHARE[priority] if 0 <= priority <= 2 else 1.0):
            return False
        self.inflight += 1
        self._high = max(self._high, self.inflight)
        return True

    def release(self, seconds: float) -> None:
        """Give the place back; ``seconds`` is how long the call took."""
        self.inflight -= 1
        if self._fixed:
            return
        self._sum += seconds
        self._in_window += 1
        if self._in_window == self.WINDOW:
            self._learn(self._sum / self.WINDOW)
            self._sum, self._in_window, self._high = 0.0, 0, self.inflight

    def _learn(self, average: float) -> None:
        # The best latency is forgotten slowly, so that a service that has become slower for good is not throttled.
        self._best = min(average, self._best * 1.01) if self._best < math.inf else average
        if self._high < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, self.TOLERANCE * max(self._best, 1e-4) / max(average, 1e-4)))
        target = self.limit * gradient + (math.sqrt(self.limit) if gradient == 1.0 else 0.0)
        self.limit = max(self.FLOOR, min(self.CEILING, self.limit * 0.8 + target * 0.2))


class RetryBudget:
    """Retries may be at most a share of the calls, plus a few a second, so that they never double an outage.

    Args:
        ratio: retries per call.
        min_per_s: retries a second that are always allowed.
    """

    __slots__ = ("_last", "_min_per_s", "_ratio", "_tokens")

    CAP_S = 10.0

    def __init__(self, ratio: float, min_per_s: float, now: float = 0.0) -> None:
        self._ratio = ratio
        self._min_per_s = min_per_s
        self._tokens = min_per_s
        self._last = now

    def call(self) -> None:
        """A first attempt was made: it earns a share of a retry."""
        self._tokens = min(self._tokens + self._ratio, self._min_per_s * self.CAP_S + 100.0)

    def take(self, now: float) -> bool:
        """Whether one more retry may be made now."""
        earned = (now - self._last) * self._min_per_s
        self._last = now
        self._tokens = min(self._tokens + max(earned, 0.0), self._min_per_s * self.CAP_S + 100.0)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class CircuitBreaker:
    """Stops calling what fails: closed, open for a while, then one probe.

    Args:
        error_ratio: share of failed calls in the window that opens it.
        calls_min: calls in the window below which it never opens.
        window_s: length of the window in seconds.
        open_s: how long it stays open before a probe.
    """

    __slots__ = ("_calls_min", "_error_ratio", "_errors", "_open_s", "_probing", "_results", "_window_s", "opened_at")

    def __init__(self, error_ratio: float, calls_min: int, window_s: float, open_s: float) -> None:
        self._error_ratio = error_ratio
        self._calls_min = max(calls_min, 1)
        self._window_s = window_s
        self._open_s = open_s
        self._results: deque[tuple[float, bool]] = deque()
        self._errors = 0
        self.opened_at: float | None = None
        self._probing = False

    def admit(self, now: float) -> bool:
        """Whether a call may be tried now."""
        if self.opened_at is None:
            return True
        if now - self.opened_at < self._open_s or self._probing:
            return False
        self._probing = True
        return True

    def record(self, now: float, ok: bool) -> None:
        """Tell how a call went."""
        if self.opened_at is not None:
            self._probing = False
            if ok:
                self.opened_at = None
                self._results.clear()
                self._errors = 0
            else:
                self.opened_at = now
            return
        results = self._results
        results.append((now, ok))
        self._errors += not ok
        while results and results[0][0] < now - self._window_s:
            self._errors -= not results.popleft()[1]
        if len(results) >= self._calls_min and self._errors >= self._error_ratio * len(results):
            self.opened_at = now

    def forget(self) -> None:
        """A call that was admitted came to nothing, neither good nor bad."""
        self._probing = False
