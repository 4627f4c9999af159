"""What policy says of secrets, where no contract of the application is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.mesh.errors import PolicyError
from seamline.mesh.policy import Policy, SecretRules
from seamline.mesh.policy.sources import in_folder

MODULES = ("pay", "cart", "spy")
PERMIT = 'permit(principal == Module::"pay", action == Action::"secret", resource == Secret::"key");'


def rules(folder: Path, text: str) -> SecretRules:
    (folder / "p.cedar").write_text(text, encoding="utf-8")
    return SecretRules(in_folder(folder), MODULES)


def readers(folder: Path, text: str) -> tuple[str, ...]:
    return rules(folder, text).readers(["key"])["key"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (PERMIT, ("pay",)),
        ("permit(principal, action, resource);", ()),
        ('permit(principal == Module::"pay", action, resource == Secret::"key");', ()),
        ('permit(principal, action == Action::"secret", resource == Secret::"other");', ()),
        ('permit(principal, action == Action::"secret", resource);', MODULES),
        ('permit(principal, action in [Action::"secret", Action::"http"], resource == Secret::"key");', MODULES),
        (f'{PERMIT} forbid(principal, action, resource == Secret::"key");', ()),
        (f"{PERMIT} forbid(principal, action, resource);", ()),
        (f'{PERMIT} forbid(principal == Module::"spy", action, resource);', ("pay",)),
        (f"{PERMIT} forbid(principal, action, resource) when {{ principal.owner == 1 }};", ()),
        (PERMIT.replace('== Secret::"key")', ') when { resource in [Secret::"key", Secret::"b"] }'), ("pay",)),
        ('permit(principal == Module::"pay", action in Action::"Payments", resource);', ()),
    ],
)
def test_only_who_is_permitted_secrets_by_name_of_the_action_gets_them(
    tmp_path: Path, text: str, expected: tuple[str, ...]
):
    """Deny by default; a permit for everything was meant for calls; a forbid, also one that cannot be judged, wins."""
    assert readers(tmp_path, text) == expected


def test_reading_is_not_rotating(tmp_path: Path):
    """Each has a permit of its own; a module that the application does not have gets nothing."""
    found = rules(tmp_path, PERMIT)
    assert found.denial("pay", "secret", "key") is None
    assert found.denial("pay", "rotate", "key") is not None
    assert rules(tmp_path, 'permit(principal, action == Action::"secret", resource);').denial("evil", "secret", "key")


def test_the_remedy_of_a_refusal_is_a_policy_that_permits(tmp_path: Path):
    """And one that the whole policy's own check accepts."""
    denial = rules(tmp_path, "").denial("cart", "rotate", "a/b.c")
    assert denial is not None
    line = denial[1].partition("`")[2].partition("`")[0]
    assert rules(tmp_path, line).denial("cart", "rotate", "a/b.c") is None
    Policy.load(tmp_path, modules={name: {} for name in MODULES}, contracts={})


def test_a_mistake_leaves_the_old_rules_in_force(tmp_path: Path):
    """Until the file is right again."""
    found = rules(tmp_path, PERMIT)
    (tmp_path / "p.cedar").write_text("permit(")
    with pytest.raises(PolicyError):
        found.reload()
    assert found.denial("pay", "secret", "key") is None
    (tmp_path / "p.cedar").write_text("")
    found.reload()
    assert found.denial("pay", "secret", "key") is not None
