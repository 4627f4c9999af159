"""The application as Cedar sees it: modules are principals and resources, methods are actions in contract groups."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import cedarpy

from seamline.mesh.errors import PolicyError, PolicyTypeError, UnknownPolicyNameError
from seamline.mesh.policy import cedar
from seamline.mesh.policy.source import SourcePolicy

GATEWAY = "gateway"
"""The principal of public HTTP requests."""
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
_FOR_POLICY = re.compile(r"^for policy `[^`]*`, ")


def call_name(contract: str, method: str) -> str:
    """``Payments.charge``; ``http``, ``events`` or ``views`` where there is no contract."""
    return f"{contract}.{method}" if contract else method


@dataclass(frozen=True)
class World:
    """Modules by name with their attributes; contracts by name with their module and methods.

    Attributes are ``str``, ``int``, ``bool`` or a list of ``str``. ``owner`` is optional, ``tags`` is always there.
    """

    modules: Mapping[str, Mapping[str, Any]]
    contracts: Mapping[str, tuple[str, Sequence[str]]]
    callers: tuple[str, ...] = field(init=False)
    entities: cedarpy.Entities = field(init=False, repr=False)
    schema: cedarpy.Schema = field(init=False, repr=False)

    def __post_init__(self) -> None:
        callers = tuple(dict.fromkeys((*self.modules, GATEWAY)))
        schema = cedarpy.Schema.from_json_str(json.dumps({"": self._schema()}))
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

    def request(self, caller: str, callee: str, contract: str, method: str) -> dict[str, Any]:
        return {
            "principal": {"type": "Module", "id": caller},
            "action": {"type": "Action", "id": call_name(contract, method)},
            "resource": {"type": "Module", "id": callee},
            "context": {},
        }

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
            raise UnknownPolicyNameError(f"there is no method {call!r}", nearest(call, self._leaves()))
        if callee is not None and callee != module:
            raise UnknownPolicyNameError(f"{contract!r} belongs to {module!r}, not to {callee!r}", f"Write {module!r}.")
        return module, contract, method

    def caller(self, name: str) -> str:
        """The name itself, if it is a module or the gateway."""
        if name not in self.callers:
            raise UnknownPolicyNameError(f"there is no module {name!r}", nearest(name, self.callers))
        return name

    def named_calls(self) -> list[tuple[str, str]]:
        """Every (callee, call) that exists, by the names people use."""
        return [(callee, call_name(contract, method)) for callee, contract, method in self.calls()]

    def check(self, policies: Sequence[SourcePolicy]) -> list[PolicyError]:
        """Names that do not exist, policies that can never apply, and what Cedar's own validator finds."""
        errors: list[PolicyError] = []
        sound: list[SourcePolicy] = []
        for policy in policies:
            found = [*self._unknown_names(policy), *self._never_applies(policy)]
            errors.extend(found)
            if not found:  # the validator would say the same again, less well
                sound.append(policy)
        result = cedar.validate("\n".join(policy.text for policy in sound), self.schema)
        for finding in result.errors:
            policy = sound[int(finding.policy_id.removeprefix("policy"))]
            errors.append(_type_error(policy, _FOR_POLICY.sub("", finding.error)))
        return errors

    def _schema(self) -> dict[str, Any]:
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
        applies: dict[str, Any] = {
            "principalTypes": ["Module"],
            "resourceTypes": ["Module"],
            "context": {"type": "Record", "attributes": {}},
        }
        actions: dict[str, Any] = {plain: {"appliesTo": applies} for plain in PLAIN}
        for contract, (_, methods) in self.contracts.items():
            actions[contract] = {}
            for method in methods:
                actions[f"{contract}.{method}"] = {"memberOf": [{"id": contract}], "appliesTo": applies}
        for action in FOR_SECRETS:
            actions[action] = {"appliesTo": {**applies, "resourceTypes": ["Secret"]}}
        return {
            "entityTypes": {"Module": {"shape": {"type": "Record", "attributes": attributes}}, "Secret": {}},
            "actions": actions,
        }

    def _leaves(self) -> list[str]:
        return [
            *PLAIN,
            *FOR_SECRETS,
            *(call_name(contract, method) for _, contract, method in self.calls() if contract),
        ]

    def _unknown_names(self, policy: SourcePolicy) -> Iterator[UnknownPolicyNameError]:
        actions = [*self._leaves(), *self.contracts]
        seen = set[tuple[str, str]]()
        for kind, name in _entities_in(policy.body):
            if (kind, name) in seen:
                continue
            seen.add((kind, name))
            place = policy.line_of(f'"{name}"')
            if kind == "Module" and name not in self.callers:
                yield UnknownPolicyNameError(f"there is no module {name!r}", nearest(name, self.callers), place=place)
            elif kind == "Action" and name not in actions:
                yield UnknownPolicyNameError(
                    f"there is no method or contract {name!r}", nearest(name, actions), place=place
                )
            elif kind not in {"Module", "Action", "Secret"}:
                yield UnknownPolicyNameError(
                    f'{kind}::"{name}" does not exist: the entities are Module, Action and Secret',
                    nearest(kind, ("Module", "Action", "Secret")),
                    place=place,
                )

    def _never_applies(self, policy: SourcePolicy) -> Iterator[PolicyTypeError]:
        """``resource == Module::"orders"`` with a method of payments is a mistake that Cedar cannot see."""
        resource, action = policy.body["resource"], policy.body["action"]
        named = [action["entity"]] if "entity" in action else action.get("entities", [])
        owners = {
            owner
            for owner in (self.contracts.get(entity["id"].split(".")[0], ("", ()))[0] for entity in named)
            if owner
        }
        if resource["op"] != "==" or not owners or any(entity["id"] in PLAIN for entity in named):
            return
        module = resource["entity"]["id"]
        if module in self.callers and module not in owners:
            right = " or ".join(f'resource == Module::"{owner}"' for owner in sorted(owners))
            yield PolicyTypeError(
                f"the policy can never apply: the action does not belong to {module!r}",
                f"Write {right}.",
                place=policy.line_of(f'"{module}"'),
            )


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The remedy for a wrong name."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Known are: {shown}."


def _type_error(policy: SourcePolicy, message: str) -> PolicyTypeError:
    optional = re.search(r"access to optional attribute `(\w+)`", message)
    if optional:
        name = optional.group(1)
        return PolicyTypeError(
            f"attribute {name!r} is not on every module",
            f"Ask first: `principal has {name} && ...`.",
            place=policy.line_of(f".{name}"),
        )
    return PolicyTypeError(message, "Correct the condition.", place=policy.place)


def _entities_in(node: object) -> Iterator[tuple[str, str]]:
    """Every (type, id) named in a policy's JSON form; the scope and the conditions spell them differently."""
    if isinstance(node, list):
        for item in cast("list[object]", node):
            yield from _entities_in(item)
    elif isinstance(node, dict):
        mapping = cast("dict[str, object]", node)
        for key, value in mapping.items():
            if key in {"entity", "__entity"} and isinstance(value, dict):
                entity = cast("dict[str, str]", value)
                yield entity["type"], entity["id"]
            elif key == "entities" and isinstance(value, list):
                for entity in cast("list[dict[str, str]]", value):
                    yield entity["type"], entity["id"]
            else:
                yield from _entities_in(value)
