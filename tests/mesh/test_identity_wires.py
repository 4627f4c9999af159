"""A proof that is not good reaches no handler, on either wire, and leaves a line in the audit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.mesh.rig import Rig, Stock, StockService, rig

from seamline.mesh.identity.keyring import PublicKeys
from seamline.mesh.identity.revocation import Revocation
from seamline.mesh.mesh import Mesh
from seamline.module.context import CURRENT, CallContext
from seamline.module.errors import CallError, Unauthenticated, Unavailable
from seamline.module.principal import Subject, User

WIRES = pytest.mark.parametrize("wire", ["frames", "http"])
ANN = User("ann", session="s1")


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as one:
        yield one


class Seen(StockService):
    """Keeps on whose behalf it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.users: list[str] = []

    async def take(self, sku: str, count: int = 1) -> str:
        context = CURRENT.get()
        user = context.subject.user if context.subject is not None else None
        self.users.append(user.id if user is not None else "")
        return await super().take(sku, count)


async def between(made: Rig, wire: str, service: Seen) -> tuple[Mesh, Mesh]:
    """(the callee's, the caller's process, which hosts the gateway too)."""
    server, endpoint = await made.serve(service)
    client = made.mesh("orders", "gateway", wire=wire, rules={"retries": 0})
    client.set_endpoints({"stock": [endpoint]})
    return server, client


async def take(client: Mesh, subject: Subject) -> str:
    token = CURRENT.set(CallContext("orders", "gateway", subject=subject))
    try:
        return await client.stub(Stock, "orders").take("mug")
    finally:
        CURRENT.reset(token)


def audited(server: Mesh) -> list[str]:
    assert server.audit is not None
    return [json.loads(line)["reason"] for line in server.audit.path.read_text().splitlines()]


@WIRES
async def test_a_good_one_is_taken(made: Rig, wire: str):
    service = Seen()
    _, client = await between(made, wire, service)
    await take(client, client.introduce(ANN))
    await client.stub(Stock, "orders").take("mug")
    assert service.users == ["ann", ""]


def stolen(made: Rig, _: Mesh) -> str:
    """Made by a module of another process, for this very callee."""
    other = made.mesh("stranger", "gateway")
    return other.delegation.token(other.introduce(ANN).acting("stranger"), "stock")


def misdirected(_: Rig, client: Mesh) -> str:
    return client.delegation.token(client.introduce(ANN).acting("orders"), "stranger")


def waiting(_: Rig, client: Mesh) -> str:
    return client.delegation.defer(client.introduce(ANN).acting("orders"), "orders", "saga:1")[0]


def without_the_gateway(_: Rig, client: Mesh) -> str:
    return client.delegation.token(client.introduce(ANN).acting("orders"), "stock").partition("~")[2]


def garbage(*_: object) -> str:
    return "nonsense"


@WIRES
@pytest.mark.parametrize("forge", [stolen, misdirected, waiting, without_the_gateway, garbage])
async def test_a_bad_one_is_refused(made: Rig, wire: str, forge: Callable[[Rig, Mesh], str]):
    """Its caller is a module in good standing, and may call the method: what it shows is refused all the same."""
    service = Seen()
    server, client = await between(made, wire, service)
    forged = forge(made, client)
    client.delegation.token = lambda subject, callee: forged
    with pytest.raises(Unauthenticated) as caught:
        await take(client, client.introduce(ANN))
    assert not caught.value.started
    assert service.users == []
    assert any(reason.startswith("SL410") for reason in audited(server))
    assert forged not in server.audit.path.read_text() if server.audit is not None else False


@WIRES
async def test_the_callee_asks_for_itself_whether_it_is_revoked(made: Rig, wire: str):
    """Also where the caller has not heard of it, or does not want to."""
    service = Seen()
    server, client = await between(made, wire, service)
    await take(client, client.introduce(ANN))
    server.revocations.apply([Revocation("session", "s1", reason="stolen")])
    with pytest.raises(Unauthenticated, match="stolen"):
        await take(client, client.introduce(ANN))
    client.revocations.apply([Revocation("user", "ann", reason="and here")])
    with pytest.raises(Unauthenticated, match="and here"):
        client.introduce(ANN)
    assert service.users == ["ann"]


@WIRES
async def test_a_call_that_overtakes_the_news_of_its_key(made: Rig, wire: str):
    """A key that nobody has told of yet is asked for, and the call is tried again: no request fails for it."""
    service = Seen()
    server, client = await between(made, wire, service)
    asked: list[str] = []
    assert server.identity is not None
    late = PublicKeys()
    server.identity.keys = late

    def ask(kid: str) -> None:
        asked.append(kid)
        asyncio.get_running_loop().call_soon(late.add, made.keys.known)

    late.on_unknown = ask
    with pytest.raises(Unavailable) as caught:
        await take(client, client.introduce(ANN))
    assert not caught.value.started
    assert asked
    await take(client, client.introduce(ANN))
    assert service.users == ["ann"]


@WIRES
async def test_every_bit_of_a_proof_on_the_wire_counts(made: Rig, wire: str):
    """Tokens damaged anywhere, by a caller that goes on trying, crash nothing and get nowhere."""
    service = Seen()
    _, client = await between(made, wire, service)
    good = client.delegation.token(client.introduce(ANN).acting("orders"), "stock")
    for place in range(0, len(good), 37):
        damaged = f"{good[:place]}{'A' if good[place] != 'A' else 'B'}{good[place + 1 :]}"
        client.delegation.token = lambda subject, callee, damaged=damaged: damaged
        with pytest.raises(CallError):
            await take(client, client.introduce(ANN))
    assert service.users == []
    client.delegation.token = lambda subject, callee: good
    await take(client, client.introduce(ANN))
    assert service.users == ["ann"]
