"""Calls are told by the conventions, counted by whom, and cost what the prices say."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.kernel.signal import here
from seamline.kernel.signal.gauges import GAUGES
from seamline.kernel.signal.trace import TraceContext, Tracer
from seamline.models.chat import Usage
from seamline.models.gateway import accounting
from seamline.models.gateway.accounting import Accounting
from seamline.models.gateway.keys import Caller, Key, caller
from seamline.models.gateway.prices import NANO, Cost, Price, money, nano
from seamline.module.context import CURRENT, CallContext, current, under

ANN = caller(Key(id="k1", tenant="acme"), "ann", "", "bot")
USAGE = Usage(input_tokens=100, output_tokens=7, cached_input_tokens=40, cache_write_tokens=2)
PRICE = Price.per_million(input="2.50", output="10", cached_input="0.25", cache_write="3.125")


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    here.set_source(current, under)
    token = CURRENT.set(CallContext("assistant", "frontend", trace=TraceContext(9, 1, True), span=2))
    yield Tracer(1.0)
    CURRENT.reset(token)
    here.set_source(lambda: None)


def done(accounts: Accounting, who: Caller = ANN, model: str = "fast", **given: Any) -> None:
    facts: dict[str, Any] = {
        "operation": "chat", "provider": "openai", "engine_model": "small-1", "usage": USAGE,
        "cost": PRICE.cost(USAGE), "began": 10.0, "ended": 10.5, "first_at": 10.1, "finish": "stop", **given,
    }  # fmt: skip
    accounts.done(who, model, **facts)


def test_a_call_is_a_span_with_what_it_cost(tracer: Tracer):
    """By the conventions' names, and ours where they have none; a child of the call at work."""
    done(Accounting(tracer))
    (span,) = tracer.take()
    assert (span.name, span.kind, span.module, span.peer, span.parent_id) == (
        "chat small-1", "client", "assistant", "openai", 2,
    )  # fmt: skip
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small-1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.response.finish_reasons": ["stop"],
        "seamline.model": "fast",
        "seamline.key": "k1",
        "seamline.tenant": "acme",
        "seamline.agent": "bot",
        "seamline.cost": "0.00023125",
        "seamline.first_token_ms": 100.0,
    }


def test_what_is_told_grows_by_what_was_not_told_yet():
    """Tokens, times, calls and cost, of key and tenant; the process tells them with all others."""
    accounts = Accounting()
    done(accounts)
    done(accounts, failed="SL7771", usage=Usage(), cost=Cost())
    taken = [measure for measure in GAUGES.take() if measure.name.startswith(("gen_ai", "seamline.ai"))]
    found = {(each.name, each.attributes.get("gen_ai.token.type", ""), each.attributes.get("error.type", "")): each
             for each in taken}  # fmt: skip
    assert found["gen_ai.client.token.usage", "input", ""].value == 100
    assert found["gen_ai.client.token.usage", "output", ""].value == 7
    assert found["gen_ai.client.operation.duration", "", ""].count == 1
    assert found["gen_ai.client.operation.duration", "", "SL7771"].count == 1
    assert found["gen_ai.client.operation.time_to_first_chunk", "", ""].value == pytest.approx(0.2)
    of_whom = {"gen_ai.request.model": "fast", "seamline.key": "k1", "seamline.tenant": "acme"}
    calls, cost = found["seamline.ai.calls", "", ""], found["seamline.ai.cost", "", ""]
    assert (calls.value, calls.attributes) == (2, of_whom)
    assert cost.value == pytest.approx(0.00023125)
    assert list(accounts.take()) == []
    done(accounts)
    assert {each.name: each.value for each in accounts.take()}["seamline.ai.calls"] == 1


def test_people_see_each_model_and_each_keys_share():
    """With the cost of an answer; what a cache answered is counted apart and took no engine's time."""
    accounts = Accounting()
    done(accounts)
    done(accounts, caller(Key(id="k2")), asked_again=1)
    done(accounts, cached=True, usage=Usage(), cost=Cost())
    stats = accounts.stats()
    assert stats["models"]["fast"] == {
        "calls": 3, "failed": 0, "cached": 1, "input_tokens": 200, "output_tokens": 14, "cost": "0.0004625",
        "cost_per_answer": "0.000154166", "p50_ms": pytest.approx(500, rel=0.13),
        "p95_ms": pytest.approx(500, rel=0.13), "first_token_p50_ms": pytest.approx(100, rel=0.13),
        "first_token_p95_ms": pytest.approx(100, rel=0.13),
    }  # fmt: skip
    assert [(each["key"], each["calls"], each["asked_again"]) for each in stats["accounts"]] == [
        ("k1", 2, 0), ("k2", 1, 1),
    ]  # fmt: skip


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch):
    """Whatever callers there are, memory is; what has no place of its own is added up."""
    monkeypatch.setattr(accounting, "ACCOUNTS_MAX", 3)
    accounts = Accounting()
    for number in range(10):
        done(accounts, caller(Key(id=f"k{number}")), engine_model=f"m{number}")
    found = accounts.stats()["accounts"]
    assert [(each["key"], each["calls"]) for each in found] == [("k0", 1), ("k1", 1), ("k2", 1), ("other", 7)]


@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9),
    st.decimals(0, 1000, places=6),
)  # fmt: skip
def test_a_cost_is_exact_and_rounded_up_to_a_billionth(fresh: int, cached: int, written: int, out: int, price: Decimal):
    """As decimals would have it, for any price and any number of tokens."""
    found = Price.per_million(
        input=str(price), output=str(price * 4), cached_input=str(price / 2), cache_write=str(price * 2)
    )
    usage = Usage(
        input_tokens=fresh + cached + written, output_tokens=out, cached_input_tokens=cached, cache_write_tokens=written
    )
    exact = (fresh * price + out * price * 4 + cached * price / 2 + written * price * 2) / 1_000_000
    cost = found.cost(usage)
    assert cost.tokens == fresh + cached + written + out
    assert 0 <= Decimal(cost.nano) - exact * NANO < 1


def test_what_is_reserved_covers_what_a_call_can_cost():
    """With a token for every byte it always does, whatever is cached or written to a cache."""
    price = Price.per_million(input="3", output="15", cache_write="3.75", tokens_per_byte=1.0)
    reserved = price.estimate(1000, 50, 2)
    worst = price.cost(Usage(input_tokens=1000, cache_write_tokens=1000, output_tokens=100))
    assert reserved.tokens >= worst.tokens
    assert reserved.nano >= worst.nano
    assert price.estimate(0).tokens >= price.output_tokens_max
    assert price.asked(1000).nano < reserved.nano


def test_money_is_whole_billionths():
    """What is finer, negative or no number is refused, not rounded."""
    assert nano("2.50") == 2_500_000_000
    assert money(2_500_000_000) == "2.5"
    assert (money(1), money(0), money(-1)) == ("0.000000001", "0", "-0.000000001")
    for wrong in ("0.0000000001", "-1", "NaN", "Infinity", "two"):
        with pytest.raises(ValueError, match="is not an amount of money"):
            nano(wrong)
