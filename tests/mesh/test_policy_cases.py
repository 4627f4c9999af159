"""``tests.toml``: what it proves, and that it cannot silently prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.mesh.errors import PolicyTestError
from seamline.mesh.policy import Policy, read_cases, run_cases

POLICY = Policy.from_text(
    'permit(principal == Module::"checkout", action in Action::"Payments", resource == Module::"payments");\n'
    'permit(principal == Module::"gateway", action == Action::"http", resource == Module::"checkout");\n',
    modules={"checkout": {}, "payments": {}},
    contracts={"Payments": ("payments", ["charge"])},
)


def run(tmp_path: Path, text: str):
    file = tmp_path / "tests.toml"
    file.write_text(text)
    return run_cases(POLICY, read_cases(file))


def case(caller: str, call: str, expect: str, more: str = "") -> str:
    return f'[[test]]\ncaller = "{caller}"\ncall = "{call}"\nexpect = "{expect}"\n{more}\n'


def test_expectations_are_met_or_not(tmp_path: Path):
    results = run(
        tmp_path,
        case("checkout", "Payments.charge", "allow")
        + case("checkout", "Payments.charge", "deny", 'name = "wrong on purpose"')
        + case("gateway", "Payments.charge", "deny")
        + case("gateway", "http", "allow", 'to = "checkout"')
        + case("gateway", "http", "allow", 'to = "payments"'),
    )
    assert [result.passed for result in results] == [True, False, True, True, False]
    assert results[1].to_json() == {
        "name": "wrong on purpose",
        "caller": "checkout",
        "call": "Payments.charge",
        "to": "payments",
        "expect": "deny",
        "actual": "allow",
        "passed": False,
        "reasons": ["policy.cedar:1"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds no \[\[test\]\] tables"),
        ("[[tests]]\n", r"holds no \[\[test\]\] tables"),
        ("test = []", r"holds no \[\[test\]\] tables"),
        ("test = [1]", "is not a table"),
        ("[[test]\n", "cannot be read"),
        (case("checkout", "Payments.charge", "allow") + "[more]\n", "something else"),
        (case("chekout", "Payments.charge", "allow"), "test 1: there is no module 'chekout'. Did you mean 'checkout'"),
        (case("checkout", "Payments.chrge", "deny"), "Did you mean 'Payments.charge'"),
        (case("checkout", "http", "deny"), "does not say of which module"),
        (case("checkout", "http", "deny", 'to = "paymnts"'), "Did you mean 'payments'"),
        (case("checkout", "Payments.charge", "deny", 'to = "checkout"'), "belongs to 'payments'"),
        (case("checkout", "Payments.charge", "allowed"), "expect = 'allowed'"),
        (case("checkout", "Payments.charge", "allow", 'calller = "x"'), "no key 'calller'. Did you mean 'caller'"),
        ('[[test]]\ncaller = "checkout"\nexpect = "deny"\n', "'call' is missing"),
        ('[[test]]\ncaller = 1\ncall = "http"\nexpect = "deny"\n', "'caller' is missing"),
    ],
)
def test_a_test_that_would_test_nothing_is_an_error(tmp_path: Path, text: str, message: str):
    with pytest.raises(PolicyTestError, match=message):
        run(tmp_path, text)


def test_a_missing_file_says_how_to_begin(tmp_path: Path):
    with pytest.raises(PolicyTestError, match=r"there are no policy tests. Write a \[\[test\]\] table"):
        read_cases(tmp_path / "tests.toml")
