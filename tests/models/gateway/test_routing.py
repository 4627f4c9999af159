"""Whom a call goes to: by weight, by key, by price, by what it needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.models.gateway.doors import door, says
from tests.models.stub_upstream import Fault

from seamline.kernel.settings import AiModelSettings, AiTargetSettings
from seamline.kernel.settings.ai_gateway import Bound
from seamline.models.gateway.quota import Limit
from seamline.models.gateway.targets import Model, Target, Usual, Wants, price_of
from seamline.models.runtimes.scripted import Scripted

ANY = Wants(frozenset())
WELL = Fault()


def model(*targets: dict[str, Any], **settings: Any) -> Model:
    """With targets ``0``, ``1``..."""
    chosen = [AiTargetSettings(engine="module:X", **each) for each in targets]
    made = [Target(str(at), str(at), Scripted(), each, price_of(each)) for at, each in enumerate(chosen)]
    return Model("m", AiModelSettings(targets=tuple(chosen), **settings), made)


def order(of: Model, wants: Wants = ANY) -> str:
    return "".join(target.name for target in of.in_order(wants))


def test_weights_are_shares():
    """Three to one, within what chance allows over 4000 calls."""
    it = model({"weight": 3}, {"weight": 1})
    first = Counter(order(it)[0] for _ in range(4000))
    assert 2800 < first["0"] < 3200


def test_a_weight_of_nothing_is_asked_last():
    """Only when the others could not."""
    it = model({"weight": 0}, {"weight": 1})
    assert {order(it) for _ in range(200)} == {"10"}


def test_tiers_come_in_turn():
    """Whatever the weights are."""
    it = model({"tier": 2, "weight": 100}, {"tier": 0}, {"tier": 1})
    assert order(it) == "120"


def test_the_cheapest():
    """By what output costs, and then by input."""
    it = model({"output_price": 2}, {"output_price": 1, "input_price": 2}, {"output_price": 1}, choose="price")
    assert order(it) == "210"


def test_the_quickest_counts_who_waits_there():
    """Twice as quick, and three in flight: the other is asked."""
    it = model({}, {}, choose="latency")
    it.targets[0].streams.add(0.1)
    it.targets[1].streams.add(0.2)
    assert order(it) == "01"
    for _ in range(3):
        it.targets[0].begin(0.0)
    assert order(it) == "10"


def test_a_key_stays_with_its_target():
    """Always the same for one, all of them in use by many."""
    it = model({}, {}, {}, sticky=True)
    by_key = {
        key: {order(it, Wants(frozenset(), 0, key)) for _ in range(20)} for key in (f"key-{n}" for n in range(60))
    }
    assert all(len(orders) <= 2 for orders in by_key.values())  # the rest is by lot
    assert all(len({each[0] for each in orders}) == 1 for orders in by_key.values())
    assert {each[0] for orders in by_key.values() for each in orders} == {"0", "1", "2"}


def test_who_cannot_is_not_asked():
    """Abilities and context."""
    it = model({"able": ("chat",)}, {"able": ("chat", "tools"), "context_tokens": 1000}, {"context_tokens": 100})
    assert order(it, Wants(frozenset({"chat", "tools"}), 500)) == "1"
    assert set(order(it, Wants(frozenset({"chat"}), 50))) == {"0", "1", "2"}
    assert order(it, Wants(frozenset({"embeddings"}), 5000)) == ""


def test_what_is_usual_follows_what_happens():
    """The 95th percentile of the last few dozen; what was long ago is forgotten."""
    it = Usual()
    for at in range(100):
        it.add(1.0 if at % 10 else 5.0)
    assert it.p95_s == 5.0
    for _ in range(100):
        it.add(1.0)
    assert it.p95_s == 1.0


@pytest.mark.parametrize("guarded", [False, True], ids=["passed on", "in our words"])
async def test_what_a_request_needs_is_seen_in_it(guarded: bool):
    """Tools go to the engine that has them, a long question to the one with room; without any the caller is told."""
    limits: Any = ({"able": ("chat",), "context_tokens": 500}, {"able": ("chat", "tools")})
    tool: Any = {"type": "function", "function": {"name": "search", "parameters": {}}}
    steps: Any = {"guardrails": ("injection",)} if guarded else {}
    async with door(WELL, WELL, targets=limits, **steps) as it:
        await it.ask(says("a"))
        assert [len(stub.requests) for stub in it.stubs] == [1, 0]
        await it.ask(says("a", tools=[tool]))
        assert [len(stub.requests) for stub in it.stubs] == [1, 1]
        await it.ask(says("a" * 5000))
        assert [len(stub.requests) for stub in it.stubs] == [1, 2]
        picture = [{"type": "text", "text": "say a"}, {"type": "image_url", "image_url": {"url": "data:image/png;,x"}}]
        assert (await it.ask({"model": "m", "messages": [{"role": "user", "content": picture}]}))[0] == 400
        status, answer = await it.ask({"model": "m", "input": "x"}, "/v1/embeddings")
        assert status == 400
        assert answer["error"]["code"] == "unsupported"


async def test_the_engine_hears_its_own_name_for_the_model():
    """Callers say the alias."""
    async with door(WELL, targets=({"model": "large-70b"},)) as it:
        await it.ask(says("a"))
        assert it.stubs[0].requests[0].body["model"] == "large-70b"


async def test_no_more_tokens_than_the_model_gives():
    """Who asks for more gets the most there is, and so does who does not say."""
    async with door(WELL, model={"output_tokens_max": 3}) as it:
        for more in ({"max_tokens": 99}, {"max_completion_tokens": 99}, {}):
            _, answer = await it.ask({"model": "m", "messages": [{"role": "user", "content": "count"}], **more})
            assert answer["usage"]["completion_tokens"] == 3
        _, answer = await it.ask({"model": "m", "messages": [{"role": "user", "content": "count"}], "max_tokens": 2})
        assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
async def test_the_bound_has_the_name_that_the_caller_used_and_else_that_of_the_target(bound: Bound, tmp_path: Path):
    """Newer engines refuse the one, older ones do not know the other; under no circumstances are there both."""
    names = {"max_tokens", "max_completion_tokens"}
    capped = door(WELL, model={"output_tokens_max": 3}, targets=({"bound": bound},))
    limit = Limit(name="l", by="key", unit="tokens", most=10**6, per="day")
    paid = door(WELL, folder=tmp_path, limits=(limit,), targets=({"bound": bound},))
    for opening in (capped, paid):
        async with opening as it:
            for asked in ({"max_tokens": 99}, {"max_completion_tokens": 99}, {}, {"max_completion_tokens": None}):
                await it.ask(says("a", **asked))
                told = it.stubs[0].requests[-1].body
                assert [name for name in names if name in told] == [next(iter(asked), bound)]


async def test_completions_know_one_name_of_the_bound_only():
    """It is the older one, whatever the target's chat wants."""
    async with door(WELL, model={"output_tokens_max": 3}, targets=({"bound": "max_completion_tokens"},)) as it:
        await it.ask({"model": "m", "prompt": "count"}, "/v1/completions")
        assert it.stubs[0].requests[-1].body["max_tokens"] == 3
        assert "max_completion_tokens" not in it.stubs[0].requests[-1].body
