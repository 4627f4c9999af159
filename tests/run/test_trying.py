"""What a module offers as JSON, and a call made by hand: under policy as any other, traced, audited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shop import POLICY, SOURCES
from supervised import Running, Starter

from seamline.kernel.errors import SeamlineError

PERMIT = 'permit (principal == Module::"portal", action in Action::"Carts", resource == Module::"cart");\n'


@pytest.fixture
def running(start: Starter) -> Running:
    for name, text in SOURCES.items():
        path = start.folder / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (start.folder / "shop" / "__init__.py").touch()
    (start.folder / "policy").mkdir()
    (start.folder / "policy" / "shop.cedar").write_text(POLICY)
    return start(topology="duo", host_factory="").until_ready()


def tried(running: Running, method: str, **arguments: Any) -> dict[str, Any]:
    return running.ask("try", module="cart", method=method, arguments=arguments)


def test_a_module_says_what_it_offers_and_needs(running: Running):
    """Contracts with parameters and texts, faults, whom it calls, where it answers."""
    cart = running.ask("describe", module="cart")
    add = cart["contracts"]["Carts"]["methods"]["add"]
    assert list(add["parameters"]) == ["user", "item"]
    assert cart["contracts"]["Carts"]["methods"]["lines"]["idempotent"] is True
    assert list(cart["faults"]) == ["Empty"]
    assert running.ask("describe", module="orders")["calls"] == [["Carts", "cart"]]
    assert running.ask("describe", module="front")["routes"] == [{"at": "/", "host": ""}]
    with pytest.raises(SeamlineError, match="there is no module 'nobody'"):
        running.ask("describe", module="nobody")


def test_a_call_by_hand_asks_policy_as_any_other(running: Running):
    """Refused with the permit to add; permitted once it is there; then the result, the fault, what does not fit."""
    refused = tried(running, "Carts.add", user="ann", item="mug")["error"]
    assert refused["code"] == "permission_denied"
    assert 'Module::"portal"' in refused["remedy"]
    (running.folder / "policy" / "portal.cedar").write_text(PERMIT)
    running.ask("policy")
    done = tried(running, "Carts.add", user="ann", item="mug")
    assert json.loads(done["result"]) == ["mug"]
    assert len(bytes.fromhex(done["trace_id"])) == 16
    assert tried(running, "Carts.lines", user="bo")["error"]["error"] == "Empty"
    assert tried(running, "Carts.add", user=7)["error"]["code"] == "invalid_argument"
    assert json.loads(tried(running, "Carts.lines", user="ann")["result"]) == ["mug"]
    with pytest.raises(SeamlineError, match=r"module 'cart' has no method 'Orders.place'"):
        tried(running, "Orders.place", user="ann")


def test_a_call_by_hand_takes_an_operator_and_is_written_down(running: Running):
    """A viewer may look at a contract and call nothing; who called what stands in the audit, without the arguments."""
    viewer = {"as": {"name": "session 9", "role": "viewer", "peer": "portal"}}
    assert running.ask("describe", module="cart", **viewer)["owner"] == ""
    with pytest.raises(SeamlineError, match="needs the role 'operator'"):
        running.ask("try", module="cart", method="Carts.add", arguments={"user": "secret"}, **viewer)
    tried(running, "Carts.add", user="secret", item="mug")
    text = (running.data / "audit" / "supervisor.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    asked = [(each["decision"], each.get("method")) for each in lines if each.get("action") == "try"]
    assert asked == [("deny", "Carts.add"), ("allow", "Carts.add")]
    assert "secret" not in text
