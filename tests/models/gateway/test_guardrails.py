"""Guardrails: what is looked for is found, nothing else is touched, and nobody waits for it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.gateway.said import ATTACKS, HARMLESS

from seamline.kernel.settings.ai_gateway import AiGatewaySettings
from seamline.models.chat import (
    AnswerSchema,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Message,
    Part,
    Tool,
    ToolCall,
    Usage,
)
from seamline.models.gateway.errors import AnswerUnfit, BadRequest, Blocked, TooLarge
from seamline.models.gateway.guardrails import Guard, Guarding, Guardrails
from seamline.models.gateway.guardrails.detect import KINDS, find
from seamline.models.gateway.guardrails.holding import BLOCK_MAX, HOLD_MAX, Held
from seamline.models.gateway.guardrails.injection import score
from seamline.models.gateway.keys import Caller, Key

WHO = Caller(Key(id="k"))
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75Xs\nq2F9+/ab=\n-----END RSA PRIVATE KEY-----"
FOUND = {
    "email": ["ann.lee+x@mail.example.co.uk", "o'b_1@x-y.de", "jörg@müller.example"],
    "phone": ["+49 30 123456-78", "(030) 1234567", "555-123-4567", "+14155550123", "0176 1234 5678"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "NL91ABNA0417164300"],
    "card": ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
    "ip": ["10.1.2.3", "2001:db8::8a2e:370:7334"],
    "ssn": ["123-45-6789"],
    "secret": [
        "sk-abcdefghijklmnopqrstuvwx",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
        PEM,
    ],
}
NOT_FOUND = [
    "version 1.2.3 of 2026-11-23 at 20:14:07, 3.14159265 and 0.123456789",
    "order 12345678, 1,234,567.89 EUR, room 12-34",
    "DE89 3704 0044 0532 0130 01 has the wrong checksum, so has 4111 1111 1111 1112",
    "ask @ann, or see a@b and ::1 and 127.0.0.1 and 300.1.2.3",
    "the skeleton key sk-short and AKIA of Japan, -----BEGIN CERTIFICATE-----",
    "000-12-3456 and 123-45-67890 are no numbers of anybody",
    "10.000.000 people in 2024-2025, chapters 1.1.1.1.1",
]


def guardrails(*steps: str, **given: object) -> Guardrails:
    return Guardrails(AiGatewaySettings(guardrails=steps, **given))  # type: ignore[arg-type]


def begun(*steps: str, **given: object) -> Guarding:
    found = guardrails(*steps, **given).begin(WHO, "fast")
    assert found is not None
    return found


def ask(*texts: str, **given: object) -> ChatRequest:
    return ChatRequest(messages=tuple(Message(role="user", content=text) for text in texts), **given)  # type: ignore[arg-type]


async def nobody(request: ChatRequest) -> ChatAnswer:
    raise AssertionError(f"asked again: {request}")


# Personal data.


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in FOUND.items() for value in values])
def test_data_of_people_are_found_wherever_they_stand(kind: str, value: str):
    """Alone, in a sentence, in brackets, in JSON."""
    name = value.rsplit("'", maxsplit=1)[-1]  # an apostrophe parts an address, and only its name stays
    for around in ("{}", "Write to {}, please.", "({})", '{{"a": "{}"}}', "x: {}\nnext"):
        text = around.format(value)
        assert [(text[each.begins : each.ends], each.kind) for each in find(text)] == [(name, kind)]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_numbers_and_words_of_every_day_are_left_alone(text: str):
    """Dates, sums, versions, wrong checksums, this machine's own address."""
    assert [(text[each.begins : each.ends], each.kind) for each in find(text)] == []


async def test_an_engine_sees_placeholders_and_the_caller_its_own_data():
    """The same value has the same placeholder wherever it stands, and the answer has the values again, also in JSON."""
    guarding = begun("pii")
    request = ChatRequest(
        messages=(
            Message(role="system", content="You serve ann@example.com."),
            Message(role="user", parts=(Part(text="Call 555-123-4567"), Part(image_url="data:image/png;base64,xx"))),
            Message(role="assistant", tool_calls=(ToolCall(name="mail", arguments='{"to": "ann@example.com"}'),)),
            Message(role="tool", content="[EMAIL_1] sent; bob@example.com"),
        )
    )
    asked = await guarding.before(request)
    assert "example.com" not in str(asked)
    assert "4567" not in str(asked)
    assert asked.messages[0].content == "You serve [EMAIL_2]."
    assert asked.messages[1].parts[0].text == "Call [PHONE_1]"
    assert asked.messages[2].tool_calls[0].arguments == '{"to": "[EMAIL_2]"}'
    assert asked.messages[3].content == "[EMAIL_1] sent; [EMAIL_3]"
    answer = ChatAnswer(
        message=Message(
            role="assistant",
            content="I wrote to [EMAIL_2] and eve@evil.example, called [PHONE_1]; [EMAIL_1].",
            tool_calls=(ToolCall(name="mail", arguments='{"to": "[EMAIL_3]"}'),),
        )
    )
    shown = (await guarding.after(answer, nobody)).message
    assert shown.content == "I wrote to ann@example.com and [EMAIL], called 555-123-4567; [EMAIL_1]."
    assert json.loads(shown.tool_calls[0].arguments) == {"to": "bob@example.com"}


async def test_callers_do_not_get_each_others_data():
    """A placeholder means nothing in another call."""
    step = guardrails("pii")
    one, other = step.begin(WHO, "fast"), step.begin(WHO, "fast")
    assert one is not None
    assert other is not None
    await one.before(ask("I am ann@example.com"))
    await other.before(ask("I am bob@example.com"))
    answer = ChatAnswer(message=Message(role="assistant", content="[EMAIL_1]"))
    assert (await other.after(answer, nobody)).message.content == "bob@example.com"


async def test_data_are_refused_where_they_are_not_masked_and_not_repeated():
    """The error names kinds, never values."""
    with pytest.raises(Blocked, match="2 of kind email") as refused:
        await begun("pii", pii_action="block").before(ask("ann@example.com, bob@example.com"))
    assert refused.value.step == "pii"
    assert "ann" not in str(refused.value)


TEXTS = st.lists(
    st.sampled_from([*(value for values in FOUND.values() for value in values), "[EMAIL_1]", "[PHONE_2]", "[", "[EM"])
    | st.text(st.sampled_from("abz AZ09.@+-: \n[]_()é"), max_size=12),
    max_size=8,
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, data=st.data())
def test_a_stream_cut_anywhere_is_changed_as_if_it_were_whole(text: str, data: st.DataObject):
    """Whichever way it comes, letter by letter or in pieces of any size."""

    def mark(given: str) -> str:
        for each in reversed(find(given)):
            given = f"{given[: each.begins]}<{each.kind}>{given[each.ends :]}"
        return given.replace("[EMAIL_1]", "ann").replace("[PHONE_2]", "5")

    held, out, at = Held(mark, KINDS), "", 0
    while at < len(text):
        size = data.draw(st.integers(1, 9))
        out += held.push(text[at : at + size])
        at += size
    assert out + held.rest() == mark(text)


@pytest.mark.parametrize(
    "text",
    ["x" * 50_000, "1" * 50_000, "[" * 50_000, "A B " * 10_000, "-----BEGIN RSA PRIVATE KEY-----" + "A" * 50_000],
)
def test_what_is_held_back_of_a_stream_is_bounded(text: str):
    """However it is written."""
    held, behind = Held(lambda given: given, KINDS), 0
    out = ""
    for at in range(0, len(text), 50):
        out += held.push(text[at : at + 50])
        behind = max(behind, at + 50 - len(out))
    assert behind <= max(HOLD_MAX, BLOCK_MAX if "BEGIN" in text else 0) + 50
    assert out + held.rest() == text


async def test_a_stream_shows_the_callers_data_and_hides_others():
    """Text and arguments of tools, in pieces; every letter comes, and the end is the end."""
    guarding = begun("pii")
    await guarding.before(ask("ann@example.com"))
    said = "Dear [EMAIL_1], card 4111 1111 1111 1111 and mail eve@evil.example. Bye"
    arguments = '{"to": "[EMAIL_1]"}'
    out: list[ChatChunk] = []
    for at in range(0, len(said), 3):
        out += guarding.feed(ChatChunk(text=said[at : at + 3]))
    for at in range(0, len(arguments), 4):
        out += guarding.feed(ChatChunk(tool_calls=(ToolCall(index=1, arguments=arguments[at : at + 4]),)))
    out += guarding.feed(ChatChunk(finish="stop"))
    out += guarding.feed(ChatChunk(usage=Usage(output_tokens=3)))
    out += guarding.finish()
    assert "".join(chunk.text for chunk in out) == "Dear ann@example.com, card [CARD] and mail [EMAIL]. Bye"
    calls = [call for chunk in out for call in chunk.tool_calls]
    assert "".join(call.arguments for call in calls) == '{"to": "ann@example.com"}'
    assert {call.index for call in calls} == {1}
    assert [chunk.finish for chunk in out if chunk.finish] == ["stop"]
    assert out[-1].usage == Usage(output_tokens=3)
    assert sum(len(chunk.text) for chunk in out[:4]) > 0, "words go out while the stream runs"


# Injection.


def test_attacks_are_found_and_people_are_not_accused():
    """On our own corpus: nine of ten attacks at the default threshold, and nobody's question."""
    threshold = AiGatewaySettings().injection_threshold
    accused = [text for text in HARMLESS if score(text)[0] >= threshold]
    missed = [text for text in ATTACKS if score(text)[0] < threshold]
    assert accused == []
    assert len(missed) <= len(ATTACKS) // 10, missed


async def test_an_injection_is_refused_with_what_was_seen():
    """In what users and tools wrote; the application may write what it likes."""
    text = ATTACKS[0]
    for message in (Message(role="user", content=text), Message(role="tool", content=text)):
        with pytest.raises(Blocked, match=r"0\.\d\d: ignore-instructions"):
            await begun("injection").before(ChatRequest(messages=(Message(role="user", content="hi"), message)))
    await begun("injection").before(ChatRequest(messages=(Message(role="system", content=text),)))


def test_letters_that_nobody_sees_are_a_sign():
    """Unicode tags spell an instruction that only a tokenizer reads."""
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "do it")
    assert score(f"Hello{hidden}") == (pytest.approx(0.9), ["hidden-letters"])


def _seconds(work: Callable[[str], object], text: str) -> float:
    best = 1e9
    for _ in range(3):
        began = time.thread_time()
        work(text)
        best = min(best, time.thread_time() - began)
    return best


HOSTILE = [
    "a", "a@", "1", "1 ", "+1-", "a.", ":", "a:", "1.", "DE00", "-----BEGIN ", "-----BEGIN A PRIVATE ", "eyJ", "eyJa.",
    "sk-", "(", "0 ", "AB12 ", "xox", "a-", "ab:", "4111 ", "ignore ", "ignore all ", "without any ", "send data ",
    "![a](http://x", "repeat all ", "print your ", "system:\n", "\u200b", "\u0301", "[", "call the a ", "1-", "@", "é",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_makes_a_search_slow(piece: str):
    """CPU time grows as the text does: eight times the text is not more than thirty times the time (of a square it
    would be sixty-four times)."""
    for work in (find, score):
        few, many = piece * (4_000 // len(piece)), piece * (32_000 // len(piece))
        assert _seconds(work, many) < 30 * max(_seconds(work, few), 2e-4)


# Lists and sizes.


async def test_tools_and_links_are_those_that_are_allowed():
    """By name, by the beginning of a name, and not where it says not; links as a browser reads them."""
    guarding = begun("lists", tools=("search", "read_*", "!read_mail"), domains=("example.com", "!evil.example.com"))
    for name in ("search", "read_page"):
        await guarding.before(ask("hi", tools=(Tool(name=name),)))
    for name in ("read_mail", "delete", "searching"):
        with pytest.raises(Blocked, match=name):
            await guarding.before(ask("hi", tools=(Tool(name=name),)))
    await guarding.before(ask("see https://www.example.com:8443/a and http://EXAMPLE.com. and 1//2"))
    for link in (
        "https://example.com.evil.net/x", "http://example.com@evil.net", "https://evil.example.com", "//evil.net/x",
        "https:\\\\evil.net", "HTTPS://notexample.com", "http://[::1]/",
    ):  # fmt: skip
        with pytest.raises(Blocked, match="a link to"):
            await guarding.before(ask(f"see {link}"))
    picture = ChatRequest(messages=(Message(role="user", parts=(Part(image_url="https://evil.net/p.png"),)),))
    with pytest.raises(Blocked):
        await guarding.before(picture)


async def test_a_question_may_be_too_large():
    """Known before it is read, or after."""
    steps = guardrails("size", prompt_tokens_max=100)
    assert not steps.needs_body
    steps.check_size(400)
    with pytest.raises(TooLarge, match="about 100 tokens"):
        steps.check_size(401)
    guarding = steps.begin(WHO, "fast")
    assert guarding is not None
    with pytest.raises(TooLarge):
        await guarding.before(ask("é" * 150, "x" * 101))


# Answers of a schema.

SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
WANTED = AnswerSchema(name="count", schema=SCHEMA)


def answer(text: str) -> ChatAnswer:
    return ChatAnswer(message=Message(role="assistant", content=text), usage=Usage(input_tokens=10, output_tokens=2))


async def test_an_answer_that_does_not_fit_is_asked_for_again_and_all_is_paid():
    """The model is shown its answer and what is wrong with it; fences around JSON are no fault."""
    pytest.importorskip("jsonschema_rs", reason="of the extra models-gateway")
    guarding = begun("schema", schema_repairs=2)
    request = await guarding.before(ask("how many?", answer_schema=WANTED))
    assert guarding.whole
    asked: list[ChatRequest] = []
    answers = iter([answer('{"n": "two"}'), answer('```json\n{"n": 2}\n```')])

    async def again(request: ChatRequest) -> ChatAnswer:
        asked.append(request)
        return next(answers)

    found = await guarding.after(answer("It is two."), again)
    assert found.message.content == '{"n": 2}'
    assert found.usage == Usage(input_tokens=30, output_tokens=6)
    assert asked[0].messages[:1] == request.messages
    assert asked[0].messages[1] == Message(role="assistant", content="It is two.")
    assert "not JSON" in asked[0].messages[2].content
    assert 'at /n: "two" is not of type "integer"' in asked[1].messages[2].content


async def test_repairs_are_bounded():
    """Then the call has failed, with the fault."""
    pytest.importorskip("jsonschema_rs", reason="of the extra models-gateway")
    guarding = begun("schema", schema_repairs=1)
    await guarding.before(ask("how many?", answer_schema=WANTED))
    asked: list[ChatRequest] = []

    async def again(request: ChatRequest) -> ChatAnswer:
        asked.append(request)
        return answer("{}")

    with pytest.raises(AnswerUnfit, match='"n" is a required property'):
        await guarding.after(answer("no"), again)
    assert len(asked) == 1
    refusal = dataclasses.replace(answer(""), message=Message(role="assistant", refusal="I may not."))
    assert await guarding.after(refusal, nobody) == refusal


@pytest.mark.parametrize(
    "schema",
    ["{", "[]", '{"type": "nothing"}', '{"$ref": "http://127.0.0.1:9/x"}', '{"$ref": "file:///etc/passwd"}',
     '{"type": "string", "pattern": "("}'],
)  # fmt: skip
async def test_a_schema_that_cannot_be_used_is_the_callers_mistake(schema: str):
    """It is refused before an engine is asked, and nothing is fetched for it."""
    pytest.importorskip("jsonschema_rs", reason="of the extra models-gateway")
    with pytest.raises(BadRequest, match="the schema cannot be used"):
        await begun("schema").before(ask("x", answer_schema=AnswerSchema(schema=schema)))


async def test_a_callers_pattern_cannot_make_the_gateway_slow():
    """A pattern that takes for ever in others takes no time here."""
    pytest.importorskip("jsonschema_rs", reason="of the extra models-gateway")
    schema = json.dumps({"type": "string", "pattern": "^(a+)+$"})
    guarding = begun("schema", schema_repairs=0)
    await guarding.before(ask("x", answer_schema=AnswerSchema(schema=schema)))
    began = time.thread_time()
    with pytest.raises(AnswerUnfit):
        await guarding.after(answer(json.dumps("a" * 5_000 + "!")), nobody)
    assert time.thread_time() - began < 1


# Steps together.


async def test_an_applications_own_step_stands_beside_the_others():
    """In order on the way in, in the opposite order on the way out."""

    class Loud(Guard):
        name = "loud"

        def begin(self, who: Caller, model: str) -> Guard | None:
            return self if model == "fast" else None

        def before(self, request: ChatRequest) -> ChatRequest:
            return dataclasses.replace(
                request,
                messages=tuple(dataclasses.replace(each, content=each.content.upper()) for each in request.messages),
            )

        def feed(self, chunk: ChatChunk) -> tuple[ChatChunk, ...]:
            return (dataclasses.replace(chunk, text=chunk.text.lower()),)

    steps = Guardrails(AiGatewaySettings(guardrails=("pii",)), own=(Loud(),))
    guarding = steps.begin(WHO, "fast")
    assert guarding is not None
    assert (await guarding.before(ask("mail a@b.de"))).messages[0].content == "MAIL [EMAIL_1]"
    out = [*guarding.feed(ChatChunk(text="TO C@D.DE NOW AND THEN ")), *guarding.finish()]
    assert "".join(chunk.text for chunk in out) == "to [EMAIL] now and then "
    assert Guardrails(AiGatewaySettings()).begin(WHO, "fast") is None
    assert Guardrails(AiGatewaySettings(), own=(Loud(),)).begin(WHO, "slow") is None


async def test_texts_to_be_embedded_go_through_the_same_steps():
    """One for each, in order."""
    assert await begun("pii").masked(["a@b.de", "plain"]) == ("[EMAIL_1]", "plain")
