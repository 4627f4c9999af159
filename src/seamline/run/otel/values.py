"""What users give as attributes, as it can be told on: bounded, and of types that every reader knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

ATTRIBUTES_MAX: Final = 128
CHARACTERS_MAX: Final = 8_192
_ITEMS_MAX: Final = 128
_DEPTH_MAX: Final = 4


def clean(value: object, depth: int = 0) -> Any:
    """``value`` as a plain one; never raises."""
    if value is None or isinstance(value, (bool, int, float)):
        return value if not isinstance(value, int) or -(2**63) <= value < 2**63 else str(value)[:64]
    if isinstance(value, str):
        return value if len(value) <= CHARACTERS_MAX else f"{value[:CHARACTERS_MAX]}…"
    if isinstance(value, bytes):
        return value[:CHARACTERS_MAX]
    if depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return clean_all(cast("Mapping[object, object]", value), depth + 1)
        if isinstance(value, (Sequence, set, frozenset)):
            return [clean(item, depth + 1) for item in list(cast("Sequence[object]", value))[:_ITEMS_MAX]]
    return clean(shown(value), _DEPTH_MAX)


def clean_all(given: Mapping[Any, Any] | None, depth: int = 0) -> dict[str, Any]:
    """The first 128."""
    return {str(name): clean(value, depth) for name, value in list((given or {}).items())[:ATTRIBUTES_MAX]}


def shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a thing that cannot be shown must not end the call that tells of it
        return f"<{type(value).__name__}>"
