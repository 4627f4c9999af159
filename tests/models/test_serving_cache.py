"""Answers are kept for whom they were made, as long as they are good, and never mixed up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline import Cache, Contract, DeadlineExceeded, SemanticCache, User, readonly
from seamline.models.serving.cache import Answers
from seamline.models.serving.engine import Engine
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import compile_contract
from seamline.module.models import ModelType
from seamline.module.principal import Subject

NEVER = float("inf")


class Shout(Contract):
    @readonly
    async def shout(self, text: str) -> list[str]: ...

    @readonly
    async def say(self, text: str, language: str) -> str: ...

    async def count(self, text: str) -> int: ...


class Model:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = 0

    async def shout(self, text: str) -> list[str]:
        self.asked.append(text)
        await self.gate.wait()
        if self.fails:
            self.fails -= 1
            raise ValueError(text)
        return [text.upper()]

    async def say(self, text: str, language: str) -> str:
        self.asked.append(text)
        return f"{text} in {language}"

    async def count(self, text: str) -> int:
        self.asked.append(text)
        return len(self.asked)


async def running(model: Model, cache: Cache) -> Engine:
    async def make() -> object:
        return model

    engine = Engine(ModelType(cls=Model, contract=Shout, version="1", runs_in="loop", cache=cache), make)
    await engine.start()
    return engine


async def as_user(engine: Engine, user: str, method: str, *arguments: Any) -> Any:
    subject = Subject(User(user)) if user else None
    token = CURRENT.set(CallContext("shop", "gateway", subject=subject))
    try:
        return await engine.call(method, arguments, NEVER)
    finally:
        CURRENT.reset(token)


async def test_the_same_question_costs_one_answer():
    """And only questions whose method changes nothing are remembered; what a caller does to its answer is its own."""
    model = Model()
    engine = await running(model, Cache())
    first = await as_user(engine, "bo", "shout", "hi")
    first.append("spoilt")
    assert await as_user(engine, "bo", "shout", "hi") == ["HI"]
    assert model.asked == ["hi"]
    assert [await as_user(engine, "bo", "count", "x") for _ in range(2)] == [2, 3]
    assert engine.stats()["cache"] | {"size_mb": 0} == {
        "entries": 1, "size_mb": 0, "hits": 1, "misses": 1, "joined": 0, "similar": 0,
    }  # fmt: skip
    await engine.stop()


async def test_nobody_is_given_what_another_was_answered():
    """Unless the model says that all may share; then they do."""
    for shared, asked in ((False, 3), (True, 1)):
        model = Model()
        engine = await running(model, Cache(shared=shared))
        for user in ("bo", "cleo", "", "bo", ""):
            await as_user(engine, user, "shout", "hi")
        assert len(model.asked) == asked
        await engine.stop()


async def test_who_asks_the_same_at_once_is_answered_together():
    """One computes; where it gives up or fails the next one does, and nobody hears of another's failure."""
    model = Model()
    model.gate.clear()
    engine = await running(model, Cache())
    loop = asyncio.get_running_loop()
    asked = [loop.create_task(as_user(engine, "bo", "shout", "hi")) for _ in range(5)]
    while not model.asked:  # noqa: ASYNC110  # other tasks get on
        await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.wait([asked[0]])
    while len(model.asked) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    model.fails = 1
    model.gate.set()
    answers = await asyncio.gather(*asked[1:], return_exceptions=True)
    assert sum(isinstance(each, ValueError) for each in answers) == 1
    assert sum(each == ["HI"] for each in answers) == 3
    assert len(model.asked) == 3
    await engine.stop()


async def test_a_failure_is_not_remembered():
    """Nor that the first to ask had too little time."""
    model = Model()
    model.fails = 1
    engine = await running(model, Cache())
    with pytest.raises(ValueError, match="hi"):
        await as_user(engine, "bo", "shout", "hi")
    with pytest.raises(DeadlineExceeded):
        await engine.call("shout", ("hi",), 0.0)
    assert await as_user(engine, "bo", "shout", "hi") == ["HI"]
    await engine.stop()


async def test_an_answer_ages():
    """When its time is over it is computed anew."""
    now = 100.0
    answers = Answers(Cache(ttl_s=10), compile_contract(Shout).methods, now=lambda: now)
    computed = 0

    async def compute() -> list[str]:
        nonlocal computed
        computed += 1
        return [str(computed)]

    assert await answers.of("shout", ("a",), compute) == ["1"]
    now = 109.9
    assert await answers.of("shout", ("a",), compute) == ["1"]
    now = 110.0
    assert await answers.of("shout", ("a",), compute) == ["2"]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 300)), max_size=60), st.integers(1, 5))
def test_it_holds_no_more_than_it_may_and_never_the_wrong_answer(questions: list[tuple[str, int]], entries: int):
    """Whatever is asked in whatever order."""

    async def ask_all() -> None:
        answers = Answers(Cache(entries=entries, size_max_mb=0.001), compile_contract(Shout).methods)
        for text, size in questions:
            asked = text * size

            async def compute(asked: str = asked) -> list[str]:
                return [asked.upper()]

            assert await answers.of("shout", (asked,), compute) == [asked.upper()]
            stats = answers.stats()
            assert stats["entries"] <= entries
            assert stats["size_mb"] <= 0.001

    asyncio.run(ask_all())


def _language(_text: str, language: str = "") -> str:
    return language


def _letters(text: str) -> list[float]:
    return [ord(each) - 96.5 for each in text]


class TestSimilar:
    """Off unless asked for."""

    @pytest.fixture(autouse=True)
    def _numpy(self) -> None:
        pytest.importorskip("numpy", reason="of the extra `models`")

    @staticmethod
    def embed(text: str, language: str = "") -> Sequence[float]:
        return [text.count("a") + 0.001, text.count("b"), len(text) * 0.01]

    async def test_what_means_the_same_is_answered_alike(self):
        """From the given cosine on, for the same principal, and where what must be equal is."""
        model = Model()
        semantic = SemanticCache(embed=self.embed, similarity=0.99, same=_language)
        engine = await running(model, Cache(semantic=semantic))
        assert await as_user(engine, "bo", "say", "aaa", "German") == "aaa in German"
        assert await as_user(engine, "bo", "say", "aa a", "German") == "aaa in German"
        assert await as_user(engine, "bo", "say", "bbb", "German") == "bbb in German"
        assert await as_user(engine, "bo", "say", "aa a", "French") == "aa a in French"
        assert await as_user(engine, "cleo", "say", "a aa", "German") == "a aa in German"
        assert model.asked == ["aaa", "bbb", "aa a", "a aa"]
        assert engine.stats()["cache"]["similar"] == 1
        await engine.stop()

    async def test_it_remembers_as_many_as_it_may(self):
        """The oldest goes, and is asked again."""
        model = Model()
        semantic = SemanticCache(embed=_letters, similarity=0.9999, entries=40)
        engine = await running(model, Cache(semantic=semantic, entries=100))
        texts = [f"{chr(97 + n % 26)}{chr(97 + n // 26)}m" for n in range(41)]
        for text in texts:
            await as_user(engine, "bo", "shout", text)
        assert engine.answers is not None
        assert len(model.asked) + engine.answers.similar == 41
        await engine.stop()
