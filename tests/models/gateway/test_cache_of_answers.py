"""The same question of the same caller, and nobody else's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.models.gateway.doors import door, says, spoken, until
from tests.models.stub_upstream import Fault

from seamline.kernel.clock import ManualClock
from seamline.models.chat import ChatAnswer, ChatRequest, Message, Tool
from seamline.models.gateway.answers_cache import AnswersCache
from seamline.models.gateway.keys import Caller, Key, caller

REQUEST = ChatRequest(model="fast", messages=(Message(role="user", content="hi"),), temperature=0.0)
ANN = caller(Key(id="k1"), "ann", "acme")


def answer(text: str = "hello") -> ChatAnswer:
    return ChatAnswer(message=Message(role="assistant", content=text))


def key(who: Caller = ANN, request: ChatRequest = REQUEST) -> bytes:
    found = AnswersCache.key(who, request)
    assert found is not None
    return found


def test_only_what_is_the_same_in_everything_is_the_same():
    """Another user, tenant, agent, key, model, tool, seed, length or word is another question."""
    others = [
        key(caller(Key(id="k2"), "ann", "acme")),
        key(caller(Key(id="k1"), "bob", "acme")),
        key(caller(Key(id="k1"), "ann", "evil")),
        key(caller(Key(id="k1"), "ann", "acme", "bot")),
        *(
            key(request=dataclasses.replace(REQUEST, **change))  # type: ignore[arg-type]
            for change in (
                {"model": "slow"}, {"tools": (Tool(name="x"),)}, {"seed": 1}, {"tokens_max": 9}, {"top_p": 0.5},
                {"messages": (Message(role="system", content="hi"),)}, {"prompt": "hi"}, {"stop": ("x",)},
            )
        ),
    ]  # fmt: skip
    assert len({key(), *others}) == len(others) + 1
    assert key() == key(caller(Key(id="k1"), "ann", "acme"))


@pytest.mark.parametrize("temperature", [None, 0.1, 1.0])
def test_what_may_be_answered_differently_is_not_kept(temperature: float | None):
    """Only who asks for the likeliest words gets the same again."""
    assert AnswersCache.key(ANN, dataclasses.replace(REQUEST, temperature=temperature)) is None


def test_an_answer_is_given_again_for_its_time():
    """And no answer that was cut off or refused."""
    clock = ManualClock()
    cache = AnswersCache(clock=clock)
    for finish in ("length", "refusal", ""):
        cache.put(key(), dataclasses.replace(answer(), finish=finish), 60)
        assert cache.get(key()) is None
    cache.put(key(), answer(), 60)
    clock.advance(59)
    assert cache.get(key()) == answer()
    clock.advance(1)
    assert cache.get(key()) is None
    assert cache.stats() == {"entries": 0, "bytes": 0, "hits": 1, "misses": 4}


def test_what_is_kept_is_bounded():
    """By entries and by bytes; what was asked for longest ago goes first, and what is too large is not kept."""
    keys = [key(request=dataclasses.replace(REQUEST, seed=seed)) for seed in range(4)]
    cache = AnswersCache(3)
    for each in keys[:3]:
        cache.put(each, answer(), 60)
    cache.get(keys[0])
    cache.put(keys[3], answer(), 60)
    assert [cache.get(each) is not None for each in keys] == [True, False, True, True]
    small = AnswersCache(bytes_max=5_000)
    small.put(keys[0], answer("x" * 2_000), 60)
    assert small.get(keys[0]) is None
    for each in keys:
        small.put(each, answer("x" * 300), 60)
    assert (small.stats()["entries"], small.stats()["bytes"]) == (2, 3800)


@pytest.mark.parametrize("stream", [False, True])
async def test_at_the_door_no_engine_is_asked_twice(stream: bool):
    """While an answer is kept the engine hears nothing, whole or streamed; it costs nothing, and is counted."""
    clock = ManualClock()
    price = {"input_price": 1.0, "output_price": 1.0}
    async with door(Fault(), model={"answer_cache_s": 60}, targets=(price,), clock=clock) as it:

        async def said(**more: Any) -> str:
            asked = says("good day", temperature=0, **more)
            if stream:
                return spoken(await it.events(asked))
            return (await it.ask(asked))[1]["choices"][0]["message"]["content"]

        assert await said() == "good day"
        await until(lambda: it.gateway.stats()["models"])
        cost = it.stats()["cost"]
        assert [await said(), await said()] == ["good day", "good day"]
        assert len(it.stubs[0].requests) == 1
        await until(lambda: it.stats()["calls"] == 3)
        assert it.stats()["cost"] == cost
        assert await said(seed=2) == "good day"
        clock.advance(60)
        assert await said() == "good day"
        assert len(it.stubs[0].requests) == 3
