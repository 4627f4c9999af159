"""``seamline policy``: test, explain and list on a small application."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seamline.cli.app import run

PERMITS = """\
@id("the public sees the shop")
permit(principal == Module::"gateway", action == Action::"http", resource == Module::"till");
permit(principal == Module::"till", action == Action::"Bank.charge", resource == Module::"bank");
@id("never at night")
forbid(principal == Module::"till", action == Action::"Bank.close", resource);
"""
TESTS = """\
[[test]]
caller = "till"
call = "Bank.charge"
expect = "allow"
[[test]]
caller = "gateway"
call = "Bank.charge"
expect = "deny"
"""

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    """Two modules: the till calls the bank."""
    for name, contract in (("till", "pass"), ("bank", "Bank")):
        package = tmp_path / "policyshop" / name
        package.mkdir(parents=True)
        if contract == "Bank":
            (package / "__init__.py").write_text(
                "from seamline import Contract\n\n\nclass Bank(Contract):\n"
                "    async def charge(self, amount: int) -> None: ...\n"
                "    async def refund(self, amount: int) -> None: ...\n"
                "    async def close(self) -> None: ...\n"
            )
            body = f"from policyshop.bank import Bank\n\nmodule = Module({name!r}, provides=Bank)\n"
        else:
            (package / "__init__.py").write_text("")
            body = f"module = Module({name!r})\n"
        (package / "module.py").write_text(f"from seamline import Module\n{body}")
    (tmp_path / "policyshop" / "__init__.py").write_text("")
    (tmp_path / "seamline.toml").write_text(
        '[app]\nname = "policyshop"\nmodules = ["policyshop.till", "policyshop.bank"]\n'
    )
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "shop.cedar").write_text(PERMITS)
    (tmp_path / "policy" / "tests.toml").write_text(TESTS)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "policyshop"]:
        del sys.modules[name]


@pytest.fixture
def ask(shop: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def asked(*arguments: str) -> tuple[int, str, str]:
        status = run(["policy", *arguments, "--app", str(shop)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return asked


def test_tests_that_pass_are_counted(ask: Ask):
    assert ask("test") == (0, "2 of 2 policy tests passed.\n", "")
    status, out, _ = ask("test", "--all")
    assert status == 0
    assert out.count("pass ") == 2


def test_a_test_that_fails_ends_with_status_one_and_says_what_decided(ask: Ask, shop: Path):
    with (shop / "policy" / "tests.toml").open("a") as file:
        file.write('[[test]]\ncaller = "till"\ncall = "Bank.close"\nexpect = "allow"\n')
    status, out, _ = ask("test")
    assert status == 1
    assert "FAIL" in out
    assert "never at night" in out
    assert out.endswith("2 of 3 policy tests passed.\n")
    status, out, _ = ask("test", "--json")
    assert status == 1
    answer = json.loads(out)
    assert (answer["ok"], answer["passed"]) == (False, 2)
    assert answer["tests"][2]["actual"] == "deny"


def test_a_missing_tests_file_is_an_error(ask: Ask, shop: Path):
    (shop / "policy" / "tests.toml").unlink()
    status, _, err = ask("test")
    assert status == 6
    assert "SL4504" in err


def test_every_mistake_in_the_policy_is_printed(ask: Ask, shop: Path):
    (shop / "policy" / "shop.cedar").write_text(
        'permit(principal == Module::"tlil", action, resource);\n'
        'permit(principal, action == Action::"Bank.chrge", resource);\n'
    )
    status, _, err = ask("list")
    assert status == 6
    assert "SL4502: policy/shop.cedar:1: there is no module 'tlil'. Did you mean 'till'?" in err
    assert "SL4502: policy/shop.cedar:2: there is no method or contract 'Bank.chrge'." in err


def test_a_permission_is_explained(ask: Ask):
    status, out, _ = ask("explain", "till", "Bank.charge")
    assert status == 0
    assert out.startswith("allowed: module 'till' may call 'Bank.charge' of 'bank'\n\npolicy/shop.cedar:3\n")


def test_a_denial_is_explained_with_the_missing_line(ask: Ask):
    status, out, _ = ask("explain", "till", "Bank.refund")
    assert status == 0
    assert out.startswith("denied: module 'till' may not call 'Bank.refund' of 'bank'\n")
    assert 'Add `permit(principal == Module::"till", action == Action::"Bank.refund"' in out


def test_public_http_is_explained_for_a_module(ask: Ask):
    _, out, _ = ask("explain", "gateway", "http", "--to", "till", "--json")
    assert json.loads(out)["reasons"][0]["name"] == "the public sees the shop (policy/shop.cedar:1)"
    _, out, _ = ask("explain", "gateway", "http", "--to", "bank", "--json")
    assert json.loads(out)["allowed"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tlil", "Bank.charge"), "there is no module 'tlil'. Did you mean 'till'?"),
        (("till", "Bank.chrge"), "Did you mean 'Bank.charge'?"),
        (("gateway", "http"), "Name the module it goes to."),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(ask: Ask, arguments: tuple[str, ...], message: str):
    status, _, err = ask("explain", *arguments)
    assert status == 6
    assert message in err


def test_the_matrix_shows_shares_of_contracts(ask: Ask):
    _, out, _ = ask("list")
    assert [line.split() for line in out.splitlines() if line.strip()] == [
        ["Bank"],
        ["till", "1/3"],
        ["public", "requests:", "till"],
    ]


def test_every_call_can_be_listed(ask: Ask):
    _, out, _ = ask("list", "--calls")
    rows = {tuple(line.split()) for line in out.splitlines()}
    assert {("Bank.charge", "bank", "till"), ("Bank.refund", "bank", "nobody"), ("http", "till", "gateway")} <= rows
    _, out, _ = ask("list", "--json")
    assert json.loads(out) == [
        {"caller": "till", "callee": "bank", "call": "Bank.charge"},
        {"caller": "gateway", "callee": "till", "call": "http"},
    ]
