"""Engines that fail, in front of real sockets: what the caller gets is an answer, or the truth."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import free_port
from tests.models.gateway.doors import Door, door, says, spoken, until
from tests.models.stub_upstream import Fault, fault_of

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import AiTargetSettings
from seamline.models.chat import ChatRequest, Message
from seamline.models.errors import EngineUnreachable
from seamline.models.runtimes.scripted import Rule, Scripted

WELL = Fault()
UNWELL = (
    "status=500", "status=503", "status=529", "status=429", "status=401", "status=404", "wrong_schema=1",
)  # fmt: skip
MIDWAY = ("cut_after=0", "malformed_after=0", "error_after=0", "end_after=0")
GUARDED: dict[str, Any] = {"guardrails": ("injection",)}


@pytest.mark.parametrize("guarded", [False, True], ids=["passed on", "in our words"])
@pytest.mark.parametrize("fault", [*UNWELL, *MIDWAY])
async def test_another_engine_answers(fault: str, guarded: bool):
    """Whatever the first does before it has said anything, the caller gets one whole answer."""
    async with door(fault_of(fault), WELL, **(GUARDED if guarded else {})) as it:
        if fault not in MIDWAY:
            status, answer = await it.ask(says("good day"))
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "good day")
        if fault != "wrong_schema=1":
            assert spoken(await it.events(says("good day"))) == "good day"
        assert it.stubs[1].requests


async def test_nobody_listens_there():
    """A port without a listener is passed over."""
    gone = AiTargetSettings(engine=f"openai:http://127.0.0.1:{free_port()}/v1", tier=-1)
    async with door(WELL, more=(gone,)) as it:
        assert spoken(await it.events(says("good day"))) == "good day"
        assert it.gateway.models["m"].targets[-1].failed == 1


@pytest.mark.parametrize("guarded", [False, True], ids=["passed on", "in our words"])
@pytest.mark.parametrize(("fault", "stream"), [("hang=1", False), ("hang=1", True), ("stall_after=0", True)])
async def test_a_hung_engine_reaches_no_client(fault: str, stream: bool, guarded: bool):
    """Before its head, or after it: another answers within the patience, and the hung one is hung up on."""
    clock = ManualClock()
    async with door(fault_of(fault), WELL, clock=clock, **(GUARDED if guarded else {})) as it:

        async def ask() -> str:
            if stream:
                return spoken(await it.events(says("good day")))
            return (await it.ask(says("good day")))[1]["choices"][0]["message"]["content"]

        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask()) for _ in range(8)]
            await until(lambda: len(it.stubs[0].requests) == 8)
            clock.advance(1.9)
        assert [answer.result() for answer in answers] == ["good day"] * 8
        for asked in it.stubs[0].requests:
            await asyncio.wait_for(asked.over.wait(), 5)
            assert asked.left


async def test_all_are_unwell():
    """The caller hears it, and when to come again."""
    async with door(Fault(status=503, retry_after="7"), Fault(status=503, retry_after="7")) as it:
        answer = await it.post(says("good day"))
        assert answer.status == 503
        assert answer.header(b"retry-after") == b"7"
        assert json.loads(await answer.read_all())["error"]["code"] == "server_error"


async def test_what_an_engine_thinks_of_our_key_is_not_for_callers():
    """An engine's 401 is our fault and told as such, without its words."""
    async with door(Fault(status=401)) as it:
        status, answer = await it.ask(says("x"))
        assert status == 502
        assert "stub" not in answer["error"]["message"]


async def test_after_the_first_word_nobody_else_is_asked():
    """Without ``resume`` a stream that breaks ends with an error, and not with [DONE]."""
    async with door(fault_of("cut_after=2"), WELL) as it:
        events = await it.events(says("one two three"))
        assert "error" in json.loads(events[-1])
        assert "[DONE]" not in events
        assert not it.stubs[1].requests


@pytest.mark.parametrize("fault", ["cut_after=2", "malformed_after=2", "error_after=2", "stall_after=2"])
async def test_an_answer_is_resumed_where_that_is_allowed(fault: str):
    """The next engine is shown what was said, and goes on: the client sees one answer."""
    more = Scripted([Rule(answer=" three four")])
    away = AiTargetSettings(engine="module:More", tier=1)
    model = {"resume": True, "stall_timeout_s": 0.1}
    async with door(fault_of(fault), more=(away,), models_of_app={"More": more}, model=model) as it:
        assert spoken(await it.events(says("one two three four"))) == "one two three four"
        assert more.asked[0].messages[-1] == Message(role="assistant", content="one two")


async def test_a_half_made_call_of_a_tool_is_not_resumed():
    """Another engine would call something else."""
    more = Scripted([Rule(answer="x")])
    away = AiTargetSettings(engine="module:More", tier=1)
    tool: Any = {"type": "function", "function": {"name": "search", "parameters": {}}}
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "call it"}], "tools": [tool]}
    async with door(fault_of("cut_after=2"), more=(away,), models_of_app={"More": more}, model={"resume": True}) as it:
        events = await it.events(asked)
        assert "error" in json.loads(events[-1])
        assert not more.asked


@pytest.mark.parametrize("status", [429, 503])
async def test_a_storm_is_not_made_worse(status: int):
    """While an engine refuses, nearly all calls go elsewhere at once; everybody is answered."""
    async with door(Fault(status=status), WELL, clock=ManualClock()) as it:
        for _ in range(20):
            answers = await asyncio.gather(*(it.ask(says("yes")) for _ in range(10)))
            assert {code for code, _ in answers} == {200}
        assert len(it.stubs[0].requests) < 20
        assert len(it.stubs[1].requests) == 200


async def test_a_storm_that_nobody_else_can_take():
    """One engine, refusing: after a few calls it is left alone, and callers hear until when."""
    async with door(Fault(status=500), clock=ManualClock()) as it:
        codes: list[int] = []
        for _ in range(30):
            answer = await it.post(says("yes"))
            codes.append(answer.status)
            if answer.status == 503:
                assert answer.header(b"retry-after") == b"2"
            await answer.read_all()
        assert set(codes) == {502, 503}
        assert len(it.stubs[0].requests) == codes.count(502) == 5


async def test_responses_of_an_engine_without_them():
    """Many that speak OpenAI's wire do not have Responses: they are asked for a chat."""
    async with door(WELL, WELL) as it:
        it.stubs[0].next.append(Fault(status=404))
        it.stubs[1].next.append(Fault(status=404))
        for _ in range(2):
            status, answer = await it.ask({"model": "m", "input": "say good day"}, "/v1/responses")
            assert status == 200
            assert answer["output"][0]["content"][0]["text"] == "good day"
        assert it.stubs[0].requests[-1].path == "/v1/chat/completions"


async def test_an_abandoned_engine_is_paid_for_what_it_was_asked(tmp_path: Path):
    """A call that two engines were asked for costs more than the same call of one."""
    clock = ManualClock()
    priced = {"input_price": 1.0, "output_price": 1.0}
    async with door(WELL, WELL, folder=tmp_path, clock=clock, targets=(priced, priced)) as it:

        async def cost() -> float:
            before = float(it.stats()["cost"]) if "m" in it.gateway.stats()["models"] else 0.0
            status, _ = await it.ask(says("good day"))
            assert status == 200
            return float(it.stats()["cost"]) - before

        plain = await cost()
        it.stubs[0].fault = Fault(hang=True)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(cost())
            await until(lambda: len(it.stubs[0].requests) == 2)
            clock.advance(1.9)
        assert asked.result() > plain > 0


async def test_inside_the_same_holds():
    """A module's call falls back as one from outside does."""
    chosen = (
        AiTargetSettings(engine="module:Broken", tier=0),
        AiTargetSettings(engine="module:Well", tier=1),
    )
    engines = {"Broken": Scripted([Rule(fails=EngineUnreachable("away"))]), "Well": Scripted([Rule(answer="here")])}
    async with door(more=chosen, models_of_app=engines) as it:
        llm = it.gateway.inside("shop")
        answer = await llm.complete(ChatRequest(model="m", prompt="x"))
        assert answer.message.content == "here"
        chunks = [chunk async for chunk in llm.stream(ChatRequest(model="m", prompt="x"))]
        assert "".join(chunk.text for chunk in chunks) == "here"
        assert _accounts(it) == {"module:shop": 2}


def _accounts(it: Door) -> dict[str, int]:
    return {account["key"]: account["calls"] for account in it.gateway.stats()["accounts"]}
