"""A request as people write it, in ``tests.toml`` and on the command line: who asks, with which arguments.

What is written is checked against the application, so that a test cannot prove something about a name that policy
never sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from seamline.mesh.errors import PolicyTestError
from seamline.mesh.policy.facts import OWN_ATTRIBUTES, USER_ATTRIBUTES
from seamline.mesh.policy.values import Decimal4, EvaluationError, Moment, Value, as_set, fits
from seamline.mesh.policy.world import HTTP, World, call_name, nearest
from seamline.module.principal import Subject, User

_PLAIN_FIELDS = ("issuer", "tenant", "email", "level", "client")
FIELDS = frozenset(
    {"user", "roles", "scopes", "agent", "chain", "attributes", "args", "method", "path", *_PLAIN_FIELDS}
)
"""What may be said of a request, beside who calls what."""
_OF_USER = frozenset({"roles", "scopes", "attributes", *_PLAIN_FIELDS})
_PYTHON: dict[str, tuple[type[Any], str]] = {
    "String": (str, "text"), "Long": (int, "a whole number"), "Boolean": (bool, "true or false"),
}  # fmt: skip
_MILLISECONDS = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, with what, and what else the context holds."""

    subject: Subject | None = None
    arguments: Mapping[str, Value] | None = None
    more: Mapping[str, Value] | None = None


def asking(world: World, call: tuple[str, str, str], fields: Mapping[str, Any], place: str) -> Asking:
    """Read a request about ``call`` (callee, contract, method). Raises PolicyTestError."""
    return _Reader(world, place).read(call, fields)


class _Reader:
    def __init__(self, world: World, place: str) -> None:
        self._world = world
        self._place = place

    def read(self, call: tuple[str, str, str], fields: Mapping[str, Any]) -> Asking:
        _, contract, method = call
        for key in fields:
            if key not in FIELDS:
                raise self._wrong(f"there is no key {key!r}", nearest(key, FIELDS))
        more: dict[str, Value] = {}
        for key in ("method", "path"):
            if key in fields:
                if contract or method != HTTP:
                    raise self._wrong(
                        f"{key!r} is of public HTTP", f"Leave it out of a test of {call_name(*call[1:])}."
                    )
                more[key] = self._text(fields[key], key)
        subject = self._subject(fields)
        return Asking(subject, self._arguments(call_name(contract, method), fields.get("args")), more or None)

    def _subject(self, fields: Mapping[str, Any]) -> Subject | None:
        user = self._user(fields)
        agent = (
            self._known("agent", fields.get("agent", ""), self._world.vocabulary.agents) if "agent" in fields else ""
        )
        chain = tuple(self._known("module", each, self._world.callers) for each in self._texts(fields, "chain"))
        return Subject(user, agent, chain) if user is not None or agent or chain else None

    def _user(self, fields: Mapping[str, Any]) -> User | None:
        if "user" not in fields:
            for key in sorted(_OF_USER & fields.keys()):
                raise self._wrong(f"{key!r} is of a user, and there is none", 'Write user = "...".')
            return None
        attributes = self._table(fields, "attributes")
        own = self._world.vocabulary.user_attributes
        for name, value in attributes.items():
            if name not in own:
                raise self._wrong(f"users have no attribute {name!r}", nearest(name, [*own, *USER_ATTRIBUTES]))
            if type(value) is not OWN_ATTRIBUTES[own[name]][1]:
                raise self._wrong(f"the attribute {name!r} is {value!r}", f"It is declared as {own[name]}.")
        roles = frozenset(
            self._known("role", role, self._world.vocabulary.roles) for role in self._texts(fields, "roles")
        )
        plain: dict[str, Any] = {key: self._text(fields[key], key) for key in _PLAIN_FIELDS if key in fields}
        scopes = frozenset(self._texts(fields, "scopes")) if "scopes" in fields else None
        return User(self._text(fields["user"], "user"), roles=roles, scopes=scopes, attributes=attributes, **plain)

    def _arguments(self, call: str, given: Any) -> Mapping[str, Value] | None:
        if given is None:
            return None
        declared = self._world.arguments.get(call)
        if declared is None:
            raise self._wrong(f"policy reads no argument of {call!r}", "Declare one: `Annotated[T, Attribute]`.")
        return cast("Mapping[str, Value]", self._value(declared.schema, given, "args"))

    def _value(self, schema: Mapping[str, Any], given: Any, path: str) -> Value:
        match schema["type"]:
            case "Record":
                return self._record(schema["attributes"], given, path)
            case "Set":
                if not isinstance(given, list):
                    raise self._wrong(f"{path} is {given!r}", "Write a list.")
                members = cast("list[Any]", given)
                return as_set(self._value(schema["element"], each, path) for each in members)
            case "Extension":
                return self._extension(schema["name"], given, path)
            case kind:
                wanted, name = _PYTHON[kind]
                if type(given) is not wanted:
                    raise self._wrong(f"{path} is {given!r}", f"It is {name}.")
                return fits(given) if wanted is int else given

    def _record(self, attributes: Mapping[str, Any], given: Any, path: str) -> Value:
        if not isinstance(given, dict):
            raise self._wrong(f"{path} is {given!r}", "Write a table.")
        fields = cast("dict[str, Any]", given)
        for name in fields:
            if name not in attributes:
                raise self._wrong(f"there is no {path}.{name}", nearest(name, attributes))
        return {name: self._value(attributes[name], value, f"{path}.{name}") for name, value in fields.items()}

    def _extension(self, name: str, given: Any, path: str) -> Value:
        try:
            if name == "decimal":
                return Decimal4.parse(str(given) if "." in str(given) else f"{given}.0")
            if not _MILLISECONDS.fullmatch(str(given)):
                return Moment(int(given.timestamp() * 1000))
            return Moment(int(given))
        except (EvaluationError, AttributeError) as error:
            what = "a decimal" if name == "decimal" else "a time with its zone, or milliseconds since the epoch"
            raise self._wrong(f"{path} is {given!r}: {error}", f"It is {what}.") from None

    def _table(self, fields: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = fields.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(f"{key} is {value!r}", "Write a table.")
        return cast("dict[str, Any]", value)

    def _texts(self, fields: Mapping[str, Any], key: str) -> list[str]:
        value = fields.get(key, [])
        if not isinstance(value, list):
            raise self._wrong(f"{key} is {value!r}", 'Write a list: ["..."].')
        return [self._text(each, key) for each in cast("list[Any]", value)]

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            raise self._wrong(f"{key} is {value!r}", "It is text.")
        return value

    def _known(self, what: str, name: Any, known: Iterable[str]) -> str:
        if name not in set(known):
            raise self._wrong(f"there is no {what} {name!r}", nearest(str(name), known))
        return cast("str", name)

    def _wrong(self, fact: str, remedy: str) -> PolicyTestError:
        return PolicyTestError(fact, remedy, place=self._place or None)
