"""What modules offer, as plain JSON: contracts, faults, events and the types in them, for comparing and keeping.

A type is text (``"int"``, ``"text"``, ``"uuid"``) or an object with one telling key::

    {"list": T}   {"map": [T, T]}   {"tuple": [T, ...]}   {"enum": [values]}   {"union": [T, ...]}
    {"tagged": {name: T}}      a union whose members look alike in JSON, and so travel with their name
    {"ref": "shop.cart.Line"}  a class with fields, described once under "types"
    {"limited": T, "limits": {"ge": 0}}

The description says what is on the wire and nothing of how it is written in Python: renaming a class changes nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec

from seamline.kernel.codec import codec, inspect_type, type_name
from seamline.kernel.codec.shapes import is_ambiguous
from seamline.module.contract import Contract, MethodSpec, compile_contract
from seamline.module.values import Event, Fault

FORMAT = 1

_PLAIN: dict[Any, str] = {
    bool: "bool", int: "int", float: "number", str: "text", bytes: "bytes", UUID: "uuid", Decimal: "decimal",
    datetime: "datetime", date: "date", time: "time", timedelta: "duration", None: "null", type(None): "null",
}  # fmt: skip
_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def describe(contracts: Mapping[type[Contract], str], events: Mapping[type[Event], str]) -> dict[str, Any]:
    """What the modules that provide ``contracts`` and publish ``events`` offer."""
    types_ = _Types()
    modules: dict[str, Any] = {}

    def part(module: str, name: str) -> dict[str, Any]:
        whole: dict[str, Any] = modules.setdefault(module, {"contracts": {}, "faults": {}, "events": {}})
        return whole[name]

    for contract, module in contracts.items():
        spec = compile_contract(contract)
        methods = {method.name: _method(method, types_) for method in spec.methods.values()}
        part(module, "contracts")[spec.name] = {"methods": methods}
        for name, fault in spec.faults.items():
            part(module, "faults")[name] = {"fields": types_.fields(fault)}
    for event, module in events.items():
        part(module, "events")[event.__name__] = {
            "key": event.event_key,
            "version": event.event_version,
            "upcasts": sorted(event.event_upcasters),
            "fields": types_.fields(event),
            **({"compacted": True} if event.event_compacted else {}),
        }
    return {"format": FORMAT, "modules": _in_order(modules), "types": _in_order(types_.known)}


def _in_order(mapping: dict[str, Any]) -> dict[str, Any]:
    return {name: mapping[name] for name in sorted(mapping)}


def _method(method: MethodSpec, types_: _Types) -> dict[str, Any]:
    parameters = {
        p.name: _field(types_, p.annotation, required=p.required, default=p.default)
        for p in method.parameters
        if p.name != method.stream_parameter
    }
    found: dict[str, Any] = {
        "kind": method.kind,
        "parameters": parameters,
        "result": types_.of(method.result.annotation),
        "idempotent": method.idempotent,
        "readonly": method.readonly,
        "timeout_s": method.timeout_s,
    }
    if method.item is not None:
        found["items"] = types_.of(method.item.annotation)
    return found


class _Types:
    """Describes types; classes with fields are met once and kept in ``known``."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def of(self, annotation: Any, limits: Mapping[str, Any] | None = None) -> Any:
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            found = _limits(cast("Iterable[Any]", annotation.__metadata__))
            return self.of(get_args(annotation)[0], {**found, **(limits or {})})
        if hasattr(annotation, "__value__"):  # a `type X = ...` alias
            return self.of(annotation.__value__, limits)
        found = self._bare(annotation, origin)
        return {"limited": found, "limits": dict(limits)} if limits else found

    def _bare(self, annotation: Any, origin: Any) -> Any:
        if isinstance(annotation, TypeVar):
            return self.of(annotation.__bound__) if annotation.__bound__ is not None else "any"
        if origin is Literal:
            return {"enum": [_json(value) for value in get_args(annotation)]}
        if origin in (Union, types.UnionType):
            return self._union(get_args(annotation))
        if annotation is None or (isinstance(annotation, type) and annotation in _PLAIN):
            return _PLAIN[annotation]
        if not isinstance(origin or annotation, type):
            return "any"  # JsonValue
        return self._class(annotation, cast("type[Any]", origin or annotation))

    def _union(self, members: tuple[Any, ...]) -> Any:
        if is_ambiguous(inspect_type(member).kinds for member in members):
            return {"tagged": {type_name(member): self.of(member) for member in members}}
        return {"union": [self.of(member) for member in members]}

    def _class(self, annotation: Any, cls: type[Any]) -> Any:
        arguments = get_args(annotation)
        if issubclass(cls, enum.Enum):
            return {"enum": [_json(member.value) for member in cls]}
        if not _has_fields(cls):
            inner = [self.of(argument) for argument in arguments if argument is not Ellipsis]
            if issubclass(cls, dict) or (len(inner) == 2 and hasattr(cls, "items")):
                return {"map": inner}
            if cls is tuple and Ellipsis not in arguments:
                return {"tuple": inner}
            return {"list": inner[0]} if inner else {"tuple": []}
        if issubclass(cls, tuple):
            return {
                "tuple": [
                    self.of(hint) for hint in typing.get_type_hints(cast("Any", cls), include_extras=True).values()
                ]
            }
        pydantic: dict[str, Any] = getattr(cls, "__pydantic_fields__", {})
        if getattr(cls, "__pydantic_root_model__", False):
            return self.of(pydantic["root"].annotation, _limits(pydantic["root"].metadata))
        name = type_name(annotation) if arguments else cls.__qualname__
        name = f"{cls.__module__}.{name.removeprefix(cls.__module__ + '.')}"
        if name not in self.known:
            self.known[name] = {}  # a recursive type meets itself
            self.known[name] = {"fields": self.fields(cls, arguments)}
            if _is_closed(cls):
                self.known[name]["closed"] = True
        return {"ref": name}

    def fields(self, cls: type[Any], arguments: tuple[Any, ...] = ()) -> dict[str, Any]:
        """The fields of a class by the names they have on the wire."""
        pydantic: dict[str, Any] = getattr(cls, "__pydantic_fields__", {})
        if pydantic and not dataclasses.is_dataclass(cls):
            return {
                name: _field(
                    self, field.annotation, required=field.is_required(), default=field.default,
                    limits=_limits(field.metadata),
                )
                for name, field in pydantic.items()
            }  # fmt: skip
        parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ())
        bound = dict(zip(parameters, arguments, strict=False))
        hints = {name: _bind(hint, bound) for name, hint in typing.get_type_hints(cls, include_extras=True).items()}
        if issubclass(cls, msgspec.Struct):
            return {
                field.encode_name: _field(self, hints[field.name], required=field.required, default=field.default)
                for field in msgspec.structs.fields(cls)
            }
        if typing.is_typeddict(cls):
            required: frozenset[str] = cls.__required_keys__  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType,reportUnknownVariableType]
            return {
                name: _field(self, _unwrapped(hint), required=_is_required(hint, known=name in required))
                for name, hint in hints.items()
            }
        return {
            field.name: _field(
                self, hints[field.name], default=field.default,
                required=field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
            )
            for field in dataclasses.fields(cls)
        }  # fmt: skip


def _field(
    types_: _Types, annotation: Any, *, required: bool, default: Any = None, limits: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": types_.of(annotation, limits), "required": required}
    if not required:
        try:
            found["default"] = msgspec.json.decode(codec(annotation).encode(default))
        except Exception:  # made anew each time, or none at all
            found.pop("default", None)
    return found


def _has_fields(cls: type[Any]) -> bool:
    return (
        hasattr(cls, "__pydantic_fields__")
        or dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or issubclass(cls, (msgspec.Struct, Fault))
        or hasattr(cls, "_fields")
    )


def _is_closed(cls: type[Any]) -> bool:
    config: Mapping[str, Any] = getattr(cls, "model_config", None) or {}
    struct: Any = getattr(cls, "__struct_config__", None)
    return config.get("extra") == "forbid" or bool(struct is not None and struct.forbid_unknown_fields)


def _bind(hint: Any, bound: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return bound.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(bound.get(p, p) for p in parameters)] if parameters and bound else hint


def _is_required(hint: Any, *, known: bool) -> bool:
    """A typed dict cannot read its own annotations where they are text."""
    origin = get_origin(hint)
    return origin is typing.Required or (known and origin is not typing.NotRequired)


def _unwrapped(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) in (typing.Required, typing.NotRequired) else hint


def _limits(metadata: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in metadata:
        parts: list[Any] = [each, *getattr(each, "metadata", ())]
        for part in parts:
            for name in _LIMITS:
                value = getattr(part, name, None)
                if value is not None:
                    found[name] = value if isinstance(value, int | float | str) else str(value)
    return found


def _json(value: Any) -> Any:
    return _json(value.value) if isinstance(value, enum.Enum) else value
