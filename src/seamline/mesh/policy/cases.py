"""Table tests of the policy, kept beside it in ``policy/tests.toml``.

[[test]]
caller = "checkout"
call = "Payments.charge"     # or "http" together with to = "frontend"
expect = "allow"             # or "deny"
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from seamline.mesh.errors import PolicyTestError, UnknownPolicyNameError
from seamline.mesh.policy.explanation import Explanation
from seamline.mesh.policy.policy import Policy
from seamline.mesh.policy.world import nearest

_KEYS = frozenset({"caller", "call", "expect", "to", "name"})


@dataclass(frozen=True, slots=True)
class Case:
    caller: str
    call: str
    expect: str
    to: str | None
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    case: Case
    passed: bool
    explanation: Explanation

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.case.name,
            "caller": self.case.caller,
            "call": self.case.call,
            "to": self.explanation.callee,
            "expect": self.case.expect,
            "actual": "allow" if self.explanation.allowed else "deny",
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
        explanation = policy.explain(caller, callee, contract, method)
        results.append(CaseResult(case, explanation.allowed == (case.expect == "allow"), explanation))
    return results


def _case(table: Any, place: str) -> Case:
    if not isinstance(table, dict):
        raise PolicyTestError(f"{table!r} is not a table", "Write [[test]].", place=place)
    fields = cast("dict[str, Any]", table)
    for key in fields:
        if key not in _KEYS:
            raise PolicyTestError(f"there is no key {key!r}", nearest(key, _KEYS), place=place)
    for key in ("caller", "call", "expect"):
        if not isinstance(fields.get(key), str):
            raise PolicyTestError(f"{key!r} is missing", f'Write {key} = "...".', place=place)
    if fields["expect"] not in {"allow", "deny"}:
        raise PolicyTestError(f"expect = {fields['expect']!r}", 'It is "allow" or "deny".', place=place)
    name = fields.get("name") or f"{fields['caller']} -> {fields['call']}"
    return Case(fields["caller"], fields["call"], fields["expect"], fields.get("to"), name, place)
