"""Every change between two descriptions is named, with whom it breaks; what did not change on the wire is not."""

# ruff: noqa: E501  # a table is read by its columns

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from seamline import Contract, Event
from seamline.module.description import describe
from seamline.module.evolution import NEW_CALLER, NEW_EVENT, OLD_CALLER, OLD_EVENT, Change, changes

HEAD = """
from __future__ import annotations
import dataclasses, enum, uuid
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
import msgspec
import pydantic
from pydantic import BaseModel, Field
from seamline import Contract, Event, Fault, idempotent, readonly, timeout
"""
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """The packages that a test wrote are gone after it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def described(text: str, module: str = "stock", package: str = "") -> dict[str, Any]:
    """The description of a contract package with this text."""
    package = package or f"evolved_{next(NUMBERS)}"
    made = sys.modules[package] = ModuleType(package)
    exec(compile(HEAD + text, package, "exec"), made.__dict__)
    own = [value for value in vars(made).values() if isinstance(value, type) and value.__module__ == package]
    contracts = {cls: module for cls in own if issubclass(cls, Contract)}
    events = {cls: module for cls in own if issubclass(cls, Event)}
    return describe(contracts, events)


def compared(old: str, new: str) -> list[Change]:
    return changes(described(old), described(new))


def call(parameters: str = "", result: str = "None", marks: str = "", types: str = "") -> str:
    return f"{types}\nclass Stock(Contract):\n    {marks}\n    async def take(self{parameters}) -> {result}: ...\n"


def event(fields: str, head: str = "Moved(Event)", types: str = "", upcast: str = "") -> str:
    body = "\n".join(f"    {field}" for field in fields.split("; "))
    return f"{types}\nclass {head}:\n{body}\n{upcast}"


UPCAST = "@Moved.upcast(1)\ndef up(fields): return fields\n"
COLOUR = "class Colour(enum.Enum):\n    RED = 'red'\n    BLUE = 'blue'\n"
LESS_COLOUR = "class Colour(enum.Enum):\n    RED = 'red'\n"
LINE = "@dataclasses.dataclass\nclass Line:\n    sku: str\n    pieces: int\n"
BOTH_CALLERS = {OLD_CALLER, NEW_CALLER}

CASES: list[tuple[str, str, str, str, str, set[str]]] = [
    # what, old, new, verdict, where and what is said, whom it breaks
    ("parameter removed", call(", n: int, m: int"), call(", n: int"), "breaking", "m: removed", BOTH_CALLERS),
    ("optional parameter removed", call(", n: int = 1"), call(), "breaking", "n: removed", {OLD_CALLER}),
    ("parameter renamed", call(", n: int"), call(", m: int"), "breaking", "renamed to 'm'?", BOTH_CALLERS),
    ("parameter retyped", call(", n: int"), call(", n: str"), "breaking", "n: int → text", BOTH_CALLERS),
    ("new required parameter", call(), call(", n: int"), "breaking", "n: new, and required", {OLD_CALLER}),
    ("new optional parameter", call(), call(", n: int = 3"), "compatible", "n: new, default 3", set()),
    ("parameter now required", call(", n: int = 3"), call(", n: int"), "breaking", "n: may no longer be", {OLD_CALLER}),
    ("parameter now optional", call(", n: int"), call(", n: int = 3"), "compatible", "n: may be left out now", set()),
    ("default changed", call(", n: int = 3"), call(", n: int = 4"), "care", "default 3 → default 4", set()),
    ("parameter widened", call(", n: int"), call(", n: float"), "care", "n: int → number", {NEW_CALLER}),
    ("id to text", call(", n: uuid.UUID"), call(", n: str"), "care", "n: uuid → text", {NEW_CALLER}),
    ("text to id", call(", n: str"), call(", n: uuid.UUID"), "breaking", "n: text → uuid", {OLD_CALLER}),
    ("may be null", call(", n: int"), call(", n: int | None"), "care", "n: may be null now", {NEW_CALLER}),
    ("not null", call(", n: int | None"), call(", n: int"), "breaking", "n: may no longer be null", {OLD_CALLER}),
    ("union wider", call(", n: int | str"), call(", n: int | str | bool"), "care", "n: int | text → int", {NEW_CALLER}),
    ("union narrower", call(", n: int | str | bool"), call(", n: int | str"), "breaking", "n: int", {OLD_CALLER}),
    ("choice narrower", call(", n: Literal['a', 'b']"), call(", n: Literal['a']"), "breaking", "n: is never 'b' any more", {OLD_CALLER}),
    ("choice wider", call(", n: Literal['a']"), call(", n: Literal['a', 'b']"), "care", "n: may be 'b' now", {NEW_CALLER}),
    ("choice to text", call(", n: Literal['a']"), call(", n: str"), "care", "n: 'a' → text", {NEW_CALLER}),
    ("enum narrower", call(", c: Colour", types=COLOUR), call(", c: Colour", types=LESS_COLOUR), "breaking", "'blue' any more", {OLD_CALLER}),
    ("nested", call(", n: list[Line]", types=LINE), call(", n: list[Line]", types=LINE.replace("int", "str")), "breaking", "n[].pieces: int → text", BOTH_CALLERS),
    ("in a map", call(", n: dict[str, int]"), call(", n: dict[str, str]"), "breaking", "n{}: int → text", BOTH_CALLERS),
    ("map's keys", call(", n: dict[uuid.UUID, int]"), call(", n: dict[str, int]"), "care", "n{key}: uuid → text", {NEW_CALLER}),
    ("in a tuple", call(", n: tuple[int, str]"), call(", n: tuple[int, int]"), "breaking", "n[1]: text → int", BOTH_CALLERS),
    ("tuple longer", call(", n: tuple[int]"), call(", n: tuple[int, int]"), "breaking", "n: tuple[int]", BOTH_CALLERS),
    ("tighter limit", call(", n: Annotated[int, msgspec.Meta(ge=0)]"), call(", n: Annotated[int, msgspec.Meta(ge=1)]"), "breaking", "n: ge 0 → ge 1", {OLD_CALLER}),
    ("looser limit", call(", n: Annotated[str, msgspec.Meta(max_length=3)]"), call(", n: str"), "care", "n: max_length 3 → no limits", {NEW_CALLER}),
    ("model's limit", call(", n: M", types="class M(BaseModel):\n    a: int\n"), call(", n: M", types="class M(BaseModel):\n    a: int = Field(gt=0)\n"), "breaking", "n.a: no limits → gt 0", {OLD_CALLER}),
    ("model closes", call(", n: M", types="class M(BaseModel):\n    a: int\n"), call(", n: M", types="class M(BaseModel):\n    model_config = {'extra': 'forbid'}\n    a: int\n"), "breaking", "n: refuses fields", {OLD_CALLER}),
    ("closed model grows", call(", n: M", types="class M(BaseModel, extra='forbid'):\n    a: int\n"), call(", n: M", types="class M(BaseModel, extra='forbid'):\n    a: int\n    b: int = 0\n"), "care", "n.b: new, default 0", {NEW_CALLER}),
    ("tagged union wider", call(", n: datetime | str"), call(", n: datetime | str | uuid.UUID"), "care", "n: may be a UUID now", {NEW_CALLER}),
    ("tagged union narrower", call(", n: datetime | str | uuid.UUID"), call(", n: datetime | str"), "breaking", "n: is never a UUID", {OLD_CALLER}),
    ("untagged to tagged", call(", n: str"), call(", n: datetime | str"), "breaking", "n: text → datetime | str", BOTH_CALLERS),
    ("order of parameters", call(", n: int, m: int"), call(", m: int, n: int"), "care", "another order", set()),
    ("result's field removed", call(result="Line", types=LINE), call(result="Line", types=LINE.replace("    pieces: int\n", "")), "breaking", "->.pieces: removed", {OLD_CALLER}),
    ("result's field new", call(result="Line", types=LINE), call(result="Line", types=LINE + "    note: str\n"), "care", "->.note: new, and required", {NEW_CALLER}),
    ("result's field new with default", call(result="Line", types=LINE), call(result="Line", types=LINE + "    note: str = ''\n"), "compatible", "->.note: new", set()),
    ("result wider", call(result="Literal['a']"), call(result="Literal['a', 'b']"), "breaking", "->: may be 'b' now", {OLD_CALLER}),
    ("result narrower", call(result="Literal['a', 'b']"), call(result="Literal['a']"), "care", "->: is never 'b'", {NEW_CALLER}),
    ("result may be null", call(result="int"), call(result="int | None"), "breaking", "->: may be null now", {OLD_CALLER}),
    ("idempotency lost", call(marks="@idempotent"), call(), "breaking", "no longer idempotent", {OLD_CALLER}),
    ("idempotency won", call(), call(marks="@idempotent"), "care", "idempotent now", {NEW_CALLER}),
    ("readonly lost", call(marks="@readonly"), call(marks="@idempotent"), "care", "no longer readonly", {OLD_CALLER}),
    ("readonly won", call(marks="@idempotent"), call(marks="@readonly"), "care", "readonly now", {NEW_CALLER}),
    ("timeout", call(marks="@timeout(2)"), call(), "compatible", "timeout 2 s → by settings", set()),
    ("stream now", call(result="int"), call(result="int").replace("async def take(self) -> int", "def take(self) -> AsyncIterator[int]"), "breaking", "unary → server stream", BOTH_CALLERS),
    ("stream's items", call(", n: AsyncIterator[int]"), call(", n: AsyncIterator[str]"), "breaking", "<-: int → text", BOTH_CALLERS),
    ("method removed", call() + "    async def put(self) -> None: ...\n", call(), "breaking", "removed", {OLD_CALLER}),
    ("method new", call(), call() + "    async def put(self) -> None: ...\n", "compatible", "new", set()),
    ("contract removed", call() + "class Other(Contract):\n    async def put(self) -> None: ...\n", call(), "breaking", "removed", {OLD_CALLER}),
    ("fault new", call(), call(types="class Gone(Fault): ..."), "care", "new", {OLD_CALLER}),
    ("fault removed", call(types="class Gone(Fault): ..."), call(), "breaking", "removed", {NEW_CALLER}),
    ("fault's field removed", call(types="class Gone(Fault):\n    n: int"), call(types="class Gone(Fault): ..."), "breaking", "n: removed", {OLD_CALLER}),
    ("fault's field new", call(types="class Gone(Fault): ..."), call(types="class Gone(Fault):\n    n: int"), "care", "n: new, and required", {NEW_CALLER}),
    ("event removed", event("a: int"), "", "breaking", "removed", {OLD_EVENT}),
    ("event new", "", event("a: int"), "compatible", "new", set()),
    ("event's field removed", event("a: int; b: int"), event("a: int"), "breaking", "b: removed", {NEW_EVENT}),
    ("event's optional field removed", event("a: int; b: int = 0"), event("a: int"), "breaking", "b: removed", {NEW_EVENT}),
    ("event's field renamed", event("a: int"), event("b: int"), "breaking", "renamed to 'b'?", {NEW_EVENT}),
    ("event's field retyped", event("a: int"), event("a: str"), "breaking", "a: int → text", {OLD_EVENT, NEW_EVENT}),
    ("event's field new", event("a: int"), event("a: int; b: int"), "breaking", "b: new, and required", {OLD_EVENT}),
    ("event's field new with default", event("a: int"), event("a: int; b: int = 0"), "compatible", "b: new", set()),
    ("event's field now required", event("a: int = 1"), event("a: int"), "breaking", "a: may no longer be left out", {OLD_EVENT}),
    ("event's default", event("a: int = 1"), event("a: int = 2"), "care", "default 1 → default 2", set()),
    ("event's choice wider", event("a: Literal['x']"), event("a: Literal['x', 'y']"), "breaking", "a: may be 'y' now", {NEW_EVENT}),
    ("event's choice narrower", event("a: Literal['x', 'y']"), event("a: Literal['x']"), "breaking", "a: is never 'y'", {OLD_EVENT}),
    ("event's key", event("a: int; b: int", "Moved(Event, key='a')"), event("a: int; b: int", "Moved(Event, key='b')"), "breaking", "key a → b", {OLD_EVENT}),
    ("event's first key", event("a: int"), event("a: int", "Moved(Event, key='a')"), "compatible", "key none → a", set()),
    ("event compacted now", event("a: int", "Moved(Event, key='a')"), event("a: int", "Moved(Event, key='a', compacted=True)"), "care", "compacted now", set()),
    ("event no longer compacted", event("a: int", "Moved(Event, key='a', compacted=True)"), event("a: int", "Moved(Event, key='a')"), "compatible", "no longer compacted", set()),
    ("bump without upcaster", event("a: int"), event("a: str", "Moved(Event, version=2)"), "breaking", "nothing brings version 1 to 2", {OLD_EVENT}),
    ("bump with upcaster", event("a: int"), event("a: str", "Moved(Event, version=2)", upcast=UPCAST), "care", "a: int → text", {NEW_EVENT}),
    ("bump that old readers fit", event("a: int"), event("a: int; b: int", "Moved(Event, version=2)", upcast=UPCAST), "compatible", "b: new, and required", set()),
    ("version taken back", event("a: int", "Moved(Event, version=2)", upcast=UPCAST), event("a: int"), "breaking", "version 2 → 1", {OLD_EVENT}),
    ("upcaster dropped", event("a: int", "Moved(Event, version=2)", upcast=UPCAST), event("a: int", "Moved(Event, version=2)"), "breaking", "nothing brings version 1 to 2", {OLD_EVENT}),
]  # fmt: skip


def told(change: Change) -> str:
    return f"{change.path}: {change.fact}" if change.path else change.fact


@pytest.mark.parametrize(
    ("old", "new", "verdict", "said", "breaks"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_change_is_named_and_judged(old: str, new: str, verdict: str, said: str, breaks: set[str]):
    found = compared(old, new)
    match = [each for each in found if said in told(each)]
    assert len(match) == 1, [told(each) for each in found]
    (change,) = match
    assert (change.verdict, set(change.breaks)) == (verdict, breaks)
    assert change.remedy or verdict == "compatible"
    assert change.module == "stock"


@pytest.mark.parametrize("side", [1, 2])
def test_what_is_described_is_equal_to_itself(side: int):
    """No change is found where there is none, whatever the types and in whichever package they stand."""
    for case in CASES:
        text = str(case[side])
        assert compared(text, text) == []


SAME = [
    (call(", n: list[int]"), call(", n: tuple[int, ...]")),
    (call(", n: Line", types=LINE), call(", n: Row", types=LINE.replace("Line", "Row"))),
    (call(", n: Line", types=LINE), call(", n: Line", types="class Line(BaseModel):\n    sku: str\n    pieces: int\n")),
    (call(", n: Line", types=LINE), call(", n: Line", types="class Line(msgspec.Struct):\n    sku: str\n    pieces: int\n")),
    (call(", n: Line", types=LINE), call(", n: Line", types="class Line(TypedDict):\n    sku: str\n    pieces: int\n")),
    (call(", c: Colour", types=COLOUR), call(", c: Literal['red', 'blue']")),
    (call(", n: int | None"), call(", n: None | int")),
    (call(", n: Id", types="Id = pydantic.RootModel[int]\n"), call(", n: int")),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), SAME)
def test_what_is_the_same_on_the_wire_is_no_change(old: str, new: str):
    assert compared(old, new) == []


def test_a_recursive_type_is_compared_once():
    tree = "class Tree(BaseModel):\n    name: str\n    inner: list[Tree] = []\n"
    found = compared(call(", t: Tree", types=tree), call(", t: Tree", types=tree.replace("name: str", "name: int")))
    assert [told(each) for each in found] == ["t.name: text → int"]


def test_generic_types_are_compared_with_what_they_hold():
    page = "T = TypeVar('T')\n@dataclasses.dataclass\nclass Page(Generic[T]):\n    items: list[T]\n"
    found = compared(call(result="Page[int]", types=page), call(result="Page[str]", types=page))
    assert [told(each) for each in found] == ["->.items[]: int → text"]


def test_optional_keys_of_typed_dicts_and_limits_in_lists_are_known():
    typed = "class Line(TypedDict):\n    sku: str\n    note: NotRequired[str]\n"
    found = compared(call(", n: Line", types=typed), call(", n: Line", types=typed.replace("NotRequired[str]", "str")))
    assert [told(each) for each in found] == ["n.note: may no longer be left out"]
    limited = call(", n: list[Annotated[int, Field(ge=1)]]")
    assert [told(each) for each in compared(limited, limited.replace("ge=1", "ge=2"))] == ["n[]: ge 1 → ge 2"]


def test_a_contract_that_moves_breaks_those_who_look_for_it():
    old, new = described(call(), "stock"), described(call(), "store")
    (change,) = changes(old, new)
    assert (change.verdict, change.module, change.fact) == (
        "breaking", "store", "moved from module 'stock', where old callers look for it",
    )  # fmt: skip


def test_an_event_that_moves_is_gone_where_it_was():
    found = changes(described(event("a: int"), "stock"), described(event("a: int"), "store"))
    assert [(each.module, each.verdict, each.fact) for each in found] == [
        ("stock", "breaking", "removed"), ("store", "compatible", "new"),
    ]  # fmt: skip


def test_the_worst_stands_first_within_a_name():
    old = call(", a: int = 1, b: int = 2")
    new = call(", a: int = 2, b: str = '', c: int = 3")
    assert [each.verdict for each in compared(old, new)] == ["breaking", "care", "care", "compatible"]
