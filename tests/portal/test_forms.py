"""A form for any arguments, and its fields back into them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.portal.planted import described

from seamline.portal.errors import FieldError
from seamline.portal.forms import Field, arguments, fields, raw, written

TYPES: dict[str, Any] = {
    "shop.Card": {"fields": {"number": {"type": "text"}, "year": {"type": "int"}}},
    "shop.Node": {"fields": {"name": {"type": "text"}, "next": {"type": {"union": [{"ref": "shop.Node"}, "null"]}}}},
}


def one(kind: Any, *, required: bool = True, default: Any = None) -> Field:
    (found,) = fields({"it": {"type": kind, "required": required, "default": default}}, TYPES)
    return found


def test_every_type_has_its_field():
    """Words for what they are; the rest is JSON, with an example of it."""
    kinds: list[tuple[Any, str]] = [
        ("int", "number"), ("number", "number"), ("text", "text"), ("uuid", "text"), ("bool", "bool"), ("any", "json"),
        ({"enum": ["a", "b"]}, "choice"), ({"list": "int"}, "json"), ({"ref": "shop.Card"}, "group"),
        ({"limited": "int", "limits": {"ge": 1}}, "number"), ({"union": ["int", "text"]}, "json"),
        ({"tagged": {"Card": {"ref": "shop.Card"}}}, "json"), ({"map": ["text", "int"]}, "json"),
    ]  # fmt: skip
    assert [(kind, one(kind).kind) for kind, _ in kinds] == kinds
    assert json.loads(one({"list": {"ref": "shop.Card"}}).placeholder) == [{"number": "text", "year": 1}]
    assert one({"limited": "int", "limits": {"ge": 1}}).limits == {"ge": 1}
    assert one({"union": ["text", "null"]}).required is False


def test_a_type_that_holds_itself_ends():
    """After a few levels it is JSON."""
    depth, field = 0, one({"ref": "shop.Node"})
    while field.kind == "group":
        depth, field = depth + 1, field.inside[1]
    assert (depth, field.kind) == (3, "json")


def test_what_was_left_empty_is_left_out_or_asked_for():
    """An optional field, a whole optional group; a required number is asked for, a required text may be empty."""
    card = one({"union": [{"ref": "shop.Card"}, "null"]})
    assert arguments([card], {"it.number": "", "it.year": " "}) == {}
    assert arguments([card], {"it.number": "42", "it.year": "2034"}) == {"it": {"number": "42", "year": 2034}}
    assert arguments([one("text")], {}) == {"it": ""}
    with pytest.raises(FieldError, match="'it' is empty"):
        arguments([one("int")], {})
    with pytest.raises(FieldError, match=r"'it\.year' is 'soon'"):
        arguments([card], {"it.number": "42", "it.year": "soon"})


@pytest.mark.parametrize("text", ["[1", "1", "null", "[" * 100_000, "{'a': 1}"])
def test_raw_arguments_are_an_object(text: str):
    """Whatever else is refused, however deep it is."""
    with pytest.raises(FieldError, match="no JSON object"):
        raw(text)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20)))
def test_any_form_gives_arguments_or_says_which_field(given_: dict[str, str]):
    """Fields that nobody asked for are not taken; nothing but FieldError is raised."""
    told = described("checkout")
    form = fields(told["contracts"]["Checkout"]["methods"]["place"]["parameters"], told["types"])
    try:
        found = arguments(form, given_)
    except FieldError:
        return
    assert set(found) <= {"user", "card", "lines", "currency", "gift", "note"}


@given(st.recursive(
    st.sampled_from(["int", "text", "bool", "any", "bytes", "null"]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"list": inner}),
        st.fixed_dictionaries({"map": st.tuples(st.just("text"), inner).map(list)}),
        st.fixed_dictionaries({"union": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"tuple": st.lists(inner, max_size=3)}),
    ),
))  # fmt: skip
def test_every_description_can_be_shown(kind: Any):
    """Each type has a field and is written, however it is nested."""
    assert isinstance(written(kind), str)
    assert one(kind).path == "it"
