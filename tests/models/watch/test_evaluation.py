"""Versions side by side on what was captured; and decisions that are made again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clerk.desk import Risk, Risky, Talk
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import ContractModelSettings
from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Message, Usage
from seamline.models.remote.elsewhere import instead
from seamline.models.watch import replay as replaying
from seamline.models.watch.datasets import Datasets
from seamline.models.watch.declared import watched
from seamline.models.watch.errors import CaptureError, ReplayError
from seamline.models.watch.evaluation import EXAMPLES_MAX, Case, Examination, cases_of, words_of
from seamline.models.watch.replay import Decided, Past, Today, replay
from seamline.module.contract import compile_contract
from seamline.module.models import Capture, ModelType, Watch
from seamline.module.module import Module


async def unsaid(_: str) -> None:
    """Of progress."""


def asked(words: str) -> dict[str, Any]:
    return {"request": {"messages": [{"role": "user", "content": words}]}}


def examination(contract: type[Any], ask: Any, *, examples: int = 0) -> Examination:
    return Examination(
        contract.__name__, compile_contract(contract).methods, ask, same=lambda a, b: a == b,
        alike=lambda a, b: words_of(a) == words_of(b), examples=examples,
    )  # fmt: skip


async def test_answers_of_language_models_are_compared_by_what_they_say():
    """Not by what they cost or what they are called; and refusals, rudeness and length are told of each version."""

    async def ask(version: str, method: str, arguments: tuple[Any, ...]) -> ChatAnswer:
        assert (method, type(arguments[0])) == ("complete", ChatRequest)
        said = "Gladly." if version == "old" else "I cannot say."
        return ChatAnswer(message=Message(role="assistant", content=said), usage=Usage(output_tokens=7), id=version)

    then = {"message": {"role": "assistant", "content": "Gladly."}, "id": "long ago"}
    cases = [Case(method="complete", arguments=asked(f"number {each}"), then=then) for each in range(4)]
    found = await examination(Talk, ask, examples=2).run(["old", "new"], cases, unsaid)
    old, new = found["versions"]["old"], found["versions"]["new"]
    assert (old["as then"], old["refusal"], old["words"]) == (1.0, 0.0, 1.0)
    assert (new["as then"], new["refusal"], new["words"]) == (0.0, 1.0, 3.0)
    assert "right" not in old
    assert [each["differs"] for each in found["examples"]] == [True, True]


async def test_what_fails_is_counted_and_what_was_known_to_be_right_too():
    """A version that raises answers nothing as then; of the cases with an expected answer only those count as right."""

    async def ask(version: str, method: str, arguments: tuple[Any, ...]) -> Risky:
        if version == "broken" or arguments[1] < 0:
            raise ValueError(method)
        return Risky(0.5, "v")

    right, wrong = {"score": 0.5, "version": "v"}, {"score": 0.9, "version": "v"}
    given = {"who": "ada", "amount": 5.0, "country": "BE"}
    cases = [
        Case(method="risk", arguments=given, expected=right, then=wrong),
        Case(method="risk", arguments=given, expected=wrong, then=right),
        Case(method="risk", arguments={**given, "amount": -1.0}, expected=right),
        Case(method="risk", arguments=given, then=right),
    ]
    found = await examination(Risk, ask, examples=EXAMPLES_MAX).run(["whole", "broken"], cases, unsaid)
    whole, broken = found["versions"]["whole"], found["versions"]["broken"]
    assert (whole["right"], whole["as then"], whole["errors"]) == (1 / 3, 2 / 3, 0.25)
    assert (broken["right"], broken["as then"], broken["errors"], broken["ms"]) == (0, 0, 1, 0)
    assert [each["answers"]["broken"] for each in found["examples"]] == ["ValueError: risk"] * 4
    assert found["examples"][0]["expected"] == '{"score":0.5,"version":"v"}'
    for odd in ("none", "spell"):
        with pytest.raises(CaptureError, match="case 0 asks"):
            await examination(Risk, ask).run(["whole"], [Case(method=odd, arguments={})], unsaid)


async def test_a_stream_is_captured_as_a_whole_answer_that_can_be_asked_again(tmp_path: Path):
    """By its text, once it has come to its end; what was captured by hand, without a method, is not asked."""

    def whose(request: ChatRequest) -> str:
        return request.user

    clock = ManualClock()
    datasets, module = Datasets(tmp_path, clock), Module("talk", provides=Talk)
    module.model(Talk, version="1", watch=Watch(capture=Capture(dataset="talks", subject=whose)))(
        type("Talking", (), {})
    )
    found = watched(module.models[0], module, None, clock, datasets)
    assert found is not None
    dataset = datasets.open("talks")
    with pytest.raises(CaptureError, match="What was captured: nothing"):
        cases_of(dataset, "Talk", 5)
    datasets.agree("ada")
    dataset.capture("ada", "Talk", "1", "by hand", "yes")
    with pytest.raises(CaptureError, match="no call of Talk"):
        cases_of(dataset, "Talk", 5)
    request = ChatRequest(messages=(Message(role="user", content="May I?"),), user="ada")
    for whole in (True, False):
        passing = found.stream("stream", (request,))
        passing.passed(ChatChunk(text="Glad"))
        passing.passed(ChatChunk(text="ly."))
        if whole:
            passing.ended()
    await found.close()
    (case,) = cases_of(dataset, "Talk", 5)
    assert (case.method, case.arguments["request"]["messages"][0]["content"]) == ("complete", "May I?")
    assert words_of(case.then) == "Gladly."


def test_an_engine_elsewhere_is_watched_as_the_class_is(tmp_path: Path):
    """But not compared with what the class was made with; one that nobody watches is not watched there either."""
    watch = Watch(reference="made.json", capture=Capture(dataset="talks"))
    declared = [ModelType(cls=object, contract=Talk, version="1", watch=watch)]
    told = ContractModelSettings(engine="openai:http://127.0.0.1:9/v1")
    found = instead(Talk, told, tmp_path, declared)
    assert found is not None
    assert found.watch == Watch(capture=Capture(dataset="talks"))
    unwatched = instead(Talk, told, tmp_path, [ModelType(cls=object, contract=Talk, version="1")])
    assert unwatched is not None
    assert unwatched.watch is None


class Reversed:
    """Decides by a number, and once wrote it down."""

    def __init__(self, past: Sequence[Past]) -> None:
        self.all = past

    async def past(self, since: datetime, most: int) -> Sequence[Past]:
        return [each for each in self.all if each.at >= since][:most]

    async def again(self, past: Past, today: Today) -> Decided | None:
        if past.basis < 0:
            return None
        return Decided(verdict="refuse" if past.basis > int(today.policy.get("limit", "5")) else "accept")


def decisions(count: int, at: datetime) -> list[Past]:
    return [
        Past(id=f"case {number}", at=at - timedelta(hours=number), verdict="accept", basis=number % 10)
        for number in range(count)
    ]


async def test_every_decision_is_the_same_another_or_unknown():
    """They add up; what is told one by one is bounded, and what is counted is not; progress comes on the way."""
    now = ManualClock().now()
    past = [
        *decisions(1500, now),
        Past(id="gone", at=now, verdict="accept"),
        Past(id="x", at=now, verdict="a", basis=-1),
    ]
    said: list[str] = []

    async def say(text: str) -> None:
        said.append(text)

    today = Today(model=None, version="1")
    found = await replay(Reversed(past), today, now - timedelta(days=365), say)
    assert (found["decided"], found["same"], found["unknown"]) == (1502, 900, 2)
    assert found["changes"] == {"accept": {"refuse": 600}}
    assert len(found["cases"]) == replaying.SHOWN
    assert said[1] == "100 of 1,502 decided again"
    assert not found["left_out"]
    found = await replay(Reversed(past), today, now - timedelta(hours=7), say, most=3)
    assert (found["decided"], found["left_out"], found["policy"]) == (3, True, "")


async def test_a_policy_that_is_tried_is_named_by_what_it_says():
    """The same text is the same policy; one that cannot be asked ends the replay with what is wrong."""
    now = ManualClock().now()
    book = Reversed(decisions(10, now))
    stricter, milder = ({"limit": limit} for limit in ("2", "8"))
    results = [
        await replay(
            Reversed(decisions(10, now)), Today(model=None, version="1", policy=each), now - timedelta(1), unsaid
        )
        for each in (stricter, milder, stricter)
    ]
    assert [each["changes"]["accept"]["refuse"] for each in results] == [7, 1, 7]
    assert results[0]["policy"] == results[2]["policy"] != results[1]["policy"]
    broken = Today(model=None, version="1", policy={"limit": "none"})
    with pytest.raises(ReplayError, match=r"SL7754.*'case 0' cannot be decided again: ValueError"):
        await replay(book, broken, now - timedelta(1), unsaid)
