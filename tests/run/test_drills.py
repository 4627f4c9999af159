"""A drill from begin to end over real processes: planted where it is meant, watched, gone when nobody watches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from supervised import Running, Starter, until

from seamline.kernel.errors import SeamlineError
from seamline.run.admin import AdminClient
from seamline.run.roles import needed

SOURCES = {
    "__init__.py": "",
    "cart/__init__.py": """
from seamline import Contract
class Carts(Contract):
    async def lines(self) -> list[str]: ...
""",
    "cart/module.py": """
from seamline import Module
from shop.cart import Carts
module = Module("cart", provides=Carts, version="3")
@module.service
class CartService(Carts):
    async def lines(self) -> list[str]:
        return ["a"]
""",
    "front/__init__.py": "",
    "front/module.py": """
import json, time
from seamline import Module, use
from shop.cart import Carts
module = Module("front")
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    began = time.monotonic()
    try:
        said = await (await use(Carts)()).lines()
    except Exception as error:
        said = type(error).__name__
    body = json.dumps({"said": said, "ms": (time.monotonic() - began) * 1000}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
module.mount(app, at="/")
""",
}
APP = 'modules = ["shop.cart", "shop.front"]\n'


@pytest.fixture
def shop(start: Starter) -> Starter:
    for name, text in SOURCES.items():
        path = start.folder / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (start.folder / "policy").mkdir()
    (start.folder / "policy" / "all.cedar").write_text("permit(principal, action, resource);")
    (start.folder / "seamline.toml").write_text(f'[app]\nname = "shop"\n{APP}[gateway]\nlisten = "127.0.0.1:0"\n')
    return start


def up(shop: Starter, topology: str) -> Running:
    return shop(host_factory="", topology=topology).until_ready()


def drill(running: Running, **more: Any) -> dict[str, Any]:
    return running.ask("drill", operation="run", module="cart", **more)


def said(running: Running) -> Any:
    return running.get("/")["said"]


def running_drills(running: Running) -> list[dict[str, Any]]:
    return running.ask("drill", operation="list")["drills"]


@pytest.mark.parametrize("topology", ["monolith", "services"])
def test_a_fault_is_planted_and_taken_away(shop: Starter, topology: str) -> None:
    """In one process and in many: calls fail while it runs and are well after its end, and the audit knows both."""
    running = up(shop, topology)
    assert said(running) == ["a"]
    began = drill(running, fault="error", share=1.0, for_s=60)
    assert said(running) == "InternalError"
    assert running_drills(running)[0]["id"] == began["id"]
    ended = running.ask("drill", operation="end", id=began["id"])
    assert ended["struck"] >= 1
    assert said(running) == ["a"]
    assert not running_drills(running)
    audit = (running.data / "audit" / "supervisor.jsonl").read_text()
    assert audit.count('"fault": "error"') == 1


def test_answers_on_the_way_are_held_back_in_the_callers_socket(shop: Starter) -> None:
    """Between processes the network is slow; its end lets go."""
    running = up(shop, "services")
    began = drill(running, fault="network", amount=80)
    until(lambda: running.get("/")["ms"] >= 80, "a slow network")
    running.ask("drill", operation="end", id=began["id"])
    until(lambda: running.get("/")["ms"] < 80, "a fast network")


def test_a_drill_ends_when_who_watches_it_has_gone(shop: Starter) -> None:
    """The connection that holds it up breaks: seconds later the fault is gone everywhere."""
    running = up(shop, "services")
    began = drill(running, fault="error", share=1.0, for_s=600, watched=True)

    async def watch_shortly() -> None:
        lines = AdminClient(running.data).request("drill", operation="watch", id=began["id"])
        assert "drill" in await anext(lines)
        await lines.aclose()  # type: ignore[attr-defined]  # it is a generator

    asyncio.run(watch_shortly())
    until(lambda: said(running) == ["a"], "the end of the drill")
    assert not running_drills(running)


def test_workers_that_come_meanwhile_have_the_fault_too(shop: Starter) -> None:
    """A switch does not end a drill: the new processes learn of it."""
    running = up(shop, "monolith")
    drill(running, fault="error", share=1.0, for_s=60)
    running.ask("switch", topology="services")
    until(lambda: said(running) == "InternalError", "the fault in the new processes")


def test_a_bad_release_is_another_version_in_new_processes(shop: Starter) -> None:
    """The module's processes are new, their version is told to callers, and their code fails."""
    running = up(shop, "services")
    before = running.pids()
    began = drill(running, fault="release", share=1.0, for_s=60)
    after = running.pids()
    assert after["cart"] != before["cart"]
    assert after["front"] == before["front"]
    assert said(running) == "InternalError"
    running.ask("drill", operation="end", id=began["id"])
    assert said(running) == ["a"]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"fault": "sloth"}, "SL5006"),
        ({"fault": "delay", "module": "nobody"}, "SL5006"),
        ({"fault": "network"}, "SL7641"),
        ({"fault": "drift"}, "SL7641"),
        ({"fault": "poison"}, "SL7641"),
        ({"fault": "slow-sql"}, "SL7641"),
        ({"fault": "delay", "share": 2}, "SL7641"),
        ({"fault": "delay", "amount": -1}, "SL7641"),
    ],
)
def test_what_cannot_be_planted_is_said(shop: Starter, order: dict[str, Any], code: str) -> None:
    """Unknown names, faults that make no sense there, amounts that are none: a sentence, and nothing runs."""
    running = up(shop, "monolith")
    with pytest.raises(SeamlineError) as refused:
        running.ask("drill", **{"operation": "run", "module": "cart", **order})
    assert refused.value.code == code
    assert not running_drills(running)
    assert said(running) == ["a"]


def test_where_others_can_reach_it_an_admin_says_yes(shop: Starter) -> None:
    """An application that listens on all addresses is not drilled by mistake."""
    path: Path = shop.folder / "seamline.toml"
    path.write_text(path.read_text().replace("127.0.0.1:0", "0.0.0.0:0"))
    running = up(shop, "monolith")
    with pytest.raises(SeamlineError, match="where others can reach it"):
        drill(running, fault="delay")
    assert drill(running, fault="delay", yes=True)["fault"] == "delay"
    assert needed("drill", {"operation": "run", "yes": True}) == "admin"
    assert needed("drill", {"operation": "run"}) == "operator"
    assert needed("drill", {"operation": "list"}) == "operator"
