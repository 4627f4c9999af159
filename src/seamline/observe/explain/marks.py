"""What was changed shortly before, as far as it may be used: a drill is never among the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp
from typing import Final

from seamline.observe.explain.finding import Finding
from seamline.observe.incidents import SuspectKind
from seamline.observe.records import Mark

_BEFORE_NS: Final = 600 * 10**9
_AFTER_NS: Final = 4 * 10**9
"""A mark may be told a little later than what it caused is counted."""
_HALF_S: Final = 90.0
_KINDS: Final[dict[str, SuspectKind]] = {
    "release": "release", "switch": "switch", "settings": "settings", "policy": "policy", "secret": "settings",
    "crash": "code", "restart": "release", "scale": "switch",
}  # fmt: skip


def usable(marks: Sequence[Mark]) -> list[Mark]:
    """Those that explanation may know of. A drill plants a fault: to be told of it would be to be told the answer."""
    return [mark for mark in marks if mark.kind in _KINDS]


def changed_before(marks: Sequence[Mark], began_ns: int) -> list[tuple[Mark, float]]:
    """The changes in the ten minutes before, each with how near it was: 1 at once, 0.5 a minute and a half before."""
    near: list[tuple[Mark, float]] = []
    for mark in usable(marks):
        ago_ns = began_ns - mark.at_ns
        if -_AFTER_NS <= ago_ns <= _BEFORE_NS:
            near.append((mark, exp(-max(ago_ns, 0) / 1e9 / _HALF_S * 0.693)))
    return sorted(near, key=lambda pair: -pair[1])


def proximity(marks: Sequence[Mark], began_ns: int, strengths: dict[str, float], denied: bool) -> Iterator[Finding]:
    """A change of a module speaks against it if something else does; one of all speaks for itself, weakly."""
    for mark, nearness in changed_before(marks, began_ns):
        kind = _KINDS[mark.kind]
        ago_s = max(began_ns - mark.at_ns, 0) / 1e9
        text = f"{ago_s:.0f} s before it began: {mark.title}."
        link = "/incidents"
        if not mark.modules:
            weight = 0.7 if kind == "policy" and denied else 0.3
            yield Finding("", kind, weight * nearness, text, None, ago_s, "s", "", link)
        for module in mark.modules:
            strength = strengths.get(module, 0.0)
            weight = (0.5 if mark.kind == "release" else 0.3) * nearness * min(strength / 0.4, 1.0)
            if weight >= 0.05:
                yield Finding(module, kind, weight, text, None, ago_s, "s", "", link)
