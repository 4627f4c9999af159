"""What drills came to: counted as said, written so that a second run goes on, beside methods that are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.observe.planted import MODULES, Fault, plant

from seamline.cli.drill_score import Results, suits, told
from seamline.observe.drills import baselines
from seamline.observe.drills.catalog import FAULTS
from seamline.observe.drills.scoring import Guess, Quiet, Round, markdown, score, scores, table


def round_(**changes: Any) -> Round:
    known: dict[str, Any] = {
        "topology": "services", "number": 1, "fault": "delay", "module": "cart", "struck": 9, "detected_s": 6.0,
        "explained_s": 12.0, "abstained": False, "guesses": [Guess("cart", "latency", 0.9)], "modules": 10,
        "others": {"n-sigma": ["ads", "cart"]},
    }  # fmt: skip
    return Round(**(known | changes))


def test_a_score_counts_what_was_planted_and_struck() -> None:
    """Faults that were refused or never struck are no misses; one that was not noticed is."""
    rounds = [
        round_(),
        round_(guesses=[Guess("ads", "cpu"), Guess("cart", "latency")], detected_s=10.0),
        round_(detected_s=None, explained_s=None, guesses=[], abstained=True),
        round_(struck=0),
        round_(refused="no database"),
    ]
    found = score("delay", rounds)
    assert (found.planted, found.detected) == (3, 2)
    assert found.detected_s == 8.0
    assert found.first == pytest.approx(1 / 3)
    assert found.top3 == pytest.approx(2 / 3)
    assert found.chance == pytest.approx(0.1)
    assert found.others == {"n-sigma": 0.0}
    assert found.abstained == 0


def test_the_kind_counts_only_where_the_module_is_right() -> None:
    """A right kind at the wrong module is nothing."""
    assert round_().right_kind
    assert not round_(guesses=[Guess("ads", "latency")]).right_kind
    assert not round_(guesses=[Guess("cart", "queue")]).right_kind


def test_nothing_planted_is_no_score() -> None:
    """No rounds: no division by nothing, and no row."""
    assert table([score("all", [])])[1] == []
    assert [each.name for each in scores([round_()])] == ["delay", "services", "all"]
    assert markdown(scores([round_()])).count("\n") == 4


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    """Results are read back as they were written, also after the last line was cut off."""
    path = tmp_path / "results.txt"
    results = Results.at(path)
    results.add(round_())
    results.add(Quiet(topology="monolith", seconds=60, incidents=["x"]))
    results.add(round_(fault="network", detected_s=None))
    again = Results.at(path)
    assert again.rounds == results.rounds
    assert again.quiets == results.quiets
    assert again.has("services", "network", 1)
    assert not again.has("services", "network", 2)
    path.write_bytes(path.read_bytes()[:-20])
    assert Results.at(path).rounds == [round_()]


def test_faults_between_processes_are_not_planted_within_one() -> None:
    """And scores that nobody records nowhere."""
    assert not suits(FAULTS["network"], "monolith")
    assert suits(FAULTS["network"], "services")
    assert suits(FAULTS["delay"], "monolith")
    assert not suits(FAULTS["drift"], "services")


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (round_(), "noticed after 6 s, suspected cart (latency)"),
        (round_(guesses=[Guess("ads", "cpu")]), "WRONG"),
        (round_(detected_s=None), "not noticed"),
        (round_(struck=0), "it never struck"),
        (round_(abstained=True), "unsure"),
    ],
)
def test_progress_says_how_it_went(each: Round, words: str) -> None:
    """A line for each round, for who waits."""
    assert words in told(each)


@pytest.mark.parametrize("method", baselines.METHODS)
def test_plain_methods_find_a_plain_fault(method: str) -> None:
    """None of them is a straw man: where one module's own answers become much slower, it or its caller is first."""
    planted = plant(Fault("delay", "ads", 400), "services", 7)
    ranking = baselines.METHODS[method](planted.before, planted.after)
    assert ranking[0] in ("ads", "frontend")
    assert "ads" in ranking[:3]


def test_by_lot_is_all_modules_in_a_random_order() -> None:
    """Chance: everybody once, another order with another seed."""
    assert sorted(baselines.by_lot(MODULES, 1)) == MODULES
    assert len({tuple(baselines.by_lot(MODULES, seed)) for seed in range(20)}) > 15
