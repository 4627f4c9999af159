"""A trace as people look at it: its tree, where each span's own time went, its critical path, and two of them compared.

The critical path is that of CRISP (Zhang et al., "CRISP: Critical Path Analysis of Large-Scale Microservice
Architectures", USENIX ATC 2022): from a span's end backwards, the child that returned last is on the path, then the one
that returned last before that child began, and so on; what lies between is the span's own. Making a span that is on the
path shorter makes the trace shorter; any other may be made to take no time at all and nothing is gained.

Spans come from strangers, too: ids may repeat, parents may be missing or go round in circles, clocks may differ.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from seamline.observe.records import CANCELED, Span, is_failure

Stretch = tuple[int, int]
"""From, until: nanoseconds since the epoch."""


@dataclass(slots=True)
class Row:
    """One span in its place. Rows stand in the order of the tree: a span, then all below it."""

    span: Span
    depth: int
    parent: int
    """The row of its parent; -1 if it has none here."""
    below: int = 0
    """How many rows are below it: they follow it at once."""
    self_ns: int = 0
    """What none of its children accounts for."""
    critical: list[Stretch] = field(default_factory=list[Stretch])
    """Its own stretches on the critical path, the last first."""

    @property
    def end_ns(self) -> int:
        return self.span.start_ns + max(self.span.duration_ns, 0)

    @property
    def critical_ns(self) -> int:
        return sum(until - begin for begin, until in self.critical)

    @property
    def failed(self) -> bool:
        return is_failure(self.span.status)

    @property
    def lost(self) -> bool:
        """Whether it has a parent, which is not here."""
        return self.parent < 0 and any(self.span.parent_id)


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A whole trace."""

    rows: Sequence[Row]
    start_ns: int = 0
    end_ns: int = 0

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def errors(self) -> int:
        return sum(row.failed for row in self.rows)

    def by_module(self) -> list[tuple[str, int, int, int]]:
        """(module, spans, own time, time on the critical path), the most of the path first."""
        spans, own, path = Counter[str](), Counter[str](), Counter[str]()
        for row in self.rows:
            module = row.span.module
            spans[module] += 1
            own[module] += row.self_ns
            path[module] += row.critical_ns
        return sorted(
            ((name, n, own[name], path[name]) for name, n in spans.items()), key=lambda e: (-e[3], -e[2], e[0])
        )


def waterfall(spans: Iterable[Span]) -> Waterfall:
    """The tree of a trace's spans; those whose parent is not here stand at its top, in the order of time."""
    found = sorted(spans, key=lambda each: (each.start_ns, -each.duration_ns, each.span_id))
    if not found:
        return Waterfall(())
    rows = _rows(found)
    children = _children(rows)
    _own(rows, children)
    tops = [index for index, row in enumerate(rows) if row.parent < 0]
    _critical(rows, children, max(tops, key=lambda index: (not rows[index].lost, rows[index].span.duration_ns)))
    return Waterfall(rows, rows[tops[0]].span.start_ns, max(row.end_ns for row in rows))


def _rows(found: Sequence[Span]) -> list[Row]:
    first: dict[bytes, int] = {}
    for index, span in enumerate(found):
        first.setdefault(span.span_id, index)
    below: dict[int, list[int]] = {}
    parents = [_parent(span, index, first) for index, span in enumerate(found)]
    for index, parent in enumerate(parents):
        below.setdefault(parent, []).append(index)
    rows: list[Row] = []
    seen: set[int] = set()
    # Who is in no circle hangs below a top; what is left does not, and its earliest is made one.
    for top in (*below.get(-1, ()), *range(len(found))):
        todo = [] if top in seen else [(top, 0, -1)]
        while todo:
            index, depth, parent = todo.pop()
            if index in seen:
                continue
            seen.add(index)
            place = len(rows)
            rows.append(Row(found[index], depth, parent))
            todo += [(child, depth + 1, place) for child in reversed(below.get(index, ()))]
    for place in range(len(rows) - 1, 0, -1):
        if rows[place].parent >= 0:
            rows[rows[place].parent].below += rows[place].below + 1
    return rows


def _parent(span: Span, index: int, first: dict[bytes, int]) -> int:
    found = first.get(span.parent_id, -1) if any(span.parent_id) else -1
    return -1 if found == index else found


def _children(rows: Sequence[Row]) -> list[list[int]]:
    """Of each row those it waited for. Who consumes an event is below it in the tree, but nobody waits for it."""
    children: list[list[int]] = [[] for _ in rows]
    for index, row in enumerate(rows):
        if row.parent >= 0 and row.span.kind != "consumer":
            children[row.parent].append(index)
    return children


def _own(rows: Sequence[Row], children: Sequence[Sequence[int]]) -> None:
    for row, waited in zip(rows, children, strict=True):
        covered, reached = 0, row.span.start_ns
        for child in waited:  # in the order of their beginnings
            begin = max(rows[child].span.start_ns, reached)
            until = min(rows[child].end_ns, row.end_ns)
            if until > begin:
                covered += until - begin
                reached = until
        row.self_ns = max(row.span.duration_ns, 0) - covered


def _critical(rows: Sequence[Row], children: Sequence[Sequence[int]], top: int) -> None:
    todo = [(top, rows[top].span.start_ns, rows[top].end_ns)]
    while todo:
        index, begin, limit = todo.pop()
        row, cursor = rows[index], limit
        overtaken = _overtaken(rows, children[index])
        waited_for = [child for child in children[index] if child not in overtaken]
        for child in sorted(waited_for, key=lambda each: (rows[each].end_ns, rows[each].span.start_ns), reverse=True):
            # A child that outlives its parent, or begins before it, counts for as long as the parent lasts.
            child_begin, child_end = max(rows[child].span.start_ns, begin), min(rows[child].end_ns, limit)
            if child_end > cursor or child_end <= child_begin:
                continue
            if cursor > child_end:
                row.critical.append((child_end, cursor))
            todo.append((child, child_begin, child_end))
            cursor = child_begin
        if cursor > begin:
            row.critical.append((begin, cursor))


def _overtaken(rows: Sequence[Row], children: Sequence[int]) -> set[int]:
    """Those that were given up because another attempt at the same had answered: nobody waited for them."""
    given_up = [child for child in children if rows[child].span.status == CANCELED]
    if not given_up:
        return set()
    answered: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for child in children:
        span = rows[child].span
        if span.status != CANCELED:
            answered.setdefault((span.name, span.module), []).append((span.start_ns, rows[child].end_ns))
    until: dict[tuple[str, str], list[int]] = {}
    for what, attempts in answered.items():
        attempts.sort()
        until[what] = list(accumulate((end for _, end in attempts), max))
    found: set[int] = set()
    for child in given_up:
        span = rows[child].span
        what = (span.name, span.module)
        begun = bisect_left(answered.get(what, []), (rows[child].end_ns,))
        if begun and until[what][begun - 1] > span.start_ns:
            found.add(child)
    return found


Change = Literal["same", "slower", "faster", "new", "gone"]
_MATTERS_NS = 100_000
_MATTERS_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Pair:
    """The same work in two traces; one side is None where only the other did it."""

    before: Row | None
    after: Row | None
    depth: int

    @property
    def span(self) -> Span:
        row = self.after or self.before
        assert row is not None
        return row.span

    @property
    def change(self) -> Change:
        """By the span's own time, so that who became slower is not hidden among those that wait for it."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        if abs(self.self_change_ns) < max(_MATTERS_NS, _MATTERS_SHARE * self.before.self_ns):
            return "same"
        return "slower" if self.self_change_ns > 0 else "faster"

    @property
    def change_ns(self) -> int:
        return _of(self.after, "all") - _of(self.before, "all")

    @property
    def self_change_ns(self) -> int:
        return _of(self.after, "self") - _of(self.before, "self")


def _of(row: Row | None, what: Literal["all", "self"]) -> int:
    if row is None:
        return 0
    return row.self_ns if what == "self" else max(row.span.duration_ns, 0)


def compare(before: Waterfall, after: Waterfall) -> list[Pair]:
    """Two traces laid over each other: children of the same parent are the same if module, name and kind are.

    Of several that are alike the first stands for the first, the second for the second. Rows stand in the order of the
    second trace's tree; what is gone stands below its parent, behind what stayed.
    """
    lefts, rights = _below(before), _below(after)
    pairs: list[Pair] = []
    todo: list[tuple[int | None, int | None, int]] = _matched(before, after, lefts.get(-1, []), rights.get(-1, []), 0)
    while todo:
        left, right, depth = todo.pop()
        pairs.append(
            Pair(None if left is None else before.rows[left], None if right is None else after.rows[right], depth)
        )
        todo += _matched(
            before, after,
            [] if left is None else lefts.get(left, []), [] if right is None else rights.get(right, []), depth + 1,
        )  # fmt: skip
    return pairs


def _below(trace: Waterfall) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for index, row in enumerate(trace.rows):
        found.setdefault(row.parent, []).append(index)
    return found


def _matched(
    before: Waterfall, after: Waterfall, lefts: Sequence[int], rights: Sequence[int], depth: int
) -> list[tuple[int | None, int | None, int]]:
    """The last first, as a stack wants it."""
    waiting: dict[tuple[str, str, str], list[int]] = {}
    for left in reversed(lefts):
        waiting.setdefault(_kind(before.rows[left]), []).append(left)
    found: list[tuple[int | None, int | None, int]] = []
    for right in rights:
        alike = waiting.get(_kind(after.rows[right]))
        found.append((alike.pop() if alike else None, right, depth))
    gone = sorted(left for alike in waiting.values() for left in alike)
    return [*((left, None, depth) for left in reversed(gone)), *reversed(found)]


def _kind(row: Row) -> tuple[str, str, str]:
    return row.span.module, row.span.name, row.span.kind
