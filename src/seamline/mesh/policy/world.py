"""The application as Cedar sees it: modules are principals and resources, methods are actions in contract groups.

Who asks through the modules stands in ``context``: the user, the agent, the modules that have acted, and of a call the
arguments that its contract lets policy read.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import cedarpy

from seamline.mesh.errors import UnknownPolicyNameError
from seamline.mesh.policy import cedar
from seamline.mesh.policy.arguments import Arguments
from seamline.mesh.policy.compiler import Ground
from seamline.mesh.policy.facts import OWN_ATTRIBUTES, USER_ATTRIBUTES
from seamline.mesh.policy.values import Entity, Value, as_set

GATEWAY = "gateway"
"""The principal of public HTTP requests."""
PORTAL = "portal"
"""The principal of calls that people make by hand, in the portal."""
HTTP = "http"
"""The action of a public HTTP request into a module's routes; it belongs to no contract."""
EVENTS = "events"
"""The action of reading a module's events; it belongs to no contract either."""
VIEWS = "views"
"""The action of querying a module's views."""
PLAIN = (HTTP, EVENTS, VIEWS)
"""The actions that every module has."""
SECRET = "secret"  # noqa: S105  # the name of an action
"""The action of reading a secret: the one whose resource is a ``Secret`` and no module."""
ROTATE = "rotate"
"""The action of giving a secret its next value; likewise."""
FOR_SECRETS = (SECRET, ROTATE)

_CEDAR_TYPES: dict[type[Any], dict[str, Any]] = {
    bool: {"type": "Boolean"},
    int: {"type": "Long"},
    str: {"type": "String"},
}
_SET_OF_STRINGS: dict[str, Any] = {"type": "Set", "element": {"type": "String"}}
_HTTP_CONTEXT: dict[str, Any] = {"method": {"type": "String"}, "path": {"type": "String"}}
_NO_ARGUMENTS: dict[str, Any] = {"type": "Record", "attributes": {}}


def call_name(contract: str, method: str) -> str:
    """``Payments.charge``; ``http``, ``events`` or ``views`` where there is no contract."""
    return f"{contract}.{method}" if contract else method


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that policies may use beside those of the code: ``[policy]`` in ``seamline.toml``.

    ``user_attributes`` are those of the application's own users: name to ``text``, ``number`` or ``flag``.
    """

    roles: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    user_attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class World:
    """Modules by name with their attributes; contracts by name with their module and methods.

    Attributes are ``str``, ``int``, ``bool`` or a list of ``str``. ``owner`` is optional, ``tags`` is always there.
    ``arguments`` are, by full name of the method, what policy may read of its arguments.
    """

    modules: Mapping[str, Mapping[str, Any]]
    contracts: Mapping[str, tuple[str, Sequence[str]]]
    arguments: Mapping[str, Arguments] = field(default_factory=lambda: MappingProxyType({}))
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    callers: tuple[str, ...] = field(init=False)
    entities: cedarpy.Entities = field(init=False, repr=False)
    schema: cedarpy.Schema = field(init=False, repr=False)
    """With a user and an agent in every request."""
    lenient: cedarpy.Schema = field(init=False, repr=False)
    """With a user and an agent in some."""
    _attributes: Mapping[Entity, Mapping[str, Value]] = field(init=False, repr=False)
    _groups: Mapping[Entity, frozenset[Entity]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        callers = tuple(dict.fromkeys((*self.modules, GATEWAY, PORTAL)))
        schema = _parsed(self._schema(present=True))
        object.__setattr__(self, "lenient", _parsed(self._schema(present=False)))
        entities: list[dict[str, Any]] = [
            {
                "uid": {"type": "Module", "id": name},
                "attrs": {"tags": [], **self.modules.get(name, {})},
                "parents": [],
            }
            for name in callers
        ]
        object.__setattr__(self, "callers", callers)
        object.__setattr__(self, "schema", schema)
        # The schema adds the actions with their groups to the entities.
        object.__setattr__(self, "entities", cedar.entities(json.dumps(entities), schema))
        object.__setattr__(
            self,
            "_attributes",
            {Entity("Module", each["uid"]["id"]): _values(each["attrs"]) for each in entities},
        )
        object.__setattr__(
            self,
            "_groups",
            {
                Entity("Action", call_name(contract, method)): frozenset((Entity("Action", contract),))
                for _, contract, method in self.calls()
                if contract
            },
        )

    def calls(self) -> Iterator[tuple[str, str, str]]:
        """Every (callee, contract, method) that exists, public HTTP and events included."""
        for contract, (module, methods) in self.contracts.items():
            for method in methods:
                yield module, contract, method
        for module in self.modules:
            for plain in PLAIN:
                yield module, "", plain

    def knows(self, caller: str, callee: str, contract: str, method: str) -> bool:
        if caller not in self.callers:
            return False
        if not contract:
            return method in PLAIN and callee in self.modules
        module, methods = self.contracts.get(contract, ("", ()))
        return module == callee and method in methods

    def ground(self, caller: str, callee: str, contract: str, method: str) -> Ground:
        """What is known of a call before it is made."""
        return Ground(
            Entity("Module", caller),
            Entity("Action", call_name(contract, method)),
            Entity("Module", callee),
            self._attributes,
            self._groups,
        )

    def resolve(self, call: str, callee: str | None = None) -> tuple[str, str, str]:
        """``"Payments.charge"`` as (callee, contract, method); ``"http"`` and its like need the callee said."""
        if call in PLAIN:
            if callee is None:
                raise UnknownPolicyNameError(f"{call!r} does not say of which module", "Name the module it goes to.")
            if callee not in self.modules:
                raise UnknownPolicyNameError(f"there is no module {callee!r}", nearest(callee, self.modules))
            return callee, "", call
        contract, _, method = call.partition(".")
        module, methods = self.contracts.get(contract, ("", ()))
        if method not in methods:
            raise UnknownPolicyNameError(f"there is no method {call!r}", nearest(call, self.leaves()))
        if callee is not None and callee != module:
            raise UnknownPolicyNameError(f"{contract!r} belongs to {module!r}, not to {callee!r}", f"Write {module!r}.")
        return module, contract, method

    def caller(self, name: str) -> str:
        """The name itself, if it is a module, the gateway or the portal."""
        if name not in self.callers:
            raise UnknownPolicyNameError(f"there is no module {name!r}", nearest(name, self.callers))
        return name

    def named_calls(self) -> list[tuple[str, str]]:
        """Every (callee, call) that exists, by the names people use."""
        return [(callee, call_name(contract, method)) for callee, contract, method in self.calls()]

    def leaves(self) -> list[str]:
        """Every action that is not a whole contract."""
        return [
            *PLAIN,
            *FOR_SECRETS,
            *(call_name(contract, method) for _, contract, method in self.calls() if contract),
        ]

    def _schema(self, *, present: bool) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "owner": {"type": "String", "required": False},
            "tags": _SET_OF_STRINGS,
        }
        for given in self.modules.values():
            for name, value in given.items():
                if name not in attributes:
                    attributes[name] = {
                        **_CEDAR_TYPES.get(cast("type[Any]", type(value)), _SET_OF_STRINGS),
                        "required": False,
                    }
        actions: dict[str, Any] = {plain: self._applies(present) for plain in PLAIN}
        actions[HTTP] = self._applies(present, _HTTP_CONTEXT)
        for contract, (_, methods) in self.contracts.items():
            actions[contract] = {}
            for method in methods:
                given = self.arguments.get(call_name(contract, method))
                args = given.schema if given is not None else _NO_ARGUMENTS
                actions[f"{contract}.{method}"] = {
                    "memberOf": [{"id": contract}],
                    **self._applies(present, {"args": args}),
                }
        for action in FOR_SECRETS:
            actions[action] = self._applies(present, to="Secret")
        return {
            "entityTypes": {
                "Module": {"shape": {"type": "Record", "attributes": attributes}},
                "Secret": {},
                "Role": {},
                "Agent": {},
                "User": {
                    "memberOfTypes": ["Role"],
                    "shape": {"type": "Record", "attributes": self._user_attributes()},
                },
            },
            "actions": actions,
        }

    def _applies(self, present: bool, more: Mapping[str, Any] | None = None, *, to: str = "Module") -> dict[str, Any]:
        context: dict[str, Any] = {
            "user": {"type": "Entity", "name": "User", "required": present},
            "agent": {"type": "Entity", "name": "Agent", "required": present},
            "chain": {"type": "Set", "element": {"type": "Entity", "name": "Module"}},
            **(more or {}),
        }
        return {
            "appliesTo": {
                "principalTypes": ["Module"],
                "resourceTypes": [to],
                "context": {"type": "Record", "attributes": context},
            }
        }

    def _user_attributes(self) -> dict[str, Any]:
        return {
            **{name: {"type": kind} for name, kind in USER_ATTRIBUTES.items()},
            "scopes": {**_SET_OF_STRINGS, "required": False},
            **{
                name: {"type": OWN_ATTRIBUTES[kind][0], "required": False}
                for name, kind in self.vocabulary.user_attributes.items()
            },
        }


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The remedy for a wrong name."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Known are: {shown}."


def _parsed(schema: dict[str, Any]) -> cedarpy.Schema:
    return cedarpy.Schema.from_json_str(json.dumps({"": schema}))


def _values(attributes: Mapping[str, Any]) -> dict[str, Value]:
    return {
        name: as_set(cast("list[Any]", value)) if isinstance(value, list) else value
        for name, value in attributes.items()
    }
