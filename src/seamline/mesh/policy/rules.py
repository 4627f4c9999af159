"""What is to be said of one call: always, never, or a :class:`Condition` on who asks and with which arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Union, cast

from seamline.mesh.policy import cedar
from seamline.mesh.policy.compiler import Ask, Asked, Fails, Known, Uncompiled, compile_policy
from seamline.mesh.policy.facts import Facts
from seamline.mesh.policy.source import SourcePolicy, policy_set
from seamline.mesh.policy.values import EvaluationError, Value, to_json
from seamline.mesh.policy.world import World, call_name

if TYPE_CHECKING:
    from seamline.module.principal import Subject

Key = tuple[str, str, str, str]
"""Caller, callee, contract, method."""


Given = Union["tuple[Any, ...]", "Mapping[str, Value]", None]
"""The arguments as the handler gets them, in the order of the method's parameters; or ready as ``context.args``."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """A policy whose answer depends on the request."""

    policy: SourcePolicy
    ask: Ask
    reads_user: bool

    def applies(self, facts: Facts) -> bool | EvaluationError:
        """Whether it applies, or why that cannot be said."""
        try:
            return self.ask(facts)
        except EvaluationError as error:
            return error
        except Exception as error:  # a value of the application's own making that fails when it is looked at
            return EvaluationError(f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Condition:
    """The policies that decide one call, as far as they can hold at all.

    A permit that cannot be judged does not permit; a forbid that cannot be judged forbids.
    """

    world: World
    key: Key
    permitting: tuple[SourcePolicy, ...]
    """Permits that hold for every request."""
    permits: tuple[Conditional, ...]
    forbids: tuple[Conditional, ...]
    candidate: Candidate | None = None
    """What the policy to come says of the call; it is told of, and decides nothing."""

    @property
    def possible(self) -> bool:
        """Whether it might allow somebody something."""
        return bool(self.permitting or self.permits)

    def __call__(
        self, subject: Subject | None, arguments: Given = None, more: Mapping[str, Value] | None = None
    ) -> bool:
        """Whether the call is allowed. ``more`` is of public HTTP."""
        allowed = self._judge(self.facts(subject, arguments, more))
        candidate = self.candidate
        if candidate is not None:
            other = candidate.decision
            if (other if isinstance(other, bool) else other(subject, arguments, more)) is not allowed:
                candidate.differs(self.key, allowed, subject)
        return allowed

    def _judge(self, facts: Facts) -> bool:
        try:
            for forbid in self.forbids:
                if forbid.ask(facts):
                    return False
        except Exception:  # whoever cannot be judged is refused
            return False
        if self.permitting:
            return True
        for permit in self.permits:
            try:
                if permit.ask(facts):
                    return True
            except Exception:  # noqa: S112  # a permit that cannot be judged does not permit, but another may
                continue
        return False

    def facts(self, subject: Subject | None, arguments: Given = None, more: Mapping[str, Value] | None = None) -> Facts:
        """The request as the policies read it."""
        own = self.world.vocabulary.user_attributes
        return Facts(subject, self._arguments(arguments), more, own)

    def _arguments(self, arguments: Given) -> Callable[[], Value] | None:
        _, _, contract, method = self.key
        if not contract or arguments is None:
            return None
        declared = self.world.arguments.get(call_name(contract, method))
        if declared is None:
            return dict[str, Value]
        if not isinstance(arguments, tuple):
            return lambda: arguments
        read = declared.read
        return lambda: read(arguments)

    def wants_user(self, facts: Facts) -> bool:
        """Of a refused call: whether nobody is signed in, and somebody might have been let in."""
        if facts.user is not None:
            return False
        against = [each for each in self.forbids if each.applies(facts) is not False]
        if against:
            return all(each.reads_user for each in against)
        return any(each.reads_user for each in self.permits)


Differs = Callable[[Key, bool, "Subject | None"], None]
"""Told of a call about which the policy to come thinks otherwise, and what was decided."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the policy to come says of one call."""

    decision: bool | Condition
    differs: Differs


class Elsewhere(Condition):
    """A call that another decision point decides, which takes waiting: let through here, asked before the handler."""

    __slots__ = ()

    @property
    def possible(self) -> bool:
        return True

    def __call__(self, *_: object) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Settled:
    """A call about which nothing depends on the request: the policies that decide, and whether it is allowed."""

    allowed: bool
    deciding: tuple[SourcePolicy, ...]


Rule = Union[Settled, Condition]  # noqa: UP007  # an alias must be a value


def make_rule(world: World, key: Key, policies: Sequence[SourcePolicy]) -> Rule:
    """What the policies say of one call."""
    ground = world.ground(*key)
    permitting: list[SourcePolicy] = []
    forbidding: list[SourcePolicy] = []
    permits: list[Conditional] = []
    forbids: list[Conditional] = []
    for policy in policies:
        permit = policy.effect == "permit"
        try:
            term = compile_policy(policy.body, ground)
        except (Uncompiled, RecursionError):
            term = Asked(_by_cedar(world, key, policy))
        if isinstance(term, Asked):
            (permits if permit else forbids).append(Conditional(policy, term.ask, reads_user(policy.body)))
        elif term == Known(True) or (isinstance(term, Fails) and not permit):
            (permitting if permit else forbidding).append(policy)
    if forbidding:
        return Settled(False, tuple(forbidding))
    if forbids or (permits and not permitting):
        return Condition(world, key, tuple(permitting), tuple(permits), tuple(forbids))
    return Settled(bool(permitting), tuple(permitting))


def compared(world: World, key: Key, rule: Rule, other: bool | Condition, differs: Differs) -> bool | Condition:
    """The rule, with the policy to come beside it where the two may differ."""
    if isinstance(rule, Condition):
        return replace(rule, candidate=Candidate(other, differs))
    if rule.allowed is other:
        return rule.allowed
    permitting = rule.deciding if rule.allowed else ()
    return Condition(world, key, permitting, (), (), Candidate(other, differs))


def _by_cedar(world: World, key: Key, policy: SourcePolicy) -> Ask:
    """The policy alone, judged by Cedar itself: about 0.1 ms."""
    only = policy_set([policy])
    ground = world.ground(*key)
    request = {
        name: {"type": entity.type, "id": entity.id}
        for name, entity in (("principal", ground.principal), ("action", ground.action), ("resource", ground.resource))
    }

    def ask(facts: Facts) -> bool:
        whole = {**request, "context": to_json(facts.whole())}
        entities = cedar.with_added(world.entities, facts.entities_json())
        (result,) = cedar.decide([whole], only, entities)
        if result.diagnostics.errors:
            raise EvaluationError(result.diagnostics.errors[0])
        return bool(result.diagnostics.reasons)

    return ask


def reads_user(node: object) -> bool:
    """Whether a policy looks at ``context.user``, or at the context as a whole."""
    if isinstance(node, list):
        return any(map(reads_user, cast("list[object]", node)))
    if not isinstance(node, dict):
        return False
    mapping = cast("dict[str, Any]", node)
    if mapping.get("left") == {"Var": "context"} and "attr" in mapping:
        return mapping["attr"] == "user"
    return mapping == {"Var": "context"} or any(map(reads_user, mapping.values()))
