"""A lack of visitors is told from a quiet hour, where enough weeks are known, and only there."""

from __future__ import annotations

import random

from tests.observe.trials import flow

from seamline.observe.detect.board import Board
from seamline.observe.detect.detector import Detector
from seamline.observe.detect.seasons import Season, Visitors
from seamline.observe.windows import Window

HOUR_NS = 3_600_000_000_000
MONDAY_NS = 1_790_000_000_000_000_000 // (168 * HOUR_NS) * 168 * HOUR_NS


def weeks(number: int, *, day: float = 36_000.0, night: float = 360.0) -> list[tuple[int, float]]:
    """Ten visitors a second by day, one in ten seconds by night."""
    rng = random.Random(number)
    return [
        (MONDAY_NS + hour * HOUR_NS, (day if 8 <= hour % 24 < 20 else night) * rng.uniform(0.8, 1.2))
        for hour in range(number * 168)
    ]


def visits(visitors: Visitors, hour: int, count: int, windows: int) -> None:
    for number in range(windows):
        at_ns = MONDAY_NS + (4 * 168 + hour) * HOUR_NS + number * 2_000_000_000
        edges = {("gateway", "frontend", "GET /", "http"): flow(count)} if count else {}
        visitors.feed(Window(at_ns, 2_000_000_000, edges))


def test_hours_of_the_week_are_used_only_if_they_explain_more():
    """Not after one week, not for a shop that never sleeps, not from nothing."""
    assert Season().learn(weeks(3))
    assert not Season().learn(weeks(1))
    assert not Season().learn(weeks(4, night=36_000.0))
    assert not Season().learn([])


def test_a_lack_by_day_is_noticed_and_the_same_by_night_is_not():
    """And it ends when they come again."""
    board = Board()
    visitors = Visitors(board)
    visitors.season.learn(weeks(4))
    visits(visitors, 3, 0, 300)
    assert not board.active
    visits(visitors, 10, 20, 200)
    assert not board.active
    visits(visitors, 11, 1, 200)
    assert board.active["visitors"].before > 8
    assert board.active["visitors"].after < 3.1
    visits(visitors, 12, 20, 200)
    assert not board.active


def test_without_a_past_nothing_is_expected():
    """A detector that has learned no season says nothing of a door that nobody comes through."""
    detector = Detector()
    for number in range(400):
        assert not detector.feed(Window(MONDAY_NS + number * 2_000_000_000, 2_000_000_000))
