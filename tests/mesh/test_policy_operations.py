"""What people ask about the policy that is in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seamline.mesh.errors import PolicyTestError, UnknownPolicyNameError
from seamline.mesh.policy import Policy
from seamline.mesh.policy.operations import PolicyOperations

POLICY = """\
@id("the shop takes money")
permit(principal == Module::"checkout", action in Action::"Payments", resource);

@id("support looks")
@audit
permit(principal == Module::"desk", action == Action::"Payments.find", resource)
when { context has user && context.user in Role::"support" };

forbid(principal, action == Action::"Payments.refund", resource) unless { context has user };
"""
MODULES: dict[str, dict[str, Any]] = {"checkout": {}, "desk": {}, "payments": {}}
CONTRACTS = {"Payments": ("payments", ["charge", "find", "refund"])}


def load(folder: Path) -> Policy:
    from seamline.mesh.policy import Vocabulary

    (folder / "payments.cedar").write_text(POLICY)
    return Policy.load(folder, modules=MODULES, contracts=CONTRACTS, vocabulary=Vocabulary(roles=("support",)))


@pytest.fixture
def operations(tmp_path: Path) -> PolicyOperations:
    return PolicyOperations(load(tmp_path))


def test_the_overview_has_every_policy_and_every_call(operations: PolicyOperations) -> None:
    """Policies come with text, place and effect; calls with who may make them, and whether on conditions."""
    found = json.loads(json.dumps(operations.run("overview", {"module": "desk"})))
    named = {each["name"]: each for each in found["policies"]}
    assert named["support looks"]["audit"]
    assert named["support looks"]["place"].endswith("payments.cedar:4")
    assert 'Role::"support"' in named["support looks"]["text"]
    assert {each["effect"] for each in found["policies"]} == {"permit", "forbid"}
    assert found["callers"] == ["checkout", "desk", "payments", "gateway", "portal"]
    assert {"callee": "payments", "call": "Payments.charge"} in found["calls"]
    permitted = {(each["caller"], each["call"]): each["conditional"] for each in found["permitted"]}
    assert permitted == {
        ("checkout", "Payments.charge"): False, ("checkout", "Payments.find"): False,
        ("checkout", "Payments.refund"): True, ("desk", "Payments.find"): True,
    }  # fmt: skip


def test_a_request_is_explained_as_the_command_line_does(operations: PolicyOperations) -> None:
    """Which policy decides and what it looked at, for the very user that is given."""
    asked = {"caller": "desk", "call": "Payments.find", "request": {"user": "ann", "roles": ["support"]}}
    found = operations.run("explain", asked)
    assert found["allowed"]
    assert [each["name"] for each in found["reasons"]] == [found["considered"][0]["name"]]
    refused = operations.run("explain", {"caller": "desk", "call": "Payments.find", "request": {"user": "bo"}})
    assert not refused["allowed"]
    assert refused["considered"][0]["outcome"] == "does not apply"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"caller": "nobody", "call": "Payments.find"}, UnknownPolicyNameError),
        ({"caller": "desk", "call": "Payments.steal"}, UnknownPolicyNameError),
        ({"caller": "desk", "call": "http"}, UnknownPolicyNameError),
        ({"caller": "desk", "call": "Payments.find", "request": {"roles": ["support"]}}, PolicyTestError),
        ({"caller": "desk"}, TypeError),
    ],
)
def test_a_question_about_nothing_is_refused(
    operations: PolicyOperations, asked: dict[str, Any], error: type[Exception]
) -> None:
    """Names that are not there, and requests that do not fit, are said and not guessed at."""
    with pytest.raises(error):
        operations.run("explain", asked)
    with pytest.raises(UnknownPolicyNameError):
        operations.run("rewrite", {})


def test_the_policy_to_come_is_compared(operations: PolicyOperations, tmp_path: Path) -> None:
    """Each call that would be judged otherwise is listed; a mistake in it is told, and nothing to come is said."""
    assert operations.run("diff", {}) == {"there": False, "error": None, "changes": []}
    coming = tmp_path / "next"
    coming.mkdir()
    (coming / "payments.cedar").write_text(
        POLICY.replace('action in Action::"Payments"', 'action == Action::"Payments.find"')
    )
    changed = {(each["call"], each["now"], each["then"]) for each in operations.run("diff", {})["changes"]}
    assert ("Payments.charge", "allowed", "denied") in changed
    assert ("Payments.refund", "on conditions", "denied") in changed
    (coming / "payments.cedar").write_text("permit(principal, action, resurce);")
    assert operations.run("diff", {})["error"]["code"].startswith("SL4")


def test_a_policy_is_narrowed_to_what_was_seen(operations: PolicyOperations) -> None:
    """What was never used is taken out of the diff's other side; what is unknown is nobody's call."""
    found = operations.run("narrow", {"seen": [["checkout", "payments", "Payments.charge"], ["x", "y", "z"]]})
    assert 'action == Action::"Payments.charge"' in found["diff"]
    assert any("support looks" in name for name in found["unused"])
    assert any("the shop takes money" in name for name in found["narrowed"])
