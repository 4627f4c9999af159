"""Chats in which guardrails find nothing are passed on quickly, and nothing gets past a guardrail by that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.gateway.doors import CHAT, door, says
from tests.models.gateway.said import ATTACKS
from tests.models.gateway.test_guardrails import FOUND, WHO, ask, guardrails
from tests.models.stub_upstream import Fault

from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import AiGatewaySettings, AiTargetSettings
from seamline.kernel.wire.http1 import Exchange, HttpServer
from seamline.models.chat import ChatAnswer, ChatRequest, Message, ToolCall
from seamline.models.gateway.guardrails import Guard, Guardrails, Words
from seamline.models.gateway.guardrails.injection import SIGNS
from seamline.models.gateway.passing import Asked
from seamline.models.gateway.server import ROUTES

STEPS = ("size", "lists", "pii", "injection")
WELL = Fault()
_VALUES = [value for values in FOUND.values() for value in values]
_SAID = st.lists(
    st.sampled_from([*_VALUES, *ATTACKS, *(anchor for sign in SIGNS for anchor in sign.anchors)])
    | st.text(alphabet="abc IGNORE 0123456789@:._-/\\+\n\té\u200bxyzAKIAeyJ", max_size=30),
    max_size=4,
).map(" ".join)
PLAIN = {"model": "m", "messages": [{"role": "user", "content": "say a b"}], "temperature": 0.2, "user": "ann"}


def asked(body: Any) -> Asked:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Asked(ROUTES[CHAT.encode()], raw, [])


@given(st.lists(_SAID, min_size=1, max_size=3))
async def test_what_is_clear_would_not_have_been_changed_or_refused(said: list[str]):
    """Whether no step has anything to do is told truly of questions and of answers: what can be found is found."""
    steps = guardrails(*STEPS, domains=("shop.example",), prompt_tokens_max=100)
    words = Words(said, said, sum(len(text.encode()) for text in said))
    begun = steps.begin(WHO, "m")
    assert begun is not None
    if steps.clear(words):
        request = ask(*said)
        assert await begun.before(request) == request
    answer = ChatAnswer(
        message=Message(role="assistant", content=said[0], refusal=said[-1], tool_calls=(ToolCall(arguments=said[0]),))
    )

    async def never(_: ChatRequest) -> ChatAnswer:
        raise AssertionError

    if steps.clear_answer(answer):
        assert await begun.after(answer, never) == answer


@pytest.mark.parametrize("value", _VALUES)
def test_what_is_found_is_not_clear(value: str):
    """A question or an answer with any of it goes the long way."""
    steps = guardrails(*STEPS)
    assert steps.clear(Words(["kind words"], ["kind words"], 10))
    assert not steps.clear(Words([f"my {value} is"], [], 100))
    assert not steps.clear_answer(ChatAnswer(message=Message(role="assistant", refusal=f"no: {value}")))


def test_an_attack_a_link_and_a_long_question_are_not_clear():
    """Each step says so of what it is for."""
    steps = guardrails(*STEPS, domains=("shop.example",), prompt_tokens_max=10)
    assert steps.clear(Words(["short"], ["short"], 40))
    assert not steps.clear(Words(["short"], ["short"], 41))
    assert not steps.clear(Words(["//else.example"], [], 9))
    assert not steps.clear(Words([ATTACKS[0]], [ATTACKS[0]], 9))


def test_a_step_that_cannot_tell_is_asked_each_time():
    """An application's own guardrail sees every question."""

    class Own(Guard):
        name = "own"

        def begin(self, who: object, model: str) -> Guard:
            return self

    steps = Guardrails(AiGatewaySettings(guardrails=STEPS), [Own()])
    assert not steps.may_be_clear
    assert not steps.clear(Words(["a"], ["a"], 1))


@pytest.mark.parametrize(
    "more",
    [
        {"tools": []},
        {"stream": True},
        {"functions": [{"name": "f"}]},
        {"prediction": {"content": "4111 1111 1111 1111"}},
        {"stop": ["ann@mail.example"]},
        {"seed": "4111 1111 1111 1111"},
        {"temperature": {"a": "ann@mail.example"}},
        {"max_completion_tokens": 1, "max_tokens": "ann@mail.example"},
        {"messages": [{"role": "user", "content": "hi", "name": "ann@mail.example"}]},
        {"messages": [{"role": "tool", "content": "hi", "tool_call_id": "1"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": "hi"},
    ],
)  # fmt: skip
def test_a_question_of_more_than_texts_goes_the_long_way(more: dict[str, Any]):
    """There is no field in which something could travel unseen."""
    assert asked(PLAIN).words() is not None
    assert asked({**PLAIN, **more}).words() is None


def test_what_is_sent_is_what_was_read():
    """Of two fields of one name the engine gets the one that was looked at, wherever they stand."""
    it = asked(
        b'{"messages":[{"role":"user","content":"one"}],"model":"m","messages":'
        b'[{"role":"system","content":"ann@mail.example","role":"user","content":"t\\u0077o"}]}'
    )
    words = it.words()
    assert words is not None
    assert words.texts == words.of_users == ["two"]
    sent = it.body("large")
    assert sent.count(b"messages") == sent.count(b"content") == 1
    assert json.loads(sent) == {"model": "large", "messages": [{"role": "user", "content": "two"}]}


async def test_the_short_way_and_the_long_way_say_the_same():
    """A question that is clear and one that is so only after a closer look are asked and answered alike."""
    async with door(WELL, guardrails=STEPS) as it:
        short = await it.ask(says("hello there", max_tokens=4, user="ann"))
        long = await it.ask(says("hello there", max_tokens=4, user="ann", n=1))
        first, second = (request.body for request in it.stubs[0].requests)
        assert first == second
        assert short[0] == long[0] == 200
        for answer in (short[1], long[1]):
            answer |= {"created": 0, "id": ""}
        assert short == long
        assert it.stats()["input_tokens"] % 2 == 0


async def test_an_answer_to_a_clear_question_is_looked_through():
    """What the engine says of other people does not come out, in no field, though the question was clear."""
    said = {
        "role": "assistant",
        "content": "Ask ann@mail.example.",
        "refusal": None,
        "reasoning": "of ann@mail.example",
    }
    body = json.dumps({"id": "1", "model": "x", "choices": [{"message": said, "finish_reason": "stop"}]}).encode()

    async def answer(exchange: Exchange) -> None:
        exchange.respond(200, [(b"content-type", b"application/json")], body)

    runners = Runners()
    engine = await asyncio.get_running_loop().create_server(HttpServer(answer, runners=runners).protocol, "127.0.0.1")
    async with engine:
        target = AiTargetSettings(engine=f"openai:http://127.0.0.1:{engine.sockets[0].getsockname()[1]}/v1")
        async with door(more=(target,), guardrails=STEPS) as it:
            status, told = await it.ask(says("who knows"))
    await runners.stop()
    assert status == 200
    assert told["choices"][0]["message"] == {"role": "assistant", "content": "Ask [EMAIL].", "refusal": None}


async def test_what_is_found_is_masked_and_refused_as_before():
    """The engine sees a placeholder, the caller its own; an attack and a long text are refused."""
    async with door(WELL, guardrails=STEPS, prompt_tokens_max=50) as it:
        _, answer = await it.ask(says("ann@mail.example"))
        assert answer["choices"][0]["message"]["content"] == "ann@mail.example"
        assert "ann@" not in json.dumps(it.stubs[0].requests[0].body)
        refusals = {ATTACKS[0]: (400, "content_policy_violation"), "a " * 101: (413, "request_too_large")}
        for text, expected in refusals.items():
            status, refused = await it.ask(says(text))
            assert (status, refused["error"]["code"]) == expected
        assert len(it.stubs[0].requests) == 1
