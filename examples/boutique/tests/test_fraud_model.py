"""The fraud models and the rules by themselves: explained to the last digit, monotone, and good on a world not seen."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import pytest
from boutique.decisions import Inputs, Verdict
from boutique.decisions.rules import RULES, Rules, RulesError
from boutique.decisions.scoring import NAMES, WEIGHTS, load, versions
from boutique.decisions.training.measure import figures, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.models.watch.quality import quality
from seamline.models.watch.reference import Reference

ORDINARY = Inputs(
    worth=100, pieces=2, times_usual=1, orders_1h=0, orders_30d=0, failed_1h=0, cards_1d=1, countries_1d=1,
    new_card=0, new_country=0, known_days=0,
)  # fmt: skip
SEVERITY = {Verdict.ACCEPT: 0, Verdict.REVIEW: 1, Verdict.REFUSE: 2}
counts = st.integers(0, 200).map(float)
any_inputs = st.builds(
    Inputs,
    worth=st.floats(0, 10_000), pieces=counts, times_usual=st.floats(0, 100), orders_1h=counts, orders_30d=counts,
    failed_1h=counts, cards_1d=counts, countries_1d=counts, new_card=st.sampled_from([0.0, 1.0]),
    new_country=st.sampled_from([0.0, 1.0]), known_days=st.floats(0, 30),
)  # fmt: skip


def test_both_versions_and_what_they_were_trained_on_are_there():
    """Weights, a reference that has every input and the answer, and a card that names both."""
    assert versions() == ["logistic-1", "stumps-1"]
    card = (WEIGHTS / "CARD.md").read_text(encoding="utf-8")
    for version in versions():
        assert load(version).curves.keys() == set(NAMES)
        reference = Reference.load(WEIGHTS / f"reference.{version}.json")
        assert reference.features.keys() == {*NAMES, "probability"}
        assert f"| {version} | {reference.quality['auc']:.3f} |" in card


@pytest.mark.parametrize("version", ["logistic-1", "stumps-1"])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(inputs=any_inputs)
def test_an_explanation_adds_up(version: str, inputs: Inputs):
    """The bias and the effect of each input make the odds; the reasons are the largest of them."""
    model = load(version)
    score = model.score(inputs)
    effects = {name: curve.at(getattr(inputs, name)) for name, curve in model.curves.items()}
    odds = model.bias + sum(effects.values())
    assert score.probability == pytest.approx(1 / (1 + exp(-max(odds, -40))), rel=1e-9)
    assert [abs(each.effect) for each in score.reasons] == sorted((abs(e.effect) for e in score.reasons), reverse=True)
    assert all(each.effect == effects[each.name] and each.value == getattr(inputs, each.name) for each in score.reasons)


@pytest.mark.parametrize("version", ["logistic-1", "stumps-1"])
@pytest.mark.parametrize(
    "odd",
    [
        {}, {"worth": 1900, "pieces": 10}, {"cards_1d": 2, "new_card": 1, "failed_1h": 1},
        {"orders_1h": 200, "orders_30d": 200, "failed_1h": 20, "times_usual": 8, "known_days": 0.04},
        {"countries_1d": 2, "new_country": 1, "orders_1h": 1, "orders_30d": 1},
    ],
)  # fmt: skip
def test_who_is_honest_is_let_through(version: str, odd: dict[str, float]):
    """A newcomer, also with a large order, a second card or a gift abroad; an office, or a load test, that orders all
    day long from one place with one card."""
    inputs = replace(ORDINARY, **odd)
    assert Rules.load().decide("x", inputs, load(version).score(inputs).probability)[0] is Verdict.ACCEPT


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_inputs, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_treated_more_kindly(inputs: Inputs, one: float, other: float):
    """Nor does the shopper's name matter; and there is always a verdict with a reason."""
    rules = Rules.load()
    (mild, why), (severe, _) = (rules.decide("a", inputs, score) for score in sorted((one, other)))
    assert SEVERITY[mild] <= SEVERITY[severe]
    assert why
    assert rules.decide('b"; permit (principal, action, resource)', inputs, min(one, other)) == (mild, why)


def test_rules_have_versions_and_bad_ones_decide_nothing():
    """Another text is another version; a rule that asks for what is not there is an error and not a verdict."""
    text = RULES.read_text(encoding="utf-8")
    assert Rules(text).version == Rules.load().version
    stricter = Rules(text.replace("context.score < 600", "context.score < 100"))
    assert stricter.version != Rules.load().version
    assert stricter.decide("x", ORDINARY, 0.3)[0] is Verdict.REVIEW
    assert Rules("").decide("x", ORDINARY, 0.0) == (Verdict.REFUSE, "nothing permits it")
    with pytest.raises(RulesError, match="shoe_size"):
        Rules("permit (principal, action, resource) when { context.shoe_size < 3 };").decide("x", ORDINARY, 0.3)


def test_the_weights_are_what_the_script_says():
    """On shoppers that neither version has seen both tell fraud from the rest, and what they say of themselves in their
    reference is true; a model trained here on a few is the library's own, number for number."""
    sklearn: Any = pytest.importorskip("sklearn.linear_model", reason="training needs scikit-learn")
    import numpy as np
    from boutique.decisions.training import train

    rows = rows_of(5, 300)
    for version in versions():
        model = load(version)
        found = quality([(model.score(each).probability, case.fraud) for case, each in rows])
        claimed = Reference.load(WEIGHTS / f"reference.{version}.json").quality["auc"]
        assert found.auc is not None
        assert abs(found.auc - claimed) < max(5 * found.auc_error, 0.02)
    table = np.array([[train.seen(getattr(each, name)) for name in NAMES] for _, each in rows])
    fraud = np.array([case.fraud for case, _ in rows])
    theirs = sklearn.LogisticRegression(C=1.0, max_iter=2000).fit(table - table.mean(axis=0), fraud)
    ours = train.logistic(rows)
    expected = theirs.predict_proba(table - table.mean(axis=0))[:, 1]
    assert [ours.score(each).probability for _, each in rows] == pytest.approx(list(expected), abs=1e-3)


def test_both_can_be_evaluated_side_by_side():
    """On one world that neither was trained on; higher is better, but for the Brier score."""
    lines, steps = (figures(load(version)) for version in versions())
    assert lines.keys() == steps.keys() == {"auc", "precision", "recall", "brier"}
    assert min(lines["auc"], steps["auc"]) > 0.95
    assert max(lines["brier"], steps["brier"]) < 0.05
