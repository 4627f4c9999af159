"""The call graph is checked in, so that a new arrow is a diff that somebody sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.run.application import Application
from seamline.testing.transcript import compare_with_golden

APP = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def application() -> Application:
    return Application.load(APP)


@pytest.fixture(scope="module")
def permitted(application: Application) -> list[tuple[str, str, str]]:
    """Every (caller, contract, method) between modules that the policy permits."""
    policy = application.policy()
    return [
        (caller, contract, method)
        for caller in sorted((*application.modules, "gateway"))
        for contract, (callee, methods) in sorted(application.contract_methods().items())
        for method in sorted(methods)
        if caller != callee and policy.allows(caller, callee, contract, method)
    ]


def test_the_graph_is_the_one_checked_in(permitted: list[tuple[str, str, str]], request: pytest.FixtureRequest):
    """`graph.txt` holds each permitted call; write it anew with `pytest --update-golden` and read the diff."""
    lines = "".join(f"{caller} -> {contract}.{method}\n" for caller, contract, method in permitted)
    update = bool(request.config.getoption("--update-golden"))
    assert (APP / "graph.txt").exists() or update
    compare_with_golden(lines.encode(), APP / "graph.txt", "policy", update=update)


def test_what_is_wired_is_permitted_and_nothing_else(application: Application, permitted: list[tuple[str, str, str]]):
    """Least privilege: no permit for a contract that a module does not ask for, and none missing."""
    wired = {(caller, contract) for caller, contract, _ in application.graph()}
    assert {(caller, contract) for caller, contract, _ in permitted} == wired


def test_the_application_is_sound(application: Application):
    """No finding: contracts, wiring, imports of insides, policy."""
    assert application.findings() == []
