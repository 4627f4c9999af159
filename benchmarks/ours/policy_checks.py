"""``python -m benchmarks.ours.policy_checks``: what asking policy costs, in µs of CPU, with 50 policies.

``table`` is a module that may always call another, ``attribute`` a refund that a role and a sum decide; ``cedar`` is
the second asked of cedarpy, with policies and entities parsed beforehand and the user added. Answers each command
``{"blocks": n}`` with medians over n blocks of each, taken in turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Annotated, Any

import cedarpy

from benchmarks.driver import say
from seamline import Attribute, Contract, User
from seamline.mesh.policy import Policy, Vocabulary, arguments_of, cedar
from seamline.module import Subject, compile_contract

REPEATS = {"table": 20_000, "attribute": 2000, "cedar": 200}
MODULES = [f"module{number}" for number in range(12)]


@dataclass
class Money:
    cents: int
    currency: str


class Payments(Contract):
    async def refund(self, order: str, amount: Annotated[Money, Attribute]) -> None: ...

    async def rates(self) -> None: ...


FORBID = """
@id("who refunds how much")
forbid (principal, action == Action::"Payments.refund", resource)
unless {
  context.user in Role::"supervisor" ||
  (context.user in Role::"support" && context.args.amount.cents <= 5000)
};
"""


def text() -> str:
    """50 policies: two about payments for each module, others about public requests, and one with conditions."""
    lines = [
        f'permit (principal == Module::"{name}", action == Action::"Payments.{method}", resource);'
        for name in MODULES
        for method in ("refund", "rates")
    ]
    lines += [
        f'permit (principal == Module::"gateway", action == Action::"http", resource == Module::"{name}") '
        f'when {{ context.path like "/{name}/{part}*" }};'
        for name in MODULES
        for part in ("a", "b")
    ]
    return "\n".join([*lines, 'forbid (principal == Module::"module11", action == Action::"http", resource);', FORBID])


def main() -> None:
    spec = compile_contract(Payments)
    policy = Policy.from_text(
        text(),
        modules={name: {} for name in [*MODULES, "payments"]},
        contracts={"Payments": ("payments", list(spec.methods))},
        arguments=arguments_of(spec),
        vocabulary=Vocabulary(roles=("support", "supervisor")),
    )
    subject = Subject(User("ann", roles=frozenset({"support"})), chain=("module3",))
    arguments = ("o1", Money(4999, "EUR"))
    parsed = cedarpy.PolicySet.from_str(text())
    request: dict[str, Any] = {
        "principal": {"type": "Module", "id": "module3"},
        "action": {"type": "Action", "id": "Payments.refund"},
        "resource": {"type": "Module", "id": "payments"},
        "context": {
            "user": {"__entity": {"type": "User", "id": "ann"}},
            "chain": [{"__entity": {"type": "Module", "id": "module3"}}],
            "args": {"amount": {"cents": 4999, "currency": "EUR"}},
        },
    }
    ann = [{"uid": {"type": "User", "id": "ann"}, "attrs": {}, "parents": [{"type": "Role", "id": "support"}]}]

    def by_cedar() -> bool:
        return cedar.decide([request], parsed, cedar.with_added(policy.world.entities, ann))[0].allowed

    kinds: dict[str, Callable[[], object]] = {
        "table": lambda: policy.decision("module3", "payments", "Payments", "rates"),
        "attribute": lambda: policy.allows("module3", "payments", "Payments", "refund", subject, arguments),
        "cedar": by_cedar,
    }
    assert all(ask() is True for ask in kinds.values())
    say({"ready": True})
    for line in sys.stdin:
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, ask in kinds.items():
                taken[name].append(_block(ask, REPEATS[name]))
        say({name: median(values) for name, values in taken.items()})


def _block(ask: Callable[[], object], repeats: int) -> float:
    started = process_time()
    for _ in range(repeats):
        ask()
    return 1e6 * (process_time() - started) / repeats


if __name__ == "__main__":
    main()
