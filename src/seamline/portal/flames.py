"""Where a module's CPU went, as a list to read: the tree of its stacks, the biggest first, without what is small."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_SHARE_MIN: Final = 0.01
_ROWS_MAX: Final = 60


@dataclass(slots=True)
class _Node:
    total: int = 0
    inside: dict[str, _Node] = field(default_factory=dict[str, "_Node"])


@dataclass(frozen=True, slots=True)
class Flame:
    """One row: frames that stand alone on the way down are one row."""

    frames: list[str]
    depth: int
    share: float
    """Of all the CPU, with what it calls."""
    own: float
    """Without."""


def flames(stacks: Iterable[tuple[str, int]]) -> list[Flame]:
    """The rows of stacks (frames from the outermost in, joined by ``;``) with their CPU in nanoseconds."""
    root = _Node()
    for stack, cpu_ns in stacks:
        root.total += cpu_ns
        node = root
        for frame in stack.split(";"):
            node = node.inside.setdefault(frame, _Node())
            node.total += cpu_ns
    found: list[Flame] = []
    _walk(root, root.total, 0, found)
    return found


def _walk(node: _Node, all_ns: int, depth: int, found: list[Flame]) -> None:
    for name, inner in sorted(node.inside.items(), key=lambda each: -each[1].total):
        if inner.total < _SHARE_MIN * all_ns or len(found) >= _ROWS_MAX:
            return
        frames, last = [name], inner
        while len(last.inside) == 1 and next(iter(last.inside.values())).total == last.total:
            deeper, last = next(iter(last.inside.items()))
            frames.append(deeper)
        own = last.total - sum(each.total for each in last.inside.values())
        found.append(Flame(frames, depth, last.total / all_ns, own / all_ns))
        _walk(last, all_ns, depth + 1, found)
