"""The scripted model: what its script says, when and how it says, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline.kernel.clock import ManualClock
from seamline.models.chat import ChatChunk, ChatRequest, EmbedRequest, Message, RerankRequest, ToolCall
from seamline.models.engine import LanguageEngine
from seamline.models.errors import EngineRefused
from seamline.models.runtimes.scripted import Rule, Scripted, split_tokens
from seamline.models.runtimes.text import StopStrings


def asked(text: str, **kept: object) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), **kept)  # type: ignore[arg-type]


async def test_the_first_rule_that_fits_answers():
    """In order, with what the pattern found; the stream and the whole answer say the same."""
    engine: LanguageEngine = Scripted(
        [Rule(pattern=r"weather in (\w+)", answer=r"It rains in \1."), Rule(answer="What?")]
    )
    answer = await engine.complete(asked("The weather in Rome, please"))
    assert (answer.message.content, answer.finish) == ("It rains in Rome.", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 4)
    chunks = [chunk async for chunk in engine.stream(asked("The weather in Rome, please"))]
    assert [chunk.text for chunk in chunks[:-1]] == ["It", " rains", " in", " Rome."]
    assert (chunks[-1].finish, chunks[-1].usage) == ("stop", answer.usage)
    assert (await engine.complete(asked("Hm"))).message.content == "What?"


async def test_bounds_of_the_request_hold():
    """Tokens and stop strings end an answer; a stop string is not shown, wherever the tokens split it."""
    engine = Scripted([Rule(answer="one two three. END four")])
    short = await engine.complete(asked("x", tokens_max=2))
    assert (short.message.content, short.finish) == ("one two", "length")
    stopped = await engine.complete(asked("x", stop=(". END",)))
    assert (stopped.message.content, stopped.finish) == ("one two three", "stop")


async def test_tools_and_refusals():
    """A call of a tool has the arguments that were found; a refusal is no answer."""
    engine = Scripted(
        [
            Rule(pattern="find (.+)", tool_calls=(ToolCall(name="search", arguments=r'{"q": "\1"}'),)),
            Rule(pattern="bomb", refusal="No."),
        ]
    )
    found = await engine.complete(asked("find wool"))
    assert found.finish == "tool_calls"
    assert found.message.tool_calls == (ToolCall(id="call_0", name="search", arguments='{"q": "wool"}'),)
    refused = await engine.complete(asked("a bomb"))
    assert (refused.finish, refused.message.refusal, refused.message.content) == ("refusal", "No.", "")


async def test_it_fails_where_the_script_says():
    """Before the first token, or after some; what came before it was said."""
    engine = Scripted([Rule(answer="a b c", fails=EngineRefused("too many", ""), fails_after=2)])
    heard: list[str] = []
    with pytest.raises(EngineRefused):
        async for chunk in engine.stream(asked("x")):
            heard.append(chunk.text)  # noqa: PERF401
    assert heard == ["a", " b"]
    assert engine.left == 0


async def test_who_leaves_ends_the_work():
    """A reader that leaves, and a caller that is cancelled while it stalls, are counted; nothing goes on."""
    engine = Scripted([Rule(answer="a b c d", stalls_after=2)])
    async with aclosing(engine.stream(asked("x"))) as chunks:
        assert (await anext(chunks)).text == "a"
        assert engine.under_way == 1
    assert (engine.under_way, engine.left, engine.tokens_said) == (0, 1, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await engine.complete(asked("x"))
    assert (engine.under_way, engine.left, engine.tokens_said) == (0, 2, 3)


async def test_its_pace_is_the_clocks():
    """Ten tokens a second are one for each tenth of a second that a test lets pass."""
    clock = ManualClock()
    engine = Scripted([Rule(answer="a b c", wait_s=1.0)], tokens_per_s=10, clock=clock)
    heard: list[ChatChunk] = []

    async def read() -> None:
        async for chunk in engine.stream(asked("x")):
            heard.append(chunk)  # noqa: PERF401

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        counts: list[int] = []
        for step in (0.9, 0.1, 0.1, 0.1):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            clock.advance(step)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            counts.append(len(heard))
    assert counts == [0, 1, 2, 4]


async def test_a_seed_chooses():
    """Of several answers each is given, and always the same one for the same seed."""
    engine = Scripted([Rule(answer=("yes", "no"))])
    answers = [(await engine.complete(asked("x", seed=seed % 20))).message.content for seed in range(40)]
    assert set(answers) == {"yes", "no"}
    assert answers[:20] == answers[20:]


async def test_texts_that_share_words_are_near():
    """So that what searches by meaning can be tested without a model."""
    engine = Scripted()
    answer = await engine.embed(EmbedRequest(texts=("a warm lamp", "warm lamp", "garden pot"), dimensions=128))
    one, near, far = answer.vectors
    assert sum(a * b for a, b in zip(one, near, strict=True)) > 0.7
    assert abs(sum(a * b for a, b in zip(one, far, strict=True))) < 0.5
    ranked = await engine.rerank(RerankRequest(query="warm lamp", documents=("garden pot", "a warm lamp"), top_n=1))
    assert [each.index for each in ranked.results] == [1]


@settings(deadline=None)
@given(st.text(alphabet="ab \n", max_size=30))
def test_tokens_together_are_the_text(text: str):
    """Nothing is lost between them."""
    assert "".join(split_tokens(text)) == text


@settings(deadline=None)
@given(
    st.text(alphabet="abc", max_size=30),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_a_stop_string_is_found_however_the_text_is_cut(text: str, stops: list[str], data: st.DataObject):
    """What is shown is the text before the first place where a stop string is complete."""
    shown, rest = "", text
    found = StopStrings(stops)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        shown += found.feed(rest[:size])
        rest = rest[size:]
    shown += found.rest()
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        assert shown == text
    else:
        assert found.stopped
        # Of overlapping ones, that which is complete first may begin later.
        assert any(shown == text[:at] for at in [text.find(stop) for stop in stops] if at >= 0)
