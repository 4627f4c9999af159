"""Why a call is allowed or not, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seamline.mesh.policy.facts import Facts
from seamline.mesh.policy.looks import looks
from seamline.mesh.policy.rules import Condition, Conditional, Given, Key, Rule
from seamline.mesh.policy.source import SourcePolicy
from seamline.mesh.policy.values import EvaluationError, Value
from seamline.mesh.policy.world import EVENTS, HTTP, VIEWS, call_name

if TYPE_CHECKING:
    from seamline.module.principal import Subject

_OUTCOMES = {True: "applies", False: "does not apply"}

Request = tuple["Subject | None", Given, "Mapping[str, Value] | None"]
"""On whose behalf, with which arguments, and what else the context holds."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One policy that decided."""

    place: str
    name: str
    effect: str
    text: str


@dataclass(frozen=True, slots=True)
class Considered:
    """One policy whose answer depends on the request: what it said, and what it looked at."""

    name: str
    effect: str
    outcome: str
    """``applies``, ``does not apply``, or why it cannot be judged."""
    looks: tuple[tuple[str, str], ...]
    """Each comparison as Cedar writes it, and what came of it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a call is allowed or not. ``remedy`` is empty if it is allowed."""

    allowed: bool
    caller: str
    callee: str
    call: str
    reasons: tuple[Reason, ...]
    fact: str
    remedy: str
    considered: tuple[Considered, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "allowed": self.allowed,
            "caller": self.caller,
            "callee": self.callee,
            "call": self.call,
            "reasons": [
                {"place": reason.place, "name": reason.name, "effect": reason.effect, "text": reason.text}
                for reason in self.reasons
            ],
            "fact": self.fact,
            "remedy": self.remedy,
            "considered": [
                {
                    "name": each.name,
                    "effect": each.effect,
                    "outcome": each.outcome,
                    "looks": [{"at": at, "found": found} for at, found in each.looks],
                }
                for each in self.considered
            ],
        }


def explained(key: Key, rule: Rule | None, request: Request, *, closely: bool = False) -> Explanation:
    """Why the request is allowed or not. No rule is no such call; ``closely`` says what each condition looked at."""
    caller, callee, contract, method = key
    call = call_name(contract, method)
    fact = _denied(caller, callee, call)
    if rule is None:
        return Explanation(False, caller, callee, call, (), fact, "The application has no such module or method.")
    if not isinstance(rule, Condition):
        reasons = _reasons(rule.deciding)
        if rule.allowed:
            return Explanation(True, caller, callee, call, reasons, _allowed(caller, callee, call), "")
        remedy = _forbidden(reasons) if reasons else _permit_remedy(caller, callee, call)
        return Explanation(False, caller, callee, call, reasons, fact, remedy)
    return _of_condition(rule, call, request, closely=closely)


def _of_condition(rule: Condition, call: str, request: Request, *, closely: bool) -> Explanation:
    caller, callee, _, _ = rule.key
    facts = rule.facts(*request)
    against = [each.policy for each in rule.forbids if each.applies(facts) is not False]
    permits = [*rule.permitting, *(each.policy for each in rule.permits if each.applies(facts) is True)]
    considered = tuple(_considered(rule, each, facts) for each in (*rule.forbids, *rule.permits)) if closely else ()
    user = facts.user
    whom = f" for user {user.id!r}" if user is not None else " while nobody is signed in"
    if permits and not against:
        fact = _allowed(caller, callee, call) + whom
        return Explanation(True, caller, callee, call, _reasons(permits), fact, "", considered)
    fact = _denied(caller, callee, call) + whom
    reasons = _reasons(against)
    if rule.wants_user(facts):
        remedy = "Sign in; whether it is allowed then depends on who you are."
    elif closely and any(isinstance(each.applies(facts), EvaluationError) for each in rule.forbids):
        remedy = "What cannot be judged is forbidden. Give what it reads: `--arg PATH=VALUE`, `--attribute NAME=VALUE`."
    elif reasons:
        remedy = _forbidden(reasons)
    else:
        remedy = f"It is allowed only as {', '.join(each.policy.name for each in rule.permits)} says."
    return Explanation(False, caller, callee, call, reasons, fact, remedy, considered)


def _considered(rule: Condition, conditional: Conditional, facts: Facts) -> Considered:
    outcome = conditional.applies(facts)
    said = f"cannot be judged: {outcome}" if isinstance(outcome, EvaluationError) else _OUTCOMES[outcome]
    policy = conditional.policy
    return Considered(policy.name, policy.effect, said, tuple(looks(policy, rule.world.ground(*rule.key), facts)))


def _reasons(policies: Iterable[SourcePolicy]) -> tuple[Reason, ...]:
    return tuple(Reason(each.place, each.name, each.effect, each.text) for each in policies)


def _allowed(caller: str, callee: str, call: str) -> str:
    return f"module {caller!r} may call {call!r} of {callee!r}"


def _forbidden(reasons: Iterable[Reason]) -> str:
    return f"Forbidden by {', '.join(reason.name for reason in reasons)}: change it."


def _denied(caller: str, callee: str, call: str) -> str:
    if call == HTTP:
        return f"{caller!r} may not send public HTTP requests to module {callee!r}"
    if call == EVENTS:
        return f"{caller!r} may not read the events of module {callee!r}"
    if call == VIEWS:
        return f"{caller!r} may not query the views of module {callee!r}"
    return f"module {caller!r} may not call {call!r} of {callee!r}"


def _permit_remedy(caller: str, callee: str, call: str) -> str:
    line = f'permit(principal == Module::"{caller}", action == Action::"{call}", resource == Module::"{callee}");'
    return f"Add `{line}` to policy/{callee}.cedar; what runs takes it at `seamline policy reload`."
