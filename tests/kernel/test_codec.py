"""What is encoded comes back as it was, type for type."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from seamline.kernel.codec import CodecError, UnsupportedTypeError, codec, with_article

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str


@dataclasses.dataclass
class Card:
    number: str
    expires: date
    level: Level = Level.LOW


@dataclasses.dataclass
class Cash:
    number: str
    expires: date


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    following: str | None = None


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict):
    name: str
    tags: list[str]


class Tree(BaseModel):
    value: bytes
    weight: float = 0.0
    when: datetime | str | None = None
    children: list[Tree] = []
    paid: Card | Cash | None = None


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


@dataclasses.dataclass
class Order:
    id: UUID
    made: datetime
    total: Money
    lines: dict[str, tuple[int, Decimal]]
    paid: Card | Cash
    note: str | bytes | None


offsets = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)) if m else UTC)
texts = st.text(max_size=20)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=4)
dates = st.dates()
moments = st.datetimes(timezones=offsets)
cards = st.builds(Card, texts, dates, st.sampled_from(Level))
cash = st.builds(Cash, texts, dates)
money = st.builds(Money, decimals, texts)
orders = st.builds(
    Order, st.uuids(), moments, money, st.dictionaries(texts, st.tuples(st.integers(), decimals), max_size=4),
    cards | cash, texts | st.binary(max_size=20) | st.none(),
)  # fmt: skip
trees: st.SearchStrategy[Tree] = st.recursive(
    st.builds(Tree, value=st.binary(max_size=20), weight=st.floats(allow_nan=False), when=moments | texts | st.none(),
              paid=cards | cash | st.none()),
    lambda inner: st.builds(Tree, value=st.binary(max_size=5), children=st.lists(inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip

CASES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False)),
    (str, st.text()),
    (bytes, st.binary()),
    (UUID, st.uuids()),
    (Decimal, decimals),
    (datetime, moments),
    (date, dates),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(-10000), timedelta(10000))),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 1] | None, st.sampled_from(["a", 1, None])),
    (Money, money),
    (Point, st.builds(Point, st.integers(), st.integers())),
    (Options, st.fixed_dictionaries({"name": texts, "tags": st.lists(texts)})),
    (Page[Money], st.builds(Page[Money], st.lists(money, max_size=3), st.none() | texts)),
    (Page[float], st.builds(Page[float], st.lists(st.floats(allow_nan=False), max_size=3))),
    (list[list[dict[str, set[int]]]], st.lists(st.lists(st.dictionaries(texts, st.sets(st.integers()))), max_size=3)),
    (dict[UUID, Colour | None], st.dictionaries(st.uuids(), st.sampled_from([*Colour, None]))),
    (dict[date, int], st.dictionaries(dates, st.integers())),
    (tuple[int, str, bytes], st.tuples(st.integers(), texts, st.binary())),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (frozenset[str], st.frozensets(texts)),
    (Sequence[int], st.lists(st.integers())),
    (Mapping[str, float], st.dictionaries(texts, st.floats(allow_nan=False))),
    (int | str | None, st.integers() | texts | st.none()),
    (int | float, st.integers() | st.floats(allow_nan=False)),
    (datetime | str, moments | texts),
    (Decimal | str | bytes, decimals | texts | st.binary()),
    (UUID | date | timedelta, st.uuids() | dates | st.timedeltas(timedelta(-9), timedelta(9))),
    (Card | Cash, cards | cash),
    (list[Card | Cash | None], st.lists(cards | cash | st.none(), max_size=3)),
    (list[int] | list[str], st.lists(st.integers()) | st.lists(texts, min_size=1)),
    (Pet, st.builds(Cat, lives=st.integers()) | st.builds(Dog, tricks=st.lists(texts))),
    (list[Pet], st.lists(st.builds(Cat, lives=st.integers()) | st.builds(Dog, tricks=st.lists(texts)), max_size=3)),
    (Order, orders),
    (Tree, trees),
    (None, st.none()),
]


@pytest.mark.parametrize(
    ("annotation", "values"), CASES, ids=lambda v: str(v)[:40] if not isinstance(v, st.SearchStrategy) else ""
)
def test_a_value_comes_back_equal_and_of_its_type(annotation: Any, values: st.SearchStrategy[Any]):
    """For every supported kind of type: decode(encode(v)) == v, with the same class, as valid JSON, and stable."""
    it = codec(annotation)

    @given(values)
    def comes_back(value: Any) -> None:
        data = it.encode(value)
        json.loads(data)
        again = it.decode(data)
        assert again == value
        assert type(again) is type(value)
        assert it.encode(again) == data or isinstance(value, set | frozenset | list)

    comes_back()


def test_a_moment_keeps_its_offset():
    """12:00+02:00 comes back as 12:00+02:00, not as 10:00Z: what is shown stays the same in every topology."""
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert codec(datetime).copy(noon).isoformat() == noon.isoformat()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_beyond_json_survive(value: float):
    """NaN and infinities do not silently become null."""
    assert repr(codec(float).copy(value)) == repr(value)
    assert repr(codec(list[float]).copy([value])[0]) == repr(value)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Any, "Any"),
        (object, "object"),
        (list, "does not say what it holds"),
        (dict, "does not say what it holds"),
        (complex, "complex"),
        (dict[Money, int], "keys that JSON cannot have"),
        (list[Any], "Any"),
        (type, "type"),
    ],
)
def test_types_that_cannot_cross_are_named(annotation: Any, words: str):
    """The refusal names the part of the type that is to blame."""
    with pytest.raises(UnsupportedTypeError, match=words):
        codec(annotation)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"nul", b'{"amount":"1"}', b'{"amount":[],"currency":"EUR"}', b"\xff\xfe", b"[" * 5000]
)
@pytest.mark.parametrize("annotation", [Money, Tree, Card | Cash, float])
def test_data_that_does_not_fit_is_a_codec_error(annotation: Any, data: bytes):
    """Malformed, truncated, mistyped and absurdly nested data raise CodecError and nothing else."""
    with pytest.raises(CodecError):
        codec(annotation).decode(data)


@given(st.binary(max_size=200))
def test_random_data_never_escapes(data: bytes):
    """Whatever comes in, decoding gives a value of the type or CodecError."""
    for annotation in (Order, Tree):
        try:
            codec(annotation).decode(data)
        except CodecError:
            continue


@pytest.mark.parametrize(
    ("annotation", "says"),
    [(int, "an int"), (str, "a str"), (UUID, "a UUID"), (list[int], "a list[int]"), (Decimal, "a Decimal")],
)
def test_what_does_not_fit_is_said_in_a_sentence(annotation: Any, says: str):
    """With the article that the type's name takes."""
    with pytest.raises(CodecError, match=f"the data is not {re.escape(says)}: "):
        codec(annotation).decode(b'{"a": 1}')


@pytest.mark.parametrize(
    "said",
    ["an Order", "an Address", "an Update", "an UpperLimit", "a User", "a Unit", "a Url", "a UUID", "a Money", "a UTC"],
)
def test_articles_follow_the_sound(said: str):
    """Which is not always the letter."""
    assert with_article(said.split()[1]) == said
