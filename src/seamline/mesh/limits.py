"""Limits that keep one slow or failing part from taking the rest with it.

Sources: adaptive concurrency after the gradient idea of Netflix' concurrency-limits, retry budget after Finagle,
circuit breaker after Nygard, outlier ejection after Envoy.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from time import monotonic

PRIORITIES = {"critical": 2, "normal": 1, "sheddable": 0}
_SHARE = (0.7, 0.9, 1.0)
"""How much of the limit each priority may fill: sheddable work goes first."""


class ConcurrencyLimit:
    """How many calls may be under way at once, learned from their latency.

    The limit grows by a square root of itself while calls take about as long as they do at their best, and shrinks
    in proportion when they take longer: what queues is refused instead. A fixed limit does not move.

    What "at their best" means is measured anew now and then, with a quarter of the limit for a while (after the
    minimum round-trip windows of Envoy's adaptive concurrency): a baseline that only drifted upwards would follow a
    lasting overload, and one that never moved would throttle a service that has become slower for good.

    Args:
        fixed: the limit, or 0 to learn it.
        first: where learning starts.
    """

    __slots__ = ("_best", "_fixed", "_high", "_in_window", "_kept", "_skip", "_sum", "_windows", "inflight", "limit")

    WINDOW_MIN = 64
    FLOOR, CEILING = 16, 10_000
    TOLERANCE = 2.0
    PROBE_SHARE, PROBE_FLOOR = 0.25, 4
    PROBE_AFTER = 32
    """Windows in which the limit was felt, between two measurements of the best latency."""

    def __init__(self, fixed: int = 0, first: int = 256) -> None:
        self._fixed = fixed
        self.limit: float = fixed or first
        self.inflight = 0
        self._best = math.inf
        self._sum = 0.0
        self._in_window = 0
        self._high = 0
        self._skip = 0
        self._windows = self.PROBE_AFTER
        self._kept = 0.0

    def admit(self, priority: int) -> bool:
        """Take a place, unless the share that the priority may fill is full."""
        inflight = self.inflight
        if inflight >= self.limit * _SHARE[priority]:
            return False
        self.inflight = inflight = inflight + 1
        self._high = max(self._high, inflight)
        return True

    def release(self, seconds: float | None) -> None:
        """Give the place back; ``seconds`` is how long the call took, None when that tells nothing."""
        self.inflight -= 1
        if self._fixed or seconds is None:
            return
        if self._skip:
            self._skip -= 1
            return
        self._sum += seconds
        self._in_window += 1
        if self._in_window >= self.WINDOW_MIN and self._in_window >= self.limit:
            average = self._sum / self._in_window
            high, self._sum, self._in_window, self._high = self._high, 0.0, 0, self.inflight
            self._learn(max(average, 1e-4), felt=high >= self.limit / 2)

    def _learn(self, average: float, *, felt: bool) -> None:
        if self._kept:
            self._best = average
            self.limit, self._kept, self._windows = self._kept, 0.0, 0
            self._skip = int(self.limit)  # the calls with which it fills again
            return
        if not felt:
            # The limit holds nothing back: this is how long the service takes.
            self._best = min(average, self._best * 1.05)
            self._windows = 0
            return
        self._windows += 1
        if self._windows > self.PROBE_AFTER:
            self._kept, self._skip = self.limit, self.inflight
            self.limit = max(self.PROBE_FLOOR, self.limit * self.PROBE_SHARE)
            return
        gradient = max(0.5, min(1.0, self.TOLERANCE * self._best / average))
        target = self.limit * gradient + (math.sqrt(self.limit) if gradient == 1.0 else 0.0)
        self.limit = max(self.FLOOR, min(self.CEILING, self.limit * 0.8 + target * 0.2))


class Patience:
    """Waits for a callee that nobody can reach, as while its process is replaced, up to a bound.

    Args:
        seconds: the longest wait for one call.
        deadline: the call's own, on ``time.monotonic``.
    """

    __slots__ = ("_end", "_first")

    def __init__(self, seconds: float, deadline: float) -> None:
        self._end = min(monotonic() + seconds, deadline)
        self._first = True

    async def pause(self, error: Exception) -> None:
        """Wait a little; raises ``error`` when there is no time left. The first try of another replica is at once."""
        pause = 0.0 if self._first else random.uniform(0.02, 0.06)
        if monotonic() + pause >= self._end:
            raise error
        self._first = False
        await asyncio.sleep(pause)


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

    __slots__ = (
        "_calls", "_calls_min", "_epoch", "_error_ratio", "_errors", "_open_s", "_probing", "_slice_s", "_slices",
        "opened_at",
    )  # fmt: skip

    SLICES = 10
    """The window moves in steps of a tenth of itself, so that it costs the same under any load."""

    def __init__(self, error_ratio: float, calls_min: int, window_s: float, open_s: float) -> None:
        self._error_ratio = error_ratio
        self._calls_min = max(calls_min, 1)
        self._slice_s = max(window_s / self.SLICES, 1e-9)
        self._open_s = open_s
        self._slices: deque[list[int]] = deque()  # [number of the slice, calls, errors]
        self._calls = 0
        self._errors = 0
        self._epoch = 0
        self._probing = False
        self.opened_at: float | None = None

    def admit(self, now: float) -> int | None:
        """A ticket with which to tell how the call went, or None when it may not be tried now."""
        if self.opened_at is None:
            return self._epoch
        if self._probing or now - self.opened_at < self._open_s:
            return None
        self._probing = True
        self._epoch += 1
        return self._epoch

    def record(self, ticket: int, now: float, ok: bool) -> None:
        """Tell how a call went. Calls from before the breaker last changed its mind say nothing of now."""
        if ticket != self._epoch:
            return
        if self.opened_at is not None:
            self._probing = False
            if ok:
                self.opened_at = None
                self._clear()
            else:
                self.opened_at = now
            self._epoch += 1
            return
        number = int(now / self._slice_s)
        slices = self._slices
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
            while slices[0][0] <= number - self.SLICES:
                _, calls, errors = slices.popleft()
                self._calls -= calls
                self._errors -= errors
        last = slices[-1]
        last[1] += 1
        self._calls += 1
        if ok:
            return
        last[2] += 1
        self._errors += 1
        if self._calls >= self._calls_min and self._errors >= self._error_ratio * self._calls:
            self.opened_at = now
            self._epoch += 1
            self._clear()

    def forget(self, ticket: int) -> None:
        """A call that was admitted came to nothing, neither good nor bad."""
        if ticket == self._epoch:
            self._probing = False

    def _clear(self) -> None:
        self._slices.clear()
        self._calls = self._errors = 0
