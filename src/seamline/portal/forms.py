"""A form for a method's arguments, from what its module says of it (``module/description.py``), and back again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from seamline.portal.errors import FieldError

_DEPTH_MAX: Final = 3
_NUMBERS: Final = {"int": "1", "number": "any"}
_TEXTS: Final[Mapping[str, str]] = {
    "text": "", "uuid": "0b7e9b3a-5c1d-4f7e-9a51-2f8a6f0c9d3e", "decimal": "12.50", "datetime": "2026-03-01T08:00:00Z",
    "date": "2026-03-01", "time": "08:00:00", "duration": "PT90S", "bytes": "base64",
}  # fmt: skip
"""Types that are written as one line of text, and what one looks like."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form; a ``group`` has others in it."""

    path: str
    """Its name in the form: ``card.number``."""
    label: str
    kind: Literal["text", "number", "bool", "choice", "json", "group"]
    required: bool
    default: Any = None
    step: str = ""
    placeholder: str = ""
    choices: tuple[str, ...] = ()
    """As JSON."""
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inside: tuple[Field, ...] = ()

    @property
    def shown(self) -> str:
        """The default, as it stands in the field."""
        if self.default is None:
            return ""
        return json.dumps(self.default, ensure_ascii=False) if self.kind in {"json", "choice"} else str(self.default)


def fields(parameters: Mapping[str, Any], types: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[Field]:
    """The fields of what is described as ``{"name": {"type", "required", "default"}}``."""
    return [
        _field(f"{prefix}{name}", name, each["type"], types, each.get("required", True), each.get("default"), depth)
        for name, each in parameters.items()
    ]


def _field(
    path: str, label: str, kind: Any, types: Mapping[str, Any], required: bool, default: Any, depth: int
) -> Field:
    told = _told(kind)
    limits: Mapping[str, Any] = told.get("limits", {})
    if limits:
        kind = told["limited"]
        told = _told(kind)
    members: list[Any] = told.get("union", [])
    others = [each for each in members if each != "null"]
    if len(members) == 2 and len(others) == 1:
        return _field(path, label, others[0], types, False, default, depth)
    if isinstance(kind, str) and kind in _NUMBERS:
        return Field(path, label, "number", required, default, step=_NUMBERS[kind], limits=limits)
    if isinstance(kind, str) and kind in _TEXTS:
        return Field(path, label, "text", required, default, placeholder=_TEXTS[kind], limits=limits)
    if kind == "bool":
        return Field(path, label, "bool", required, default)
    choices: list[Any] = told.get("enum", [])
    if choices:
        return Field(path, label, "choice", required, default, choices=tuple(json.dumps(each) for each in choices))
    named: Mapping[str, Any] = types.get(told.get("ref", ""), {})
    if "fields" in named and depth < _DEPTH_MAX and default is None:
        inside = fields(named["fields"], types, f"{path}.", depth + 1)
        return Field(path, label, "group", required, inside=tuple(inside))
    example = json.dumps(_example(kind, types, 0), ensure_ascii=False)
    return Field(path, label, "json", required, default, placeholder=example)


def _told(kind: Any) -> dict[str, Any]:
    """A type that is described by an object; nothing of one that is a word."""
    return cast("dict[str, Any]", kind) if isinstance(kind, dict) else {}


def _example(kind: Any, types: Mapping[str, Any], depth: int) -> Any:
    """A value as one might write it."""
    if isinstance(kind, str):
        plain: dict[str, Any] = {"int": 1, "number": 1.5, "bool": True, "null": None, "any": None, "text": "text"}
        return plain[kind] if kind in plain else _TEXTS.get(kind, "")
    if depth > _DEPTH_MAX:
        return None
    match kind:
        case {"limited": inner}:
            return _example(inner, types, depth)
        case {"list": inner}:
            return [_example(inner, types, depth + 1)]
        case {"map": [_, inner]}:
            return {"key": _example(inner, types, depth + 1)}
        case {"tuple": members}:
            return [_example(each, types, depth + 1) for each in members]
        case {"enum": [first, *_]}:
            return first
        case {"union": [first, *_]}:
            return _example(first, types, depth)
        case {"tagged": members}:
            name, inner = next(iter(members.items()))
            return {name: _example(inner, types, depth + 1)}
        case {"ref": name}:
            known: Mapping[str, Any] = types.get(name, {}).get("fields", {})
            return {field: _example(each["type"], types, depth + 1) for field, each in known.items()}
        case _:
            return None


def arguments(form: list[Field], given: Mapping[str, str]) -> dict[str, Any]:
    """What the filled form says, as JSON for the method. Raises FieldError."""
    found: dict[str, Any] = {}
    for each in form:
        value = _value(each, given)
        if value is not _LEFT_OUT:
            found[each.label] = value
    return found


def raw(text: str) -> dict[str, Any]:
    """Arguments that were written as JSON. Raises FieldError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FieldError("the arguments are no JSON object", "Give one value for each name.")
    return cast("dict[str, Any]", found)


_LEFT_OUT: Final = object()


def _value(field_: Field, given: Mapping[str, str]) -> Any:
    if field_.kind == "group":
        inside = arguments(list(field_.inside), given) if field_.required or _touched(field_, given) else {}
        return inside if inside or field_.required else _LEFT_OUT
    text = given.get(field_.path, "")
    if field_.kind == "bool":
        return text == "on"
    if not text.strip():
        if not field_.required:
            return _LEFT_OUT
        if field_.kind == "text":
            return text
        raise FieldError(f"{field_.path!r} is empty", "Fill it in.")
    try:
        match field_.kind:
            case "number":
                return int(text) if field_.step == "1" else float(text)
            case "text":
                return text
            case _:
                return json.loads(text)
    except (ValueError, RecursionError):
        wanted = "a number" if field_.kind == "number" else f"JSON, such as {field_.placeholder}"
        raise FieldError(f"{field_.path!r} is {text[:80]!r}", f"It is {wanted}.") from None


def _touched(group: Field, given: Mapping[str, str]) -> bool:
    return any(
        _touched(each, given) if each.kind == "group" else bool(given.get(each.path, "").strip())
        for each in group.inside
    )


def written(kind: Any) -> str:
    """A type as one writes it: ``list[Line] | null``."""
    if isinstance(kind, str):
        return kind
    match kind:
        case {"limited": inner, "limits": limits}:
            return f"{written(inner)} ({', '.join(f'{name} {value}' for name, value in limits.items())})"
        case {"list": inner}:
            return f"list[{written(inner)}]"
        case {"map": [key, inner]}:
            return f"map[{written(key)}, {written(inner)}]"
        case {"tuple": members}:
            return f"tuple[{', '.join(written(each) for each in members)}]"
        case {"enum": values}:
            return " | ".join(json.dumps(each) for each in values)
        case {"union": members}:
            return " | ".join(written(each) for each in members)
        case {"tagged": members}:
            return " | ".join(members)
        case {"ref": name}:
            return str(name).rpartition(".")[2]
        case _:
            return "any"
