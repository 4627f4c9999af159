"""What a type looks like in JSON, and whether its values can cross a seam at all."""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec

from seamline.kernel.errors import SeamlineError

_TEXT_LEAVES = (str, bytes, UUID, Decimal, datetime, date, time, timedelta)
_SEQUENCES = (list, set, frozenset, tuple, Sequence, AbstractSet)
_MAPPINGS = (dict, Mapping)
_VOWEL: Final = re.compile(r"[aeio]|u(?!ni|uid|r[il]|s|tc)", re.IGNORECASE)


class UnsupportedTypeError(SeamlineError):
    """SL1102: a type whose values cannot cross a seam."""

    code = "SL1102"


class Shape(NamedTuple):
    """What the walk over a type found: how it looks in JSON, and whether msgspec alone will do."""

    kinds: frozenset[str]
    native: bool


def type_name(annotation: Any) -> str:
    """How a person would write the type."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def with_article(name: str) -> str:
    """``an int``, ``a str``, ``a UUID``."""
    return f"{'an' if _VOWEL.match(name) else 'a'} {name}"


def inspect_type(annotation: Any) -> Shape:
    """Walk a type. Raises :class:`UnsupportedTypeError` naming the part that cannot cross."""
    return _Walk().visit(annotation, type_name(annotation))


def _refuse(annotation: Any, path: str, why: str, remedy: str) -> typing.NoReturn:
    raise UnsupportedTypeError(f"{type_name(annotation)!r} in {path} {why}", remedy)


class _Walk:
    def __init__(self) -> None:
        self._open = set[Any]()

    def visit(self, annotation: Any, path: str) -> Shape:
        leaf = _leaf(annotation)
        if leaf is not None:
            return leaf
        origin = get_origin(annotation)
        if origin is Annotated:
            inner = self.visit(get_args(annotation)[0], path)
            return (
                inner
                if all(isinstance(m, msgspec.Meta) for m in annotation.__metadata__)
                else Shape(inner.kinds, False)
            )
        if hasattr(annotation, "__value__"):  # a `type X = ...` alias
            return self.visit(annotation.__value__, path)
        if origin is Literal:
            return _literal(annotation, path)
        if origin in (Union, types.UnionType):
            return self._union(annotation, path)
        container = origin or annotation
        if container in _SEQUENCES:
            return self._container(annotation, path, "array")
        if container in _MAPPINGS:
            return self._container(annotation, path, "object")
        if isinstance(container, type):
            return self._class(annotation, cast("type[Any]", container), path)
        return _refuse(annotation, path, "is not a type whose values can be sent", _HINT)

    def _container(self, annotation: Any, path: str, kind: str) -> Shape:
        arguments = [a for a in get_args(annotation) if a is not Ellipsis]
        if not arguments and annotation is not get_args(annotation):
            _refuse(
                annotation,
                path,
                "does not say what it holds",
                f"Write for instance `{type_name(annotation)}[str]`.",
            )
        inner = [self.visit(a, path) for a in arguments]
        if kind == "object" and not inner[0].kinds <= {"string", "int"}:
            _refuse(
                annotation,
                path,
                "has keys that JSON cannot have",
                "Use str, int, UUID, date or an enum as key.",
            )
        abstract = (get_origin(annotation) or annotation) in (Sequence, Mapping, AbstractSet)
        return Shape(frozenset({kind}), all(s.native for s in inner) and not abstract)

    def _union(self, annotation: Any, path: str) -> Shape:
        shapes = [self.visit(member, path) for member in get_args(annotation)]
        clash = is_ambiguous(shape.kinds for shape in shapes)
        kinds = frozenset[str]({"object"} if clash else ()).union(*(shape.kinds for shape in shapes))
        return Shape(kinds, not clash and all(shape.native for shape in shapes))

    def _class(self, annotation: Any, cls: type[Any], path: str) -> Shape:
        if issubclass(cls, enum.Enum):
            return _enum(cls, path)
        is_model = hasattr(cls, "__pydantic_validator__")
        fields = _fields(cls)
        if fields is None:
            _refuse(annotation, path, "is a class whose fields are not known", _HINT)
        kind = frozenset({"array" if tuple in cls.__mro__ else "object"})
        if annotation in self._open:  # a recursive type: judged where it was first met
            return Shape(kind, True)
        self._open.add(annotation)
        parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ()) or getattr(cls, "__type_params__", ())
        bound = dict(zip(parameters, get_args(annotation), strict=False))
        native = not is_model
        for name, field in fields.items():
            native &= self.visit(_bind(field, bound), f"{path}.{name}").native
        self._open.discard(annotation)
        return Shape(kind, native)


_HINT = "Use plain types, dataclasses, pydantic models, enums, or lists, maps and unions of them."


def _bind(annotation: Any, bound: dict[Any, Any]) -> Any:
    if isinstance(annotation, TypeVar):
        variable: Any = annotation
        return bound.get(variable, variable.__bound__ or variable)
    parameters = getattr(annotation, "__parameters__", ())
    if parameters and bound:
        return annotation[tuple(bound.get(p, p) for p in parameters)]
    return annotation


def _fields(cls: type[Any]) -> dict[str, Any] | None:
    model_fields = getattr(cls, "__pydantic_fields__", None)
    if model_fields is not None and not dataclasses.is_dataclass(cls):
        return {name: field.annotation for name, field in model_fields.items()}
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    if typing.is_typeddict(cls) or issubclass(cls, msgspec.Struct) or hasattr(cls, "_fields"):
        return typing.get_type_hints(cls)
    return None


def _leaf(annotation: Any) -> Shape | None:
    if annotation is None or annotation is type(None):
        return Shape(frozenset({"null"}), True)
    if annotation is bool:
        return Shape(frozenset({"bool"}), True)
    if annotation is int:
        return Shape(frozenset({"int"}), True)
    if annotation is float:
        return Shape(frozenset({"number", "string"}), False)
    if annotation in _TEXT_LEAVES:
        return Shape(frozenset({"string"}), True)
    if getattr(annotation, "__name__", "") == "JsonValue":
        return Shape(frozenset({"null", "bool", "int", "number", "string", "array", "object"}), False)
    return None


def _literal(annotation: Any, path: str) -> Shape:
    return Shape(frozenset(_kind_of(value, annotation, path) for value in get_args(annotation)), True)


def _enum(cls: type[enum.Enum], path: str) -> Shape:
    kinds = frozenset(_kind_of(member.value, cls, path) for member in cls)
    return Shape(kinds, len(kinds) == 1)


def _kind_of(value: object, annotation: Any, path: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, enum.Enum):
        return _kind_of(value.value, annotation, path)
    for kind, cls in (("bool", bool), ("int", int), ("string", str)):
        if isinstance(value, cls):
            return kind
    return _refuse(annotation, path, f"has the value {value!r}", "Use str or int values.")


def is_ambiguous(members: Iterable[frozenset[str]]) -> bool:
    """Whether two members of a union look alike in JSON."""
    seen: set[str] = set()
    for kinds in members:
        if seen & kinds:
            return True
        seen |= kinds
    return False
