"""The policy in force: deny by default, asked as a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seamline.mesh.errors import PolicyError
from seamline.mesh.policy import cedar
from seamline.mesh.policy.source import SourcePolicy, parse, policy_set
from seamline.mesh.policy.world import EVENTS, HTTP, VIEWS, World, call_name

_Key = tuple[str, str, str, str]

# A module may call itself: it is no stranger to itself. A written forbid still wins.
_BUILT_IN = '@id("a module may call itself") permit(principal, action, resource) when { principal == resource };\n'
_BUILT_IN_FILE = "built-in"


@dataclass(frozen=True, slots=True)
class Reason:
    """One policy that decided."""

    place: str
    name: str
    effect: str
    text: str


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
        }


class _Table(dict[_Key, bool]):
    """Decisions of one policy text; a first ask evaluates Cedar (about 0.1 ms), later ones are a look-up.

    Only what the application knows is remembered, so that strange names cannot fill the memory.
    """

    def __init__(self, world: World, policies: Sequence[SourcePolicy]) -> None:
        super().__init__()
        self.world = world
        self.policies = {policy.place: policy for policy in policies}
        self.set = policy_set(policies)
        self.denials: dict[_Key, tuple[str, str]] = {}

    def __missing__(self, key: _Key) -> bool:
        if not self.world.knows(*key):
            return False
        self[key] = allowed = self.evaluate(key)[0]
        return allowed

    def evaluate(self, key: _Key) -> tuple[bool, list[SourcePolicy]]:
        """The decision and the policies that made it."""
        return self.evaluate_all([key])[0]

    def evaluate_all(self, keys: Sequence[_Key]) -> list[tuple[bool, list[SourcePolicy]]]:
        requests = [self.world.request(*key) for key in keys]
        results = cedar.decide(requests, self.set, self.world.entities)
        # Cedar passes over a policy that fails to evaluate, a forbid too; whoever cannot be judged is refused.
        return [
            (
                result.allowed and not result.diagnostics.errors,
                [self.policies[place] for place in sorted(result.diagnostics.reasons)],
            )
            for result in results
        ]


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
    ) -> Policy:
        """Read ``folder/*.cedar``; a folder that is not there permits nothing.

        ``modules``: name to attributes (``owner``, ``tags``, any ``str``, ``int``, ``bool`` or list of ``str``).
        ``contracts``: contract name to (module, method names).
        Raises PolicyError with file, line and the nearest right name; its ``findings`` hold all of them.
        """
        return cls(folder, World(modules, contracts), _read(folder))

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        modules: Mapping[str, Mapping[str, Any]],
        contracts: Mapping[str, tuple[str, Sequence[str]]],
    ) -> Policy:
        """A policy without a folder, for tests and tools."""
        return cls(None, World(modules, contracts), {"policy.cedar": text})

    def allows(self, caller: str, callee: str, contract: str, method: str) -> bool:
        """Whether ``caller`` may call; unknown names may not.

        ``contract=""`` with ``method="http"`` is public HTTP, with ``"events"`` the reading of the callee's events,
        with ``"views"`` the querying of its views.
        """
        return self._table[caller, callee, contract, method]

    def compile_table(self, callers: Iterable[str] | None = None) -> int:
        """Decide everything these callers (all by default) could ask, in one batch; returns the number decided."""
        table = self._table
        wanted = tuple(callers) if callers is not None else self.world.callers
        keys = [key for key in self._keys(wanted) if key not in table]
        for key, (allowed, _) in zip(keys, table.evaluate_all(keys), strict=True):
            table[key] = allowed
        return len(keys)

    def reload(self) -> int:
        """Read the folder again; returns the new epoch. A mistake raises, and the old policy stays in force."""
        if self.folder is not None:
            self._table = _build(self.world, _read(self.folder))
            self.epoch += 1
        return self.epoch

    def explain(self, caller: str, callee: str, contract: str, method: str) -> Explanation:
        """Which policies permitted or forbade, or the permit line that is missing."""
        key = (caller, callee, contract, method)
        known = self.world.knows(*key)
        allowed, deciding = self._table.evaluate(key) if known else (False, [])
        reasons = tuple(Reason(policy.place, policy.name, policy.effect, policy.text) for policy in deciding)
        call = call_name(contract, method)
        if allowed:
            fact = f"module {caller!r} may call {call!r} of {callee!r}"
            return Explanation(True, caller, callee, call, reasons, fact, "")
        fact = _denied(caller, callee, call)
        if not known:
            return Explanation(False, caller, callee, call, (), fact, "The application has no such module or method.")
        if reasons:
            names = ", ".join(reason.name for reason in reasons)
            return Explanation(False, caller, callee, call, reasons, fact, f"Forbidden by {names}: change it.")
        return Explanation(False, caller, callee, call, (), fact, _permit_remedy(caller, callee, call))

    def denial_text(self, caller: str, callee: str, contract: str, method: str) -> tuple[str, str]:
        """(fact, remedy) for a PermissionDenied; explained once and remembered, since denials can come in floods."""
        key = (caller, callee, contract, method)
        text = self._table.denials.get(key)
        if text is None:
            explanation = self.explain(*key)
            text = (explanation.fact, explanation.remedy)
            if self.world.knows(*key):
                self._table.denials[key] = text
        return text

    def permitted(self) -> list[tuple[str, str, str]]:
        """Every (caller, callee, call) that is allowed between different modules, in order."""
        self.compile_table()
        return [
            (caller, callee, call_name(contract, method))
            for caller, callee, contract, method in self._keys(self.world.callers)
            if caller != callee and self._table[caller, callee, contract, method]
        ]

    def _keys(self, callers: Iterable[str]) -> list[_Key]:
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
    findings: list[PolicyError] = [*syntax, *world.check(policies)]
    if findings:
        findings.sort(key=lambda finding: finding.place or "")
        findings[0].findings = tuple(findings)
        raise findings[0]
    built_in, _ = parse({_BUILT_IN_FILE: _BUILT_IN})
    return _Table(world, [*built_in, *policies])


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
