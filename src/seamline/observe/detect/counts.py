"""Counts that are compared with what was to be expected: failures among calls, calls among visits, rare bad things.

Each is a one-sided sequential test: the logarithm of how much likelier a count is under a fault than as usual is added
up and never falls below zero (Page's CUSUM). It needs no fixed number of calls, and so works at one call a second as
at a thousand: three failures in a row say something, one in three calls does not.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Final

_KEEP: Final = 0.98
"""Of what was counted before, for every eight windows: it is forgotten by half in nine minutes."""
_BLOCK: Final = 8
_RECENT: Final = 0.9
_UNREMARKABLE: Final = 3.0
_CALM: Final = 5
_ACCEPTED_AFTER: Final = 900


class Failures:
    """The share of calls that fail, against the share that usually do."""

    __slots__ = (
        "_calls", "_errors", "_flags", "_fresh_calls", "_fresh_errors", "_fresh_windows", "_healing", "_over", "_quiet",
        "_recent_calls", "_recent_errors", "_sum", "_windows", "_worst", "alarmed", "before", "rise_ns", "score",
    )  # fmt: skip

    SUM_MAX: Final = 11.0
    USUAL_MIN: Final = 0.005
    """A share below this is not believed: too many calls would be needed to know it."""
    CALLS_READY: Final = 30

    def __init__(self) -> None:
        self.alarmed = False
        self.before = 0.0
        self.score = 0.0
        self.rise_ns = 0
        self._calls = self._errors = 0.0
        self._fresh_calls = self._fresh_errors = self._fresh_windows = 0
        self._recent_calls = self._recent_errors = 0.0
        self._windows = 0
        self._worst = 0.0
        self._sum = 0.0
        self._flags = 0
        self._healing = 0.0
        self._quiet = self._over = 0

    @property
    def usual(self) -> float:
        return max((self._errors + 0.25) / (self._calls + 50), self.USUAL_MIN)

    @property
    def ready(self) -> bool:
        return self._calls >= self.CALLS_READY

    @property
    def after(self) -> float:
        """The share of late, half of it from the last seven windows."""
        return self._recent_errors / self._recent_calls if self._recent_calls else 0.0

    def feed(self, calls: int, errors: int, at_ns: int, *, learn: bool = True) -> bool:
        """Whether this is noticed now."""
        if not errors and not self._sum and not self.alarmed:
            self._flags = (self._flags << 1) & 31
            if learn:
                self._learn(calls, 0)
            return False
        if self.alarmed:
            self._heal(calls, errors)
            return False
        if not self._sum:
            self._recent_calls = self._recent_errors = 0.0
            self._windows = 0
        if self._sum < _UNREMARKABLE:
            self.rise_ns = at_ns
        usual = self.usual if self.ready else max(self.usual, 0.1)
        fault = max(0.1, 3 * usual) if self.ready else 0.7
        fault = min(fault, 0.5 + usual / 2)
        gain = errors * log(fault / usual) + (calls - errors) * log((1 - fault) / (1 - usual))
        self._sum = min(max(self._sum + gain, 0.0), 3 * self.SUM_MAX)
        self._recent_calls = self._recent_calls * _RECENT + calls
        self._recent_errors = self._recent_errors * _RECENT + errors
        self._windows += errors > 0
        expected = calls * usual
        z = (errors - expected) / sqrt(expected + 1.0)
        over = z > 5.0 and errors >= 4 and errors > 2 * expected and errors > 0.01 * calls
        self._flags = (self._flags << 1 | over) & 31
        many = self._sum > self.SUM_MAX and self._windows >= 2
        if (many and self.after > 2 * usual) or (self.ready and self._flags.bit_count() >= 3):
            self.alarmed, self.before = True, self._errors / self._calls if self._calls else 0.0
            self.score = max(z, self._sum / 2)
            self._healing, self._quiet, self._over, self._worst = 0.0, 0, 0, self.after
            self._fresh_calls = self._fresh_errors = self._fresh_windows = 0
            return True
        if learn:
            self._learn(calls, errors)
        return False

    def _heal(self, calls: int, errors: int) -> None:
        self._recent_calls = self._recent_calls * _RECENT + calls
        self._recent_errors = self._recent_errors * _RECENT + errors
        self._worst = max(self._worst, self.after)
        usual = max(self.usual, 0.01)
        share = min(max(self._worst / 2, 2 * usual, 0.05), 0.9)
        gain = (calls - errors) * log((1 - usual) / (1 - share)) - errors * log(share / usual)
        self._healing = max(self._healing + gain, 0.0)
        self._quiet = self._quiet + 1 if errors <= 2 * usual * calls else 0
        self._over += 1
        if self._healing > 5.0 and self._quiet >= _CALM:
            self._end()
        elif self._over > _ACCEPTED_AFTER:
            self._calls, self._errors = 10 * self._recent_calls, 10 * self._recent_errors
            self._end()

    def _end(self) -> None:
        self.alarmed = False
        self._sum = 0.0
        self._flags = 0

    def _learn(self, calls: int, errors: int) -> None:
        self._fresh_calls += calls
        self._fresh_errors += errors
        self._fresh_windows += 1
        if self._fresh_windows >= _BLOCK and self._sum < self.SUM_MAX / 2:  # else: wait how it ends
            self._calls = self._calls * _KEEP + self._fresh_calls
            self._errors = self._errors * _KEEP + self._fresh_errors
            self._fresh_calls = self._fresh_errors = self._fresh_windows = 0


class Share:
    """Calls on an edge for each call that its caller got: how often a callee is asked in one piece of work.

    That a module has less to do is no fault of it; that it does not ask another any more, or four times as often, may
    be. ``visits`` of 1 in each window watch the bare rate.
    """

    __slots__ = (
        "_calls", "_drop", "_fresh_calls", "_fresh_visits", "_fresh_windows", "_over", "_quiet", "_recent",
        "_recent_expected", "_surge", "_unrest", "_visits", "_windows", "alarmed", "before", "rise_ns", "score",
    )  # fmt: skip

    DROP_MAX: Final = 13.0
    SURGE_MAX: Final = 14.0
    VISITS_READY: Final = 25
    WINDOWS_READY: Final = 16
    """The first seconds of a process are not what is usual."""
    _CLIP: Final = 3.5

    def __init__(self) -> None:
        self.alarmed = ""
        """``drop``, ``surge`` or nothing."""
        self.before = 0.0
        """Calls that were to be expected in the window in which it was noticed."""
        self.score = 0.0
        self.rise_ns = 0
        self._calls = self._visits = 0.0
        self._fresh_calls = self._fresh_visits = self._fresh_windows = 0
        self._unrest = 2.0
        self._drop = self._surge = 0.0
        self._recent = self._recent_expected = 0.0
        self._quiet = self._over = self._windows = 0

    @property
    def ready(self) -> bool:
        return self._windows >= self.WINDOWS_READY and min(self._visits, self._calls) >= self.VISITS_READY

    def feed(self, calls: int, visits: int, at_ns: int, *, learn: bool = True) -> bool:
        """Whether this is noticed now."""
        if not self.ready:
            if learn:
                self._learn(calls, visits)
            return False
        expected = visits * self._calls / self._visits
        if expected <= 0.0:
            return False
        self._recent += 0.25 * (calls - self._recent)
        self._recent_expected += 0.25 * (expected - self._recent_expected)
        away = calls - expected
        if self.alarmed:
            self._heal()
            return False
        if max(self._drop, self._surge) < _UNREMARKABLE:
            self.rise_ns = at_ns
        unrest = self._unrest
        drop = (0.8 * expected - 1.61 * calls) / unrest
        surge = (1.386 * calls - 3.0 * expected) / unrest
        self._drop = max(self._drop + min(drop, self._CLIP), 0.0)
        self._surge = max(self._surge + min(surge, self._CLIP), 0.0)
        dropped = self._drop > self.DROP_MAX and self._recent < 0.4 * self._recent_expected
        surged = self._surge > self.SURGE_MAX and self._recent > 2.5 * self._recent_expected + 1.0
        if dropped or surged:
            self.alarmed, self.before = ("drop" if dropped else "surge"), expected
            self.score = abs(away) / sqrt(unrest * expected + 1.0)
            self._quiet = self._over = 0
            return True
        if learn:
            self._unrest += 0.02 * (min(max(away * away / (expected + 0.5), 0.2), 4 * unrest) - self._unrest)
            self._unrest = max(self._unrest, 1.0)
            if self._drop < self.DROP_MAX / 2 and self._surge < self.SURGE_MAX / 2:
                self._learn(calls, visits)
        return False

    def _heal(self) -> None:
        self._over += 1
        back = 0.6 * self._recent_expected <= self._recent <= 1.7 * self._recent_expected + 1.0
        self._quiet = self._quiet + 1 if back else 0
        if self._quiet >= _CALM or self._over > _ACCEPTED_AFTER:
            if self._over > _ACCEPTED_AFTER:
                self._calls = self._visits = 0.0
            self.alarmed = ""
            self._drop = self._surge = 0.0

    def _learn(self, calls: int, visits: int) -> None:
        if not self.ready:
            self._windows += 1
            self._calls += calls
            self._visits += visits
            self._recent, self._recent_expected = float(calls), float(calls)
            return
        self._fresh_calls += calls
        self._fresh_visits += visits
        self._fresh_windows += 1
        if self._fresh_windows >= _BLOCK:
            self._calls = self._calls * _KEEP + self._fresh_calls
            self._visits = self._visits * _KEEP + self._fresh_visits
            self._fresh_calls = self._fresh_visits = self._fresh_windows = 0


class Rare:
    """Things that should not happen at all, such as dead letters and crashes; some live with one now and then."""

    __slots__ = ("_quiet", "_rate", "_sum", "alarmed", "before", "rise_ns", "score")

    SUM_MAX: Final = 4.0
    QUIET: Final = 15

    def __init__(self) -> None:
        self.alarmed = False
        self.before = 0.0
        self.score = 0.0
        self.rise_ns = 0
        self._rate = 0.0
        self._sum = 0.0
        self._quiet = 0

    def feed(self, count: float, at_ns: int) -> bool:
        """Whether this is noticed now. One is, where there was none for long."""
        usual = max(self._rate, 0.002)
        fault = max(0.2, 5 * usual)
        if not self._sum:
            self.rise_ns = at_ns
        self._sum = min(max(self._sum + count * log(fault / usual) - (fault - usual), 0.0), 5 * self.SUM_MAX)
        if self.alarmed:
            self._quiet = 0 if count > 2 * usual + 0.5 else self._quiet + 1
            if self._quiet >= self.QUIET:
                self.alarmed, self._sum = False, 0.0
        elif self._sum > self.SUM_MAX:
            self.alarmed, self.before, self.score, self._quiet = True, self._rate, self._sum, 0
            return True
        self._rate += 0.002 * (count - self._rate)
        return False
