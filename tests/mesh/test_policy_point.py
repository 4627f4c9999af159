"""An Open Policy Agent in place of the Cedar files: what it is asked, what its answers and its silence mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.mesh.test_policy_conditions import ANN, BOB, PERMIT, ROLES, WAYS, Payments, Stand, euros, standing

from seamline.kernel.settings import PolicySettings
from seamline.mesh.errors import DecisionPointError
from seamline.mesh.policy import DecisionPoint, Policy, arguments_of
from seamline.module import PermissionDenied, Unauthenticated, compile_contract

Rule = Callable[[dict[str, Any]], Any]


class Opa:
    """Speaks the documented API: ``POST /v1/data/<path>`` with ``{"input": ...}``, answered by ``{"result": ...}``."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.asked: list[dict[str, Any]] = []
        self.silent = False
        self.raw: bytes | None = None
        self.url = ""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                document = json.loads(await reader.readexactly(length))
                if self.silent:
                    continue
                self.asked.append(document["input"])
                found = self.rule(document["input"]) if head.startswith(b"POST /v1/data/shop/allow ") else None
                body = self.raw or json.dumps({} if found is None else {"result": found}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ")
                writer.write(str(len(body)).encode() + b"\r\n\r\n" + body)
                await writer.drain()


@contextlib.asynccontextmanager
async def opa(rule: Rule) -> AsyncGenerator[Opa]:
    made = Opa(rule)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/data/shop/allow"
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def at_most_50(asked: dict[str, Any]) -> Any:
    roles = asked["context"].get("user", {}).get("roles", [])
    if asked["action"] != "Payments.refund":
        return True
    if "user" not in asked["context"]:
        return {"allow": False, "reason": "who are you", "sign_in": True}
    return "supervisor" in roles or ("support" in roles and asked["context"]["args"]["amount"]["cents"] <= 5000)


async def ask_there(stand: Stand, url: str, **more: Any) -> None:
    """Both processes ask the decision point at ``url``; their Cedar files permit everything."""
    spec = compile_contract(Payments)
    for mesh in {stand.caller, stand.callee}:
        if mesh.policy.point is not None:
            await mesh.policy.point.close()
        mesh.policy = Policy.from_text(
            PERMIT,
            modules={"desk": {}, "payments": {}},
            contracts={"Payments": ("payments", list(spec.methods))},
            arguments=arguments_of(spec),
            vocabulary=ROLES,
            point=DecisionPoint(PolicySettings(decision_point=url, **more)),
        )
        mesh.refresh()


@pytest.mark.parametrize("way", WAYS)
async def test_it_decides_on_people_and_arguments(tmp_path: Path, way: str):
    async with opa(at_most_50) as point, standing(tmp_path, way, PERMIT) as stand:
        await ask_there(stand, point.url)
        with stand.acting_for(ANN):
            assert await stand.payments.refund("o1", euros("50.00")) == "5000 for o1"
            with pytest.raises(PermissionDenied):
                await stand.payments.refund("o2", euros("50.01"))
            assert [item async for item in stand.payments.history(2)] == [0, 1]
        with stand.acting_for(BOB):
            await stand.payments.refund("o3", euros("5000"))
        with stand.acting_for(None), pytest.raises(Unauthenticated, match="who are you"):
            await stand.payments.refund("o4", euros("1"))
        assert stand.service.done == ["o1", "o3"]
        asked = next(each for each in point.asked if each["action"] == "Payments.refund")
        assert asked["principal"] == {"type": "Module", "id": "desk"}
        assert asked["context"]["args"]["amount"] == {"cents": 5000, "amount": "50.0000", "currency": "EUR"}
        assert asked["context"]["user"]["roles"] == ["support"]
        assert asked["context"]["chain"] == ["desk"]


@pytest.mark.parametrize("way", ["frames", "http"])
async def test_the_callee_asks_for_itself(tmp_path: Path, way: str):
    """A caller that asks nobody is refused where the call arrives."""
    async with opa(lambda _: False) as point, standing(tmp_path, way, PERMIT) as stand:
        free = stand.caller.policy
        await ask_there(stand, point.url)
        assert stand.caller.policy.point is not None
        await stand.caller.policy.point.close()
        stand.caller.policy = free
        stand.caller.refresh()
        with stand.acting_for(BOB), pytest.raises(PermissionDenied):
            await stand.payments.rates()
        assert len(point.asked) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"result": "true"}',
        b'{"result": 1}',
        b'{"result": null}',
        b'{"result": {"allow": "yes"}}',
        b"[]",
        b"no",
        b'{"result": [true]}',
    ],
)
async def test_only_a_plain_yes_is_a_yes(tmp_path: Path, raw: bytes):
    async with opa(lambda _: True) as point, standing(tmp_path, "local", PERMIT) as stand:
        await ask_there(stand, point.url)
        point.raw = raw
        with pytest.raises(PermissionDenied):
            await stand.payments.rates()
        point.raw = None
        stand.caller.policy.reload()
        assert await stand.payments.rates() == "fair"


async def test_silence_and_absence_are_refusals(tmp_path: Path):
    """No answer in time, nobody there, a wrong path: refused each time, and asked again the next."""
    async with opa(lambda _: True) as point, standing(tmp_path, "local", PERMIT) as stand:
        await ask_there(stand, point.url, decision_timeout_ms=30)
        point.silent = True
        with pytest.raises(PermissionDenied, match="gave no answer"):
            await stand.payments.rates()
        point.silent = False
        assert await stand.payments.rates() == "fair"
        await ask_there(stand, point.url + "/else")
        with pytest.raises(PermissionDenied, match="no rule defines"):
            await stand.payments.rates()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with standing(tmp_path / "gone", "local", PERMIT) as stand:
        await ask_there(stand, f"http://127.0.0.1:{port}/v1/data/shop/allow")
        with pytest.raises(PermissionDenied, match="gave no answer"):
            await stand.payments.rates()


async def test_an_answer_holds_for_the_time_that_is_stated_and_for_its_question_only():
    now = 0.0
    async with opa(lambda asked: asked["n"] == 1) as server:
        settings = PolicySettings(decision_point=server.url, decision_cache_s=5)
        point = DecisionPoint(settings, lambda: now)
        assert [(await point.ask({"n": n})).allow for n in (1, 1, 2, 2)] == [True, True, False, False]
        assert len(server.asked) == 2
        now = 4.9
        await point.ask({"n": 1})
        assert len(server.asked) == 2
        now = 5.0
        await point.ask({"n": 1})
        assert len(server.asked) == 3
        point.forget()
        await point.ask({"n": 1})
        assert len(server.asked) == 4
        await point.close()


@pytest.mark.parametrize("url", ["http://opa.example/v1/data/a", "ftp://127.0.0.1/", "127.0.0.1:8181/v1", "https://"])
def test_an_answer_that_could_be_changed_on_the_way_is_not_asked_for(url: str):
    with pytest.raises(DecisionPointError, match="no https URL"):
        DecisionPoint(PolicySettings(decision_point=url))


async def test_a_decision_that_takes_waiting_is_never_taken_for_a_yes_at_once(tmp_path: Path):
    """Whoever cannot wait for the answer gets a no; reading events stays with the Cedar files."""
    async with opa(lambda _: True) as point, standing(tmp_path, "local", PERMIT) as stand:
        await ask_there(stand, point.url)
        policy = stand.caller.policy
        assert not policy.allows("desk", "payments", "Payments", "rates")
        assert policy.may("desk", "payments", "Payments", "rates")
        assert not policy.may("desk", "payments", "", "events")
        assert not policy.may("desk", "payments", "Payments", "steal")


REGO = """
package shop
import rego.v1

default allow := false
allow if input.action != "Payments.refund"
allow if "supervisor" in input.context.user.roles
allow if { "support" in input.context.user.roles; input.context.args.amount.cents <= 5000 }
"""


async def test_a_real_opa_decides(tmp_path: Path):
    program = shutil.which("opa")
    if program is None:
        pytest.skip("there is no opa on PATH")
    (tmp_path / "shop.rego").write_text(REGO)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        program, "run", "--server", "--addr", f"127.0.0.1:{port}", str(tmp_path / "shop.rego")
    )
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        async with standing(tmp_path / "stand", "local", PERMIT) as stand:
            await ask_there(stand, f"http://127.0.0.1:{port}/v1/data/shop/allow", decision_timeout_ms=5000)
            with stand.acting_for(ANN):
                await stand.payments.refund("o1", euros("50"))
                with pytest.raises(PermissionDenied):
                    await stand.payments.refund("o2", euros("51"))
    finally:
        server.terminate()
        await server.wait()
