"""Budgets where they bite: in front of engines that do what engines do."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.models.gateway.doors import Door, door, says, until
from tests.models.stub_upstream import Fault, stub_upstream

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import AiBudgetSettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.models.chat import ChatRequest, Message
from seamline.models.gateway.budgets import Budgets
from seamline.models.gateway.keys import Keys
from seamline.models.gateway.ledger import Spent, budgets_beside, spent_in
from seamline.models.gateway.quota import Limit


def limit(most: int) -> Limit:
    return Limit(name="cap", by="key", unit="tokens", most=most, per="total")


def spent(folder: Path, it: Door) -> Spent:
    found = spent_in(budgets_beside(folder / it.gateway.settings.keys))
    return next(each for each in found if each.account.startswith("key:"))


async def test_a_hung_engine_reaches_no_client_at_the_end_of_a_budget_either(tmp_path: Path):
    """Where there is room for this one call and none besides, another engine is asked all the same: what the call has
    reserved for its answer covers it."""
    clock = ManualClock()
    async with door(Fault(hang=True), Fault(), folder=tmp_path, limits=(limit(300),), clock=clock) as it:
        body = says("good day", max_tokens=250)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            asking = group.create_task(it.ask(body))
            await until(lambda: it.stubs[0].requests)
            clock.advance(1.9)
        status, answer = asking.result()
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "good day")
    assert 0 < spent(tmp_path, it).used <= 300


@pytest.mark.parametrize("inside", [False, True])
async def test_no_answer_outgrows_its_room(tmp_path: Path, *, inside: bool):
    """Who does not say how long an answer may be gets one as long as was reserved, where tokens are counted; where
    only calls are, as long as the engine likes."""
    tokens = AiBudgetSettings(name="cap", by="all", tokens=10_000)
    calls = AiBudgetSettings(name="pace", by="all", requests=10_000)
    for budget, told in ((tokens, 4096), (calls, None)):
        folder = tmp_path / budget.name
        folder.mkdir()
        async with door(Fault(), folder=folder, budgets=(budget,)) as it:
            if inside:
                question = ChatRequest(model="m", messages=(Message(role="user", content="hello"),))
                await it.gateway.inside("page").complete(question)
            else:
                assert (await it.ask(says("hello")))[0] == 200
            assert it.stubs[0].requests[0].body.get("max_tokens") == told


@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_nothing_left_is_told_in_the_clients_words(tmp_path: Path, *, stream: bool):
    """429, the kind, and when to come again; the engine hears nothing of it."""
    minute = Limit(name="pace", by="key", unit="requests", most=1, per="minute")
    async with door(Fault(), folder=tmp_path, limits=(minute,)) as it:
        assert (await it.ask(says("one")))[0] == 200
        answer = await it.post({**says("two"), "stream": stream})
        told = json.loads(await answer.read_all())
        assert answer.status == 429
        assert 1 <= int(answer.header(b"retry-after") or 0) <= 60
        assert told["error"]["code"] == "rate_limit_exceeded"
        assert "pace" in told["error"]["message"]
        assert len(it.stubs[0].requests) == 1


async def test_a_gateway_killed_in_the_middle_of_streams_books_what_they_owed(tmp_path: Path):
    """Their questions and what had come of the answers, no more; nothing stays reserved, the engine is hung up on."""
    keys = Keys(tmp_path / "ai-keys.db")
    text, _ = keys.make("tests", limits=(limit(100_000),))
    keys.close()
    async with stub_upstream(Fault(stall_after=100)) as stub:
        (tmp_path / "ai.toml").write_text(
            f'[[ai_gateway.models.m.targets]]\nengine = "openai:{stub.url}/v1"\n'
        )  # fmt: skip
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seamline.models.gateway", "--config", "ai.toml", "--listen", "127.0.0.1:0"),
            *("--data", "."),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        try:
            port = int(json.loads(await child.stdout.readline())["listen"].rpartition(":")[2])
            pool = HttpPool("127.0.0.1", port)
            body = json.dumps(says("word " * 200, stream=True, max_tokens=5_000)).encode()
            told = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {text}".encode())]
            answers = [await pool.request("POST", "/v1/chat/completions", told, body) for _ in range(3)]
            for answer in answers:
                seen = b""
                while seen.count(b"data: ") < 90:
                    seen += await answer.read()
        finally:
            child.kill()
            await child.wait()
        for asked in stub.requests:
            await asyncio.wait_for(asked.over.wait(), 10)
        await pool.close()
    next_one = Budgets(budgets_beside(tmp_path / "ai-keys.db"))
    spent = {(each.account[:4], each.unit): each for each in await next_one.spent()}
    await next_one.close()
    found = spent["key:", "tokens"]
    question = len(body) * 0.34
    assert found.held == 0
    assert 3 * 64 < found.used < 3 * (question + 8 + 101)
    assert spent["used", "requests"].used == 3
