"""Whether a shadow said the same as the version that answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

Compare = Callable[[Any, Any], bool]
"""What was answered, and what the shadow would have answered."""
How = Literal["equal", "numeric", "cosine"]
_SHOWN: int = 200


def comparison(how: How, tolerance: float) -> Compare:
    """One of the ways that settings name."""
    if how == "numeric":
        return lambda ours, theirs: _near(ours, theirs, tolerance)
    if how == "cosine":
        return lambda ours, theirs: _cosine(list(_numbers(ours)), list(_numbers(theirs))) >= 1 - tolerance
    return lambda ours, theirs: bool(ours == theirs)


class Sample(msgspec.Struct, frozen=True):
    """One call on which a shadow differed, cut short."""

    method: str
    arguments: str
    ours: str
    theirs: str


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _near(ours: Any, theirs: Any, tolerance: float) -> bool:
    """Equal, but for numbers that lie as near: absolutely, or in relation to their size."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance) or (
            math.isnan(ours) and math.isnan(theirs)
        )
    if isinstance(ours, str | bytes) or isinstance(theirs, str | bytes):
        return bool(ours == theirs)
    ours, theirs = _opened(ours), _opened(theirs)
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        first, second = cast("Mapping[Any, Any]", ours), cast("Mapping[Any, Any]", theirs)
        return first.keys() == second.keys() and all(_near(first[key], second[key], tolerance) for key in first)
    if isinstance(ours, Sequence) and isinstance(theirs, Sequence):
        pair = cast("Sequence[Any]", ours), cast("Sequence[Any]", theirs)
        return len(pair[0]) == len(pair[1]) and all(_near(a, b, tolerance) for a, b in zip(*pair, strict=True))
    return bool(ours == theirs)


def _opened(value: Any) -> Any:
    """Records as mappings, and arrays as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    fields: Any = getattr(value, "__struct_fields__", None) or getattr(value, "__slots__", None)
    if isinstance(fields, tuple):
        return {name: getattr(value, name) for name in cast("tuple[str, ...]", fields)}
    return cast("Any", vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else value


def _numbers(value: Any) -> Iterator[float]:
    value = _opened(value)
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, Mapping):
        for each in cast("Mapping[Any, Any]", value).values():
            yield from _numbers(each)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in cast("Sequence[Any]", value):
            yield from _numbers(each)


def _cosine(ours: Sequence[float], theirs: Sequence[float]) -> float:
    if len(ours) != len(theirs):
        return -1.0
    length = math.hypot(*ours) * math.hypot(*theirs)
    if not length:
        return 1.0 if math.hypot(*ours) == math.hypot(*theirs) else -1.0
    return math.fsum(a * b for a, b in zip(ours, theirs, strict=True)) / length
