"""What models and agents do is told by the conventions' names, and nothing of what they said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from seamline.kernel.signal import here
from seamline.kernel.signal.gen_ai import GenAi
from seamline.kernel.signal.trace import TraceContext, Tracer
from seamline.module.context import CURRENT, CallContext, current, under


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    here.set_source(current, under)
    token = CURRENT.set(CallContext("assistant", "frontend", trace=TraceContext(9, 1, True), span=2))
    yield Tracer(1.0)
    CURRENT.reset(token)
    here.set_source(lambda: None)


def test_an_agents_work_is_a_tree_of_spans(tracer: Tracer):
    """The agent's span holds the model's and the tool's; what it took stands on the model's."""
    gen_ai = GenAi(tracer)
    with gen_ai.work("invoke_agent", provider="own", agent="shopper"):
        with gen_ai.work("chat", provider="openai", model="small-1", temperature=0.5) as doing:
            doing.usage(input_tokens=100, output_tokens=7, cached_input_tokens=40)
            doing.response(model="small-1-2026", id="r-1", finish_reasons=["stop"])
        with gen_ai.work("execute_tool", provider="own", tool="search"):
            pass
    chat, tool, agent = tracer.take()
    assert [(span.name, span.kind, span.module) for span in (chat, tool, agent)] == [
        ("chat small-1", "client", "assistant"),
        ("execute_tool search", "internal", "assistant"),
        ("invoke_agent shopper", "internal", "assistant"),
    ]
    assert (agent.parent_id, chat.parent_id, tool.parent_id) == (2, agent.span_id, agent.span_id)
    assert chat.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small-1",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.response.model": "small-1-2026",
        "gen_ai.response.id": "r-1",
        "gen_ai.response.finish_reasons": ["stop"],
    }


def test_tokens_and_durations_are_counted_whether_or_not_a_trace_is_recorded(tracer: Tracer):
    """As histograms of the module, and as an edge to the provider."""
    gen_ai = GenAi(tracer)
    token = CURRENT.set(CallContext("assistant", "frontend", trace=TraceContext(9, 1, False)))
    for tokens in (5, 2_000):
        with gen_ai.work("chat", provider="openai", model="small-1") as doing:
            doing.first_chunk()
            doing.usage(input_tokens=tokens, output_tokens=1)
    CURRENT.reset(token)
    assert tracer.take() == []
    measures = gen_ai.take()
    found: dict[tuple[str, str], Any] = {
        (measure.name, measure.attributes.get("gen_ai.token.type", "")): measure for measure in measures
    }
    assert found["gen_ai.client.operation.duration", ""].count == 2
    assert found["gen_ai.client.operation.time_to_first_chunk", ""].unit == "s"
    usage = found["gen_ai.client.token.usage", "input"]
    assert (usage.value, usage.module, usage.unit, usage.buckets) == (
        2_005,
        "assistant",
        "{token}",
        {"16": 1, "4096": 1},
    )
    assert gen_ai.take() == []
    (flow,) = tracer.flows.take()
    assert (flow.caller, flow.callee, flow.method, flow.side, flow.calls) == (
        "assistant", "openai", "chat small-1", "model", 2,
    )  # fmt: skip


def test_a_failure_is_told_without_its_words_and_has_its_trace_recorded(tracer: Tracer):
    """An error of a provider quotes the prompt, so only its kind is told."""
    gen_ai = GenAi(tracer)
    trace = TraceContext(9, 1, False)
    token = CURRENT.set(CallContext("assistant", "frontend", trace=trace, span=2))
    with pytest.raises(ValueError, match="secret"), gen_ai.work("chat", provider="openai", model="m"):
        raise ValueError("secret prompt")
    CURRENT.reset(token)
    (span,) = tracer.take()
    assert (span.status, span.message, (span.attributes or {})["error.type"]) == ("internal", "", "ValueError")
    assert "secret" not in repr((span, tracer.flows.take(), gen_ai.take()))
    assert trace.sampled


def test_series_are_bounded(tracer: Tracer):
    """A model named after each user does not fill the memory."""
    gen_ai = GenAi(tracer)
    for number in range(1_500):
        with gen_ai.work("embeddings", provider="own", model=f"m{number}"):
            pass
    measures = gen_ai.take()
    assert len(measures) <= 1_001
    assert sum(measure.count for measure in measures) == 1_500
