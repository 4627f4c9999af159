"""Which version answers: shares that are kept, keys that stay, shadows that change nothing, canaries that go back."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline import Contract, Fault
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import ContractModelSettings, ModelGuardSettings, ModelsSettings
from seamline.models.registry.book import Book
from seamline.models.rollout.compare import comparison
from seamline.models.rollout.errors import BadSplitError, NoWayBackError, UnknownVersionError
from seamline.models.rollout.guard import Guard, judge
from seamline.models.rollout.keeper import Keeper
from seamline.models.rollout.route import Rollout, scored
from seamline.models.rollout.split import Split, make_split, parse_shares, with_shares
from seamline.models.runtime import Asked, Outcome
from seamline.module.errors import Overloaded

VERSIONS = ("one", "two", "three")


class Guess(Contract):
    async def guess(self, text: str, user: dict[str, str]) -> str: ...


class Unknown(Fault):
    """Nobody knows."""


def rollout_of(**contract: Any) -> Rollout:
    made = Rollout(ModelsSettings(contracts={"Guess": ContractModelSettings(**contract)}), dice=random.Random(1).random)
    made.know(Guess, VERSIONS)
    return made


def asked(key: str = "", text: str = "t", user: str = "") -> Asked:
    return Asked("guess", (text, {"id": user}), key)


def ok(answer: Any = "a", seconds: float = 0.01) -> Outcome:
    return Outcome(seconds=seconds, answer=answer)


def bad(seconds: float = 0.01) -> Outcome:
    return Outcome(seconds=seconds, error=RuntimeError())


# Shares and keys


def test_the_first_that_is_declared_answers():
    """Until somebody says something else; what is said of versions that are not declared is no reason to fail."""
    rollout = rollout_of()
    assert rollout.choose("Guess", asked()) == "one"
    rollout.apply({"Guess": Split(champion="gone", weights={"gone": 1.0}, revision=1)})
    assert rollout.choose("Guess", asked()) == "one"
    rollout.apply(
        {"Guess": Split(champion="two", weights={"gone": 0.5, "two": 0.5}, revision=2), "Other": make_split({"x": 1})}
    )
    assert {rollout.choose("Guess", asked()) for _ in range(50)} == {"two"}


@pytest.mark.parametrize("key", ["call", "principal", "argument:user.id", "argument:text"])
def test_each_version_gets_its_share(key: str):
    """Whatever it goes by."""
    rollout = rollout_of(weights={"one": 0.7, "two": 0.2, "three": 0.1}, key=key)
    found = Counter(rollout.choose("Guess", asked(f"p{n}", f"t{n}", f"u{n}")) for n in range(20_000))
    for version, share in {"one": 0.7, "two": 0.2, "three": 0.1}.items():
        assert found[version] / 20_000 == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("key", ["principal", "argument:user.id", "argument:text"])
def test_a_key_stays_with_its_version(key: str):
    """In every process, and whatever else the call says."""
    first, second = (rollout_of(weights={"one": 0.5, "two": 0.5}, key=key) for _ in range(2))
    for number in range(200):
        call = asked(f"p{number}", f"t{number}", f"u{number}")
        assert len({rollout.choose("Guess", call) for rollout in (first, second) for _ in range(5)}) == 1


def test_who_has_no_key_is_given_by_lot():
    """An argument that is not there, or is nothing."""
    rollout = rollout_of(weights={"one": 0.5, "two": 0.5}, key="argument:user.name")
    assert {rollout.choose("Guess", asked(user="u")) for _ in range(50)} == {"one", "two"}
    assert {rollout.choose("Guess", Asked("guess", (), "p")) for _ in range(50)} == {"one", "two"}


@settings(max_examples=30)
@given(before=st.floats(0.01, 0.5), more=st.floats(0.01, 0.4))
def test_a_growing_canary_takes_and_gives_nobody_back(before: float, more: float):
    """Whoever had it has it still, and nobody moves between the others."""
    rollout = rollout_of(key="principal")
    rollout.apply(
        {"Guess": make_split({"one": (1 - before) / 2, "two": (1 - before) / 2, "three": before}, revision=1)}
    )
    had = {n: rollout.choose("Guess", asked(str(n))) for n in range(300)}
    rest = 1 - before - more
    rollout.apply({"Guess": make_split({"one": rest / 2, "two": rest / 2, "three": before + more}, revision=2)})
    for n, version in had.items():
        now = rollout.choose("Guess", asked(str(n)))
        assert now in {version, "three"}


def test_an_older_split_is_not_taken():
    """Splits may come in any order: the newest holds."""
    rollout = rollout_of()
    rollout.apply({"Guess": make_split({"two": 1}, revision=5)})
    rollout.apply({"Guess": make_split({"three": 1}, revision=4)})
    assert rollout.choose("Guess", asked()) == "two"


# Shadows


def test_a_shadow_is_compared_and_never_chosen():
    """Same, different and failed are counted; the last ten that differed are kept, cut short."""
    rollout = rollout_of(shadow=("two",))
    assert {rollout.choose("Guess", asked()) for _ in range(50)} == {"one"}
    assert rollout.shadows("Guess", asked()) == ("two",)
    primary = ok("same", 0.02)
    for answer in ["same"] * 3 + ["x" * 1000] * 12:
        outcome = Outcome(seconds=0.01, answer=answer, primary=primary)
        rollout.finished("Guess", "two", asked(), outcome)
    rollout.finished("Guess", "two", asked(), Outcome(seconds=0.01, error=RuntimeError(), primary=primary))
    rollout.finished("Guess", "two", asked(), Outcome(seconds=0.01, error=Unknown(), primary=primary))
    (found,) = rollout.stats()["Guess"]["shadow"].values()
    assert (found["same"], found["different"], found["errors"]) == (3, 13, 1)
    assert len(found["samples"]) == 10
    assert len(found["samples"][0]["theirs"]) == 200
    assert rollout.stats()["Guess"]["versions"]["two"]["calls"] == 0


def test_a_shadow_is_asked_its_share():
    rollout = rollout_of(shadow=("two",), shadow_ratio=0.25)
    assert sum(bool(rollout.shadows("Guess", asked())) for _ in range(4000)) / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_comparison_that_fails_is_counted():
    """It is the application's, and no call fails by it."""
    rollout = Rollout(ModelsSettings(contracts={"Guess": ContractModelSettings(shadow=("two",))}))
    rollout.know(Guess, VERSIONS, lambda ours, theirs: ours.nonsense)
    rollout.finished("Guess", "two", asked(), Outcome(seconds=0.01, answer=1, primary=ok()))
    assert rollout.stats()["Guess"]["shadow"]["two"]["errors"] == 1


@pytest.mark.parametrize(
    ("how", "tolerance", "ours", "theirs", "same"),
    [
        ("equal", 0, {"a": [1]}, {"a": [1]}, True),
        ("equal", 0, 1.0, 1.0 + 1e-12, False),
        ("numeric", 1e-3, {"a": [1.0, "x", None, True]}, {"a": [1.0005, "x", None, True]}, True),
        ("numeric", 1e-3, [1.0], [1.1], False),
        ("numeric", 1e-3, [1.0], [1.0, 2.0], False),
        ("numeric", 1e-3, True, 1, False),
        ("numeric", 1e-3, math.nan, math.nan, True),
        ("numeric", 1e-3, "1.0", "1.00", False),
        ("numeric", 1e-3, Split(champion="a", weights={"a": 1.0}), Split(champion="a", weights={"a": 1.0001}), True),
        ("cosine", 0.01, (1.0, 0.0), (2.0, 0.1), True),
        ("cosine", 0.01, (1.0, 0.0), (0.0, 1.0), False),
        ("cosine", 0.01, (1.0, 0.0), (1.0,), False),
        ("cosine", 0.01, (0.0, 0.0), (0.0, 0.0), True),
        ("cosine", 0.01, [[1.0], [2.0]], [[1.0], [2.0]], True),
    ],
)  # fmt: skip
def test_ways_to_compare(how: Any, tolerance: float, ours: Any, theirs: Any, same: bool):
    assert comparison(how, tolerance)(ours, theirs) is same


# What counts as a failure


def test_a_fault_is_an_answer_and_a_caller_that_left_is_nothing():
    """An error of the model, a refusal because it cannot keep up, and an answer that came too late are failures."""
    rollout = rollout_of()
    for error in (None, Unknown(), RuntimeError(), Overloaded("full"), asyncio.CancelledError(), GeneratorExit()):
        rollout.finished("Guess", "one", asked(), Outcome(seconds=0.01, error=error))
    counts = rollout.stats()["Guess"]["versions"]["one"]
    assert (counts["calls"], counts["errors"], counts["seconds"]["count"]) == (4, 2, 2)


# The guard


def guarded(split: Split, guard: ModelGuardSettings | None = None) -> Guard:
    return Guard("Guess", split, guard or ModelGuardSettings())


CANARY = make_split({"one": 0.9, "two": 0.1}, "one", revision=3)


def test_a_canary_that_fails_is_judged():
    """By what all processes have seen together, although none of them has seen enough."""
    dice = random.Random(3)
    guards = [guarded(CANARY) for _ in range(6)]
    verdicts = 0
    for _ in range(700):
        for guard in guards:
            canary = dice.random() < 0.1
            guard.called("two" if canary else "one", "guess", 0.01, failed=dice.random() < (0.06 if canary else 0.005))
    alone = [judge(CANARY, ModelGuardSettings(), guard.seen()) for guard in guards]
    together = judge(CANARY, ModelGuardSettings(), [each for guard in guards for each in guard.seen()])
    assert sum(each is not None for each in alone) < len(guards) / 2
    assert together is not None
    assert (together.canary, together.watched) == ("two", "errors")
    assert together.said.startswith("two fails ")
    assert verdicts == 0


def test_a_canary_that_is_slow_is_judged():
    """Against nine in ten of the champion's calls of the same method; a slow method is not a slow version."""
    dice = random.Random(4)
    guard, fair = guarded(CANARY), guarded(CANARY)
    for _ in range(3000):
        version = "two" if dice.random() < 0.1 else "one"
        method = dice.choice(("fast", "slow"))
        seconds = (0.01 if method == "fast" else 1.0) * dice.uniform(0.9, 1.1)
        fair.called(version, method, seconds, failed=False)
        guard.called(version, method, seconds * (1.6 if version == "two" else 1), failed=False)
    assert judge(CANARY, ModelGuardSettings(), fair.seen()) is None
    verdict = judge(CANARY, ModelGuardSettings(), guard.seen())
    assert verdict is not None
    assert verdict.watched == "latency"


def test_a_canary_whose_answers_are_worse_is_judged():
    """By the scores that somebody gives them, however late."""
    dice = random.Random(5)
    rollout = rollout_of()
    rollout.apply({"Guess": CANARY})
    for _ in range(4000):
        version = "two" if dice.random() < 0.1 else "one"
        scored("Guess", version, dice.betavariate(8, 2) if version == "one" else dice.betavariate(5, 5))
    scored("Guess", "two", math.nan)
    verdict = judge(CANARY, ModelGuardSettings(), rollout.seen("Guess"))
    assert verdict is not None
    assert verdict.watched == "quality"
    assert verdict.said.startswith("two scores 0.49")


def test_what_is_proven_and_small_is_let_pass():
    """A rise of errors that is real but smaller than what matters, and one of too few calls."""
    dice = random.Random(6)
    guard = guarded(CANARY, ModelGuardSettings(errors_rise_ratio=0.2))
    for _ in range(20_000):
        canary = dice.random() < 0.1
        guard.called("two" if canary else "one", "guess", 0.01, failed=dice.random() < (0.1 if canary else 0.01))
    assert max(each.log for each in guard.seen()) > 50
    assert judge(CANARY, ModelGuardSettings(errors_rise_ratio=0.2), guard.seen()) is None
    assert judge(CANARY, ModelGuardSettings(calls_min=10_000), guard.seen()) is None
    assert judge(CANARY, ModelGuardSettings(), guard.seen()) is not None


def test_evidence_of_another_split_is_not_counted():
    guard = guarded(CANARY)
    for number in range(500):
        guard.called("two" if number % 10 == 0 else "one", "guess", 0.01, failed=number % 10 == 0)
    assert judge(CANARY, ModelGuardSettings(), guard.seen()) is not None
    assert judge(make_split({"one": 0.9, "two": 0.1}, "one", revision=4), ModelGuardSettings(), guard.seen()) is None


# Changes that are kept


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(Book(tmp_path, ManualClock()), ModelsSettings())


def test_changes_are_kept_with_who_and_why(keeper: Keeper, tmp_path: Path):
    """And a rollback is what held before, again and again, as far as there was something."""
    keeper.weigh("Guess", {"two": 0.1}, VERSIONS, who="ada", why="try it")
    keeper.weigh("Guess", {"two": 0.5}, VERSIONS, who="ada")
    keeper.promote("Guess", "two", VERSIONS, who="ada", why="better")
    assert keeper.splits()["Guess"].weights == {"two": 1.0}
    back = [keeper.roll_back("Guess", VERSIONS, who="bob").weights for _ in range(3)]
    assert back == [{"one": 0.5, "two": 0.5}, {"one": 0.9, "two": 0.1}, {"one": 1.0}]
    with pytest.raises(NoWayBackError):
        keeper.roll_back("Guess", VERSIONS, who="bob")
    told = [(each.what, each.who, each.why) for each in Book(tmp_path, ManualClock()).history("Guess")]
    assert told[2:] == [
        ("rollback", "bob", ""),
        ("promote", "ada", "better"),
        ("weights", "ada", ""),
        ("weights", "ada", "try it"),
    ]


def test_the_guard_takes_back_only_what_it_judged(keeper: Keeper):
    """Another split that came meanwhile stays."""
    first = keeper.weigh("Guess", {"two": 0.1}, VERSIONS, who="ada")
    second = keeper.weigh("Guess", {"two": 0.2}, VERSIONS, who="ada")
    guard = guarded(second)
    for number in range(500):
        guard.called("two" if number % 5 == 0 else "one", "guess", 0.01, failed=number % 5 == 0)
    verdict = keeper.judged("Guess", second, guard.seen())
    assert verdict is not None
    assert keeper.take_back("Guess", first, verdict) is None
    taken = keeper.take_back("Guess", second, verdict)
    assert taken is not None
    assert taken.weights == {"one": 1.0}
    assert taken.revision > second.revision


def test_what_is_not_declared_is_not_chosen(keeper: Keeper):
    """And nothing is changed by it."""
    for ask in (
        lambda: keeper.promote("Guess", "four", VERSIONS, who="ada"),
        lambda: keeper.weigh("Guess", {"four": 0.1}, VERSIONS, who="ada"),
        lambda: keeper.shadow("Guess", ["four"], VERSIONS, who="ada"),
    ):
        with pytest.raises(UnknownVersionError, match="It has one, two, three"):
            ask()
    with pytest.raises(BadSplitError):
        keeper.weigh("Guess", {"two": 0.7, "three": 0.7}, VERSIONS, who="ada")
    assert keeper.splits() == {}


def test_shares_as_people_write_them():
    assert parse_shares(["two=10", "three=2.5%"]) == {"two": 0.1, "three": 0.025}
    for wrong in (["two"], ["two=x"], ["=10"], ["two=101"], ["two=-1"], ["two=1", "two=2"], ["two=nan"]):
        with pytest.raises(BadSplitError):
            parse_shares(wrong)


@given(st.dictionaries(st.sampled_from(VERSIONS), st.floats(0, 1), min_size=1))
def test_shares_add_up(given_shares: dict[str, float]):
    """Whatever is asked for: together 1, none below zero; or it is refused."""
    try:
        split = with_shares(make_split({"one": 1.0}), given_shares)
    except BadSplitError:
        return
    assert math.fsum(split.weights.values()) == pytest.approx(1.0)
    assert all(share > 0 for share in split.weights.values())
    assert split.champion == "one"
