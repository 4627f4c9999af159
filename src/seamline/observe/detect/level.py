"""A level that should stay where it is: a latency, a lag, a memory.

Its usual height is the median of the medians of blocks of eight values, over the last 40 blocks (ten minutes and a bit
of windows of two seconds); its usual spread comes from the median absolute deviations (MAD) within the blocks and
between them. Against these stand three tests, all one-sided:

- step: three of the last five values are out of the usual, or two in a row far out; where it is less than twice the
  usual, six of eight, for releases and rushes make things slow for some seconds;
- drift: a Page-Hinkley sum (E. S. Page, "Continuous inspection schemes", 1954; D. V. Hinkley, 1971) of the clipped
  deviations, which needs no single value to be remarkable;
- creep: the same over blocks and against the mean of hours, for what is too slow for ten minutes.

None speaks of a change that is certain but of no account: ``Rule`` says what matters. Values that are out of the
usual are not learned, so that a fault does not become the usual; after half an hour the new height is accepted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, sqrt
from statistics import median
from typing import Final, Literal

BLOCK: Final = 8
BLOCKS: Final = 40
BLOCKS_READY: Final = 2
CREEP_READY: Final = 12
"""Blocks: three minutes and a bit."""
ACCEPTED_AFTER: Final = 900
"""Values: half an hour of windows of two seconds."""

_MAD_TO_SIGMA: Final = 1.4826
_SMALL_SAMPLE: Final = 1.15
"""The MAD of eight values is too small by so much on average."""
_CLIP: Final = 4.0
_SLACK: Final = 1.0
_SUM_MAX: Final = 14.0
_UNREMARKABLE: Final = 3.0
_CREEP_SLACK: Final = 1.0
_CREEP_MAX: Final = 10.0
_CREEP_MEMORY: Final = 1_200
"""Blocks, about five hours."""
_CALM: Final = 5
_SMOOTH: Final = 0.3
_LARGE: Final = 0.69

Found = Literal["", "step", "drift", "creep"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What matters of a level in natural logarithms. ``least`` is in the unit of the level itself."""

    step_ratio: float
    """A step is at least so much, as a logarithm."""
    drift_ratio: float
    least: float
    """And at least so much in the level's own unit."""
    spread_min: float = 0.05
    step_z: float = 4.0
    sudden_z: float = 10.0
    growing: bool = False
    """It must still be growing when it is noticed: a level that took one step and stays there is no matter."""


class Level:
    """One series of logarithms, watched for growth. Feed it with the value of each window that has one."""

    __slots__ = (
        "_block", "_calm", "_creep", "_creep_mean", "_creep_seen", "_flags", "_mads", "_medians", "_noise",
        "_over", "_smooth", "_spread2", "_step_ns", "_sum", "alarmed", "before", "rise_ns", "rule", "score", "usual",
    )  # fmt: skip

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.usual: float | None = None
        """None until enough was seen."""
        self.alarmed = False
        self.before = 0.0
        """What was usual when it was noticed."""
        self.score = 0.0
        self.rise_ns = 0
        """When it began to be higher."""
        self._block: list[float] = []
        self._medians: deque[float] = deque(maxlen=BLOCKS)
        self._mads: deque[float] = deque(maxlen=BLOCKS)
        self._noise = 0.0
        self._spread2 = 0.0
        self._flags = 0
        self._step_ns = 0
        self._sum = 0.0
        self._smooth = 0.0
        self._creep = 0.0
        self._creep_mean = 0.0
        self._creep_seen = 0
        self._calm = 0
        self._over = 0

    def feed(self, value: float, variance: float, at_ns: int, *, learn: bool = True) -> Found:
        """What is noticed with this value, once. ``variance`` is what the value owes to a small sample."""
        usual = self.usual
        if usual is None:
            return self._learn(value, variance, learn=learn)
        rule = self.rule
        above = value - usual
        z = above / sqrt(self._spread2 + variance)
        over = z > rule.step_z and above > rule.step_ratio and exp(value) - exp(usual) > rule.least
        if over and not self._flags & 31:
            self._step_ns = at_ns
        self._flags = (self._flags << 1 | over) & 255
        if self.alarmed:
            self._heal(z, value, variance, over=over)
            return ""
        smooth = self._smooth
        if self._sum < _UNREMARKABLE or not self._grows(value, smooth):
            self.rise_ns = at_ns
        self._smooth = smooth + _SMOOTH * (value - smooth)
        self._sum = min(max(self._sum + min(max(z, -_CLIP), _CLIP) - _SLACK, 0.0), _SUM_MAX + _CLIP)
        if over:
            if self._is_step(z, above) and self._grows(value, smooth):
                # The sum may still remember what was before.
                self.rise_ns = max(self.rise_ns, self._step_ns)
                return self._alarm("step", usual, z)
            return ""
        if self._sum > _SUM_MAX:
            higher = self._smooth - usual
            matters = higher > rule.drift_ratio and exp(self._smooth) - exp(usual) > rule.least
            if matters and self._grows(value, smooth):
                return self._alarm("drift", usual, higher / sqrt(self._spread2))
        return self._learn(value, variance, learn=learn)

    def _is_step(self, z: float, above: float) -> bool:
        if z > self.rule.sudden_z and self._flags & 3 == 3:
            return True
        if above > _LARGE:
            return (self._flags & 31).bit_count() >= 3
        return self._flags.bit_count() >= 6

    def forget(self) -> None:
        """Begin anew: what is watched is not the same any more."""
        self.__init__(self.rule)

    def _grows(self, value: float, smooth: float) -> bool:
        return not self.rule.growing or value - smooth > 0.1 * (value - (self.usual or 0.0)) > 0

    def _alarm(self, found: Found, before: float, score: float) -> Found:
        self.alarmed, self.before, self.score = True, before, score
        self._calm = self._over = 0
        return found

    def _heal(self, z: float, value: float, variance: float, *, over: bool) -> None:
        self.score = max(self.score, z)
        rule, before = self.rule, self.before
        higher = value - before
        still = over or (higher > 0.7 * rule.drift_ratio and exp(value) - exp(before) > 0.7 * rule.least and z > 2.0)
        self._calm = 0 if still else self._calm + 1
        self._over += 1
        if self._calm >= _CALM:
            self.alarmed = False
            self._sum = self._creep = 0.0
            self._smooth = value
            self._creep_mean, self._creep_seen = before, max(self._creep_seen, CREEP_READY)
        elif self._over >= ACCEPTED_AFTER:
            self.forget()
            self._learn(value, variance, learn=True)

    def _learn(self, value: float, variance: float, *, learn: bool) -> Found:
        if not learn:
            return ""
        block = self._block
        block.append(value)
        self._noise += 0.1 * (variance - self._noise)
        if len(block) < BLOCK:
            return ""
        block.sort()
        middle = (block[3] + block[4]) / 2
        away = sorted(abs(each - middle) for each in block)
        block.clear()
        self._medians.append(middle)
        self._mads.append((away[3] + away[4]) / 2)
        count = len(self._medians)
        if count < BLOCKS_READY:
            return ""
        usual = median(self._medians)
        within = _MAD_TO_SIGMA * _SMALL_SAMPLE * median(self._mads)
        between = _MAD_TO_SIGMA * median([abs(each - usual) for each in self._medians])
        spread2 = max(within * within - self._noise, 0.0) + between * between
        if self.usual is None:
            self._smooth = usual
        self.usual = usual
        self._spread2 = spread2 * (1.0 + 4.0 / count) + self.rule.spread_min**2
        return self._creeps(middle, between)

    def _creeps(self, middle: float, between: float) -> Found:
        self._creep_seen += 1
        seen, usual = self._creep_seen, self._creep_mean
        if seen > CREEP_READY:
            spread = max(between, self.rule.spread_min)
            self._creep = max(self._creep + min((middle - usual) / spread, _CLIP) - _CREEP_SLACK, 0.0)
            matters = middle - usual > self.rule.drift_ratio and exp(middle) - exp(usual) > self.rule.least
            if self._creep > _CREEP_MAX and matters:
                self._creep = 0.0
                return self._alarm("creep", usual, (middle - usual) / spread)
        self._creep_mean += (middle - usual) / min(seen, _CREEP_MEMORY)
        return ""
