"""The policy in force: deny by default, asked as a dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.kernel.signal import log
from seamline.mesh.errors import PolicyError
from seamline.mesh.policy.arguments import Arguments
from seamline.mesh.policy.check import check
from seamline.mesh.policy.compiler import action_matches
from seamline.mesh.policy.explanation import Explanation, explained
from seamline.mesh.policy.point import Answer, DecisionPoint, question
from seamline.mesh.policy.rules import Condition, Differs, Elsewhere, Given, Key, Rule, compared, make_rule
from seamline.mesh.policy.source import SourcePolicy, parse
from seamline.mesh.policy.sources import Source, Texts, in_folder
from seamline.mesh.policy.values import EvaluationError, Value
from seamline.mesh.policy.world import HTTP, Vocabulary, World, call_name

if TYPE_CHECKING:
    from seamline.module.principal import Subject

_log = log.get("seamline.policy")

# A module may call itself: it is no stranger to itself. A written forbid still wins.
_BUILT_IN = '@id("a module may call itself") permit(principal, action, resource) when { principal == resource };\n'
_BUILT_IN_FILE = "built-in"


class _Table(dict[Key, "bool | Condition"]):
    """What one policy text says of each call: made when it is first asked, a look-up afterwards.

    Only what the application knows is remembered, so that strange names cannot fill the memory.
    """

    def __init__(
        self,
        world: World,
        policies: Sequence[SourcePolicy],
        candidate: _Table | None,
        differs: Differs | None,
        *,
        elsewhere: bool,
    ) -> None:
        super().__init__()
        self._elsewhere = elsewhere
        self._candidate = candidate
        self._differs = differs
        self.world = world
        self.policies = tuple(policies)
        self.denials: dict[Key, tuple[str, str]] = {}
        self.audited: _Table | None = None
        """What the policies marked ``@audit`` permit; None where nobody marks any."""
        self._by_action: dict[tuple[str, str], tuple[SourcePolicy, ...]] = {}

    def __missing__(self, key: Key) -> bool | Condition:
        if not self.world.knows(*key):
            return False
        if self._elsewhere and (key[2] or key[3] == HTTP):
            self[key] = found = Elsewhere(self.world, key, (), (), ())
            return found
        rule = self.rule(key)
        found = rule if isinstance(rule, Condition) else rule.allowed
        if self._candidate is not None and self._differs is not None:
            found = compared(self.world, key, rule, self._candidate[key], self._differs)
        self[key] = found
        return found

    def rule(self, key: Key) -> Rule:
        """The decision with the policies that make it."""
        return make_rule(self.world, key, self._about(key))

    def _about(self, key: Key) -> tuple[SourcePolicy, ...]:
        """The policies whose head admits the action."""
        action = key[2:]
        found = self._by_action.get(action)
        if found is None:
            ground = self.world.ground(*key)
            found = tuple(policy for policy in self.policies if action_matches(policy.body, ground))
            self._by_action[action] = found
        return found


class Policy:
    """Decides module-to-module calls and public HTTP by Cedar files.

    ``epoch`` grows with each successful :meth:`reload`; whoever caches a decision compares it.
    """

    def __init__(self, source: Source, world: World, point: DecisionPoint | None = None) -> None:
        self.point = point
        """Who decides calls and public requests, if it is not the Cedar files."""
        self.world = world
        self.epoch = 1
        self.differences: Counter[tuple[Key, bool]] = Counter()
        """How often the policy to come would have decided otherwise, by call and by what was decided."""
        self._source = source
        self._table = self._read()

    @classmethod
    def load(
        cls,
        source: Source | Path,
        *,
        modules: Mapping[str, Mapping[str, Any]],
        contracts: Mapping[str, tuple[str, Sequence[str]]],
        arguments: Mapping[str, Arguments] | None = None,
        vocabulary: Vocabulary | None = None,
        point: DecisionPoint | None = None,
    ) -> Policy:
        """Read the policy from a folder with ``*.cedar`` files, or from elsewhere.

        ``modules``: name to attributes (``owner``, ``tags``, any ``str``, ``int``, ``bool`` or list of ``str``).
        ``contracts``: contract name to (module, method names).
        ``arguments``: by full name of the method, what its contract lets policy read of its arguments.
        ``vocabulary``: the roles, agents and attributes of users that policies may name.
        Raises PolicyError with file, line and the nearest right name; its ``findings`` hold all of them.
        """
        world = World(modules, contracts, arguments or {}, vocabulary or Vocabulary())
        return cls(in_folder(source) if isinstance(source, Path) else source, world, point)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        modules: Mapping[str, Mapping[str, Any]],
        contracts: Mapping[str, tuple[str, Sequence[str]]],
        arguments: Mapping[str, Arguments] | None = None,
        vocabulary: Vocabulary | None = None,
        point: DecisionPoint | None = None,
    ) -> Policy:
        """A policy without a folder, for tests and tools."""
        world = World(modules, contracts, arguments or {}, vocabulary or Vocabulary())
        return cls(lambda: Texts({"policy.cedar": text}), world, point)

    def candidate(self) -> Policy | None:
        """The policy to come, as one that decides; None if there is none. Raises PolicyError."""
        texts = self._source().candidate
        return Policy(lambda: Texts(texts), self.world) if texts else None

    @property
    def policies(self) -> Sequence[SourcePolicy]:
        """All in force, in the order of the files, the built-in one first."""
        return self._table.policies

    def texts(self) -> Mapping[str, str]:
        """The files as they are now: name to text. Raises PolicyError."""
        return self._source().current

    def _read(self) -> _Table:
        texts = self._source()
        candidate = _build(self.world, texts.candidate) if texts.candidate else None
        if self.point is not None:
            self.point.forget()
        return _build(self.world, texts.current, candidate, self._differs, elsewhere=self.point is not None)

    def _differs(self, key: Key, allowed: bool, subject: Subject | None) -> None:
        self.differences[key, allowed] += 1
        if self.differences[key, allowed] > 1:
            return
        caller, callee, contract, method = key
        user = subject.user if subject is not None else None
        _log.warning(
            "the policy to come would %s what is %s: %s calling %s of %s%s (told once; policy diff has all)",
            "refuse" if allowed else "allow",
            "allowed" if allowed else "refused",
            caller,
            call_name(contract, method),
            callee,
            f" for user {user.id!r}" if user is not None else "",
        )

    def decision(self, caller: str, callee: str, contract: str, method: str) -> bool | Condition:
        """True, False, or the condition on which ``caller`` may call; unknown names may not.

        ``contract=""`` with ``method="http"`` is public HTTP, with ``"events"`` the reading of the callee's events,
        with ``"views"`` the querying of its views.
        """
        return self._table[caller, callee, contract, method]

    def allows(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: Given = None,
        more: Mapping[str, Value] | None = None,
    ) -> bool:
        """Whether this very call is allowed; what another decision point decides is not (see :meth:`consult`).

        ``arguments`` are the handler's, in the order of the method's parameters; ``more`` is what the context of
        public HTTP holds.
        """
        decision = self._table[caller, callee, contract, method]
        if isinstance(decision, bool):
            return decision
        return not isinstance(decision, Elsewhere) and decision(subject, arguments, more)

    async def consult(
        self, decision: Elsewhere, subject: Subject | None, arguments: Given, more: Mapping[str, Value] | None = None
    ) -> Answer:
        """Ask the other decision point about a call."""
        assert self.point is not None
        try:
            asked = question(
                decision.key, decision.facts(subject, arguments, more), self.world.vocabulary.user_attributes
            )
        except EvaluationError as error:
            return Answer(False, str(error))
        return await self.point.ask(asked)

    def audits(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: Given = None,
        more: Mapping[str, Value] | None = None,
    ) -> bool:
        """Whether a policy marked ``@audit`` is among those that permit this very call, which is permitted."""
        audited = self._table.audited
        if audited is None:
            return False
        marked = audited[caller, callee, contract, method]
        return marked if isinstance(marked, bool) else marked(subject, arguments, more)

    def may_audit(self, callee: str, contract: str, method: str) -> bool:
        """Whether :meth:`audits` might be true of somebody's call."""
        audited = self._table.audited
        return audited is not None and any(
            audited[caller, callee, contract, method] is not False for caller in self.world.callers
        )

    def may(self, caller: str, callee: str, contract: str, method: str) -> bool:
        """Whether somebody's call, with some arguments, might be allowed."""
        decision = self._table[caller, callee, contract, method]
        return decision if isinstance(decision, bool) else decision.possible

    def wants_user(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: Given = None,
        more: Mapping[str, Value] | None = None,
    ) -> bool:
        """Of a refused call: whether nobody is signed in, and somebody might have been let in."""
        decision = self._table[caller, callee, contract, method]
        return isinstance(decision, Condition) and decision.wants_user(decision.facts(subject, arguments, more))

    def compile_table(self, callers: Iterable[str] | None = None) -> int:
        """Decide everything these callers (all by default) could ask; returns the number decided."""
        table = self._table
        wanted = tuple(callers) if callers is not None else self.world.callers
        keys = [key for key in self._keys(wanted) if key not in table]
        for key in keys:
            _ = table[key]
        return len(keys)

    def reload(self) -> int:
        """Read the folder again; returns the new epoch. A mistake raises, and the old policy stays in force."""
        self._table = self._read()
        self.differences.clear()
        self.epoch += 1
        return self.epoch

    def explain(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: Given = None,
        more: Mapping[str, Value] | None = None,
        *,
        closely: bool = False,
    ) -> Explanation:
        """Which policies permitted or forbade, or the permit line that is missing.

        ``closely`` says what the conditions looked at, too.
        """
        key = (caller, callee, contract, method)
        return explained(key, self._rule(key), (subject, arguments, more), closely=closely)

    def _rule(self, key: Key) -> Rule | None:
        return self._table.rule(key) if self.world.knows(*key) else None

    def denial_text(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: Given = None,
        more: Mapping[str, Value] | None = None,
    ) -> tuple[str, str]:
        """(fact, remedy) for a PermissionDenied; what depends on no request is explained once and remembered."""
        key = (caller, callee, contract, method)
        text = self._table.denials.get(key)
        if text is None:
            explanation = self.explain(*key, subject, arguments, more)
            text = (explanation.fact, explanation.remedy)
            if self._table[key] is False and self.world.knows(*key):
                self._table.denials[key] = text
        return text

    def permitted(self) -> list[tuple[str, str, str]]:
        """Every (caller, callee, call) that is, or on some condition may be, allowed between different modules."""
        return [
            (caller, callee, call_name(contract, method))
            for caller, callee, contract, method in self._keys(self.world.callers)
            if caller != callee and self.may(caller, callee, contract, method)
        ]

    def conditional(self) -> list[tuple[str, str, str]]:
        """Those of :meth:`permitted` whose answer depends on the user or the arguments."""
        return [
            (caller, callee, call_name(contract, method))
            for caller, callee, contract, method in self._keys(self.world.callers)
            if isinstance(self._table.rule((caller, callee, contract, method)), Condition)
        ]

    def _keys(self, callers: Iterable[str]) -> list[Key]:
        return [(caller, *call) for caller in callers for call in self.world.calls()]


def _build(
    world: World,
    texts: Mapping[str, str],
    candidate: _Table | None = None,
    differs: Differs | None = None,
    *,
    elsewhere: bool = False,
) -> _Table:
    policies, syntax = parse(texts)
    findings: list[PolicyError] = [*syntax, *check(world, policies)]
    if findings:
        findings.sort(key=lambda finding: finding.place or "")
        findings[0].findings = tuple(findings)
        raise findings[0]
    built_in, _ = parse({_BUILT_IN_FILE: _BUILT_IN})
    table = _Table(world, [*built_in, *policies], candidate, differs, elsewhere=elsewhere)
    marked = [policy for policy in policies if policy.audit]
    if marked and not elsewhere:
        table.audited = _Table(world, marked, None, None, elsewhere=False)
    return table
