"""The least that was needed: a policy's permits narrowed to the calls that were seen, as a diff for review.

Nothing is loosened: forbids and conditions stay as they are, and a permit loses only what nobody used. What was
never used within the time of observation may be needed on other days; so people decide.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from seamline.mesh.policy.compiler import Fails, Known, Uncompiled, compile_policy
from seamline.mesh.policy.rules import Key
from seamline.mesh.policy.source import SourcePolicy, parse, statements
from seamline.mesh.policy.world import FOR_SECRETS, World, call_name

_HEAD = re.compile(r"\b(?:permit|forbid)\s*\(")
_PRINCIPAL = re.compile(r"\(\s*(principal\b)\s*,")
_ACTION = re.compile(r",\s*(action\b(?:\s*(?:==|in)\s*(?:Action::\"[^\"]*\"|\[[^\]]*\]))?)")
_RESOURCE = re.compile(r",\s*(resource\b)\s*,?\s*\)")
Seen = frozenset[tuple[str, str, str]]
"""(caller, callee, call)."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of a policy: its files with only what was seen, and the names of permits that nobody used."""

    files: Mapping[str, str]
    unused: tuple[str, ...]
    narrowed: tuple[str, ...]
    diff: str


def recorded(world: World, files: Mapping[str, str], seen: Iterable[tuple[str, str, str]]) -> Recording:
    """Narrow the Cedar files (name to text) to the calls that were seen."""
    wanted = frozenset(each for each in seen if each[0] != each[1])
    policies = {policy.place: policy for policy in parse(files)[0]}
    unused: list[str] = []
    narrowed: list[str] = []
    made: dict[str, str] = {}
    for name, text in files.items():
        parts: list[str] = []
        rest = text
        for place, statement in _placed(name, text):
            before, _, rest = rest.partition(statement)
            policy = policies.get(place)
            kept = _narrowed(world, policy, statement, wanted) if policy is not None else statement
            if kept != statement and policy is not None:
                (narrowed if kept else unused).append(policy.name)
            parts += [before, kept]
        made[name] = _tidy("".join(parts) + rest) if unused or narrowed else text
    return Recording(made, tuple(unused), tuple(narrowed), _diff(files, made))


def _placed(file: str, text: str) -> Iterator[tuple[str, str]]:
    """Each statement under the place that ``parse`` gives its policy."""
    count: dict[str, int] = {}
    for line, statement in statements(text):
        place = f"{file}:{line}"
        count[place] = count.get(place, 0) + 1
        yield (place if count[place] == 1 else f"{place}#{count[place]}"), statement


def _narrowed(world: World, policy: SourcePolicy, statement: str, seen: Seen) -> str:
    """The statement with what was used of it; empty if nothing was."""
    if policy.effect == "forbid" or _about_secrets(policy):
        return statement
    covered = [key for key in _keys(world) if _covers(world, policy, key)]
    used = [key for key in covered if _named(key) in seen]
    if not used:
        return ""
    if len(used) == len(covered):
        return statement
    groups = _groups(policy, used)
    return "\n".join(_rewritten(statement, policy, group) for group in groups)


def _groups(policy: SourcePolicy, used: Sequence[Key]) -> list[list[Key]]:
    """The calls, together where one head can say them: a head names one principal, and one resource or any."""
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in used:
        caller = key[0] if policy.body["principal"]["op"] == "All" else ""
        callee = key[1] if policy.body["resource"]["op"] == "All" and not key[2] else ""
        groups.setdefault((caller, callee), []).append(key)
    return list(groups.values())


def _rewritten(statement: str, policy: SourcePolicy, keys: Sequence[Key]) -> str:
    head = _HEAD.search(statement)
    assert head is not None
    start = head.end() - 1
    before, after = statement[:start], statement[start:]
    if policy.body["principal"]["op"] == "All":
        after = _put(_PRINCIPAL, after, f'principal == Module::"{keys[0][0]}"')
    if policy.body["resource"]["op"] == "All" and not keys[0][2]:
        after = _put(_RESOURCE, after, f'resource == Module::"{keys[0][1]}"')
    names = sorted({call_name(*key[2:]) for key in keys})
    actions = ", ".join(f'Action::"{name}"' for name in names)
    return before + _put(_ACTION, after, f"action == {actions}" if len(names) == 1 else f"action in [{actions}]")


def _put(pattern: re.Pattern[str], text: str, words: str) -> str:
    match = pattern.search(text)
    return text if match is None else text[: match.start(1)] + words + text[match.end(1) :]


def _covers(world: World, policy: SourcePolicy, key: Key) -> bool:
    try:
        term = compile_policy(policy.body, world.ground(*key))
    except Uncompiled:
        return True
    return not (isinstance(term, Fails) or term == Known(False))


def _keys(world: World) -> list[Key]:
    return [(caller, *call) for caller in world.callers for call in world.calls() if caller != call[0]]


def _named(key: Key) -> tuple[str, str, str]:
    return key[0], key[1], call_name(*key[2:])


def _about_secrets(policy: SourcePolicy) -> bool:
    action = policy.body["action"]
    named = [action["entity"]] if "entity" in action else action.get("entities", [])
    return any(entity["id"] in FOR_SECRETS for entity in named)


def _tidy(text: str) -> str:
    """Without the gaps that removed policies left."""
    return re.sub(r"\n{3,}", "\n\n", text)


def _diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    lines: list[str] = []
    for name, text in before.items():
        lines += difflib.unified_diff(
            text.splitlines(keepends=True), after[name].splitlines(keepends=True), f"a/{name}", f"b/{name}"
        )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
