"""Drift: sizes against closed forms, chances against simulation."""

from __future__ import annotations

import random
from math import exp, log, sqrt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.models.watch.chance import (
    chi_square_tail,
    gamma_tail,
    kolmogorov_tail,
    normal_tail,
    skewed_tail,
)
from seamline.models.watch.drift import (
    kolmogorov_smirnov,
    mean_discrepancy,
    population_stability,
    quantile_bins,
)
from seamline.models.watch.errors import ReferenceUnfit
from seamline.models.watch.quality import quality
from seamline.models.watch.reference import Numbers, Reference, Words


def test_tails_are_those_of_the_tables():
    """Percentage points as printed in tables: chi-square, normal, Kolmogorov; and exponentials in closed form."""
    assert chi_square_tail(16.919, 9) == pytest.approx(0.05, abs=1e-5)
    assert chi_square_tail(21.666, 9) == pytest.approx(0.01, abs=1e-5)
    assert chi_square_tail(3.8415, 1) == pytest.approx(0.05, abs=1e-5)
    assert chi_square_tail(0, 9) == 1.0
    assert gamma_tail(1.0, 30.0) == pytest.approx(exp(-30), rel=1e-9)
    assert gamma_tail(2.0, 25.0) == pytest.approx(26 * exp(-25), rel=1e-9)
    assert gamma_tail(0.5, 0.1) == pytest.approx(normal_tail(sqrt(0.2)), rel=1e-9)
    assert normal_tail(1.959964) == pytest.approx(0.05, abs=1e-6)
    assert kolmogorov_tail(1.358 / sqrt(5000), 10_000, 10_000) == pytest.approx(0.05, abs=2e-3)
    assert skewed_tail(3.0, 1.0, 1.0, 2.0) == pytest.approx(exp(-3), rel=1e-9), "an exponential has skewness 2"
    assert skewed_tail(1.96, 0.0, 1.0, 0.0) == pytest.approx(0.025, abs=1e-4)


def test_the_index_is_the_sum_over_bins():
    """Halves against a fifth and four fifths, by hand."""
    change = population_stability([500, 500], [200, 800])
    assert change.size == pytest.approx((0.2 - 0.5) * log(0.2 / 0.5) + (0.8 - 0.5) * log(0.8 / 0.5))
    assert change.p < 1e-20
    assert population_stability([500, 500, 0], [50, 50, 0]).p > 0.999, "the same shares, and a bin that nobody uses"
    assert population_stability([10, 10], [0, 0]).size == 0.0


def test_the_distance_is_the_largest_between_two_steps():
    """By hand, with ties."""
    assert kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6]).size == 0.5
    assert kolmogorov_smirnov([1, 1, 1], [1, 1, 1]).size == 0.0
    assert kolmogorov_smirnov([1, 2], [7, 8]).size == 1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_distance_is_symmetric_and_bounded(first: list[float], second: list[float]):
    """Whichever comes first, and it is that of the definition: the largest difference of the two step functions."""
    there = kolmogorov_smirnov(sorted(first), sorted(second))
    assert there == kolmogorov_smirnov(sorted(second), sorted(first))
    slow = max(
        abs(sum(a <= x for a in first) / len(first) - sum(b <= x for b in second) / len(second))
        for x in (*first, *second)
    )
    assert there.size == pytest.approx(slow)
    assert 0.0 <= there.p <= 1.0


def test_chances_are_honest():
    """Of a thousand pairs of samples of one distribution about one in twenty has a chance below 0.05: not many more,
    or quiet days would alarm, and not many fewer, or nothing would be seen."""
    dice = random.Random(7)
    by_index = by_distance = 0
    for _ in range(1000):
        before, now = ([dice.gauss(0, 1) for _ in range(200)] for _ in range(2))
        bounds = quantile_bins(sorted(before))
        sketch = Numbers(bounds, [], [])
        by_index += population_stability(sketch.count(before), sketch.count(now)).p < 0.05
        by_distance += kolmogorov_smirnov(sorted(before), sorted(now)).p < 0.05
    assert 20 <= by_index <= 90
    assert 20 <= by_distance <= 75


def test_vectors_that_moved_are_told_from_those_that_did_not():
    """Of 20 pairs of samples of one cloud none is noticed at one in a hundred thousand; one that moved a little in one
    of 32 directions is, and one that only became wider is."""
    numpy = pytest.importorskip("numpy", reason="embeddings need numpy")
    dice = numpy.random.default_rng(3)
    before = dice.normal(size=(128, 32))
    chances = [mean_discrepancy(before, dice.normal(size=(128, 32)), seed=seed).p for seed in range(20)]
    assert min(chances) > 1e-5
    assert 2 <= sum(p < 0.5 for p in chances) <= 18
    moved = dice.normal(size=(128, 32))
    moved[:, 0] += 3.0
    assert mean_discrepancy(before, moved).p < 1e-8
    assert mean_discrepancy(before, 1.5 * dice.normal(size=(128, 32))).p < 1e-8


def test_the_discrepancy_is_that_of_its_definition():
    """Against the sums of the paper, term by term."""
    numpy = pytest.importorskip("numpy", reason="embeddings need numpy")
    dice = numpy.random.default_rng(5)
    x, y = dice.normal(size=(7, 3)), dice.normal(size=(5, 3)) + 2.0
    pooled = [*x, *y]
    apart = [float(((a - b) ** 2).sum()) for i, a in enumerate(pooled) for b in pooled[i + 1 :]]
    width = float(numpy.median(apart))

    def k(a: object, b: object) -> float:
        return exp(-float(((a - b) ** 2).sum()) / width)  # type: ignore[operator]

    within_x = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (7 * 6)
    within_y = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (5 * 4)
    across = sum(k(a, b) for a in x for b in y) / (7 * 5)
    assert mean_discrepancy(x, y).size == pytest.approx(within_x + within_y - 2 * across)


def test_a_reference_holds_what_comparing_needs_and_survives_as_json(tmp_path: Path):
    """Numbers by quantiles, words by frequency, what is missing apart; nothing grows with the rows."""
    dice = random.Random(1)
    rows = [
        {"amount": dice.lognormvariate(3, 1), "country": dice.choice(["BE", "BE", "NL"]), "age": None}
        for _ in range(5000)
    ]
    reference = Reference.of(rows, quality={"auc": 0.9})
    amount, country = reference.features["amount"], reference.features["country"]
    assert isinstance(amount, Numbers)
    assert len(amount.bounds) == 9
    assert all(450 <= count <= 550 for count in amount.counts[:-1])
    assert len(amount.sample) == 512
    assert isinstance(country, Words)
    assert country.known == ["BE", "NL"]
    assert country.count(["BE", "FR", None, "NL", "BE"]) == [2, 1, 1, 1]
    path = tmp_path / "reference.json"
    path.write_bytes(reference.to_json())
    assert Reference.load(path) == reference
    assert len(path.read_bytes()) < 30_000
    path.write_bytes(b"{}")
    with pytest.raises(ReferenceUnfit, match="SL7751"):
        Reference.load(path)
    with pytest.raises(ReferenceUnfit, match="19 rows"):
        Reference.of(rows[:19])


def test_quality_is_that_of_its_definitions():
    """By hand, ties counted as halves; the standard error against simulation."""
    cases = [(0.9, True), (0.8, False), (0.7, True), (0.2, False), (0.2, True)]
    found = quality(cases, threshold=0.7)
    # Of the six pairs of one that came true and one that did not: 2 + 1 + half of one.
    assert found.auc == pytest.approx(3.5 / 6)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.09 + 0.04 + 0.64) / 5)
    assert quality([(0.5, True)]).auc is None
    dice = random.Random(2)
    aucs: list[float] = []
    errors: list[float] = []
    for _ in range(300):
        drawn = [(dice.gauss(1.0 * came, 1), bool(came)) for came in [0] * 80 + [1] * 40]
        each = quality(drawn)
        assert each.auc is not None
        aucs.append(each.auc)
        errors.append(each.auc_error)
    mean = sum(aucs) / 300
    spread = sqrt(sum((auc - mean) ** 2 for auc in aucs) / 299)
    assert spread == pytest.approx(sum(errors) / 300, rel=0.2)
    assert mean == pytest.approx(0.5 * (1 + 0.5205), abs=0.02)  # Phi(1 / sqrt(2))


def test_scores_that_mean_what_they_say_are_calibrated():
    """Scores drawn as the chances that they claim have a small error; halved ones have a large one."""
    dice = random.Random(4)
    cases = [(score, dice.random() < score) for score in (dice.random() for _ in range(4000))]
    assert quality(cases).calibration < 0.04
    assert quality([(score / 2, came) for score, came in cases]).calibration > 0.2
