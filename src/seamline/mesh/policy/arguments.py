"""What a policy may read of a method's arguments: ``context.args``, from what the contract declares.

A declared type becomes a Cedar type for the schema and a function that makes Cedar's value of a Python value. An
``Optional`` that is None is not there: a policy asks ``context.args has coupon`` first.
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, Literal, Union, get_args, get_origin
from uuid import UUID

from seamline.kernel.codec import type_name
from seamline.mesh.policy.values import Decimal4, EvaluationError, Moment, Value, as_set, fits
from seamline.module.contract import ContractSpec, MethodSpec, place_of
from seamline.module.errors import ContractError

Json = dict[str, Any]
Make = Callable[[Any], Value]

_TEN_THOUSAND = Decimal(10_000)
_COLLECTIONS = (list, set, frozenset, tuple, Collection, AbstractSet, typing.Sequence)
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Shape:
    """A Cedar type, and how its value is made."""

    schema: Json
    make: Make
    required: bool = True


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a policy may read of the arguments of one method."""

    schema: Json
    """Cedar's type of ``context.args``."""
    read: Callable[[tuple[Any, ...]], dict[str, Value]]
    """Makes ``context.args``. Raises EvaluationError."""


def arguments_of(contract: ContractSpec) -> dict[str, Arguments]:
    """For each method (``Payments.refund``) that declares attributes. Raises ContractError."""
    found: dict[str, Arguments] = {}
    for spec in contract.methods.values():
        if any(parameter.attributes is not None for parameter in spec.parameters):
            found[spec.full_name] = _compile(spec, place_of(getattr(contract.cls, spec.name)))
    return found


def _compile(spec: MethodSpec, place: str) -> Arguments:
    fields: list[tuple[str, int, Shape]] = []
    for index, parameter in enumerate(spec.parameters):
        if parameter.attributes is None:
            continue
        where = _Where(f"the parameter {parameter.name!r} of {spec.full_name}", place)
        if parameter.name == spec.stream_parameter:
            where.refuse("is a stream, which policy does not wait for", "Declare an attribute of another parameter.")
        if parameter.attributes:
            shape = _chosen(parameter.annotation, parameter.attributes, where)
        else:
            shape = _shape(parameter.annotation, where)
        fields.append((parameter.name, index, shape))

    def read(arguments: tuple[Any, ...]) -> dict[str, Value]:
        record: dict[str, Value] = {}
        for name, index, shape in fields:
            value = _made(shape, arguments[index])
            if value is not _ABSENT:
                record[name] = value
        return record

    return Arguments(_record_schema({name: shape for name, _, shape in fields}), read)


def _made(shape: Shape, given: Any) -> Value:
    if given is None and not shape.required:
        return _ABSENT
    try:
        return shape.make(given)
    except EvaluationError:
        raise
    except Exception as error:
        raise EvaluationError(f"an argument cannot be expressed: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Where:
    """What is being compiled, for errors."""

    what: str
    place: str
    open: frozenset[Any] = field(default_factory=frozenset[Any])

    def refuse(self, why: str, remedy: str) -> typing.NoReturn:
        raise ContractError(f"{self.what} {why}", remedy, place=self.place)

    def at(self, name: str) -> _Where:
        return _Where(f"{name!r} in {self.what}", self.place, self.open)


def _chosen(annotation: Any, paths: tuple[str, ...], where: _Where) -> Shape:
    """A record of what the paths name."""
    inner, required = _optional(annotation)
    tree: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition(".")
        tree.setdefault(name, []).extend([rest] if rest else [])
    members = _readable(inner, where)
    fields: dict[str, Shape] = {}
    for name, rests in tree.items():
        if name not in members:
            known = ", ".join(members) or "none"
            where.refuse(f"has no field or typed property {name!r}", f"Known: {known}.")
        of = where.at(name)
        fields[name] = _chosen(members[name], tuple(rests), of) if rests else _shape(members[name], of)
    return _record(inner, fields, required=required)


def _shape(annotation: Any, where: _Where) -> Shape:
    """The Cedar type of a whole value."""
    inner, required = _optional(annotation)
    simple = _simple(inner)
    if simple is not None:
        return Shape(simple.schema, simple.make, required)
    origin = get_origin(inner) or inner
    if origin in _COLLECTIONS and get_args(inner):
        (element,) = {each for each in get_args(inner) if each is not ...} or {None}
        return _collection(_shape(element, where.at("an element")), where, required=required)
    members = _members(inner, where)
    if inner in where.open:
        where.refuse(f"contains {type_name(inner)!r} again", "Name the paths that policy needs: Attribute(...).")
    within = _Where(where.what, where.place, where.open | {inner})
    return _record(inner, {name: _shape(each, within.at(name)) for name, each in members.items()}, required=required)


def _collection(element: Shape, where: _Where, *, required: bool) -> Shape:
    if not element.required:
        where.refuse("may hold None, which Cedar does not know", "Name other paths: Attribute(...).")
    make = element.make
    return Shape(
        {"type": "Set", "element": element.schema}, lambda values: as_set(make(each) for each in values), required
    )


def _record(cls: Any, fields: Mapping[str, Shape], *, required: bool) -> Shape:
    by_name = typing.is_typeddict(cls)

    def make(value: Any) -> dict[str, Value]:
        record: dict[str, Value] = {}
        for name, shape in fields.items():
            made = _made(shape, value.get(name) if by_name else getattr(value, name))
            if made is not _ABSENT:
                record[name] = made
        return record

    return Shape(_record_schema(fields), make, required)


def _record_schema(fields: Mapping[str, Shape]) -> Json:
    return {
        "type": "Record",
        "attributes": {name: {**shape.schema, "required": shape.required} for name, shape in fields.items()},
    }


def _optional(annotation: Any) -> tuple[Any, bool]:
    """The type without None, Annotated and aliases, and whether it is always there."""
    if get_origin(annotation) is typing.Annotated:
        return _optional(get_args(annotation)[0])
    if hasattr(annotation, "__supertype__"):
        return _optional(annotation.__supertype__)
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        if len(rest) == 1:
            return _optional(rest[0])[0], False
    if get_origin(annotation) in (typing.Required, typing.NotRequired):
        inner, required = _optional(get_args(annotation)[0])
        return inner, required and get_origin(annotation) is typing.Required
    return annotation, True


def _simple(annotation: Any) -> Shape | None:
    if get_origin(annotation) is Literal:
        kinds: set[type[Any]] = {type(each) for each in get_args(annotation)}
        return _simple(kinds.pop()) if len(kinds) == 1 else None
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, enum.Enum):
        return _of_enum(annotation)
    for kind, shape in _SIMPLE.items():
        if annotation is kind:
            return shape
    return None


def _of_enum(cls: type[enum.Enum]) -> Shape:
    """An enum of texts or of whole numbers is its value, every other its name."""
    values = [member.value for member in cls]
    if all(type(value) is str for value in values):
        return Shape({"type": "String"}, lambda member: str(member.value))
    if all(type(value) is int for value in values):
        return Shape({"type": "Long"}, lambda member: fits(int(member.value)))
    return Shape({"type": "String"}, lambda member: str(member.name))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass too, as it arrives over a wire
    raise EvaluationError(f"an argument is {type(value).__name__}, not text")


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return fits(int(value))
    raise EvaluationError(f"an argument is {type(value).__name__}, not a whole number")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise EvaluationError(f"an argument is {type(value).__name__}, not true or false")


def _decimal(value: Decimal) -> Decimal4:
    scaled = value * _TEN_THOUSAND
    if not value.is_finite() or scaled != scaled.to_integral_value():
        raise EvaluationError(f"{value} has more than four digits after the point")
    return Decimal4(fits(int(scaled)))


def _moment(value: datetime) -> Moment:
    if value.tzinfo is None:
        raise EvaluationError(f"{value.isoformat()} has no time zone")
    return Moment(int(value.timestamp() * 1000))


_SIMPLE: dict[type[Any], Shape] = {
    str: Shape({"type": "String"}, _text),
    bool: Shape({"type": "Boolean"}, _truth),
    int: Shape({"type": "Long"}, _whole),
    UUID: Shape({"type": "String"}, str),
    date: Shape({"type": "String"}, date.isoformat),
    Decimal: Shape({"type": "Extension", "name": "decimal"}, _decimal),
    datetime: Shape({"type": "Extension", "name": "datetime"}, _moment),
}


def _members(cls: Any, where: _Where) -> dict[str, Any]:
    """The fields of a class with their types."""
    if not isinstance(cls, type) or cls.__module__ == "builtins":
        where.refuse(
            f"is {type_name(cls)!r}, which Cedar cannot express",
            "It knows text, whole numbers, true and false, Decimal, datetime, enums, and records and sets of these.",
        )
    hints = typing.get_type_hints(cls, include_extras=True)
    optional: Collection[str] = getattr(cls, "__optional_keys__", ())
    return {
        name: Union[each, None] if name in optional else each  # noqa: UP007  # made of values
        for name, each in hints.items()
        if not name.startswith("_") and get_origin(each) is not ClassVar
    }


def _readable(cls: Any, where: _Where) -> dict[str, Any]:
    """Fields, and properties that say their type."""
    members = _members(cls, where)
    for name, member in inspect.getmembers(cls, lambda each: isinstance(each, (property, cached_property))):
        getter = member.fget if isinstance(member, property) else member.func
        returns = typing.get_type_hints(getter).get("return")
        if returns is not None:
            members.setdefault(name, returns)
    return members
