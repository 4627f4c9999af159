"""Tests that may be looked at after every call raise a false alarm as rarely as they say, and find what is there."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.models.rollout.sequential import Evidence, Moments, compare_means

ALPHA = 0.05
RUNS = 150


def alarmed(
    champion: Callable[[], float], canary: Callable[[], float], share: float, calls: int, dice: random.Random
) -> int:
    """After how many of the canary's calls the alarm is raised, when one looks after every call; 0 for never."""
    evidence = Evidence()
    for _ in range(calls):
        if dice.random() < share:
            evidence.canary(canary(), share)
        else:
            evidence.champion(champion(), share)
        if evidence.log >= math.log(1 / ALPHA):
            return evidence.canary_calls
    return 0


@pytest.mark.parametrize(("usual", "share"), [(0.01, 0.3), (0.1, 0.1), (0.5, 0.5), (0.9, 0.5)])
def test_a_good_canary_is_hardly_ever_blamed(usual: float, share: float):
    """Looked at after each of 1,000 calls: at most five of a hundred runs, and what chance adds to that."""
    dice = random.Random(7)

    def outcome() -> float:
        return float(dice.random() < usual)

    alarms = sum(alarmed(outcome, outcome, share, 1000, dice) > 0 for _ in range(RUNS))
    assert alarms <= RUNS * ALPHA + 3 * math.sqrt(RUNS * ALPHA)


def test_a_good_canary_with_grades_is_hardly_ever_blamed():
    """Outcomes between good and bad count as what they are."""
    dice = random.Random(8)

    def outcome() -> float:
        return dice.betavariate(2, 5)

    alarms = sum(alarmed(outcome, outcome, 0.3, 1000, dice) > 0 for _ in range(RUNS // 2))
    assert alarms <= RUNS / 2 * ALPHA + 3 * math.sqrt(RUNS / 2 * ALPHA)


@pytest.mark.parametrize(
    ("usual", "worse", "share", "calls"), [(0.01, 0.3, 0.1, 20), (0.05, 0.2, 0.1, 60), (0.2, 0.4, 0.5, 130)]
)
def test_a_bad_canary_is_found_soon(usual: float, worse: float, share: float, calls: int):
    """In at least 95 of a hundred runs, and within so many of its calls in most."""
    dice = random.Random(9)
    found = sorted(
        alarmed(lambda: float(dice.random() < usual), lambda: float(dice.random() < worse), share, 6000, dice)
        for _ in range(60)
    )
    assert sum(each > 0 for each in found) >= 57
    assert 0 < found[30] <= calls


def test_a_canary_that_goes_bad_late_is_found():
    """20,000 good calls do not buy it 20,000 bad ones."""
    dice = random.Random(10)
    evidence = Evidence()
    for _ in range(200_000):
        if dice.random() < 0.1:
            evidence.canary(float(dice.random() < 0.02), 0.1)
        else:
            evidence.champion(float(dice.random() < 0.02), 0.1)
    good = evidence.canary_calls
    while evidence.log < math.log(1 / ALPHA) and evidence.canary_calls < good + 1000:
        if dice.random() < 0.1:
            evidence.canary(float(dice.random() < 0.3), 0.1)
        else:
            evidence.champion(float(dice.random() < 0.02), 0.1)
    assert evidence.canary_calls - good < 400


def test_a_better_canary_is_never_blamed():
    """It is asked whether it is worse, and nothing else."""
    dice = random.Random(11)
    found = [
        alarmed(lambda: float(dice.random() < 0.3), lambda: float(dice.random() < 0.1), 0.5, 1000, dice)
        for _ in range(50)
    ]
    assert sum(each > 0 for each in found) <= 1


def test_the_evidence_is_kept_in_bounded_room():
    evidence = Evidence()
    for number in range(50_000):
        (evidence.canary if number % 2 else evidence.champion)(0.0, 0.5)
    assert len(evidence.stakes) <= 4


@given(
    outcomes=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60),
    share=st.floats(0.001, 0.999),
)
def test_one_more_call_changes_nothing_on_average(outcomes: list[tuple[bool, float]], share: float):
    """Whatever came before: if both versions fail as often, the expected evidence after a call is the one before it."""

    def after(more: tuple[bool, float]) -> float:
        evidence = Evidence()
        for _ in range(12):
            evidence.champion(0.0, share)
        evidence.canary(0.0, share)
        for is_canary, bad in [*outcomes, more]:
            (evidence.canary if is_canary else evidence.champion)(bad, share)
        return math.exp(evidence.log)

    if sum(is_canary for is_canary, _ in outcomes) >= 249:
        return
    evidence = Evidence()
    for _ in range(12):
        evidence.champion(0.0, share)
    evidence.canary(0.0, share)
    for is_canary, bad in outcomes:
        (evidence.canary if is_canary else evidence.champion)(bad, share)
    before = math.exp(evidence.log)
    for rate in (0.0, 0.3, 1.0):
        expected = sum(
            odds * chance * after((is_canary, bad))
            for is_canary, odds in ((True, share), (False, 1 - share))
            for bad, chance in ((1.0, rate), (0.0, 1 - rate))
            if chance
        )
        assert expected == pytest.approx(before, rel=1e-6)


# Means


def test_means_that_are_equal_are_hardly_ever_called_different():
    """Looked at after every pair of 1,500, of numbers with a long tail."""
    dice = random.Random(12)
    alarms = 0
    for _ in range(RUNS):
        first, second = Moments(), Moments()
        for _ in range(1500):
            first.add(dice.expovariate(1.0))
            second.add(dice.expovariate(1.0))
            found = compare_means(first, second)
            if found is not None and found.p < ALPHA:
                alarms += 1
                break
    assert alarms <= RUNS * ALPHA + 3 * math.sqrt(RUNS * ALPHA)


def test_means_that_differ_are_found_and_the_difference_is_within_its_bounds():
    """A third of a standard deviation, within some hundred calls."""
    dice = random.Random(13)
    needed: list[int] = []
    for _ in range(40):
        first, second = Moments(), Moments()
        found = None
        while found is None or found.p >= ALPHA:
            first.add(dice.gauss(10.0, 3.0))
            second.add(dice.gauss(11.0, 3.0))
            found = compare_means(first, second)
        needed.append(first.count)
        assert found.low < 1.0 < found.high or abs(found.difference - 1.0) < 1.5
        assert found.low > 0
    assert sorted(needed)[20] < 400


def test_the_interval_holds_the_difference_at_every_moment():
    """In 95 of a hundred runs, however often one looks."""
    dice = random.Random(14)
    missed = 0
    for _ in range(100):
        first, second = Moments(), Moments()
        for _ in range(800):
            first.add(dice.gauss(0.0, 1.0))
            second.add(dice.gauss(0.2, 1.0))
            found = compare_means(first, second)
            if found is not None and not found.low <= 0.2 <= found.high:
                missed += 1
                break
    assert missed <= 100 * ALPHA + 3 * math.sqrt(100 * ALPHA)


@given(first=st.lists(st.floats(-1e6, 1e6), max_size=40), second=st.lists(st.floats(-1e6, 1e6), max_size=40))
def test_moments_of_processes_are_put_together(first: list[float], second: list[float]):
    """As if one process had seen all."""

    def of(values: list[float]) -> Moments:
        made = Moments()
        for value in values:
            made.add(value)
        return made

    merged, whole = of(first).merged(of(second)), of([*first, *second])
    assert merged.count == whole.count
    assert merged.mean == pytest.approx(whole.mean, rel=1e-6, abs=1e-6)
    assert merged.variance == pytest.approx(whole.variance, rel=1e-6, abs=1e-3)


def test_little_is_nothing():
    """With fewer than fifty of one of them, nothing is said; of constants, the truth."""
    first, second = Moments(), Moments()
    for _ in range(49):
        first.add(0.0)
        second.add(1.0)
    assert compare_means(first, second) is None
    first.add(0.0)
    second.add(1.0)
    assert compare_means(first, second) == (1.0, 1.0, 1.0, 0.0)
    assert compare_means(first, first) == (0.0, 0.0, 0.0, 1.0)
