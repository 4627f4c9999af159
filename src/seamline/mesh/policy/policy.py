"""The policy in force: deny by default, asked as a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.mesh.errors import PolicyError
from seamline.mesh.policy.arguments import Arguments
from seamline.mesh.policy.check import check
from seamline.mesh.policy.compiler import action_matches
from seamline.mesh.policy.explanation import Explanation, explained
from seamline.mesh.policy.rules import Condition, Key, Rule, make_rule
from seamline.mesh.policy.source import SourcePolicy, parse
from seamline.mesh.policy.values import Value
from seamline.mesh.policy.world import Vocabulary, World, call_name

if TYPE_CHECKING:
    from seamline.module.principal import Subject

# A module may call itself: it is no stranger to itself. A written forbid still wins.
_BUILT_IN = '@id("a module may call itself") permit(principal, action, resource) when { principal == resource };\n'
_BUILT_IN_FILE = "built-in"


class _Table(dict[Key, "bool | Condition"]):
    """What one policy text says of each call: made when it is first asked, a look-up afterwards.

    Only what the application knows is remembered, so that strange names cannot fill the memory.
    """

    def __init__(self, world: World, policies: Sequence[SourcePolicy]) -> None:
        super().__init__()
        self.world = world
        self.policies = tuple(policies)
        self.denials: dict[Key, tuple[str, str]] = {}
        self._by_action: dict[tuple[str, str], tuple[SourcePolicy, ...]] = {}

    def __missing__(self, key: Key) -> bool | Condition:
        if not self.world.knows(*key):
            return False
        rule = self.rule(key)
        self[key] = found = rule if isinstance(rule, Condition) else rule.allowed
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
    """Decides module-to-module calls and public HTTP by the Cedar files of one folder.

    ``epoch`` grows with each successful :meth:`reload`; whoever caches a decision compares it.
    """

    def __init__(self, folder: Path | None, world: World, texts: Mapping[str, str]) -> None:
        self.folder = folder
        self.world = world
        self.epoch = 1
        self._table = _build(world, texts)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        modules: Mapping[str, Mapping[str, Any]],
        contracts: Mapping[str, tuple[str, Sequence[str]]],
        arguments: Mapping[str, Arguments] | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> Policy:
        """Read ``folder/*.cedar``; a folder that is not there permits nothing.

        ``modules``: name to attributes (``owner``, ``tags``, any ``str``, ``int``, ``bool`` or list of ``str``).
        ``contracts``: contract name to (module, method names).
        ``arguments``: by full name of the method, what its contract lets policy read of its arguments.
        ``vocabulary``: the roles, agents and attributes of users that policies may name.
        Raises PolicyError with file, line and the nearest right name; its ``findings`` hold all of them.
        """
        world = World(modules, contracts, arguments or {}, vocabulary or Vocabulary())
        return cls(folder, world, _read(folder))

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        modules: Mapping[str, Mapping[str, Any]],
        contracts: Mapping[str, tuple[str, Sequence[str]]],
        arguments: Mapping[str, Arguments] | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> Policy:
        """A policy without a folder, for tests and tools."""
        world = World(modules, contracts, arguments or {}, vocabulary or Vocabulary())
        return cls(None, world, {"policy.cedar": text})

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
        arguments: tuple[Any, ...] | None = None,
        more: Mapping[str, Value] | None = None,
    ) -> bool:
        """Whether this very call is allowed.

        ``arguments`` are the handler's, in the order of the method's parameters; ``more`` is what the context of
        public HTTP holds.
        """
        decision = self._table[caller, callee, contract, method]
        return decision if isinstance(decision, bool) else decision(subject, arguments, more)

    def may(self, caller: str, callee: str, contract: str, method: str) -> bool:
        """Whether somebody's call, with some arguments, might be allowed."""
        return self._table[caller, callee, contract, method] is not False

    def wants_user(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: tuple[Any, ...] | None = None,
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
        if self.folder is not None:
            self._table = _build(self.world, _read(self.folder))
            self.epoch += 1
        return self.epoch

    def explain(
        self,
        caller: str,
        callee: str,
        contract: str,
        method: str,
        subject: Subject | None = None,
        arguments: tuple[Any, ...] | None = None,
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
        arguments: tuple[Any, ...] | None = None,
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
            if isinstance(self._table[caller, callee, contract, method], Condition)
        ]

    def _keys(self, callers: Iterable[str]) -> list[Key]:
        return [(caller, *call) for caller in callers for call in self.world.calls()]


def _read(folder: Path) -> dict[str, str]:
    try:
        return {
            f"{folder.name}/{path.name}": path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cedar"))
        }
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"a policy file cannot be read: {error}", "It must be readable UTF-8 text.") from error


def _build(world: World, texts: Mapping[str, str]) -> _Table:
    policies, syntax = parse(texts)
    findings: list[PolicyError] = [*syntax, *check(world, policies)]
    if findings:
        findings.sort(key=lambda finding: finding.place or "")
        findings[0].findings = tuple(findings)
        raise findings[0]
    built_in, _ = parse({_BUILT_IN_FILE: _BUILT_IN})
    return _Table(world, [*built_in, *policies])
