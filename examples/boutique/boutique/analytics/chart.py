"""Numbers to the shapes of an inline SVG. Colours and words are the template's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 720, 200
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    lower: float
    """Height of the part that stands on the ground."""
    upper: float
    """Height of the part on top of it, or behind it."""
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    bars: tuple[Bar, ...]
    lines: tuple[tuple[float, int], ...]
    """Height above the ground, and the number there."""
    hours: tuple[tuple[float, str], ...]
    """Where along the ground, and the time there."""


def columns(rows: Sequence[tuple[datetime, int, int]]) -> Chart:
    """Two numbers for each time, one in front of the other: (time, behind, in front)."""
    top = _top(max((max(behind, front) for _, behind, front in rows), default=0))
    return _chart(rows, top, [(front, behind) for _, behind, front in rows], ("visitors", "orders"))


def bars(rows: Sequence[tuple[datetime, int, int]]) -> Chart:
    """Two numbers for each time, one on top of the other: (time, lower, upper)."""
    top = _top(max((lower + upper for _, lower, upper in rows), default=0))
    return _chart(rows, top, [(lower, upper) for _, lower, upper in rows], ("ordered", "abandoned"))


def _chart(
    rows: Sequence[tuple[datetime, int, int]], top: int, parts: Sequence[tuple[int, int]], words: tuple[str, str]
) -> Chart:
    pace = WIDTH / max(len(rows), 1)
    scale = HEIGHT / top
    made = tuple(
        Bar(
            round(index * pace + pace * 0.14, 2),
            round(pace * 0.72, 2),
            round(lower * scale, 2),
            round(upper * scale, 2),
            f"{at:%H:%M} UTC: {first} {words[0]}, {second} {words[1]}",
        )
        for index, ((at, first, second), (lower, upper)) in enumerate(zip(rows, parts, strict=True))
    )
    every = max(len(rows) // 6, 1)
    hours = tuple((round(i * pace + pace / 2, 2), f"{rows[i][0]:%H:%M}") for i in range(0, len(rows), every))
    half = top // 2
    lines = ((HEIGHT, top), (HEIGHT / 2, half)) if top % 2 == 0 else ((HEIGHT, top),)
    return Chart(made, tuple((float(height), value) for height, value in lines), hours)


def _top(most: int) -> int:
    """The round number at or above the largest."""
    return next((step for step in _STEPS if step >= most), most)
