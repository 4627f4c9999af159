"""What a request tells the policy beside who calls what: ``context``, and the user as an entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seamline.mesh.policy.values import LONG_MAX, LONG_MIN, Entity, EvaluationError, Value, as_set, to_json

if TYPE_CHECKING:
    from seamline.module.principal import Subject, User

Attributes = Mapping[str, Value]

USER_ATTRIBUTES: dict[str, str] = {
    "issuer": "String",
    "tenant": "String",
    "name": "String",
    "email": "String",
    "level": "String",
    "client": "String",
    "authenticated_at": "Long",
}
"""What every user has, and its Cedar type. ``scopes``, a Set, is there for a user who is limited to some."""
OWN_ATTRIBUTES: dict[str, tuple[str, type[Any]]] = {
    "text": ("String", str),
    "number": ("Long", int),
    "flag": ("Boolean", bool),
}
"""What an application's own attribute of users may be: its Cedar type, and Python's."""
_NOBODY: frozenset[Entity] = frozenset()


class Facts(dict[str, Value]):
    """One request's ``context``, made as far as it is read.

    Args:
        subject: on whose behalf the call is made.
        arguments: makes ``context.args``; raises EvaluationError for an argument that Cedar cannot express.
        more: what else the context holds.
        own: the application's own attributes of users, with their types.
    """

    __slots__ = ("_arguments", "_attributes", "_more", "_own", "_subject")

    def __init__(
        self,
        subject: Subject | None,
        arguments: Callable[[], Value] | None = None,
        more: Mapping[str, Value] | None = None,
        own: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._subject = subject
        self._arguments = arguments
        self._more = more or {}
        self._own = own or {}
        self._attributes: dict[str, Value] | None = None

    @property
    def user(self) -> User | None:
        return self._subject.user if self._subject is not None else None

    def __missing__(self, name: str) -> Value:
        self[name] = value = self._value(name)
        return value

    def _value(self, name: str) -> Value:
        subject = self._subject
        if name == "user":
            user = self.user
            if user is not None:
                return Entity("User", user.id)
        elif name == "agent":
            if subject is not None and subject.agent:
                return Entity("Agent", subject.agent)
        elif name == "chain":
            return frozenset(Entity("Module", module) for module in subject.chain) if subject is not None else _NOBODY
        elif name == "args" and self._arguments is not None:
            return self._arguments()
        elif name in self._more:
            return self._more[name]
        raise EvaluationError(f"context has no {name!r}")

    def has(self, name: str) -> bool:
        """Cedar's ``context has name``."""
        if name == "user":
            return self.user is not None
        if name == "agent":
            return self._subject is not None and bool(self._subject.agent)
        return name == "chain" or (name == "args" and self._arguments is not None) or name in self._more

    def whole(self) -> dict[str, Value]:
        """All of the context. Raises EvaluationError."""
        return {name: self[name] for name in ("user", "agent", "chain", "args", *self._more) if self.has(name)}

    def attributes_of(self, entity: Entity) -> Attributes | None:
        """The attributes of the user, or None for every other entity."""
        user = self.user
        if user is None or entity.type != "User" or entity.id != user.id:
            return None
        if self._attributes is None:
            self._attributes = user_attributes(user, self._own)
        return self._attributes

    def within(self, entity: Entity, other: Entity) -> bool:
        """Whether the user, if that is the entity, has the role."""
        user = self.user
        return (
            user is not None
            and other.type == "Role"
            and entity.type == "User"
            and other.id in user.roles
            and entity.id == user.id
        )

    def entities_json(self) -> list[dict[str, Any]]:
        """The user as Cedar reads it."""
        user = self.user
        if user is None:
            return []
        return [
            {
                "uid": {"type": "User", "id": user.id},
                "attrs": {name: to_json(value) for name, value in user_attributes(user, self._own).items()},
                "parents": [{"type": "Role", "id": role} for role in sorted(user.roles)],
            }
        ]


def user_attributes(user: User, own: Mapping[str, str]) -> dict[str, Value]:
    """What ``context.user`` has; an attribute that is not of its declared type is left out."""
    found: dict[str, Value] = {name: getattr(user, name) for name in USER_ATTRIBUTES}
    if user.scopes is not None:
        found["scopes"] = as_set(user.scopes)
    for name, kind in own.items():
        value: Value = user.attributes.get(name)
        if type(value) is OWN_ATTRIBUTES[kind][1] and (kind != "number" or LONG_MIN <= value <= LONG_MAX):
            found[name] = value
    return found
