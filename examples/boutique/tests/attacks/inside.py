"""Attacks from inside: a module that was taken over, and processes of this machine that nobody started."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl

import msgspec
import pytest
from boutique.frontend.forms import EXAMPLE
from examples.boutique.tests.attacks.mesh import Line, stranger
from examples.boutique.tests.attacks.target import Target, attack

from seamline.kernel.wire import frames
from seamline.kernel.wire.http1_client import HttpPool
from seamline.run.control import CONTROL_SOCKET, AskSecrets, Hello, Message, Revoke
from seamline.run.sockets import unix_address


async def mallory(t: Target, path: str) -> dict[str, object]:
    status, _, body = await t.get(f"/mallory/{path}")
    assert status == 200, body
    return json.loads(body)


# A module that was taken over.


@attack("may not call 'Payments.refund'")
async def money_by_a_stub(t: Target) -> None:
    """In one process the callee is a function away: the call is judged all the same."""
    assert (await mallory(t, "call/charges_back"))["refused"] == "PermissionDenied"


@attack("may not call 'Refunds.refund'")
async def a_refund_by_a_stub(t: Target) -> None:
    assert (await mallory(t, "call/refund"))["refused"] in ("PermissionDenied", "Unauthenticated")


@attack("may not call 'Cart.contents'")
async def the_cart_of_somebody(t: Target) -> None:
    assert (await mallory(t, "call/cart"))["refused"] == "PermissionDenied"


@attack("may not read the secret 'stripe-key'")
async def the_secret_of_another(t: Target) -> None:
    await t.admin.ask(
        "secrets",
        operation="set",
        arguments={"name": "stripe-key", "value": base64.b64encode(b"sk_live_canary").decode()},
        who="test",
    )
    told = str((await mallory(t, "secret/stripe-key"))["got"])
    assert told.startswith("PermissionDenied")
    assert "sk_live_canary" not in told


@attack("may not read the secret 'card-gateway-key'")
async def the_key_to_the_card_gateway(t: Target) -> None:
    assert str((await mallory(t, "secret/card-gateway-key"))["got"]).startswith("PermissionDenied")


@attack("may not read the secret 'nothing-such'")
async def a_secret_that_does_not_exist(t: Target) -> None:
    """The refusal does not tell which names exist."""
    assert str((await mallory(t, "secret/nothing-such"))["got"]).startswith("PermissionDenied")


@attack("may not call")
async def the_database_of_another(t: Target) -> None:
    """Its own database is what it is given: no table of payments is there. Nor does payments tell."""
    found = await mallory(t, "data")
    assert "charges" not in str(found["tables"])
    assert "no such table" in str(found["ledger"])
    assert (await mallory(t, "call/charges_back"))["refused"] == "PermissionDenied"


# A process that nobody started.


async def says(t: Target, *messages: Message) -> bytes:
    """What the control socket answers to a process of this machine."""
    with unix_address(t.data / CONTROL_SOCKET) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    try:
        for message in messages:
            body = msgspec.json.encode(message)
            writer.write(len(body).to_bytes(4, "big") + body)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@attack("was not started by this supervisor")
async def a_worker_that_nobody_started(t: Target) -> None:
    """It claims to be the workload of payments, and asks for its secrets at once."""
    name = "payments" if t.topology == "services" else "all"
    answer = await says(
        t, Hello(workload=name, replica=0, generation=1),
        AskSecrets(number=1, module="payments", operation="get", arguments={"name": "stripe-key"}),
    )  # fmt: skip
    assert b'"welcome"' not in answer
    assert b"sk_live_canary" not in answer
    assert b"BEGIN CERTIFICATE" not in answer


@attack("identity")
async def a_revocation_by_a_stranger(t: Target) -> None:
    """Who was not attested takes nobody's session away."""
    answer = await says(t, Revoke(entries=[{"kind": "module", "id": "payments", "reason": "mischief"}]))
    assert b'"done"' not in answer
    found = await t.admin.ask("identity")
    assert not any(each["quarantined"] for each in found["modules"])


@attack("identity")
async def garbage_on_the_control_socket(t: Target) -> None:
    with unix_address(t.data / CONTROL_SOCKET) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    writer.write(b"\xff\xff\xff\xffGET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert b"BEGIN CERTIFICATE" not in await reader.read()
    writer.transport.abort()


# The control API.


async def control(t: Target, operation: str, **headers: str) -> int:
    parts = (await t.admin.ask("token"))["url"].removeprefix("http://").rstrip("/")
    host, _, port = parts.partition(":")
    pool = HttpPool(host, int(port), host_header=headers.pop("host", parts))
    try:
        lines = [(b"content-type", b"application/json")]
        lines += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        response = await pool.request("POST", f"/v1/{operation}", lines, b"{}", 20.0)
        await response.read_all()
        return response.status
    finally:
        await pool.close()


@attack("control API")
async def the_control_api_without_a_token(t: Target) -> None:
    assert await control(t, "stop") == 401
    assert await control(t, "stop", authorization="Bearer guessed") == 401


@attack("control API")
async def the_control_api_by_another_name(t: Target) -> None:
    """DNS rebinding, and a page of another origin."""
    assert await control(t, "stop", host="evil.example") in (400, 403, 421)
    assert await control(t, "stop", origin="https://evil.example") in (401, 403)


# Webhooks.


@attack("is not a public address")
async def a_webhook_into_the_inside(t: Target) -> None:
    """A webhook whose name leads to this machine: nobody connects, and the event waits among the dead letters."""
    shopper = t.browser()
    await shopper.post("/cart", form={"product_id": "stoneware-mug", "quantity": "1"})
    till = await shopper.get("/checkout")
    version = till.text.partition('name="version" value="')[2].partition('"')[0]
    form = {name: str(value) for name, value in EXAMPLE.items()}
    sent = await shopper.post("/checkout", form={**form, "version": version, "currency": "EUR", "country": "BE"})
    assert sent.status == 303, sent.text[-2000:]
    async with asyncio.timeout(15):
        while not (found := await dead_letters(t)):  # noqa: ASYNC110  # the operator looks, too
            await asyncio.sleep(0.1)
    assert "not a public address" in str(found)
    await t.told_in_the_log("gives up on OrderPlaced")
    t.trap.setblocking(False)
    with pytest.raises(BlockingIOError):
        t.trap.accept()


async def dead_letters(t: Target) -> list[object]:
    told = await t.admin.ask("events", room="events", operation="dead list", arguments={})
    return [row for answer in told["answers"] for row in answer["result"] or ()]


# A quarantine.


@attack("strange calls")
async def a_quarantined_module(t: Target) -> None:
    """Its certificate is good for another hour, and worth nothing from the moment it is set apart."""
    key, chain, bundle = await t.identity("recommendations")
    context = stranger(bundle, key + chain)
    assert await answer_of(t, context) == frames.RESULT
    entry = {"kind": "module", "id": "recommendations", "reason": "strange calls"}
    await t.admin.ask("revoke", entries=[entry], by="test")
    try:
        with contextlib.suppress(OSError, EOFError):
            assert await answer_of(t, context) == frames.FAULT
    finally:
        await t.admin.ask("revoke", entries=[{**entry, "lifted": True}], by="test")


async def answer_of(t: Target, context: ssl.SSLContext) -> int:
    """The kind of frame that answers a call which the module may make."""
    line = await Line.open(t, context, "catalog")
    try:
        kind, _ = await line.call("Catalog.list_products", b"{}")
    finally:
        line.close()
    return kind
