"""The policy to come decides nothing and is told where it would; what was recorded allows what was seen, no more."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mesh.test_policy import CALLERS, CALLS, CONTRACTS, MODULES, RULES, Rule, as_cedar

from seamline.mesh.errors import PolicyError
from seamline.mesh.policy import Policy
from seamline.mesh.policy.recording import recorded
from seamline.mesh.policy.world import World
from seamline.module import Subject, User

PERMIT = 'permit (principal == Module::"checkout", action in Action::"Payments", resource == Module::"payments");\n'
CHARGE = ("checkout", "payments", "Payments", "charge")
REFUND = ("checkout", "payments", "Payments", "refund")


def with_next(folder: Path, now: str, then: str) -> Policy:
    (folder / "policy" / "next").mkdir(parents=True)
    (folder / "policy" / "shop.cedar").write_text(now)
    (folder / "policy" / "next" / "shop.cedar").write_text(then)
    return Policy.load(folder / "policy", modules=MODULES, contracts=CONTRACTS)


def test_the_old_policy_decides_and_each_difference_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    policy = with_next(
        tmp_path,
        PERMIT,
        'permit (principal == Module::"checkout", action == Action::"Payments.charge", resource);'
        'permit (principal == Module::"ads", action == Action::"Payments.charge", resource);',
    )
    with caplog.at_level(logging.WARNING):
        assert [policy.allows(*CHARGE) for _ in range(3)] == [True] * 3
        assert [policy.allows(*REFUND) for _ in range(3)] == [True] * 3
        assert not policy.allows("ads", *CHARGE[1:])
    assert policy.differences == {(REFUND, True): 3, (("ads", *CHARGE[1:]), False): 1}
    assert [record.getMessage() for record in caplog.records] == [
        (
            "the policy to come would refuse what is allowed: checkout calling Payments.refund of payments "
            "(told once; policy diff has all)"
        ),
        (
            "the policy to come would allow what is refused: ads calling Payments.charge of payments "
            "(told once; policy diff has all)"
        ),
    ]
    assert not policy.may("ads", *CHARGE[1:])


def test_a_difference_in_a_condition_is_found_where_it_shows(tmp_path: Path):
    """The policy to come asks for a user: a call of nobody differs, a call of somebody does not."""
    policy = with_next(tmp_path, PERMIT, PERMIT.replace(";\n", " when { context has user };"))
    assert policy.allows(*CHARGE, Subject(User("ann")))
    assert policy.differences == {}
    assert policy.allows(*CHARGE)
    assert policy.differences == {(CHARGE, True): 1}


def test_a_mistake_in_the_policy_to_come_leaves_the_old_in_force(tmp_path: Path):
    policy = with_next(tmp_path, PERMIT, PERMIT)
    (tmp_path / "policy" / "next" / "shop.cedar").write_text(
        'permit (principal == Module::"chekout", action, resource);'
    )
    with pytest.raises(PolicyError, match=r"policy/next/shop\.cedar:1"):
        policy.reload()
    assert policy.allows(*CHARGE)


def test_what_nobody_used_is_gone_and_the_rest_is_as_it_was_written():
    text = (
        "// The till.\n"
        '@id("the till, in action")\n'
        f"{PERMIT}\n"
        '@id("nobody\'s")\npermit (principal == Module::"ads", action, resource);\n\n'
        '@id("never")\nforbid (principal, action == Action::"Payments.refund", resource);\n'
        '@id("people") permit (principal, action == Action::"Ads.choose", resource) when { context has user };\n'
    )
    made = recorded(
        World(MODULES, CONTRACTS),
        {"policy/a.cedar": text},
        {(*CHARGE[:2], "Payments.charge"), ("frontend", "ads", "Ads.choose")},
    )
    assert made.files["policy/a.cedar"] == (
        "// The till.\n"
        '@id("the till, in action")\n'
        'permit (principal == Module::"checkout", action == Action::"Payments.charge", '
        'resource == Module::"payments");\n\n'
        '@id("never")\nforbid (principal, action == Action::"Payments.refund", resource);\n'
        '@id("people") permit (principal == Module::"frontend", action == Action::"Ads.choose", resource) '
        "when { context has user };\n"
    )
    assert made.unused == ("nobody's (policy/a.cedar:5)",)
    assert [name.partition(" (")[0] for name in made.narrowed] == ["the till, in action", "people"]
    assert '-permit (principal == Module::"checkout", action in Action::"Payments"' in made.diff


def test_a_policy_that_was_used_whole_has_no_diff():
    seen = {("checkout", "payments", "Payments.charge"), ("checkout", "payments", "Payments.refund")}
    assert recorded(World(MODULES, CONTRACTS), {"a.cedar": PERMIT}, seen).diff == ""


@given(RULES, st.sets(st.sampled_from([(caller, *call) for caller in CALLERS for call in CALLS])))
def test_a_recording_allows_what_was_seen_and_nothing_that_was_not_allowed(
    rules: list[Rule], asked: set[tuple[str, str, str, str]]
):
    """Whatever was seen to be allowed stays so; of what was not seen nothing is left; nothing new is allowed."""
    text = "\n".join(map(as_cedar, rules))
    try:
        before = Policy.from_text(text, modules=MODULES, contracts=CONTRACTS)
    except PolicyError:
        return
    seen = {key for key in asked if before.allows(*key) and key[0] != key[1]}
    named = {(caller, callee, f"{c}.{m}" if c else m) for caller, callee, c, m in seen}
    made = recorded(before.world, {"policy.cedar": text}, named)
    after = Policy.from_text(made.files["policy.cedar"], modules=MODULES, contracts=CONTRACTS)
    allowed = {
        key for caller in CALLERS for call in CALLS if (key := (caller, *call))[0] != key[1] and after.allows(*key)
    }
    assert allowed == seen
