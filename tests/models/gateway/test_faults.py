"""What strangers send, and what many do at once: a defined answer each time, and nothing spent that was not there."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models.gateway.doors import CHAT, Door, door, says, spoken, until
from tests.models.stub_upstream import Fault, fault_of

from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import AiTargetSettings
from seamline.kernel.wire.http1 import Exchange, HttpServer
from seamline.models.gateway.quota import Limit
from seamline.models.runtimes.scripted import Rule, Scripted

WELL = Fault()
GUARDED: dict[str, Any] = {"guardrails": ("injection",)}
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank")
_ANSWER: Final = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
).encode()


@asynccontextmanager
async def steady() -> AsyncGenerator[AiTargetSettings]:
    """An engine that answers the same to anything, and remembers nothing."""
    runners = Runners()

    async def answer(exchange: Exchange) -> None:
        exchange.respond(200, [(b"content-type", b"application/json")], _ANSWER)

    server = HttpServer(answer, runners=runners)
    listening = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
    try:
        yield AiTargetSettings(engine=f"openai:http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
    finally:
        listening.close()
        await server.close()
        await runners.stop()


@pytest.fixture(params=["passed on", "in our words"])
async def opened(request: pytest.FixtureRequest) -> AsyncGenerator[Door]:
    async with steady() as engine, door(more=(engine,), **(GUARDED if "our" in request.param else {})) as it:
        yield it


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"model": "m", "messages": "\xff"}', b'"x"', b"\xff\xfe",
        b'{"model": "m", "messages": [', b'{"model": 7}',
        b'{"model": ["m"]}', b'{"model": "m", "max_tokens": "many"}', b'{"model": "m", "max_tokens": 1.5}',
        b'{"model": "m", "user": 3}', b"[" * 100_000,
        b'{"model": "m", "messages": ' + b"[" * 50_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)  # fmt: skip
@pytest.mark.parametrize("path", PATHS)
async def test_what_is_no_request_is_said_to_be_none(opened: Door, path: str, body: bytes):
    """400 or 404 with a sentence, in the wire's form; never a fault of ours."""
    status, answer = await opened.ask(body, path)
    assert status in (400, 404), answer
    assert answer["error"]["message"]
    assert ("type" in answer) == (path == "/v1/messages")


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
FIELDS = cast("Any", st.fixed_dictionaries)
MESSAGES: st.SearchStrategy[Any] = st.lists(
    FIELDS(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "x"]), "content": JSON},
        optional={"tool_calls": JSON, "tool_call_id": JSON, "refusal": JSON},
    ),
    max_size=3,
)
REQUESTS: st.SearchStrategy[Any] = FIELDS(
    {"model": st.just("m") | JSON},
    optional={
        "messages": MESSAGES | JSON, "input": JSON, "prompt": JSON, "stream": JSON, "tools": JSON, "n": JSON,
        "max_tokens": JSON, "stream_options": JSON, "response_format": JSON, "tool_choice": JSON, "text": JSON,
        "query": JSON, "documents": JSON, "system": JSON, "stop": JSON, "temperature": JSON, "metadata": JSON,
    },
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_has_a_defined_answer(data: st.DataObject):
    """Requests that are nearly right, on every path, both ways: an answer, or a no that is the caller's to mend.

    (502 is the steady engine, whose answer is no stream.)
    """
    asked = data.draw(st.lists(st.tuples(st.sampled_from(PATHS), REQUESTS), min_size=1, max_size=5))

    async def run() -> None:
        for more in ({}, GUARDED):
            async with steady() as engine, door(more=(engine,), retries_min=1000, **more) as it:
                for path, body in asked:
                    answer = await it.post(json.dumps(body).encode("utf-8", "surrogatepass"), path)
                    told = json.loads(await answer.read_all())
                    assert answer.status in (200, 400, 404, 502, 503), (answer.status, told, path, body)

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(noise=st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_noise_is_answered_or_hung_up_on(noise: list[bytes]):
    """Bytes instead of HTTP: the gateway is as well afterwards as before."""

    async def run() -> None:
        async with steady() as engine, door(more=(engine,)) as it:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            for each in (*noise, head + noise[0] + b"\r\n\r\n", head + b"content-length: 9\r\n\r\n" + noise[0]):
                reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
                writer.write(each)
                writer.write_eof()
                await reader.read()
                writer.close()
            assert (await it.ask(says("x")))[0] == 200

    asyncio.run(run())


async def test_of_two_fields_of_one_name_the_engine_gets_the_one_that_was_checked():
    """Parsers differ in which one they take: the engine is left no choice."""
    async with door(WELL, targets=({"model": "small"},)) as it:
        body = (
            b'{"model":"dear","messages":[{"role":"user","content":"say x"}],"max_tokens":9,"model":"m","max_tokens":2}'
        )
        assert (await it.ask(body))[0] == 200
        assert it.stubs[0].requests[0].body["model"] == "small"
        assert it.stubs[0].requests[0].body["max_tokens"] == 2
        assert (await it.ask(body.replace(b'"model":"m"', b'"model":"dear"')))[0] == 404


async def test_a_huge_prompt_is_refused_before_it_is_read():
    """By what its head says, or as soon as it is too long; the next request is answered."""
    async with steady() as engine, door(more=(engine,), body_bytes_max=100_000) as it:
        status, answer = await it.ask(says("x" * 200_000))
        assert (status, answer["error"]["code"]) == (413, "payload_too_large")

        async def endless() -> AsyncGenerator[bytes]:
            while True:
                yield b" " * 50_000

        answer = await it.pool.request("POST", CHAT, [(b"content-type", b"application/json")], endless())
        assert answer.status == 413
        await answer.aclose()
        assert (await it.ask(says("x")))[0] == 200


async def test_a_huge_answer_is_not_taken():
    """An engine that does not stop does not fill our memory."""
    async with door(fault_of("huge_bytes=3000000"), answer_bytes_max=1_000_000) as it:
        status, answer = await it.ask(says("x"))
        assert (status, answer["error"]["code"]) == (502, "bad_answer")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", CHAT, 405), ("POST", "/v1/models", 405), ("GET", "/v1/models/none", 404), ("GET", "/", 404),
     ("POST", "/v1/chat/completions/", 404), ("GET", "/health", 200)],
)  # fmt: skip
async def test_paths_and_methods(method: str, path: str, status: int):
    """What is not there is not there."""
    async with door(WELL) as it:
        answer = await it.pool.request(method, path, [], b"{}" if method == "POST" else b"")
        assert answer.status == status
        await answer.read_all()


async def test_what_is_open_to_this_machine_is_not_open_to_pages_of_others():
    """A browser here asks for a page from elsewhere, or was told that another name is this machine."""
    async with door(WELL) as it:
        for origin, status in (("https://elsewhere.example", 401), ("null", 401), ("http://localhost:3000", 200)):
            assert (await it.ask(says("x"), origin=origin))[0] == status
        for host, status in (("elsewhere.example", b"401"), ("localhost", b"200"), ("[::1]:80", b"200")):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            body = json.dumps(says("x")).encode()
            writer.write(b"POST %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n" % (CHAT.encode(), host.encode()))
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            assert (await reader.read()).split()[1] == status, host
            writer.close()


async def test_without_a_key_nobody_is_answered(tmp_path: Path):
    """None, a wrong one, one that may not ask this model, one that was revoked."""
    async with door(WELL, folder=tmp_path) as it:
        assert (await it.ask(says("x")))[0] == 200
        for wrong in ("", "Bearer ", "Bearer sk-sl-none", "Basic abc", f"Bearer {it.key}x"):
            status, answer = await it.ask(says("x"), authorization=wrong)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert (await it.ask(says("x"), authorization="", x_api_key=it.key))[0] == 200
        keys = it.gateway.keys
        assert keys is not None
        other, key = keys.make("other", models=["none"])
        assert (await it.ask(says("x"), authorization=f"Bearer {other}"))[0] == 403
        keys.revoke(key.id)
        assert (await it.ask(says("x"), authorization=f"Bearer {other}"))[0] == 401
        assert len(it.stubs[0].requests) == 2


@pytest.mark.parametrize("guarded", [False, True], ids=["passed on", "in our words"])
async def test_two_hundred_at_the_limit_spend_what_there_is(tmp_path: Path, guarded: bool):
    """A budget with room for forty: forty are answered, the others are told until when, and nothing is overspent."""
    most = 40
    limit = Limit(name="forty", by="key", unit="requests", most=most, per="day")
    tokens = Limit(name="tokens", by="key", unit="tokens", most=100_000, per="day")
    steps: Any = GUARDED if guarded else {}
    async with (
        steady() as engine,
        door(more=(engine,), folder=tmp_path, limits=(limit, tokens), **steps) as it,
    ):
        answers = await asyncio.gather(*(it.ask(says("x", max_tokens=5)) for _ in range(200)))
        codes = Counter(status for status, _ in answers)
        assert codes == {200: most, 429: 200 - most}
        answer = await it.post(says("x"))
        assert 0 < int(answer.header(b"retry-after") or b"0") <= 86_400
        await answer.read_all()
        assert it.stats()["output_tokens"] == most


@pytest.mark.parametrize(
    ("path", "told"), [(CHAT, {"user": "ann"}), ("/v1/messages", {"metadata": {"user_id": "ann"}, "max_tokens": 9})]
)
async def test_whom_a_request_is_for_counts_where_the_key_does_not_say(path: str, told: dict[str, Any], tmp_path: Path):
    """Each user has a budget of their own, by the name that either wire has for it."""
    limit = Limit(name="one", by="user", unit="requests", most=1, per="day")
    wire = "anthropic" if path == "/v1/messages" else "openai"
    async with door(WELL, wires=(wire,), folder=tmp_path, limits=(limit,)) as it:
        assert [(await it.ask({**says("x"), **told}, path))[0] for _ in range(2)] == [200, 429]
        other = json.loads(json.dumps(told).replace("ann", "bo"))
        assert (await it.ask({**says("x"), **other}, path))[0] == 200


async def test_a_budget_in_money_is_not_overspent(tmp_path: Path):
    """Sums of what was answered stay below it, though two hundred ask at once, some stream, and some leave."""
    priced = {"input_price": 1.0, "output_price": 100.0}
    limit = Limit(name="a cent", by="key", unit="money", most=10_000_000, per="day")
    async with door(WELL, folder=tmp_path, limits=(limit,), targets=(priced,)) as it:

        async def ask(number: int) -> None:
            body = says("one two three", max_tokens=5, stream=number % 2 == 0)
            answer = await it.post(body)
            if answer.status == 200 and number % 4 == 0:
                await answer.read()
                await answer.aclose()
                return
            await answer.read_all()

        await asyncio.gather(*(ask(number) for number in range(200)))
        await until(lambda: it.gateway.stats()["in_flight"] == 0)
        assert 0.002 < float(it.stats()["cost"]) <= 0.01
        while (await it.ask(says("one two three", max_tokens=5)))[0] == 200:
            pass
        # What is left is less than one more call might cost.
        assert 0.009 < float(it.stats()["cost"]) <= 0.01


async def test_fifty_streams_on_one_slow_engine_are_all_whole():
    """Back-pressure and turns of the loop mix nothing up."""
    async with door(fault_of("slow_s=0.001")) as it:
        texts = [" ".join(f"{n}.{at}" for at in range(30)) for n in range(50)]
        assert [spoken(each) for each in await asyncio.gather(*(it.events(says(text)) for text in texts))] == texts


async def _flat(it: Door, calls: int, turns: int) -> list[int]:
    """Bytes that Python holds after each turn."""

    async def worker() -> None:
        for _ in range(calls // 16):
            answer = await it.post(says("x"))
            await answer.read_all()
            assert answer.status == 200

    sizes: list[int] = []
    await asyncio.gather(*(worker() for _ in range(16)))
    tracemalloc.start()
    try:
        for _ in range(turns):
            await asyncio.gather(*(worker() for _ in range(16)))
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return sizes


async def test_memory_is_flat(tmp_path: Path):
    """Hundreds of calls leave next to nothing behind."""
    async with steady() as engine, door(more=(engine,), folder=tmp_path) as it:
        first, *_, last = await _flat(it, 160, 3)
        assert last - first < 48_000


@pytest.mark.torture
async def test_memory_is_flat_over_a_hundred_thousand_calls(tmp_path: Path):
    """The same, as long as the issue is said to be."""
    async with steady() as engine, door(more=(engine,), folder=tmp_path) as it:
        first, *_, last = await _flat(it, 10_000, 10)
        assert last - first < 200_000


async def test_models_inside_are_served_outside():
    """A module's model on both wires, as if it were elsewhere."""
    engines = {"Talk": Scripted([Rule(answer="good day")])}
    async with door(more=(AiTargetSettings(engine="module:Talk"),), models_of_app=engines) as it:
        assert spoken(await it.events(says("x"))) == "good day"
        status, answer = await it.ask({**says("x"), "max_tokens": 9}, "/v1/messages")
        assert (status, answer["content"][0]["text"]) == (200, "good day")
        status, answer = await it.ask({"model": "m", "input": ["a"]}, "/v1/embeddings")
        assert (status, len(answer["data"])) == (200, 1)
