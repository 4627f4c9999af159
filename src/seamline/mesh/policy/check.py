"""What can be wrong with policies that are Cedar: names that do not exist, and what can never apply or hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import cast

from seamline.mesh.errors import PolicyError, PolicyTypeError, UnknownPolicyNameError
from seamline.mesh.policy import cedar
from seamline.mesh.policy.source import SourcePolicy
from seamline.mesh.policy.world import PLAIN, World, nearest

_KINDS = ("Module", "Action", "User", "Role", "Agent", "Secret")
_OPTIONAL = re.compile(r"access to optional attribute `(?P<name>[\w.]+)` (?P<of>in context|on entity type `\w+`)")
_MISSING = re.compile(r"attribute `(?P<name>[\w.]+)` .*not found")
_OF = {
    "in context": ("in every call", "context.args"),
    "on entity type `User`": ("on every user", "context.user"),
    "on entity type `Module`": ("on every module", "principal"),
}
_FOR_POLICY = re.compile(r"^for policy `[^`]*`, ")


def check(world: World, policies: Sequence[SourcePolicy]) -> list[PolicyError]:
    """Names that do not exist, policies that can never apply, and what Cedar's own validator finds."""
    errors: list[PolicyError] = []
    sound: list[SourcePolicy] = []
    for policy in policies:
        found = [*_unknown_names(world, policy), *_never_applies(world, policy), *_marks_nothing(policy)]
        errors.extend(found)
        if not found:  # the validator would say the same again, less well
            sound.append(policy)
    errors.extend(_ill_typed(world, sound))
    return errors


def _ill_typed(world: World, policies: Sequence[SourcePolicy]) -> Iterator[PolicyTypeError]:
    """What Cedar's validator finds.

    Whether anybody is signed in is known when a call is made: a policy that needs somebody then does not hold. So a
    user is taken to be there; but what follows ``!(context has user)`` is read, too.
    """
    text = "\n".join(policy.text for policy in policies)
    findings = list(cedar.validate(text, world.schema).errors)
    findings += [each for each in cedar.validate(text, world.lenient).errors if _MISSING.search(each.error)]
    for number, message in dict.fromkeys((each.policy_id, each.error) for each in findings):
        yield _type_error(policies[int(number.removeprefix("policy"))], _FOR_POLICY.sub("", message))


def _unknown_names(world: World, policy: SourcePolicy) -> Iterator[UnknownPolicyNameError]:
    actions = [*world.leaves(), *world.contracts]
    seen = set[tuple[str, str]]()
    for kind, name in _entities_in(policy.body):
        if (kind, name) in seen:
            continue
        seen.add((kind, name))
        place = policy.line_of(f'"{name}"')
        if kind == "Module" and name not in world.callers:
            yield UnknownPolicyNameError(f"there is no module {name!r}", nearest(name, world.callers), place=place)
        elif kind == "Action" and name not in actions:
            yield UnknownPolicyNameError(
                f"there is no method or contract {name!r}", nearest(name, actions), place=place
            )
        elif kind in ("Role", "Agent"):
            declared = world.vocabulary.roles if kind == "Role" else world.vocabulary.agents
            if name not in declared:
                what = kind.lower()
                remedy = nearest(name, declared) if declared else f'Declare it in [policy]: {what}s = ["{name}"].'
                yield UnknownPolicyNameError(f"there is no {what} {name!r}", remedy, place=place)
        elif kind not in _KINDS:
            yield UnknownPolicyNameError(
                f'{kind}::"{name}" does not exist: the entities are {", ".join(_KINDS[:-1])} and {_KINDS[-1]}',
                nearest(kind, _KINDS),
                place=place,
            )


def _never_applies(world: World, policy: SourcePolicy) -> Iterator[PolicyTypeError]:
    """``resource == Module::"orders"`` with a method of payments is a mistake that Cedar cannot see."""
    resource, action = policy.body["resource"], policy.body["action"]
    named = [action["entity"]] if "entity" in action else action.get("entities", [])
    owners = {
        owner for owner in (world.contracts.get(entity["id"].split(".")[0], ("", ()))[0] for entity in named) if owner
    }
    if resource["op"] != "==" or not owners or any(entity["id"] in PLAIN for entity in named):
        return
    module = resource["entity"]["id"]
    if module in world.callers and module not in owners:
        right = " or ".join(f'resource == Module::"{owner}"' for owner in sorted(owners))
        yield PolicyTypeError(
            f"the policy can never apply: the action does not belong to {module!r}",
            f"Write {right}.",
            place=policy.line_of(f'"{module}"'),
        )


def _marks_nothing(policy: SourcePolicy) -> Iterator[PolicyTypeError]:
    if policy.audit and policy.effect == "forbid":
        yield PolicyTypeError(
            "`@audit` at a forbid marks nothing: what is denied is a line of audit anyway",
            "Write it at the permit whose calls are sensitive.",
            place=policy.line_of("@audit"),
        )


def _type_error(policy: SourcePolicy, message: str) -> PolicyTypeError:
    optional = _OPTIONAL.search(message)
    if optional is not None:
        name = optional["name"].rpartition(".")[2]
        what, ask = _OF[optional["of"]]
        return PolicyTypeError(
            f"attribute {name!r} is not {what}",
            f"Ask first: `{ask} has {name} && ...`.",
            place=policy.line_of(f".{name}"),
        )
    missing = _MISSING.search(message)
    if missing is None:
        return PolicyTypeError(message, "Correct the condition.", place=policy.place)
    name = missing["name"].rpartition(".")[2]
    return PolicyTypeError(message, _of_missing(missing["name"]), place=policy.line_of(f".{name}"))


def _of_missing(name: str) -> str:
    if name == "args" or name.startswith("args."):
        return (
            "Policy reads the arguments that the contract lets it read: `Annotated[T, Attribute]`. "
            "Name the one method that has it in the policy's head."
        )
    return "Correct the condition."


def _entities_in(node: object) -> Iterator[tuple[str, str]]:
    """Every (type, id) named in a policy's JSON form; the scope and the conditions spell them differently."""
    if isinstance(node, list):
        for item in cast("list[object]", node):
            yield from _entities_in(item)
    elif isinstance(node, dict):
        mapping = cast("dict[str, object]", node)
        for key, value in mapping.items():
            if key in {"entity", "__entity"} and isinstance(value, dict):
                entity = cast("dict[str, str]", value)
                yield entity["type"], entity["id"]
            elif key == "entities" and isinstance(value, list):
                for entity in cast("list[dict[str, str]]", value):
                    yield entity["type"], entity["id"]
            else:
                yield from _entities_in(value)
