"""On whose behalf: the same principal arrives in every topology, through calls and streams, and stops when revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from errand.orders import Orders
from errand.payments import Asked, Payments
from seamline import PermissionDenied, Unauthenticated, Unavailable, User
from seamline.testing import Transcript
from seamline.testing.app import TopologyApp

pytestmark = pytest.mark.seamline(
    app="tests/identity/errand_app",
    topologies=["local", "copy", "processes", "processes+http", "duo", "monolith"],
)


def user(name: str = "ann") -> User:
    """Each test's own: what one revokes is not another's."""
    return User(
        name, issuer="https://id.example", roles=frozenset({"support", "desk"}), tenant="t1", session=f"{name}'s",
        authenticated_at=1_700_000_000, client="web", scopes=frozenset({"read", "pay"}), attributes={"age": 30},
    )  # fmt: skip


async def test_the_user_arrives_after_two_hops(topology_app: TopologyApp, transcript: Transcript):
    """Roles, scopes, attributes, chain and acting module: the same bytes."""
    orders = topology_app.stub(Orders, caller="front", user=user())
    await transcript.call("call", orders.call())
    await transcript.call("myself", orders.myself())
    await transcript.call("alone", orders.alone())
    assert b'"ann"' in transcript.content
    asked = await orders.call()
    assert asked == Asked("ann", ["desk", "support"], "ann's", ["pay", "read"], 30, "payments", "", ["front", "orders"])


async def test_nobody_is_nobody(topology_app: TopologyApp, transcript: Transcript):
    """Without a user there is none, and who needs one says so."""
    orders = topology_app.stub(Orders, caller="front")
    await transcript.call("call", orders.call())
    await transcript.call("myself", orders.myself())
    assert (await orders.call()).user == ""
    with pytest.raises(Unauthenticated):
        await orders.myself()


async def test_two_users_at_once_are_not_mixed_up(topology_app: TopologyApp):
    """Many calls under way on the same connections, each with its own."""
    stubs = {name: topology_app.stub(Orders, caller="front", user=user(name)) for name in ("ann", "bob", "cyd")}
    asked = await asyncio.gather(*(stub.call() for stub in stubs.values() for _ in range(20)))
    assert [each.user for each in asked] == [name for name in stubs for _ in range(20)]


async def test_a_revoked_user_is_refused(topology_app: TopologyApp, transcript: Transcript):
    """The next call is refused, for every module, and other users are not touched."""
    orders = topology_app.stub(Orders, caller="front", user=user("dan"))
    assert (await orders.call()).user == "dan"
    topology_app.revoke("session", "dan's", reason="stolen")
    await transcript.call("after", orders.call())
    with pytest.raises(Unauthenticated, match="stolen"):
        await orders.call()
    assert (await topology_app.stub(Orders, caller="front", user=user("eve")).call()).user == "eve"


async def test_what_is_under_way_is_cut(topology_app: TopologyApp):
    """A handler that waits, and a stream through two modules, end at once when their user is revoked."""
    orders = topology_app.stub(Orders, caller="front", user=user("fay"))
    others = topology_app.stub(Orders, caller="front", user=user("gil"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(error_of(orders.wait()))
        untouched = group.create_task(error_of(others.wait()))
        stream = aiter(orders.watch())
        assert (await anext(stream)).user == "fay"
        topology_app.revoke("user", "fay", reason="gone")
        with pytest.raises(Unauthenticated, match="gone"):
            await anext(stream)
        assert isinstance(await waiting, Unauthenticated)
        assert not untouched.done()
        untouched.cancel()


async def error_of(call: Awaitable[object]) -> Exception | None:
    try:
        await call
    except Exception as error:
        return error
    return None


async def test_the_public_side_without_a_user(topology_app: TopologyApp):
    """A request that nobody signed is nobody's, for the app as for what it calls."""
    answer = await topology_app.http.get("/who")
    assert answer.json() == {"scope": "", "user": "", "chain": [], "asked": ""}


async def test_a_quarantined_module_neither_calls_nor_is_called(topology_app: TopologyApp, transcript: Transcript):
    """Its own calls are refused, and those of others to it, with the reason; the others go on among themselves."""
    orders = topology_app.stub(Orders, caller="front")
    payments = topology_app.stub(Payments, caller="orders")
    assert (await orders.call()).module == "payments"
    topology_app.revoke("module", "front", reason="compromised")
    await transcript.call("calls", orders.call())
    with pytest.raises(PermissionDenied, match="compromised"):
        await orders.call()
    assert (await payments.who()).module == "payments"
    topology_app.revoke("module", "payments", reason="broken into")
    with pytest.raises(Unavailable, match="broken into"):
        await payments.who()
