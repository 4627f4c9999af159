"""The pydantic half of the codec: pydantic-core's own schema, rewritten so that no value changes on the way.

Every model's configuration is set to base64 for bytes and strings for NaN and infinities, and every union
whose members look alike in JSON becomes ``{"type": ..., "value": ...}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator, core_schema

from seamline.kernel.codec.shapes import is_ambiguous

_WIRE = CoreConfig(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
_TEXT = {"str", "bytes", "datetime", "date", "time", "timedelta", "decimal", "uuid", "url", "multi-host-url"}
_ARRAYS = {"list", "tuple", "set", "frozenset", "generator", "arguments", "call"}
_OBJECTS = {"dict", "dataclass", "typed-dict", "model-fields"}
_PLAIN = {"int": "int", "bool": "bool", "none": "null"}
_ALL = frozenset({"null", "bool", "int", "number", "string", "array", "object"})
_OPAQUE_KEYS = {"metadata", "config", "cls", "default", "function", "members", "expected", "serialization"}

Schema = dict[str, Any]


def pydantic_functions(annotation: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """``(encode, decode)`` for a type that holds models, floats or ambiguous unions."""
    adapter: TypeAdapter[Any]
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=False))
    except Exception:  # a model or dataclass brings its own configuration
        adapter = TypeAdapter(annotation)
    schema = cast("Schema", adapter.core_schema)
    rewritten = _Rewrite(schema.get("definitions", [])).node(schema)
    validator = SchemaValidator(rewritten, _WIRE, _use_prebuilt=False)
    serializer = SchemaSerializer(rewritten, _WIRE, _use_prebuilt=False)

    def encode(value: Any) -> bytes:
        return serializer.to_json(value, warnings="error")

    return encode, validator.validate_json


class _Rewrite:
    def __init__(self, definitions: list[Schema]) -> None:
        self._definitions = {d["ref"]: d for d in definitions}

    def node(self, node: Any) -> Any:
        if isinstance(node, list | tuple):
            items = [self.node(item) for item in cast("list[Any]", node)]
            return tuple(items) if isinstance(node, tuple) else items
        if not isinstance(node, dict):
            return node
        schema = cast("Schema", node)
        done: Schema = {k: v if k in _OPAQUE_KEYS else self.node(v) for k, v in schema.items()}
        kind = done.get("type")
        if kind in ("model", "dataclass", "typed-dict"):
            done["config"] = {**done.get("config", {}), **_WIRE}
        elif kind == "union":
            choices = [_bare(choice) for choice in schema["choices"]]
            if is_ambiguous(self._kinds(choice, frozenset()) for choice in choices):
                return self._tagged(done)
        return done

    def _kinds(self, schema: Schema, seen: frozenset[str]) -> frozenset[str]:
        kind = schema["type"]
        if kind in _TEXT:
            return frozenset({"string"})
        if kind in _PLAIN:
            return frozenset({_PLAIN[kind]})
        if kind == "float":
            return frozenset({"number", "string"})
        if kind in _ARRAYS:
            return frozenset({"array"})
        if kind in _OBJECTS or (kind == "model" and not schema.get("root_model")):
            return frozenset({"object"})
        if kind in ("enum", "literal"):
            values = schema.get("expected") or [m.value for m in schema["members"]]
            return frozenset(_kind_of(value) for value in values)
        if kind == "nullable":
            return self._kinds(schema["schema"], seen) | {"null"}
        if kind == "union":
            found = [self._kinds(_bare(c), seen) for c in schema["choices"]]
            return frozenset({"object"} if is_ambiguous(found) else ()).union(*found)
        if kind == "definition-ref":
            ref = schema["schema_ref"]
            return _ALL if ref in seen else self._kinds(self._definitions[ref], seen | {ref})
        for key in ("schema", "json_schema", "lax_schema"):
            if key in schema:
                return self._kinds(schema[key], seen)
        return _ALL

    def _tagged(self, union: Schema) -> Any:
        choices: dict[str, Any] = {}
        for choice in union["choices"]:
            schema = _bare(choice)
            name = base = _name(schema, self._definitions)
            number = 2
            while name in choices:
                name, number = f"{base}{number}", number + 1
            choices[name] = schema
        envelope = core_schema.tagged_union_schema(
            {
                name: core_schema.typed_dict_schema(
                    {
                        "type": core_schema.typed_dict_field(core_schema.literal_schema([name])),
                        "value": core_schema.typed_dict_field(schema),
                    },
                    config=_WIRE,
                )
                for name, schema in choices.items()
            },
            discriminator="type",
        )
        tag = _Tag(choices, self._definitions, self)
        return core_schema.no_info_after_validator_function(
            _value_of,
            envelope,
            serialization=core_schema.plain_serializer_function_ser_schema(tag, return_schema=envelope),
        )


class _Tag:
    """Finds the member of a union that a value belongs to."""

    def __init__(self, choices: dict[str, Any], definitions: dict[str, Schema], rewrite: _Rewrite) -> None:
        self._choices = choices
        self._definitions = definitions
        self._rewrite = rewrite
        self._classes = {
            name: cls for name, schema in choices.items() if (cls := _class(schema, definitions)) is not None
        }
        self._strict: dict[str, SchemaValidator] | None = None

    def __call__(self, value: Any) -> dict[str, Any]:
        cls = cast("type[Any]", type(value))
        exact = [name for name, member in self._classes.items() if member is cls]
        if len(exact) == 1:
            return {"type": exact[0], "value": value}
        for name, validator in self._validators().items():
            if validator.isinstance_python(value):
                return {"type": name, "value": value}
        message = f"{value!r} is none of {', '.join(self._choices)}"
        raise ValueError(message)

    def _validators(self) -> dict[str, SchemaValidator]:
        if self._strict is None:
            definitions = [self._rewrite.node(d) for d in self._definitions.values()]
            config = CoreConfig(strict=True)
            self._strict = {
                name: SchemaValidator(core_schema.definitions_schema(schema, definitions), config)
                for name, schema in self._choices.items()
            }
        return self._strict


def _bare(choice: Any) -> Schema:
    """A union's choice without its label."""
    return cast("Schema", choice[0] if isinstance(choice, tuple) else choice)


def _value_of(envelope: dict[str, Any]) -> Any:
    return envelope["value"]


def _kind_of(value: object) -> str:
    for kind, cls in (("bool", bool), ("int", int), ("string", str)):
        if isinstance(value, cls):
            return kind
    return "null" if value is None else "number"


def _name(schema: Schema, definitions: dict[str, Schema]) -> str:
    cls: Any = schema.get("cls")
    if isinstance(cls, type):
        return cast("type[Any]", cls).__qualname__
    if schema["type"] == "definition-ref":
        return _name(definitions[schema["schema_ref"]], definitions)
    return str(schema["type"])


def _class(schema: Schema, definitions: dict[str, Schema]) -> type[Any] | None:
    import datetime as dt
    import decimal
    import uuid

    plain: dict[str, type[Any]] = {
        "str": str, "bytes": bytes, "datetime": dt.datetime, "date": dt.date, "time": dt.time, "int": int,
        "timedelta": dt.timedelta, "decimal": decimal.Decimal, "uuid": uuid.UUID, "float": float, "bool": bool,
    }  # fmt: skip
    if schema["type"] == "definition-ref":
        return _class(definitions[schema["schema_ref"]], definitions)
    return schema.get("cls") or plain.get(schema["type"])
