"""On whose behalf, when time passes between: through an event and through a saga, also past the death of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from errand.orders import Orders
from errand.payments import Asked, Payments
from seamline import User
from seamline.testing.app import TopologyApp

pytestmark = pytest.mark.seamline(
    app="tests/identity/errand_app", topologies=["local", "copy", "processes", "processes+http", "duo", "monolith"]
)


def user(name: str) -> User:
    return User(
        name, issuer="https://id.example", roles=frozenset({"support"}), session=f"{name}'s",
        authenticated_at=1_700_000_000, scopes=frozenset({"pay"}), attributes={"age": 30},
    )  # fmt: skip


async def paid(app: TopologyApp, note: str) -> Asked:
    """What payments wrote down, once it did."""
    found: dict[str, Asked] = {}

    async def there() -> bool:
        found.update(await app.stub(Payments).paid())
        return note in found

    await until(there)
    return found[note]


async def until(there: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await there():  # noqa: ASYNC110  # another process is asked
            await asyncio.sleep(0.02)


async def test_through_an_event(topology_app: TopologyApp):
    """The handler acts for who published, with all that had acted before it; nobody's event is nobody's."""
    note = f"event {topology_app.topology}"
    await topology_app.stub(Orders, caller="front", user=user("ann")).publish(note)
    asked = await paid(topology_app, note)
    assert asked == Asked("ann", ["support"], "ann's", ["pay"], 30, "payments", "", ["front", "orders", "mail"])
    await topology_app.stub(Orders, caller="front").publish(f"nobody's {note}")
    assert (await paid(topology_app, f"nobody's {note}")).user == ""


async def test_through_a_saga(topology_app: TopologyApp):
    """Each step acts for who began it, also after the saga has slept, and whoever woke it."""
    note = f"saga {topology_app.topology}"
    saga = await topology_app.stub(Orders, caller="front", user=user("bob")).begin(note)
    first = await paid(topology_app, f"{note} first")
    assert first == Asked("bob", ["support"], "bob's", ["pay"], 30, "payments", "", ["front", "orders"])
    await topology_app.stub(Orders, caller="front", user=user("somebody else")).go_on(saga)
    assert await paid(topology_app, f"{note} then") == first


@pytest.mark.seamline(topologies=["processes", "duo", "monolith"])
async def test_a_saga_whose_process_was_killed(topology_app: TopologyApp):
    """Its successor, with keys of its own, proves the user to payments as if nothing had happened."""
    note = f"killed {topology_app.topology}"
    saga = await topology_app.stub(Orders, caller="front", user=user("cyd")).begin(note)
    first = await paid(topology_app, f"{note} first")
    topology_app.kill("orders")
    topology_app.wait_ready()
    await topology_app.stub(Orders, caller="front").go_on(saga)
    assert await paid(topology_app, f"{note} then") == first


@pytest.mark.seamline(topologies=["local", "copy"])
async def test_a_saga_past_a_restart(topology_app: TopologyApp):
    note = f"restarted {topology_app.topology}"
    saga = await topology_app.stub(Orders, caller="front", user=user("cyd")).begin(note)
    first = await paid(topology_app, f"{note} first")
    topology_app.restart()
    await topology_app.stub(Orders, caller="front").go_on(saga)
    assert await paid(topology_app, f"{note} then") == first


async def test_a_saga_of_a_revoked_user_is_undone(topology_app: TopologyApp):
    """Its next step is refused; what was done is taken back by the module itself, in nobody's name."""
    note = f"revoked {topology_app.topology}"
    saga = await topology_app.stub(Orders, caller="front", user=user("dan")).begin(note)
    await paid(topology_app, f"{note} first")
    topology_app.revoke("user", "dan", reason="stolen")
    await topology_app.stub(Orders, caller="front").go_on(saga)
    undone = await paid(topology_app, f"undone {note} first")
    assert undone.user == ""
    assert f"{note} then" not in await topology_app.stub(Payments).paid()


async def test_a_saga_outlives_the_sign_out(topology_app: TopologyApp):
    """Who has ordered may sign out: the order goes on."""
    note = f"left {topology_app.topology}"
    saga = await topology_app.stub(Orders, caller="front", user=user("eve")).begin(note)
    await paid(topology_app, f"{note} first")
    topology_app.revoke("session", "eve's", reason="signed out")
    await topology_app.stub(Orders, caller="front").go_on(saga)
    assert (await paid(topology_app, f"{note} then")).user == "eve"
