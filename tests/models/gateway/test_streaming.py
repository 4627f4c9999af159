"""Streams through the gateway: at once, bounded, ended by either end, and paid for as far as they came."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.models.gateway.doors import CHAT, Door, door, says, spoken, until
from tests.models.stub_upstream import Fault, fault_of

from seamline.kernel.settings import AiTargetSettings
from seamline.models.chat import ChatRequest
from seamline.models.runtimes.scripted import Rule, Scripted

WELL = Fault()
GUARDED: dict[str, Any] = {"guardrails": ("injection",)}
WAYS = pytest.mark.parametrize("guarded", [False, True], ids=["passed on", "in our words"])


def settings(guarded: bool) -> dict[str, Any]:
    return GUARDED if guarded else {}


@WAYS
async def test_each_piece_goes_on_at_once(guarded: bool):
    """The first word is with the client while the engine keeps the second to itself."""
    async with door(fault_of("stall_after=1"), **settings(guarded)) as it:
        answer = await it.post(says("one two", stream=True))
        got = b""
        while b'"one' not in got:
            got += await answer.read()
        assert it.stubs[0].requests[0].tokens == 1
        await answer.aclose()


@WAYS
async def test_many_streams_at_once_are_not_mixed(guarded: bool):
    """A hundred clients, each with words of its own."""
    async with door(WELL, **settings(guarded)) as it:

        async def ask(number: int) -> None:
            words = " ".join(f"w{number}-{at}" for at in range(20))
            assert spoken(await it.events(says(words))) == words

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(ask(number))


@WAYS
async def test_a_client_that_leaves_stops_the_engine_and_the_bill(tmp_path: Path, guarded: bool):
    """Tokens end where the client left, and that many are paid for, not those that were reserved."""
    async with door(
        fault_of("slow_s=0.002"), folder=tmp_path, targets=({"output_price": 1.0},), **settings(guarded)
    ) as it:
        answer = await it.post(
            {**says("x"), "messages": [{"role": "user", "content": "count"}], "max_tokens": 5000} | {"stream": True}
        )
        got = b""
        while got.count(b"data: ") < 10:
            got += await answer.read()
        await answer.aclose()
        asked = it.stubs[0].requests[0]
        await asyncio.wait_for(asked.over.wait(), 5)
        assert asked.left
        assert asked.tokens < 5000
        await until(lambda: "m" in it.gateway.stats()["models"])
        stats = it.stats()
        assert 9 <= stats["output_tokens"] <= asked.tokens
        assert stats["failed"] == 1
        assert it.gateway.stats()["targets"]["m"]["m/1 (m)"]["in_flight"] == 0


async def test_who_leaves_before_the_first_word_stops_the_engine():
    """Nothing had come yet; the engine is hung up on."""
    async with door(Fault(hang=True)) as it:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(it.post(says("x", stream=True)))
            await until(lambda: it.stubs[0].requests)
            asking.cancel()
        await asyncio.wait_for(it.stubs[0].requests[0].over.wait(), 5)
        assert it.stubs[0].requests[0].left


@WAYS
async def test_a_slow_reader_holds_back_the_engine_and_not_memory(guarded: bool):
    """A client that reads nothing: the engine can say a bounded part of its 64 MiB, and is waited for."""
    async with door(fault_of("huge_bytes=65536"), **settings(guarded)) as it:
        body = json.dumps({**says("x", stream=True, max_tokens=1000), "messages": [{"role": "user", "content": "go"}]})
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=1024)
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        said = -1
        while not it.stubs[0].requests or said != it.stubs[0].requests[0].tokens or said == 0:
            said = it.stubs[0].requests[0].tokens if it.stubs[0].requests else -1
            await asyncio.sleep(0.1)
        # What the kernel's socket buffers take of both hops, and ours: far from all of it.
        assert said < 400
        while (await reader.read(65536)).find(b"data: [DONE]") < 0:
            pass
        assert it.stubs[0].requests[0].tokens == 1000
        writer.close()
        await writer.wait_closed()


@WAYS
@pytest.mark.parametrize("fault", ["stall_after=2", "cut_after=2", "malformed_after=2", "error_after=2", "end_after=2"])
async def test_each_end_that_is_none_is_told(fault: str, guarded: bool):
    """What came before is passed on; then the stream says what is wrong, in one event, and ends."""
    async with door(fault_of(f"{fault},slow_s=0.005"), model={"stall_timeout_s": 0.1}, **settings(guarded)) as it:
        events = await it.events(says("one two three"))
        *chunks, last = [json.loads(event) for event in events]
        said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert said == "one two"
        assert last["error"]["code"] in {"timeout", "unreachable", "bad_answer", "server_error"}


async def test_a_module_that_stalls_is_noticed():
    """An engine inside the application has the same patience."""
    engines = {"Slow": Scripted([Rule(answer="one two three", stalls_after=2)])}
    async with door(
        more=(AiTargetSettings(engine="module:Slow"),), models_of_app=engines, model={"stall_timeout_s": 0.1}
    ) as it:
        events = await it.events(says("x"))
        assert json.loads(events[-1])["error"]["code"] == "timeout"
        assert engines["Slow"].under_way == 0


async def test_a_module_that_stops_reading_stops_the_model():
    """Inside as outside."""
    engines = {"Long": Scripted([Rule(answer="word " * 1000)])}
    async with door(more=(AiTargetSettings(engine="module:Long"),), models_of_app=engines) as it:
        async with aclosing(it.gateway.inside("shop").stream(ChatRequest(model="m", prompt="x"))) as chunks:
            async for _ in chunks:
                break
        assert engines["Long"].left == 1
        assert engines["Long"].tokens_said < 10


async def test_a_connection_serves_again_after_a_stream():
    """Ten streams one after the other take one connection to the engine."""
    async with door(WELL) as it:
        for _ in range(10):
            assert spoken(await it.events(says("one two"))) == "one two"
        assert _connections(it) == 1


def _connections(it: Door) -> int:
    engine: Any = it.gateway.models["m"].targets[0].engine
    return engine._client._pool.connections
