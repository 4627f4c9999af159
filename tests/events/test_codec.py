"""Events come back as they were, from whatever version they were written by; what does not fit is named."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from seamline import Event
from seamline.events.codec import decode_event, encode_event
from seamline.events.errors import EventDecodeError, EventEncodeError
from seamline.events.record import Record


class Line(BaseModel):
    sku: str
    pieces: int


class Moved(Event, key="sku", version=3):
    sku: str
    pieces: int
    reason: str
    price: Decimal = Decimal(1)


@Moved.upcast(1)
def with_pieces(fields: dict[str, Any]) -> dict[str, Any]:
    return {"sku": fields["sku"], "pieces": fields["count"]}


@Moved.upcast(2)
def with_reason(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"reason": "unknown"}


class Ordered(Event, key="order"):
    order: str
    lines: list[Line]
    weight: float = 0.0


def record(type_: str, data: bytes, version: int = 1) -> Record:
    return Record(id="e-1", source="stock", type=type_, data=data, time_ms=1, version=version)


@given(st.text(), st.integers(-(2**63), 2**63 - 1), st.decimals(allow_nan=False, allow_infinity=False))
def test_an_event_comes_back_as_it_was(sku: str, pieces: int, price: Decimal):
    event = Moved(sku=sku, pieces=pieces, reason="sold", price=price)
    assert decode_event(Moved, record("Moved", encode_event(event), 3)) == event


@given(st.lists(st.builds(Line, sku=st.text(), pieces=st.integers(-(2**53), 2**53))), st.floats(allow_nan=False))
def test_an_event_with_models_and_floats_comes_back_as_it_was(lines: list[Line], weight: float):
    event = Ordered(order="1", lines=lines, weight=weight)
    assert decode_event(Ordered, record("Ordered", encode_event(event))) == event


def test_an_old_event_goes_through_every_upcaster_in_turn():
    old = record("Moved", b'{"sku":"mug","count":3}', 1)
    assert decode_event(Moved, old) == Moved(sku="mug", pieces=3, reason="unknown")
    newer = record("Moved", b'{"sku":"mug","pieces":4}', 2)
    assert decode_event(Moved, newer) == Moved(sku="mug", pieces=4, reason="unknown")


def test_a_newer_event_that_only_has_more_fields_is_read():
    data = b'{"sku":"mug","pieces":3,"reason":"sold","warehouse":"north"}'
    assert decode_event(Moved, record("Moved", data, 4)).pieces == 3


def test_a_newer_event_that_does_not_fit_names_both_versions_and_the_field():
    with pytest.raises(EventDecodeError) as caught:
        decode_event(Moved, record("Moved", b'{"sku":"mug","amount":3,"reason":"sold"}', 4))
    text = str(caught.value)
    assert "version 4, this code knows version 3" in text
    assert "$.pieces" in text
    assert "newer contract" in text


@pytest.mark.parametrize(
    ("cls", "data", "path"),
    [
        (Ordered, b'{"order":"1","lines":[{"sku":"a","pieces":1},{"sku":"b","pieces":"x"}]}', "$.lines[1].pieces"),
        (Ordered, b'{"order":"1","lines":[{"sku":"a"}]}', "$.lines[0].pieces"),
        (Ordered, b'{"lines":[]}', "$.order"),
        (Moved, b'{"sku":"mug","pieces":"three","reason":""}', "$.pieces"),
        (Moved, b'{"pieces":1,"reason":""}', "$.sku"),
        (Moved, b'{"sku":', "$"),
        (Moved, b"[]", "$"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path_with_the_event(cls: type[Event], data: bytes, path: str):
    with pytest.raises(EventDecodeError) as caught:
        decode_event(cls, record(cls.__name__, data, cls.event_version))
    text = str(caught.value)
    assert f"at {path}:" in text
    assert f"event stock.{cls.__name__} 'e-1'" in text
    assert "replay the dead letter" in text


class Gapped(Event, version=3):
    name: str


@Gapped.upcast(1)
def as_it_was(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


def test_a_missing_upcaster_is_named():
    with pytest.raises(EventDecodeError, match=r"nothing brings version 2 to 3.*@Gapped\.upcast\(2\)"):
        decode_event(Gapped, record("Gapped", b'{"name":"a"}', 2))


class Failing(Event, version=2):
    name: str


@Failing.upcast(1)
def fails(fields: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {"raise": {}, "wrong": {"name": 1}, "object": {"name": object()}}
    return {"name": fields["missing"]} if fields["how"] == "raise" else made[fields["how"]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"how":"raise"}', "upcast(1) failed: KeyError: 'missing'"),
        (b'{"how":"wrong"}', "brought from version 1 to 2 it does not fit at $.name"),
        (b'{"how":"object"}', "made what is not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{", "not a JSON object"),
    ],
)
def test_an_upcaster_that_errs_is_named(data: bytes, said: str):
    with pytest.raises(EventDecodeError) as caught:
        decode_event(Failing, record("Failing", data))
    assert said in str(caught.value)


def test_a_value_that_consumers_could_not_read_is_refused_at_its_publisher():
    with pytest.raises(EventEncodeError, match=r"Moved.*at \$\.pieces"):
        encode_event(Moved(sku="mug", pieces="three", reason="sold"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(EventEncodeError, match="Ordered"):
        encode_event(Ordered(order="1", lines=["none"]))  # pyright: ignore[reportArgumentType]


class Weighed(Event):
    grams: int

    def __post_init__(self) -> None:
        if self.grams > 1000:
            object.__setattr__(self, "grams", "much")


class Plain(Event):
    at: datetime
    lines: list[tuple[str, int]]
    note: str | None = None


def test_what_an_event_checks_itself_is_checked_when_it_is_published():
    """The check builds the event where building it does more than fill its fields."""
    assert encode_event(Weighed(grams=1)) == b'{"grams":1}'
    with pytest.raises(EventEncodeError, match=r"at \$.grams"):
        encode_event(Weighed(grams=1001))


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"at": "yesterday"}, r"\$.at"),
        ({"lines": [("mug", 1), ("lamp", "2")]}, r"\$.lines\[1\]\[1\]"),
        ({"lines": [("mug",)]}, r"\$.lines\[0\]"),
        ({"note": 7}, r"\$.note"),
    ],
)
def test_a_field_that_consumers_could_not_read_is_named(wrong: dict[str, Any], path: str):
    """However deep; what is right is sent."""
    right: dict[str, Any] = {"at": datetime(2026, 1, 2, tzinfo=UTC), "lines": [("mug", 1)]}
    event = Plain(**right)
    assert decode_event(Plain, record("Plain", encode_event(event))) == event
    with pytest.raises(EventEncodeError, match=f"at {path}: "):
        encode_event(Plain(**(right | wrong)))
