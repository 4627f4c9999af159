"""Cedar's values in Python, exact enough that Python's own ``==`` and ``hash`` are Cedar's.

============  =========================================================================================
Boolean       ``bool``
Long          ``int``, 64 bits
String        ``str``
Set           ``frozenset`` of keys (see :func:`key`), for Python takes ``True`` and ``1`` for one element
Record        ``dict``
entity        :class:`Entity`
decimal       :class:`Decimal4`
datetime      :class:`Moment`
============  =========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

Value = Any
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")


class EvaluationError(Exception):
    """A value is not what an operator needs; the policy that it stands in cannot be judged."""


@dataclass(frozen=True, slots=True)
class Entity:
    """``Module::"payments"``."""

    type: str
    id: str

    def __str__(self) -> str:
        return f'{self.type}::"{self.id}"'


@dataclass(frozen=True, slots=True)
class Decimal4:
    """Cedar's ``decimal``: four digits after the point, as ten-thousandths."""

    scaled: int

    def __str__(self) -> str:
        whole, rest = divmod(abs(self.scaled), 10_000)
        return f"{'-' if self.scaled < 0 else ''}{whole}.{rest:04}"

    @classmethod
    def parse(cls, text: str) -> Decimal4:
        """Raises EvaluationError."""
        match = _DECIMAL.fullmatch(text)
        if match is None:
            raise EvaluationError(f"{text!r} is not a decimal with at most four digits after the point")
        sign, whole, rest = match.groups()
        scaled = int(sign + whole + rest.ljust(4, "0"))
        return cls(fits(scaled))


@dataclass(frozen=True, slots=True)
class Moment:
    """Cedar's ``datetime``: milliseconds since the epoch."""

    ms: int

    def __str__(self) -> str:
        return f"{self.ms} ms"


class _Truth:
    """A Boolean as an element of a set."""

    __slots__ = ("value",)

    def __init__(self, value: bool) -> None:
        self.value = value


_TRUTH = {True: _Truth(True), False: _Truth(False)}


@dataclass(frozen=True, slots=True)
class _Fields:
    """A Record as an element of a set."""

    items: frozenset[tuple[str, Any]]


def key(value: Value) -> Any:
    """What stands for a value in a set."""
    if isinstance(value, bool):
        return _TRUTH[value]
    if isinstance(value, dict):
        record = cast("dict[str, Value]", value)
        return _Fields(frozenset((name, key(each)) for name, each in record.items()))
    return value


def as_set(values: Iterable[Value]) -> frozenset[Any]:
    return frozenset(map(key, values))


def elements(values: frozenset[Any]) -> list[Value]:
    """What a set holds."""
    return [_unkeyed(each) for each in values]


def _unkeyed(element: Any) -> Value:
    if isinstance(element, _Truth):
        return element.value
    if isinstance(element, _Fields):
        return {name: _unkeyed(each) for name, each in element.items}
    return element


def equal(left: Value, right: Value) -> bool:
    """Cedar's ``==``: values of different types are unequal, and nothing fails."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        record, other = cast("dict[str, Value]", left), cast("dict[str, Value]", right)
        return record.keys() == other.keys() and all(equal(value, other[name]) for name, value in record.items())
    return bool(left == right)


def fits(number: int) -> int:
    """The number itself. Raises EvaluationError if it is no Long."""
    if LONG_MIN <= number <= LONG_MAX:
        return number
    raise EvaluationError(f"{number} does not fit 64 bits")


def from_json(value: Any) -> Value:
    """A value in Cedar's JSON form. Raises KeyError for an extension that is not known here."""
    if isinstance(value, list):
        return as_set(from_json(each) for each in cast("list[Any]", value))
    if not isinstance(value, dict):
        return value
    record = cast("dict[str, Any]", value)
    if "__entity" in record:
        return Entity(record["__entity"]["type"], record["__entity"]["id"])
    if "__extn" in record:
        raise KeyError(record["__extn"]["fn"])
    return {name: from_json(each) for name, each in record.items()}


def to_json(value: Value) -> Any:
    """The value in Cedar's JSON form."""
    if isinstance(value, Entity):
        return {"__entity": {"type": value.type, "id": value.id}}
    if isinstance(value, frozenset):
        return [to_json(each) for each in elements(cast("frozenset[Any]", value))]
    if isinstance(value, dict):
        record = cast("dict[str, Value]", value)
        return {name: to_json(each) for name, each in record.items()}
    if isinstance(value, Decimal4):
        return {"__extn": {"fn": "decimal", "arg": str(value)}}
    if isinstance(value, Moment):
        return {"__extn": {"fn": "offset", "args": [_epoch(), _duration(value.ms)]}}
    return value


def _epoch() -> Any:
    return {"__extn": {"fn": "datetime", "arg": "1970-01-01"}}


def _duration(ms: int) -> Any:
    return {"__extn": {"fn": "duration", "arg": f"{ms}ms"}}


def shown(value: Value) -> str:
    """The value as a person reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, frozenset):
        return f"[{', '.join(sorted(shown(each) for each in elements(cast('frozenset[Any]', value))))}]"
    if isinstance(value, dict):
        record = cast("dict[str, Value]", value)
        return f"{{{', '.join(f'{name}: {shown(each)}' for name, each in record.items())}}}"
    return str(value)
