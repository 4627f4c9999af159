"""The call graph is checked in, so that a new arrow is a diff that somebody sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.mesh.policy import EVENTS
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
        if caller != callee and policy.may(caller, callee, contract, method)
    ]


@pytest.fixture(scope="module")
def heard(application: Application) -> list[tuple[str, str]]:
    """Every (listener, teller) whose events the policy lets it read."""
    policy = application.policy()
    return [
        (listener, teller)
        for listener in sorted((*application.modules, "gateway"))
        for teller in sorted(application.modules)
        if listener != teller and policy.may(listener, teller, "", EVENTS)
    ]


def test_the_graph_is_the_one_checked_in(
    permitted: list[tuple[str, str, str]], heard: list[tuple[str, str]], request: pytest.FixtureRequest
):
    """`graph.txt` holds each permitted call, and who may hear whom; write it anew with `pytest --update-golden`."""
    calls = "".join(f"{caller} -> {contract}.{method}\n" for caller, contract, method in permitted)
    events = "".join(f"{teller} ~> {listener}\n" for listener, teller in heard)
    update = bool(request.config.getoption("--update-golden"))
    assert (APP / "graph.txt").exists() or update
    compare_with_golden(f"{calls}\n{events}".encode(), APP / "graph.txt", "policy", update=update)


def test_what_is_wired_is_permitted_and_nothing_else(application: Application, permitted: list[tuple[str, str, str]]):
    """Least privilege: no permit for a contract that neither a module nor the AI gateway asks for, and none missing."""
    wired = {(caller, contract) for caller, contract, callee in application.graph() if caller != callee}
    models = application.settings.ai_gateway.models.values()
    wired |= {("gateway", target.engine.removeprefix("module:")) for model in models for target in model.targets}
    assert {(caller, contract) for caller, contract, _ in permitted} == wired


def test_whose_events_are_handled_may_be_read_and_no_others(application: Application, heard: list[tuple[str, str]]):
    """The same for events."""
    handled = {
        (module.name, application.events[handler.event])
        for module in application.modules.values()
        for handler in module.event_handlers
    }
    assert set(heard) == {(listener, teller) for listener, teller in handled if listener != teller}


def test_the_application_is_sound(application: Application):
    """No finding: contracts, wiring, imports of insides, policy."""
    assert application.findings() == []
