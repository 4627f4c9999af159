"""Cedar text cut into policies that know their file and line.

``cedarpy`` reports mistakes without a position and numbers policies by order, so each policy is parsed alone under
an id that says where it stands.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import cedarpy

from seamline.mesh.errors import PolicySyntaxError

# Strings and comments first, so that a ";" inside them ends nothing.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;|\s+|[^\s;"/]+|.', re.DOTALL)
_WRONG_ACTION_TYPE = re.compile(r'type `Action` but got `(?P<type>[^`]*?)::"(?P<id>[^`]*)"`')
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """One ``permit`` or ``forbid``. ``place`` is ``file:line`` and unique; ``body`` is Cedar's JSON form."""

    place: str
    text: str
    effect: str
    annotation: str | None
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What people call it: its ``@id`` with the place, or the place."""
        return f"{self.annotation} ({self.place})" if self.annotation else self.place

    @property
    def audit(self) -> bool:
        """Whether what it permits is written to the audit."""
        return "audit" in self.body.get("annotations", {})

    def line_of(self, needle: str) -> str:
        """``file:line`` where ``needle`` stands in this policy; the policy's first line if it does not."""
        return _place_of(self.place, self.text, needle)


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Each policy with the number of its first line; what follows the last ``;`` comes too if it is not empty."""
    line, start, parts = 1, 0, list[str]()
    for match in _TOKEN.finditer(text):
        token = match.group()
        if not parts and (token.isspace() or token.startswith("//")):
            line += token.count("\n")
            continue
        if not parts:
            start = line
        parts.append(token)
        line += token.count("\n")
        if match.group() == ";":
            yield start, "".join(parts)
            parts = []
    if parts:
        yield start, "".join(parts).rstrip()


def parse(texts: Mapping[str, str]) -> tuple[list[SourcePolicy], list[PolicySyntaxError]]:
    """Every policy of the files (name to text) and every mistake; never raises for bad text."""
    policies: list[SourcePolicy] = []
    errors: list[PolicySyntaxError] = []
    per_line: Counter[str] = Counter()
    for file, text in texts.items():
        for line, statement in statements(text):
            place = f"{file}:{line}"
            per_line[place] += 1
            if per_line[place] > 1:  # ids must be unique, even of two policies on one line
                place = f"{place}#{per_line[place]}"
            try:
                policies.append(_parse_one(place, statement))
            except PolicySyntaxError as error:
                errors.append(error)
    return policies, errors


def policy_set(policies: Iterable[SourcePolicy]) -> cedarpy.PolicySet:
    document: dict[str, Any] = {
        "templates": {},
        "staticPolicies": {policy.place: policy.body for policy in policies},
        "templateLinks": [],
    }
    return cedarpy.PolicySet.from_json_str(json.dumps(document))


def _parse_one(place: str, text: str) -> SourcePolicy:
    try:
        document = cast("dict[str, dict[str, Any]]", json.loads(cedarpy.policies_to_json_str(text)))
    except ValueError as error:
        raise _syntax_error(place, text, str(error)) from None
    if document["templates"]:
        raise PolicySyntaxError(
            "a template (`?principal` or `?resource`) is never linked here, so it would decide nothing",
            "Name the module, or leave the scope open and write a `when` clause.",
            place=place,
        )
    (body,) = document["staticPolicies"].values()
    annotations: dict[str, str] = body.get("annotations", {})
    return SourcePolicy(place, text, body["effect"], annotations.get("id"), body)


def _syntax_error(place: str, text: str, message: str) -> PolicySyntaxError:
    wrong_type = _WRONG_ACTION_TYPE.search(message)
    if wrong_type:
        kind, name = wrong_type["type"], wrong_type["id"]
        return PolicySyntaxError(
            f'{kind}::"{name}" cannot be an action',
            f'Cedar\'s actions have the type Action: write Action::"{name}".',
            place=_place_of(place, text, f'{kind}::"{name}"'),
        )
    if message == "unexpected end of input":
        return PolicySyntaxError(
            "the policy ends too early", "End it with `;` and close its brackets and strings.", place=place
        )
    quoted = _QUOTED.search(message)
    where = _place_of(place, text, quoted.group(1)) if quoted else place
    return PolicySyntaxError(f"not Cedar: {message}", "See docs.cedarpolicy.com for the syntax.", place=where)


def _place_of(place: str, text: str, needle: str) -> str:
    """The line of ``needle`` if it stands exactly once in ``text``, which begins at ``place``."""
    if text.count(needle) != 1:
        return place
    file, _, line = place.partition("#")[0].rpartition(":")
    return f"{file}:{int(line) + text[: text.index(needle)].count(chr(10))}"
