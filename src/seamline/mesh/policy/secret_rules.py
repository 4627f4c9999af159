"""Who may read and rotate which secret, by the same Cedar files, asked where no contract is known.

The process that keeps the secrets imports nothing of the application, so it cannot check the whole policy; whoever
loads the application does. A permit counts only if it names the action: ``permit(principal, action, resource)`` was
written with calls in mind and gives no secrets away. Every forbid counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import cedarpy

from seamline.mesh.policy import cedar
from seamline.mesh.policy.source import SourcePolicy, parse, policy_set
from seamline.mesh.policy.sources import Source
from seamline.mesh.policy.world import FOR_SECRETS, ROTATE, SECRET

_SCHEMA = {
    "": {
        "entityTypes": {
            "Module": {
                "shape": {
                    "type": "Record",
                    "attributes": {"tags": {"type": "Set", "element": {"type": "String"}}},
                }
            },
            "Secret": {},
        },
        "actions": {},
    }
}


class SecretRules:
    """What the policy says of secrets.

    Args:
        source: reads the policy.
        modules: the names of the application's modules.

    Raises PolicyError for a file that is not Cedar.
    """

    def __init__(self, source: Source, modules: Iterable[str]) -> None:
        self._source = source
        self._modules = tuple(modules)
        entities: list[dict[str, Any]] = [
            {"uid": {"type": "Module", "id": each}, "attrs": {"tags": []}, "parents": []} for each in modules
        ]
        schema = cedarpy.Schema.from_json_str(json.dumps(_SCHEMA))
        self._entities = cedar.entities(json.dumps(entities), schema)
        self._set = self._read()

    def reload(self) -> None:
        """Read the policy again. Raises PolicyError, and the old rules stay in force."""
        self._set = self._read()

    def _read(self) -> cedarpy.PolicySet:
        policies, mistakes = parse(self._source().current)
        if mistakes:
            raise mistakes[0]
        return policy_set(each for each in policies if each.effect == "forbid" or _names_secrets(each))

    def denial(self, module: str, action: str, secret: str) -> tuple[str, str] | None:
        """Why ``module`` may not, as (fact, remedy); None if it may. ``action`` is ``secret`` or ``rotate``."""
        if module in self._modules and self._allowed([(module, action, secret)])[0]:
            return None
        verb = "read" if action == SECRET else "rotate"
        line = f'permit(principal == Module::"{module}", action == Action::"{action}", resource == Secret::"{secret}");'
        return (
            f"module {module!r} may not {verb} the secret {secret!r}",
            f"Add `{line}` to policy/secrets.cedar; what runs takes it at `seamline policy reload`.",
        )

    def readers(self, secrets: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        """The modules that may read each of these."""
        keys = [(module, SECRET, secret) for secret in secrets for module in self._modules]
        found: dict[str, list[str]] = {}
        for (module, _, secret), allowed in zip(keys, self._allowed(keys), strict=True):
            found.setdefault(secret, []).extend([module] if allowed else [])
        return {secret: tuple(modules) for secret, modules in found.items()}

    def _allowed(self, keys: Iterable[tuple[str, str, str]]) -> list[bool]:
        requests = [_request(*key) for key in keys]
        if not requests:
            return []
        # Cedar passes over a policy that fails to evaluate, a forbid too; whoever cannot be judged is refused.
        return [
            result.allowed and not result.diagnostics.errors
            for result in cedar.decide(requests, self._set, self._entities)
        ]


def _request(module: str, action: str, secret: str) -> dict[str, Any]:
    assert action in {SECRET, ROTATE}
    return {
        "principal": {"type": "Module", "id": module},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Secret", "id": secret},
        "context": {},
    }


def _names_secrets(policy: SourcePolicy) -> bool:
    action = policy.body["action"]
    named = [action["entity"]] if "entity" in action else action.get("entities", [])
    return any(entity["id"] in FOR_SECRETS for entity in named)
