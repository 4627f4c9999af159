"""Named series of a module or workload: a level that should not rise, a count that should stay zero."""

from __future__ import annotations

from math import asinh, exp, isfinite, log, sinh
from typing import Final

from seamline.observe.detect.board import Board
from seamline.observe.detect.counts import Rare
from seamline.observe.detect.level import Level, Rule
from seamline.observe.incidents import Symptom, What
from seamline.observe.windows import Window

EVENT_LAG: Final = Rule(step_ratio=log(3), drift_ratio=log(2), least=50.0, spread_min=0.3)
LOOP_LAG: Final = Rule(step_ratio=log(3), drift_ratio=log(2), least=40.0, spread_min=0.3, sudden_z=1e9)
BLOCKED: Final = Rule(step_ratio=log(3), drift_ratio=log(2), least=150.0, spread_min=0.5, sudden_z=1e9)
CPU: Final = Rule(step_ratio=log(1.6), drift_ratio=log(1.4), least=0.2, spread_min=0.1)
"""In cores, and for as many calls as before: that more calls need more is no change."""
MEMORY: Final = Rule(
    step_ratio=log(1.3), drift_ratio=log(1.1), least=16e6, spread_min=0.008, sudden_z=1e9, growing=True
)
SCORE: Final = Rule(step_ratio=0.05, drift_ratio=0.03, least=0.0, spread_min=0.02)
"""Of what a model's answers are measured by, as a share of its size."""


class LevelSeries:
    """A level with a name. ``floor`` is added to it, so that a change from nothing to next to nothing is none."""

    __slots__ = ("_board", "_floor", "level", "module", "series", "unit", "what")

    def __init__(
        self, board: Board, series: str, rule: Rule, what: What, module: str, unit: str, *, floor: float = 0.0
    ) -> None:
        self._board = board
        self._floor = floor
        self.level = Level(rule)
        self.series = series
        self.what: What = what
        self.module = module
        self.unit = unit

    def feed(self, window: Window, value: float, *, learn: bool) -> None:
        if not isfinite(value) or value + self._floor <= 0:
            return
        level = self.level
        if level.feed(log(value + self._floor), 0.0, window.at_ns, learn=learn):
            self._begin(window, max(exp(level.before) - self._floor, 0.0), value, level)
        elif not level.alarmed:
            self._board.end(self.series)

    def _begin(self, window: Window, before: float, after: float, level: Level) -> None:
        score = round(level.score, 1)
        self._board.begin(
            Symptom(
                self.series, self.what, self.module, None, before, after, self.unit, score, level.rise_ns, window.end_ns
            )
        )

    def forget(self) -> None:
        self.level.forget()
        self._board.end(self.series)


class ScoreSeries(LevelSeries):
    """A measure that may be below zero and should move neither way; ``down`` watches for less."""

    __slots__ = ("_sign",)

    def __init__(self, board: Board, series: str, module: str, *, down: bool) -> None:
        super().__init__(board, series, SCORE, "drift", module, "")
        self._sign = -1.0 if down else 1.0

    def feed(self, window: Window, value: float, *, learn: bool) -> None:
        if not isfinite(value):
            return
        level = self.level
        if level.feed(asinh(value) * self._sign, 0.0, window.at_ns, learn=learn):
            self._begin(window, sinh(level.before * self._sign), value, level)
        elif not level.alarmed:
            self._board.end(self.series)


class RareSeries:
    """A count with a name."""

    __slots__ = ("_board", "module", "rare", "series", "unit", "what")

    def __init__(self, board: Board, series: str, what: What, module: str, unit: str) -> None:
        self._board = board
        self.rare = Rare()
        self.series = series
        self.what: What = what
        self.module = module
        self.unit = unit

    def feed(self, window: Window, count: float) -> None:
        rare = self.rare
        if rare.feed(count, window.at_ns):
            before, score, began_ns = round(rare.before, 4), round(rare.score, 1), rare.rise_ns
            self._board.begin(
                Symptom(
                    self.series, self.what, self.module, None, before, count, self.unit, score, began_ns, window.end_ns
                )
            )
        elif not rare.alarmed:
            self._board.end(self.series)
