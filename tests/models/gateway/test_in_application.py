"""The AI gateway of an application: strangers with the clients of both wires, modules by type; in every topology."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest

from chatter.page import Page
from chatter.talk import Talk
from seamline.testing.app import TopologyApp

APP = pytest.mark.seamline(app="tests/models/talk_app", topologies=["local", "copy", "monolith", "services"])


def client(app: TopologyApp) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=app.ai_url, api_key="none", max_retries=0)


@APP
async def test_a_stranger_asks_with_openais_client(topology_app: TopologyApp):
    """The whole answer, the answer as it comes, and what models there are."""
    async with client(topology_app) as asked:
        whole = await asked.chat.completions.create(model="small", messages=[{"role": "user", "content": "count to 9"}])
        assert whole.choices[0].message.content == "one two three four five six seven eight nine"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 9
        pieces = [
            piece.choices[0].delta.content
            async for piece in await asked.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "count to 9"}], stream=True
            )
            if piece.choices
        ]
        assert len([piece for piece in pieces if piece]) == 9, "as it comes, token by token"
        assert [model.id async for model in asked.models.list()] == ["small"]


@APP
async def test_a_stranger_asks_with_anthropics_client(topology_app: TopologyApp):
    """The same model, the other wire."""
    async with anthropic.AsyncAnthropic(
        base_url=topology_app.ai_url.removesuffix("/v1"), api_key="none", max_retries=0
    ) as asked:
        pieces: list[str] = []
        async with asked.messages.stream(
            model="small", max_tokens=50, messages=[{"role": "user", "content": "count to 9"}]
        ) as stream:
            pieces.extend([piece async for piece in stream.text_stream])
            whole = await stream.get_final_message()
        assert "".join(pieces) == "one two three four five six seven eight nine"
        assert len(pieces) == 9, "as it comes, token by token"
        assert (whole.stop_reason, whole.usage.output_tokens) == ("end_turn", 9)


@APP
async def test_a_module_asks_by_type(topology_app: TopologyApp):
    """As itself: policy is asked about page, not about the gateway."""
    page = topology_app.stub(Page)
    assert await page.ask("count to 9") == "one two three four five six seven eight nine"
    assert "".join([piece async for piece in page.listen("count to 9")]) == await page.ask("count to 9")


@APP
async def test_a_client_that_goes_away_stops_the_model(topology_app: TopologyApp):
    """Its tokens, wherever the model runs; others are served meanwhile and after."""
    talk = topology_app.stub(Talk)
    async with client(topology_app) as asked:
        stream = await asked.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "for ever"}], stream=True
        )
        heard = 0
        async for _ in stream:
            heard += 1
            if heard == 3:
                break
        await stream.close()
        async with asyncio.timeout(10):
            before = -1
            while before != (before := await talk.made()):  # noqa: ASYNC110  # it is elsewhere
                await asyncio.sleep(0.1)  # it says twenty pieces in that time, while anybody listens
        assert before < 2_000, "of ten thousand"
        answer = await asked.chat.completions.create(model="small", messages=[{"role": "user", "content": "?"}])
        assert answer.choices[0].message.content == "I do not know"
