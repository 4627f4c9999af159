"""How many visitors come at which hour of the week, where enough weeks are known to say so.

Only with it can a lack of visitors be told from a quiet hour. It is used if it explains more than the plain median
does: if what is left of the past after it is taken away is smaller by a third.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Final

from seamline.observe.detect.board import Board
from seamline.observe.incidents import Symptom
from seamline.observe.windows import Window

HOUR_S: Final = 3_600
WEEK_HOURS: Final = 168
WEEKS_MIN: Final = 2
EXPLAINS: Final = 0.67
"""What may be left, beside what the plain median leaves."""
LOOK_S: Final = 300.0
FEW: Final = 0.3
"""A lack is less than this share of what is usual at the hour."""
EXPECTED_MIN: Final = 200.0
"""Visitors that were to be expected in the time looked at; fewer say nothing."""


class Season:
    """Hours of the week. ``learn`` takes what was counted hour by hour."""

    def __init__(self) -> None:
        self._usual: dict[int, float] = {}

    def learn(self, hours: Iterable[tuple[int, float]]) -> bool:
        """Begin of each hour in nanoseconds, and its count. Whether the hour of the week explains more."""
        found = [(int(at_ns // 1_000_000_000 // HOUR_S) % WEEK_HOURS, count) for at_ns, count in hours]
        by_hour: dict[int, list[float]] = {}
        for hour, count in found:
            by_hour.setdefault(hour, []).append(count)
        self._usual = {}
        if len(by_hour) < WEEK_HOURS or min(map(len, by_hour.values())) < WEEKS_MIN:
            return False
        usual = {hour: median(counts) for hour, counts in by_hour.items()}
        plain = median([count for _, count in found])
        left = sum(abs(count - usual[hour]) for hour, count in found)
        if left >= EXPLAINS * sum(abs(count - plain) for _, count in found):
            return False
        self._usual = usual
        return True

    def expected(self, at_ns: int, length_s: float) -> float | None:
        """How many come in so many seconds at this hour; None where it is not known."""
        usual = self._usual.get(int(at_ns // 1_000_000_000 // HOUR_S) % WEEK_HOURS)
        return None if usual is None else usual / HOUR_S * length_s


class Visitors:
    """Watches the public door for a lack of visitors."""

    SERIES: Final = "visitors"

    def __init__(self, board: Board) -> None:
        self.season = Season()
        self._board = board
        self._counts: deque[tuple[float, int]] = deque()
        self._length_s = 0.0
        self._came = 0

    def feed(self, window: Window) -> None:
        length_s = window.length_ns / 1e9
        doors = {key[1]: 0 for key in window.edges if key[3] == "http"}
        came = sum(flow.calls for key, flow in window.edges.items() if key[3] == "http")
        self._counts.append((length_s, came))
        self._length_s += length_s
        self._came += came
        while self._length_s > LOOK_S:
            gone_s, gone = self._counts.popleft()
            self._length_s -= gone_s
            self._came -= gone
        expected = self.season.expected(window.at_ns, self._length_s)
        if expected is None or window.unknown or self._length_s < LOOK_S / 2:
            return
        if expected >= EXPECTED_MIN and self._came < FEW * expected:
            if self.SERIES not in self._board.active:
                self._begin(window, next(iter(doors), ""), expected)
        elif self._came > 2 * FEW * expected:
            self._board.end(self.SERIES)

    def _begin(self, window: Window, module: str, expected: float) -> None:
        before, after = expected / self._length_s, self._came / self._length_s
        began_ns = window.end_ns - int(self._length_s * 1e9)
        score = round(expected / max(self._came, 1), 1)
        self._board.begin(
            Symptom(self.SERIES, "rate", module, None, before, after, "calls/s", score, began_ns, window.end_ns)
        )
