"""Attribute values as OTLP has them, into ours and back: exact in type, bounded in number, size and depth."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, cast

from seamline.observe.otlp.bounds import ATTRIBUTES_MAX, DEPTH_MAX, ITEMS_MAX, KEY_CHARACTERS_MAX, TEXT_CHARACTERS_MAX
from seamline.observe.otlp.messages import Bag, Value
from seamline.observe.records import Attribute

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_NUMBER_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def put(bag: Bag, key: str, value: Attribute) -> None:
    """One more attribute, unless there is no room for it."""
    values = bag.values
    if (len(values) >= ATTRIBUTES_MAX and key not in values) or len(key) > KEY_CHARACTERS_MAX:
        bag.dropped += 1
    else:
        values[key] = value


def cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"


def decode_hook(kind: type, raw: Any) -> Any:
    """For ``msgspec``: what a :class:`Bag` or :class:`Value` is in JSON. Raises ValueError."""
    if kind is Bag:
        bag = Bag()
        for item in _list_of(raw):
            key, value = _pair(item, bag, 0)
            put(bag, key, value)
        return bag
    if kind is Value:
        bag = Bag()
        value = _value(raw, bag, 0)
        return Value(value, bag.dropped)
    raise NotImplementedError


def encode_hook(value: Any) -> Any:
    """For ``msgspec``: what a :class:`Bag` or :class:`Value` is in JSON."""
    if isinstance(value, Bag):
        return [{"key": key, "value": to_json(item)} for key, item in value.values.items()]
    if isinstance(value, Value):
        return to_json(value.value)
    raise NotImplementedError


def to_json(value: Attribute) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case str():
            return {"stringValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": double_to_json(value)}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case list():
            return {"arrayValue": {"values": [to_json(item) for item in value]}}
        case dict():
            pairs = [{"key": key, "value": to_json(item)} for key, item in value.items()]
            return {"kvlistValue": {"values": pairs}}


def double_to_json(value: float) -> float | str:
    """JSON has no number for these three."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _list_of(raw: object) -> list[Any]:
    if not isinstance(raw, list):
        raise ValueError("a list is expected")  # noqa: TRY004  # msgspec tells the client of a ValueError
    return cast("list[Any]", raw)


def _pair(item: Any, bag: Bag, depth: int) -> tuple[str, Attribute]:
    key = item.get("key", "") if isinstance(item, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(key, str):
        raise ValueError("an attribute is an object with a key and a value")  # noqa: TRY004  # likewise
    return key, _value(cast("dict[str, Any]", item).get("value"), bag, depth)


def _value(raw: Any, bag: Bag, depth: int) -> Attribute:
    """``bag`` counts what is dropped inside."""
    if raw is None or raw == {}:
        return None
    if not isinstance(raw, dict) or len(cast("dict[str, Any]", raw)) != 1:
        raise ValueError("a value is an object with one member, which is named for its type")
    ((kind, inner),) = cast("dict[str, Any]", raw).items()
    match kind, inner:
        case "stringValue", str():
            return cut(inner)
        case "intValue", int() | str() if not isinstance(inner, bool):
            return _integer(inner)
        case "boolValue", bool():
            return inner
        case "doubleValue", float() | int() | str() if not isinstance(inner, bool):
            return _double(inner)
        case "bytesValue", str():
            return _bytes(inner, bag)
        case (("arrayValue" | "kvlistValue"), dict()):
            return _nested(kind, cast("dict[str, Any]", inner), bag, depth + 1)
        case _:
            raise ValueError(f"{kind[:40]!r} is not a value, or not of this type")


def _integer(raw: int | str) -> int:
    number = int(raw) if isinstance(raw, int) or len(raw) <= 20 else _INT64_MAX + 1
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise ValueError("an intValue has 64 bits")
    return number


def _double(raw: float | str) -> float:
    if isinstance(raw, str):
        return _NUMBER_WORDS[raw] if raw in _NUMBER_WORDS else float(raw[:400])
    try:
        return float(raw)
    except OverflowError as error:
        raise ValueError("a doubleValue has 64 bits") from error


def _bytes(raw: str, bag: Bag) -> bytes:
    text = raw.replace("-", "+").replace("_", "/")
    try:
        return cut_bytes(base64.b64decode(text + "=" * (-len(text) % 4), validate=True), bag)
    except binascii.Error as error:
        raise ValueError("a bytesValue is base64") from error


def cut_bytes(value: bytes, bag: Bag) -> bytes:
    if len(value) <= TEXT_CHARACTERS_MAX:
        return value
    bag.dropped += 1
    return value[:TEXT_CHARACTERS_MAX]


def _nested(kind: str, inner: dict[str, Any], bag: Bag, depth: int) -> Attribute:
    items = _list_of(inner.get("values") or [])
    if depth > DEPTH_MAX:
        bag.dropped += 1
        return None
    bag.dropped += max(0, len(items) - ITEMS_MAX)
    if kind == "arrayValue":
        return [_value(item, bag, depth) for item in items[:ITEMS_MAX]]
    return dict(_pair(item, bag, depth) for item in items[:ITEMS_MAX])
