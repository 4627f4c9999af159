"""Table tests of the policy, kept beside it in ``policy/tests.toml``.

[[test]]
caller = "checkout"
call = "Payments.charge"     # or "http" together with to = "frontend"
expect = "allow"             # or "deny", or "sign-in": denied, and whoever signs in may be let in

user = "ann"                 # none is nobody; with roles, scopes, tenant, level, issuer, email, client, attributes
roles = ["support"]
args = { amount = { cents = 5000 } }  # what the contract lets policy read, by the names that policies use
agent = "helper"             # and chain = ["desk"]; of http, method = "GET" and path = "/"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from seamline.mesh.errors import PolicyTestError, UnknownPolicyNameError
from seamline.mesh.policy.asking import FIELDS, asking
from seamline.mesh.policy.explanation import Explanation
from seamline.mesh.policy.policy import Policy
from seamline.mesh.policy.world import nearest

_KEYS = frozenset({"caller", "call", "expect", "to", "name"})
ALLOW, DENY, SIGN_IN = "allow", "deny", "sign-in"


@dataclass(frozen=True, slots=True)
class Case:
    caller: str
    call: str
    expect: str
    to: str | None
    name: str
    place: str
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Who asks with what, as :mod:`~seamline.mesh.policy.asking` reads it."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    case: Case
    found: str
    explanation: Explanation

    @property
    def passed(self) -> bool:
        """``deny`` is met by ``sign-in``, too."""
        return self.found == self.case.expect or (self.case.expect == DENY and self.found == SIGN_IN)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.case.name,
            "caller": self.case.caller,
            "call": self.case.call,
            "to": self.explanation.callee,
            "expect": self.case.expect,
            "actual": self.found,
            "passed": self.passed,
            "reasons": [reason.name for reason in self.explanation.reasons],
        }


def read_cases(path: Path) -> list[Case]:
    """The tests of a file; raises PolicyTestError for anything that would silently test nothing."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolicyTestError("there are no policy tests", "Write a [[test]] table.", place=str(path)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyTestError(f"cannot be read: {error}", "It must be TOML.", place=path.name) from None
    tables = document.get("test")
    if not isinstance(tables, list) or not tables or set(document) != {"test"}:
        raise PolicyTestError("holds no [[test]] tables or something else", "Write [[test]] only.", place=path.name)
    return [_case(table, f"{path.name}: test {number}") for number, table in enumerate(cast("list[Any]", tables), 1)]


def run_cases(policy: Policy, cases: Sequence[Case]) -> list[CaseResult]:
    results: list[CaseResult] = []
    for case in cases:
        try:
            caller = policy.world.caller(case.caller)
            callee, contract, method = policy.world.resolve(case.call, case.to)
        except UnknownPolicyNameError as error:
            raise PolicyTestError(error.fact, error.remedy, place=case.place) from None
        request = asking(policy.world, (callee, contract, method), case.request, case.place)
        asked = (caller, callee, contract, method, request.subject, request.arguments, request.more)
        explanation = policy.explain(*asked)
        denied = SIGN_IN if policy.wants_user(*asked) else DENY
        results.append(CaseResult(case, ALLOW if explanation.allowed else denied, explanation))
    return results


def _case(table: Any, place: str) -> Case:
    if not isinstance(table, dict):
        raise PolicyTestError(f"{table!r} is not a table", "Write [[test]].", place=place)
    fields = cast("dict[str, Any]", table)
    for key in fields:
        if key not in _KEYS | FIELDS:
            raise PolicyTestError(f"there is no key {key!r}", nearest(key, _KEYS | FIELDS), place=place)
    for key in ("caller", "call", "expect"):
        if not isinstance(fields.get(key), str):
            raise PolicyTestError(f"{key!r} is missing", f'Write {key} = "...".', place=place)
    if fields["expect"] not in {ALLOW, DENY, SIGN_IN}:
        raise PolicyTestError(f"expect = {fields['expect']!r}", 'It is "allow", "deny" or "sign-in".', place=place)
    who = f" for {fields['user']}" if "user" in fields else ""
    name = fields.get("name") or f"{fields['caller']} -> {fields['call']}{who}"
    request = {key: value for key, value in fields.items() if key in FIELDS}
    return Case(fields["caller"], fields["call"], fields["expect"], fields.get("to"), name, place, request)
