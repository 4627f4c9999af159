"""What people ask about the policy that is in force in a process. Answers are JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seamline.mesh.errors import PolicyError, UnknownPolicyNameError
from seamline.mesh.policy.asking import asking
from seamline.mesh.policy.policy import Policy
from seamline.mesh.policy.recording import recorded
from seamline.mesh.policy.source import SourcePolicy

Call = tuple[str, str, str]
"""Caller, callee and call, by the names people use."""
STATES = ("denied", "on conditions", "allowed")


class PolicyOperations:
    """Operations by name: ``overview``, ``explain``, ``diff`` and ``narrow``. None changes anything."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._operations: dict[str, Callable[..., Any]] = {
            "overview": self._overview,
            "explain": self._explain,
            "diff": self._diff,
            "narrow": self._narrow,
        }

    def run(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Raises PolicyError for what is not there, and TypeError for arguments that do not fit."""
        found = self._operations.get(operation)
        if found is None:
            raise UnknownPolicyNameError(
                f"there is no operation {operation!r} on policies", f"Known: {', '.join(self._operations)}."
            )
        return found(**{name: value for name, value in arguments.items() if name != "module"})

    def _overview(self) -> dict[str, Any]:
        """Every policy with its text, every call there is, and who may make it."""
        policy = self._policy
        conditional = set(policy.conditional())
        return {
            "policies": [_shown(each) for each in policy.policies],
            "callers": list(policy.world.callers),
            "calls": [{"callee": callee, "call": call} for callee, call in policy.world.named_calls()],
            "permitted": [
                {"caller": a, "callee": b, "call": c, "conditional": (a, b, c) in conditional}
                for a, b, c in policy.permitted()
            ],
            "roles": list(policy.world.vocabulary.roles),
            "agents": list(policy.world.vocabulary.agents),
            "attributes": dict(policy.world.vocabulary.user_attributes),
            "arguments": {name: each.schema for name, each in policy.world.arguments.items()},
            "elsewhere": policy.point is not None,
            "differences": [
                {
                    "caller": caller,
                    "callee": callee,
                    "call": ".".join(filter(None, call)),
                    "allowed": allowed,
                    "count": n,
                }
                for ((caller, callee, *call), allowed), n in policy.differences.items()
            ],
        }

    def _explain(
        self, caller: str, call: str, callee: str | None = None, request: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Which policy decides, and what it looked at. ``request`` is what ``tests.toml`` may say of one."""
        policy = self._policy
        resolved = policy.world.resolve(call, callee or None)
        asked = asking(policy.world, resolved, request or {}, "")
        who = policy.world.caller(caller)
        return policy.explain(who, *resolved, asked.subject, asked.arguments, asked.more, closely=True).to_json()

    def _diff(self) -> dict[str, Any]:
        """What the policy to come would change; ``there`` is false where none is to come."""
        try:
            candidate = self._policy.candidate()
        except PolicyError as error:
            return {"there": True, "error": error.to_json(), "changes": []}
        if candidate is None:
            return {"there": False, "error": None, "changes": []}
        return {"there": True, "error": None, "changes": changes(self._policy, candidate)}

    def _narrow(self, seen: Iterable[Iterable[str]]) -> dict[str, Any]:
        """The files with only what was ``seen`` of their permits, as a diff."""
        wanted = {(caller, callee, call) for caller, callee, call in seen}
        found = recorded(self._policy.world, self._policy.texts(), wanted)
        return {"diff": found.diff, "unused": list(found.unused), "narrowed": list(found.narrowed)}


def changes(now: Policy, then: Policy) -> list[dict[str, str]]:
    """The calls that two policies judge differently, or on conditions that may differ."""
    before, after = _states(now), _states(then)
    return [
        {**dict(zip(("caller", "callee", "call"), call, strict=True)), "now": STATES[old], "then": STATES[new]}
        for call in sorted(before.keys() | after.keys())
        for old, new in ((before.get(call, 0), after.get(call, 0)),)
        if old != new or old == 1
    ]


def _states(policy: Policy) -> dict[Call, int]:
    conditional = set(policy.conditional())
    return {call: 1 if call in conditional else 2 for call in policy.permitted()}


def _shown(policy: SourcePolicy) -> dict[str, Any]:
    return {
        "place": policy.place,
        "name": policy.annotation or "",
        "effect": policy.effect,
        "text": policy.text,
        "audit": policy.audit,
    }
