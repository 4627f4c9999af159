"""What an answer bounded by a schema may be: nothing that is not JSON of it, and everything that is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline.models.chat import AnswerSchema
from seamline.models.errors import EngineRefused
from seamline.models.runtimes.json_shape import JsonShape

PRODUCT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "price": {"type": "number"},
        "pieces": {"type": "integer"},
        "kind": {"enum": ["home", "garden", None, 3]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 3},
        "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "sold": {"type": "boolean"},
    },
    "$defs": {"tag": {"type": "string", "minLength": 2}},
}

SHAPE = JsonShape(PRODUCT)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
products = st.fixed_dictionaries(
    {
        "name": texts.filter(lambda text: len(text) <= 12),
        "price": st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
        "pieces": st.integers(),
        "kind": st.sampled_from(["home", "garden", None, 3]),
        "tags": st.lists(st.text(min_size=2, max_size=5), min_size=1, max_size=3),
        "note": st.none() | texts,
        "sold": st.booleans(),
    }
).map(lambda product: {name: product[name] for name in PRODUCT["properties"]})


@settings(deadline=None)
@given(products, st.booleans())
def test_every_beginning_of_an_answer_is_accepted(product: dict[str, Any], ascii_only: bool):
    """Whatever fits the schema can be written character by character; only its end is complete."""
    text = json.dumps(product, ensure_ascii=ascii_only)
    for end in range(len(text)):
        assert SHAPE.accepts(text[:end]), text[:end]
        assert not SHAPE.complete(text[:end])
    assert SHAPE.complete(text)
    assert not SHAPE.accepts(text + " ")


@settings(deadline=None)
@given(products, st.data())
def test_what_is_complete_fits(product: dict[str, Any], data: st.DataObject):
    """A text changed anywhere is complete only if it is still JSON that fits."""
    text = json.dumps(product)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from(list('"{}[],:0-e\\ nt1'))) + text[at + 1 :]
    if SHAPE.complete(changed):
        found = json.loads(changed)
        assert list(found) == list(product)
        assert isinstance(found["pieces"], int)
        assert found["kind"] in ("home", "garden", None, 3)
        assert 1 <= len(found["tags"]) <= 3
        assert all(len(tag) >= 2 for tag in found["tags"])
    else:
        assert not SHAPE.accepts(changed) or not SHAPE.accepts(changed + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "[",
        '{"price"',
        '{"name": 1',
        '{"name": "a", "pieces"',
        '{"name": "far too long a name"',
        '{"name":  "',
        "{ ",
        '{"name": "\n',
    ],
)
def test_what_cannot_become_an_answer_is_refused_at_once(text: str):
    """Not only when it has ended."""
    assert not SHAPE.accepts(text)


def test_any_object_where_there_is_no_schema():
    """A request for JSON without a schema gets an object of whatever shape."""
    shape = JsonShape.of(AnswerSchema())
    assert shape.complete('{"a": [1, {"b": null}], "c": "\\u00e9"}')
    assert shape.accepts('{"a": [1, {"b": nul')
    assert not shape.accepts('["a"')
    with pytest.raises(EngineRefused) as refused:
        JsonShape.of(AnswerSchema(schema="[1"))
    assert refused.value.status == 400


def test_a_schema_that_refers_to_itself_ends():
    """It is followed as deep as an answer may be, and no deeper."""
    shape = JsonShape({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}})
    assert shape.complete("null")
    assert JsonShape({"$ref": "#"}).complete("null")
    twice = JsonShape({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]})
    assert not twice.accepts("n"), "three to the power of the depth would not end today"
