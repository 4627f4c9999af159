"""What a policy looked at in one request: each comparison of its conditions, with what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import cedarpy

from seamline.mesh.policy.compiler import Ground, Uncompiled, compile_expression
from seamline.mesh.policy.facts import Facts
from seamline.mesh.policy.source import SourcePolicy
from seamline.mesh.policy.values import EvaluationError, shown

_BRACKETED = re.compile(r"\(((?:context|principal|resource|action)(?:\.\w+)*)\)(?=[.\s)]|$)")
_CONNECTIVES = ("&&", "||")

_UNKNOWN = "unknown"


def looks(policy: SourcePolicy, ground: Ground, facts: Facts) -> Iterator[tuple[str, str]]:
    """Each comparison as Cedar writes it, and ``true``, ``false`` or why it fails, with the values that were read."""
    for condition in policy.body["conditions"]:
        for leaf in _leaves(condition["body"]):
            yield _text(leaf), _outcome(leaf, ground, facts)


def _leaves(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    ((kind, body),) = node.items()
    if kind in _CONNECTIVES:
        yield from _leaves(body["left"])
        yield from _leaves(body["right"])
    elif kind == "!":
        yield from _leaves(body["arg"])
    else:
        yield node


def _outcome(leaf: dict[str, Any], ground: Ground, facts: Facts) -> str:
    values = [f"{path} is {value}" for path, value in _read(leaf, ground, facts)]
    return f"{_evaluated(leaf, ground, facts)}{': ' + ', '.join(values) if values else ''}"


def _evaluated(node: dict[str, Any], ground: Ground, facts: Facts) -> str:
    try:
        return shown(compile_expression(node, ground)(facts))
    except EvaluationError as error:
        return f"{_UNKNOWN} ({error})"
    except Uncompiled:
        return "left to Cedar"


def _read(node: Any, ground: Ground, facts: Facts) -> Iterator[tuple[str, str]]:
    """The paths into the context, and the values there."""
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from _read(each, ground, facts)
    elif isinstance(node, dict):
        fields = cast("dict[str, Any]", node)
        path = _path(fields)
        if path is not None:
            value = _evaluated(fields, ground, facts)
            if not value.startswith(_UNKNOWN):
                yield path, value
            return
        for each in fields.values():
            yield from _read(each, ground, facts)


def _path(node: dict[str, Any]) -> str | None:
    if node == {"Var": "context"}:
        return "context"
    if set(node) == {"."}:
        left = _path(node["."]["left"])
        return f"{left}.{node['.']['attr']}" if left is not None else None
    return None


def _text(node: dict[str, Any]) -> str:
    """An expression as Cedar writes it."""
    any_ = {"op": "All"}
    body = {
        "effect": "permit",
        "principal": any_,
        "action": any_,
        "resource": any_,
        "conditions": [{"kind": "when", "body": node}],
    }
    document: dict[str, Any] = {"templates": {}, "staticPolicies": {"p": body}, "templateLinks": []}
    text = cedarpy.policies_from_json_str(json.dumps(document))
    bare = " ".join(text[text.index("{") + 1 : text.rindex("}")].split())
    while (fewer := _BRACKETED.sub(r"\1", bare)) != bare:  # Cedar brackets every step of a path
        bare = fewer
    return bare
