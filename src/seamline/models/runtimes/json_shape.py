"""Whether a text is, or may become, JSON of a schema: by this an engine takes only tokens that lead there.

Of JSON Schema it knows what answers of models are described with: ``type``, ``properties`` (all of them, in their
order, and no others), ``items``, ``minItems``, ``maxItems``, ``minLength``, ``maxLength``, ``enum``, ``const``,
``anyOf``, ``oneOf``, local ``$ref``. Other keywords bound nothing here; who needs them checks the answer. Between two
pieces there is one space at most, so that no answer is made of spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from seamline.models.chat import AnswerSchema
from seamline.models.errors import EngineRefused

_DEPTH_MAX: Final = 24
_STEPS_MAX: Final = 20_000
"""Values tried in one look: a schema may branch without end."""
_STRING: Final = re.compile(r'"((?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)(")?')
_ESCAPE_BEGUN: Final = re.compile(r"\\(u[0-9a-fA-F]{0,3})?")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NUMBER_BEGUN: Final = re.compile(r"-?(?:(?:0|[1-9]\d*)(\.\d*)?([eE][+-]?\d*)?)?")
_KINDS: Final = ("object", "array", "string", "number", "integer", "boolean", "null")
_LITERALS: Final = {"boolean": ("true", "false"), "null": ("null",)}


class JsonShape:
    """A schema, asked of texts that grow."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    @classmethod
    def of(cls, schema: AnswerSchema) -> JsonShape:
        """Raises EngineRefused where it is no schema."""
        try:
            told = json.loads(schema.schema) if schema.schema else {"type": "object"}
        except ValueError as error:
            told = error
        if not isinstance(told, dict):
            refusal = EngineRefused(f"the answer's schema is no JSON object: {told}", "Send a JSON Schema.")
            refusal.status, refusal.kind = 400, "invalid_request_error"
            raise refusal
        return cls(cast("dict[str, Any]", told))

    def accepts(self, text: str) -> bool:
        """Whether an answer may begin so."""
        look = _Look(text, self._schema)
        return any(end == len(text) for end in look.value(self._schema, 0, 0)) or look.open

    def complete(self, text: str) -> bool:
        """Whether it is an answer."""
        return any(end == len(text) for end in _Look(text, self._schema).value(self._schema, 0, 0))


class _Look:
    """One look at one text. Each method gives the places where what it reads may end; where the text ends first, it
    sets ``open``."""

    def __init__(self, text: str, root: Mapping[str, Any]) -> None:
        self._text = text
        self._root = root
        self.open = False
        self._left = _STEPS_MAX

    def value(self, schema: Mapping[str, Any], at: int, depth: int) -> Iterator[int]:
        schema = self._resolved(schema)
        self._left -= 1
        if depth > _DEPTH_MAX or self._left < 0:
            return
        if "const" in schema or "enum" in schema:
            for each in schema.get("enum", [schema.get("const")]):
                yield from self._literal(json.dumps(each, ensure_ascii=False), at)
            return
        for several in ("anyOf", "oneOf"):
            for each in schema.get(several, ()):
                yield from self.value(each, at, depth + 1)
            if several in schema:
                return
        kinds = schema.get("type") or _kinds_of(schema)
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            yield from self._of_kind(kind, schema, at, depth)

    def _of_kind(self, kind: str, schema: Mapping[str, Any], at: int, depth: int) -> Iterator[int]:
        if kind == "object":
            yield from self._object(schema, at, depth)
        elif kind == "array":
            yield from self._array(schema, at, depth)
        elif kind == "string":
            yield from self._string(schema, at)
        elif kind in {"number", "integer"}:
            yield from self._number(at, whole=kind == "integer")
        else:
            for word in _LITERALS.get(kind, ()):
                yield from self._literal(word, at)

    def _object(self, schema: Mapping[str, Any], at: int, depth: int) -> Iterator[int]:
        for begun in self._literal("{", at):
            properties = schema.get("properties")
            if properties is not None:
                yield from self._members([*properties.items()], begun, depth, first=True)
            else:
                yield from self._any_members(schema.get("additionalProperties"), begun, depth, first=True)

    def _members(self, left: list[tuple[str, Any]], at: int, depth: int, *, first: bool) -> Iterator[int]:
        if not left:
            yield from self._literal("}", at)
            return
        name, schema = left[0]
        for behind in self._between(at, first=first):
            for named in self._literal(json.dumps(name, ensure_ascii=False) + ":", behind):
                for start in self._space(named):
                    for end in self.value(schema, start, depth + 1):
                        yield from self._members(left[1:], end, depth, first=False)

    def _any_members(self, schema: Any, at: int, depth: int, *, first: bool) -> Iterator[int]:
        yield from self._literal("}", at)
        for behind in self._between(at, first=first):
            for named in self._string({}, behind):
                for colon in self._literal(":", named):
                    for start in self._space(colon):
                        for end in self.value(schema if isinstance(schema, dict) else {}, start, depth + 1):  # pyright: ignore[reportUnknownArgumentType]
                            yield from self._any_members(schema, end, depth, first=False)

    def _array(self, schema: Mapping[str, Any], at: int, depth: int) -> Iterator[int]:
        for begun in self._literal("[", at):
            yield from self._items(schema, begun, depth, 0)

    def _items(self, schema: Mapping[str, Any], at: int, depth: int, count: int) -> Iterator[int]:
        if count >= schema.get("minItems", 0):
            yield from self._literal("]", at)
        if count < schema.get("maxItems", 1 << 30):
            for behind in self._between(at, first=not count):
                for end in self.value(schema.get("items", {}), behind, depth + 1):
                    yield from self._items(schema, end, depth, count + 1)

    def _string(self, schema: Mapping[str, Any], at: int) -> Iterator[int]:
        if at == len(self._text):
            self.open = True
            return
        found = _STRING.match(self._text, at)
        if found is None:
            return
        # An escape is longer as it is written than as it is meant.
        length = len(json.loads(f'"{found.group(1)}"'))
        if length > schema.get("maxLength", 1 << 30):
            return
        if not found.group(2):
            self.open |= self._ends_well(found.end())
        elif length >= schema.get("minLength", 0):
            yield found.end()

    def _ends_well(self, at: int) -> bool:
        """Whether a string that goes on goes on to the end of the text, be it within an escape."""
        return at == len(self._text) or bool(_ESCAPE_BEGUN.fullmatch(self._text, at))

    def _number(self, at: int, *, whole: bool) -> Iterator[int]:
        found = _NUMBER.match(self._text, at)
        if found is not None and not (whole and (found.group(1) or found.group(2))):
            yield found.end()
        begun = _NUMBER_BEGUN.fullmatch(self._text, at)
        if begun is not None and not (whole and (begun.group(1) or begun.group(2))):
            self.open = True

    def _literal(self, word: str, at: int) -> Iterator[int]:
        if self._text.startswith(word, at):
            yield at + len(word)
        elif word.startswith(self._text[at:]):
            self.open = True

    def _between(self, at: int, *, first: bool) -> Iterator[int]:
        """Before a member or an item: a comma, but before the first, and perhaps a space."""
        if first:
            yield at
            return
        for behind in self._literal(",", at):
            yield from self._space(behind)

    def _space(self, at: int) -> Iterator[int]:
        yield at + 1 if self._text.startswith(" ", at) else at

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_DEPTH_MAX):
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#"):
                return schema
            found: Any = self._root
            for step in reference[1:].strip("/").split("/"):
                found = found.get(step, {}) if isinstance(found, Mapping) and step else found  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            schema = cast("Mapping[str, Any]", found)
        return {}


def _kinds_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """What a schema without a type may be: what its other words speak of, or anything."""
    if "properties" in schema:
        return ("object",)
    return ("array",) if "items" in schema else _KINDS
