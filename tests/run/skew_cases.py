"""Changes of contracts and events, each as it was and as it is, with values that show what becomes of it.

``_`` at the end of a name stands for the case, so that all of them fit into one package.
"""

# ruff: noqa: E501  # a table is read by its columns

from __future__ import annotations

import dataclasses

HEAD = """
import dataclasses, enum, uuid
from collections.abc import AsyncIterator
from typing import Annotated, Literal
import msgspec
from seamline import Contract, Event, Fault, idempotent, readonly
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One change: the package's text at both ages, and Python for what is sent, answered or published."""

    name: str
    old: str
    new: str
    sent: tuple[str, str] = ("()", "()")
    """The arguments that an old and a new caller give."""
    answer: tuple[str, str] = ("None", "None")
    """What the old and the new callee answer, or raise."""
    event: tuple[str, str] = ("", "")
    """What the old and the new publisher publish."""
    left_out: str = ""
    """JSON without the field in question: what other clients send, or what older events have."""


def call(name: str, old: str, new: str, sent: str | tuple[str, str], left_out: str = "") -> Case:
    given = (sent, sent) if isinstance(sent, str) else sent
    return Case(name, _contract(old, "None"), _contract(new, "None"), sent=given, left_out=left_out)


def answers(name: str, old: str, new: str, answer: str | tuple[str, str], types: tuple[str, str] = ("", "")) -> Case:
    given = (answer, answer) if isinstance(answer, str) else answer
    return Case(name, types[0] + _contract("", old), types[1] + _contract("", new), answer=given)


def event(
    name: str, old: str, new: str, published: tuple[str, str], options: tuple[str, str] = ("", ""), after: str = "",
    left_out: str = "",
) -> Case:  # fmt: skip
    texts = [
        f"class E_(Event{option}):\n    {'; '.join(fields.split('; '))}\n"
        for fields, option in zip((old, new), options, strict=True)
    ]
    return Case(name, texts[0], texts[1] + after, event=published, left_out=left_out)


def _contract(parameters: str, result: str, mark: str = "") -> str:
    return f"class C_(Contract):\n    {mark}\n    async def take(self{parameters}) -> {result}: ...\n"


LINE = "@dataclasses.dataclass\nclass Line_:\n    sku: str\n    pieces: int = 1\n"
BARE = LINE.replace("    pieces: int = 1\n", "")
UPCAST = "@E_.upcast(1)\ndef up_(fields): return {'a': str(fields['a'])}\n"
GONE = "class Gone_(Fault):\n    sku: str = ''\n"

CASES = [
    call("nothing", ", n: int", ", n: int", "(1,)"),
    call("new optional parameter", "", ", n: int = 3", ("()", "(4,)")),
    call("new required parameter", "", ", n: int", ("()", "(4,)")),
    call("parameter removed", ", n: int, m: int", ", n: int", ("(1, 2)", "(1,)")),
    call("optional parameter removed", ", n: int = 1", "", ("(2,)", "()")),
    call("parameter renamed", ", n: int", ", m: int", "(1,)"),
    call("parameter retyped", ", n: int", ", n: str", ("(1,)", "('x',)")),
    call("parameter now required", ", n: int = 3", ", n: int", "(1,)", left_out="{}"),
    call("parameter now optional", ", n: int", ", n: int = 3", "(1,)"),
    call("parameter widened", ", n: int", ", n: float", ("(1,)", "(1.5,)")),
    call("id to text", ", n: uuid.UUID", ", n: str", ("(uuid.UUID(int=1),)", "('any',)")),
    call("text to id", ", n: str", ", n: uuid.UUID", ("('any',)", "(uuid.UUID(int=1),)")),
    call("may be null", ", n: int", ", n: int | None", ("(1,)", "(None,)")),
    call("never null", ", n: int | None", ", n: int", ("(None,)", "(1,)")),
    call("choice narrower", ", n: Literal['a', 'b']", ", n: Literal['a']", ("('b',)", "('a',)")),
    call("choice wider", ", n: Literal['a']", ", n: Literal['a', 'b']", ("('a',)", "('b',)")),
    call("tighter limit", ", n: Annotated[int, msgspec.Meta(ge=0)]", ", n: Annotated[int, msgspec.Meta(ge=1)]", ("(0,)", "(1,)")),
    call("looser limit", ", n: Annotated[int, msgspec.Meta(ge=1)]", ", n: Annotated[int, msgspec.Meta(ge=0)]", ("(1,)", "(0,)")),
    call("list of other things", ", n: list[int]", ", n: list[str]", ("([1],)", "(['x'],)")),
    answers("result's field removed", "Line_", "Line_", ("Line_('a', 2)", "Line_('a')"), (LINE, BARE)),
    answers("result's field new", "Line_", "Line_", ("Line_('a')", "Line_('a', 2)"), (BARE, LINE.replace(" = 1", ""))),
    answers("result's field new with default", "Line_", "Line_", ("Line_('a')", "Line_('a', 2)"), (BARE, LINE)),
    answers("result wider", "Literal['a']", "Literal['a', 'b']", ("'a'", "'b'")),
    answers("result narrower", "Literal['a', 'b']", "Literal['a']", ("'b'", "'a'")),
    answers("result retyped", "int", "str", ("1", "'x'")),
    answers("result may be null", "int", "int | None", ("1", "None")),
    answers("fault new", "None", "None", ("None", "Gone_()"), ("", GONE)),
    answers("fault removed", "None", "None", ("Gone_()", "None"), (GONE, "")),
    answers("fault's field new", "None", "None", "Gone_()", ("class Gone_(Fault): ...\n", GONE)),
    answers("fault's field removed", "None", "None", ("Gone_(sku='mug')", "Gone_()"), (GONE, "class Gone_(Fault): ...\n")),
    Case("idempotency lost", _contract("", "None", "@idempotent"), _contract("", "None"), answer=("lose_the_answer()", "lose_the_answer()")),
    Case("idempotency won", _contract("", "None"), _contract("", "None", "@idempotent"), answer=("lose_the_answer()", "lose_the_answer()")),
    Case("method removed", _contract("", "None"), "class C_(Contract):\n    async def other(self) -> None: ...\n"),
    Case("stream now", _contract("", "int"), "class C_(Contract):\n    def take(self) -> AsyncIterator[int]: ...\n", answer=("1", "1")),
    event("event: nothing", "a: int", "a: int", ("E_(a=1)", "E_(a=1)")),
    event("event: field new with default", "a: int", "a: int; b: int = 0", ("E_(a=1)", "E_(a=1, b=2)")),
    event("event: field new", "a: int", "a: int; b: int", ("E_(a=1)", "E_(a=1, b=2)")),
    event("event: field removed", "a: int; b: int", "a: int", ("E_(a=1, b=2)", "E_(a=1)")),
    event("event: optional field removed", "a: int; b: int = 0", "a: int", ("E_(a=1, b=2)", "E_(a=1)")),
    event("event: field renamed", "a: int", "b: int", ("E_(a=1)", "E_(b=1)")),
    event("event: field retyped", "a: int", "a: str", ("E_(a=1)", "E_(a='x')")),
    event("event: field now required", "a: int = 1", "a: int", ("E_(a=2)", "E_(a=2)"), left_out="{}"),
    event("event: choice wider", "a: Literal['x']", "a: Literal['x', 'y']", ("E_(a='x')", "E_(a='y')")),
    event("event: choice narrower", "a: Literal['x', 'y']", "a: Literal['x']", ("E_(a='y')", "E_(a='x')")),
    event("event: key", "a: int; b: int", "a: int; b: int", ("E_(a=1, b=2)", "E_(a=1, b=2)"), (", key='a'", ", key='b'")),
    event("event: bump without upcaster", "a: int", "a: str", ("E_(a=1)", "E_(a='x')"), ("", ", version=2")),
    event("event: bump with upcaster", "a: int", "a: str", ("E_(a=1)", "E_(a='x')"), ("", ", version=2"), UPCAST),
    event("event: bump that old readers fit", "a: int", "a: int; b: int", ("E_(a=1)", "E_(a=1, b=2)"), ("", ", version=2"), "@E_.upcast(1)\ndef up_(fields): return fields | {'b': 0}\n"),
]  # fmt: skip


def package(age: int) -> str:
    """The text of the package as it was (0), or as it is (1)."""
    parts = [HEAD]
    for number, case in enumerate(CASES):
        parts.append(named((case.old, case.new)[age], number))
    return "\n".join(parts)


def named(text: str, number: int) -> str:
    """The text with each name made the case's own."""
    for stem in ("C", "E", "Line", "Gone", "up"):
        text = text.replace(f"{stem}_", f"{stem}{number:02}")
    return text
