"""``seamline policy``: test, explain and list on a small application."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

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
                "from typing import Annotated\n\nfrom seamline import Attribute, Contract\n\n\nclass Bank(Contract):\n"
                "    async def charge(self, amount: int) -> None: ...\n"
                "    async def refund(self, amount: Annotated[int, Attribute]) -> None: ...\n"
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
        '[policy]\nroles = ["clerk"]\nuser_attributes = { floor = "number" }\n'
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
        {"caller": "till", "callee": "bank", "call": "Bank.charge", "conditional": False},
        {"caller": "gateway", "callee": "till", "call": "http", "conditional": False},
    ]


CLERKS = """
@id("clerks refund a little")
permit(principal == Module::"till", action == Action::"Bank.refund", resource)
when { context.user in Role::"clerk" && context.args.amount <= 50 };
"""


@pytest.fixture
def clerks(shop: Path) -> Path:
    with (shop / "policy" / "shop.cedar").open("a") as file:
        file.write(CLERKS)
    return shop


def test_a_condition_is_explained_by_what_it_looked_at(ask: Ask, clerks: Path):
    status, out, _ = ask("explain", "till", "Bank.refund", "--user", "ann", "--role", "clerk", "--arg", "amount=51")
    assert status == 0
    assert out.startswith("denied: module 'till' may not call 'Bank.refund' of 'bank' for user 'ann'\n")
    assert 'context.user in Role::"clerk"  is true: context.user is User::"ann"' in out
    assert "context.args.amount <= 50  is false: context.args.amount is 51" in out
    _, out, _ = ask(
        "explain", "till", "Bank.refund", "--user", "ann", "--role", "clerk", "--arg", "amount=50", "--json"
    )
    assert json.loads(out)["allowed"] is True
    _, out, _ = ask("explain", "till", "Bank.refund", "--arg", "amount=50")
    assert "Sign in" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--user", "a", "--role", "clark"), "there is no role 'clark'. Did you mean 'clerk'?"),
        (("--arg", "amout=1"), "there is no args.amout. Did you mean 'amount'?"),
        (("--arg", "amount=much"), "args.amount is 'much'. It is a whole number."),
        (("--role", "clerk"), "'roles' is of a user, and there is none"),
        (("--user", "a", "--attribute", "flor=1"), "users have no attribute 'flor'. Did you mean 'floor'?"),
        (("--path", "/x"), "'path' is of public HTTP"),
    ],
)
def test_a_request_that_cannot_be_is_told(ask: Ask, clerks: Path, options: tuple[str, ...], message: str):
    status, _, err = ask("explain", "till", "Bank.refund", *options)
    assert status == 6
    assert message in err


def test_table_tests_have_people_and_arguments(ask: Ask, clerks: Path):
    who = '[[test]]\ncaller = "till"\ncall = "Bank.refund"\n'
    (clerks / "policy" / "tests.toml").write_text(
        f'{who}user = "ann"\nroles = ["clerk"]\nargs = {{ amount = 50 }}\nexpect = "allow"\n'
        f'{who}user = "ann"\nroles = ["clerk"]\nargs = {{ amount = 51 }}\nexpect = "deny"\n'
        f'{who}user = "bob"\nargs = {{ amount = 50 }}\nexpect = "deny"\n'
        f'{who}args = {{ amount = 50 }}\nexpect = "sign-in"\n'
        f'{who}args = {{ amount = 50 }}\nexpect = "allow"\n'
    )
    status, out, _ = ask("test", "--json")
    assert status == 1
    assert [each["passed"] for each in json.loads(out)["tests"]] == [True, True, True, True, False]


def test_the_policy_to_come_is_compared_and_tested(ask: Ask, shop: Path):
    assert ask("diff") == (0, "There is no policy to come: write *.cedar files into next/ in the policy folder.\n", "")
    (shop / "policy" / "next").mkdir()
    (shop / "policy" / "next" / "shop.cedar").write_text(PERMITS.replace("Bank.charge", "Bank.refund"))
    status, out, _ = ask("diff")
    assert status == 1
    assert out == "till -> Bank.charge of bank: allowed -> denied\ntill -> Bank.refund of bank: denied -> allowed\n"
    assert ask("test")[0] == 0
    assert ask("test", "--next")[0] == 1


def test_what_was_seen_becomes_the_policy_to_come(ask: Ask, shop: Path, monkeypatch: pytest.MonkeyPatch):
    """What was seen at earlier times counts too, until it is to be forgotten."""
    edges = [{"caller": "till", "callee": "bank", "action": "Bank.charge", "calls": 1}]
    answer = {"processes": [{"edges": edges, "public": []}]}
    monkeypatch.setattr("seamline.cli.connect.ask", Mock(return_value=answer))
    (shop / ".seamline").mkdir()
    _, out, _ = ask("record")
    assert "never used: the public sees the shop (policy/shop.cedar:1)" in out
    assert not (shop / "policy" / "next").exists()
    answer["processes"] = [{"edges": [], "public": [{"caller": "gateway", "callee": "till", "calls": 3}]}]
    _, out, _ = ask("record", "--write")
    assert out.startswith("Every permit was used whole: there is nothing to narrow.\n")
    assert (shop / "policy" / "next" / "shop.cedar").read_text() == PERMITS
    assert ask("diff")[0] == 0
    assert json.loads(ask("record", "--fresh", "--json")[1])["unused"] == ["policy/shop.cedar:3"]


def test_a_bundle_is_signed_applied_and_left_again(ask: Ask, shop: Path):
    key = Ed25519PrivateKey.generate()
    (shop / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (shop / "key.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    made = str(shop / "one.bundle")
    assert ask("apply", str(shop / "key.pem"))[0] == 6
    with (shop / "seamline.toml").open("a") as file:
        file.write('bundle_key = "key.pub"\n')
    assert "none was applied" in ask("list")[2]
    for number in (1, 2):
        assert ask("bundle", "--key", str(shop / "key.pem"), "--sequence", str(number), "--out", made)[0] == 0
        assert ask("apply", made) == (0, f"Bundle {number} is in force.\n", "")
        with (shop / "policy" / "shop.cedar").open("a") as file:
            file.write('permit(principal == Module::"till", action == Action::"Bank.refund", resource);\n')
    assert "Bank.refund" in ask("list", "--json")[1]
    assert "SL4508" in ask("apply", made)[2]
    assert ask("rollback") == (0, "Bundle 1 is in force again.\n", "")
    assert "Bank.refund" not in ask("list", "--json")[1]
    (shop / "policy" / "tests.toml").write_text(TESTS.replace('"deny"', '"allow"'))
    assert "1 policy tests fail" in ask("bundle", "--key", str(shop / "key.pem"), "--sequence", "3", "--out", made)[2]
