"""How values that others made up are shown: short enough for a page, bytes too, each module in its own colour."""

from __future__ import annotations

import json
import math
import shlex
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from seamline.portal.errors import FieldError

TEXT_MAX: Final = 4_000
HUES: Final = 12


def shown(value: Any, characters_max: int = TEXT_MAX) -> str:
    """An attribute's value as text."""
    match value:
        case str():
            return cut(value, characters_max)
        case bytes():
            return cut(f"{len(value):,} bytes: {value[:characters_max].hex(' ')}", characters_max)
        case dict() | list() | tuple():
            return cut(json.dumps(value, indent=2, ensure_ascii=False, default=_plain), characters_max)
        case bool() | None:
            return json.dumps(value)
        case _:
            return cut(str(value), characters_max)


def _plain(value: Any) -> str:
    return shown(value) if isinstance(value, bytes) else str(value)


def cut(text: str, characters_max: int = TEXT_MAX) -> str:
    """The beginning of a text, and how much of it is left out."""
    left = len(text) - characters_max
    return text if left <= 0 else f"{text[:characters_max]}\N{HORIZONTAL ELLIPSIS} ({left:,} more characters)"


def rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Attributes as (name, text), by name."""
    return [(name, shown(value)) for name, value in sorted(values.items())]


def hues(modules: Iterable[str]) -> Callable[[str], str]:
    """The class that gives a module its colour, the same on every page; strangers have one by their name."""
    known = {name: index for index, name in enumerate(modules)}

    def hue(name: str) -> str:
        return f"hue-{known.get(name, zlib.crc32(name.encode(errors='replace'))) % HUES}"

    return hue


def without(query: Mapping[str, str], *names: str) -> dict[str, str]:
    """An address' query but for some of it."""
    return {name: value for name, value in query.items() if name not in names}


def quoted(name: str, value: str) -> str:
    """``name=value`` as a field for attributes takes it."""
    return shlex.quote(f"{name}={value}")


def number(text: str, what: str) -> float:
    """Of a field; 0 where it is empty. Raises FieldError."""
    try:
        found = float(text or 0)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise FieldError(f"{text!r} is no number of {what}", "Write 250.")
    return found


def attributes_in(text: str) -> dict[str, str]:
    """``http.route=/cart "user.name=Bo Ek"``. Raises FieldError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise FieldError(f"{text!r} cannot be read: {error}", 'Quote values with spaces: "user.name=Bo Ek".') from None
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise FieldError(f"{word!r} does not say which value", "Write name=value, such as http.route=/cart.")
        found[name] = value
    return found
