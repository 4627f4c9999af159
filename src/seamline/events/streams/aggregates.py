"""Aggregates: what is kept of the events of a window, and what is shown of it.

A user's function is asked once for each event, before any state changes; what it returns is added. State is small and
JSON; what would grow with the events (the members of ``distinct`` and ``top_k``) is kept in rows of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from seamline.events.streams.errors import StreamDeclarationError, StreamValueError
from seamline.kernel.codec import Codec, codec

E = TypeVar("E")
S = TypeVar("S")

Number = type[int | float]
Kind = type[int | float | str]
Cell = int | float | str | None
"""What stands in a column of a view."""

Items = str | int | None | Mapping[str, int]
"""What an event tells of: one thing, nothing, or several with their weights."""

_INTEGER_MAX = 2**63 - 1


class Aggregate(Generic[E]):
    """One column of a view. ``kind`` is the type of what it shows."""

    kind: Kind

    @property
    def mergeable(self) -> bool:
        """Whether it can be kept of sessions, which may become one."""
        return True

    def value_of(self, event: E) -> Any:
        """What the event adds; None for nothing."""
        raise NotImplementedError

    def start(self) -> Any:
        """The state of a window without events. It is JSON, unless :meth:`load` and :meth:`dump` say otherwise."""
        raise NotImplementedError

    def load(self, stored: Any) -> Any:
        return stored

    def dump(self, state: Any) -> Any:
        return state

    def add(self, state: Any, value: Any) -> Any:
        raise NotImplementedError

    def merge(self, state: Any, value: Any) -> Any:
        """The state of two sessions that became one; ``value`` is the state of the other."""
        return self.add(state, value)

    def result(self, state: Any) -> Cell:
        return state


@dataclass(frozen=True)
class _Count(Aggregate[E]):
    where: Callable[[E], bool] | None
    kind: Kind = int

    def value_of(self, event: E) -> int | None:
        return 1 if self.where is None or self.where(event) else None

    def start(self) -> int:
        return 0

    def add(self, state: int, value: int) -> int:
        return state + value


@dataclass(frozen=True)
class _Measure(Aggregate[E]):
    """Of a number that each event has."""

    value: Callable[[E], float | None]
    kind: Kind

    def value_of(self, event: E) -> float | None:
        return _checked(self.value(event), self.kind)


class _Sum(_Measure[E]):
    def start(self) -> float:
        return 0 if self.kind is int else 0.0

    def add(self, state: float, value: float) -> float:
        total: float = _checked(state + value, self.kind)
        return total


class _Min(_Measure[E]):
    def start(self) -> None:
        return None

    def add(self, state: float | None, value: float | None) -> float | None:
        return value if state is None else state if value is None else min(state, value)


class _Max(_Min[E]):
    def add(self, state: float | None, value: float | None) -> float | None:
        return value if state is None else state if value is None else max(state, value)

    merge = add


class _Average(_Measure[E]):
    """The state is sum and count, so that averages of averages are never taken."""

    def start(self) -> list[float]:
        return [0.0, 0]

    def add(self, state: list[float], value: float) -> list[float]:
        return [state[0] + value, state[1] + 1]

    def merge(self, state: list[float], value: list[float]) -> list[float]:
        return [state[0] + value[0], state[1] + value[1]]

    def result(self, state: list[float]) -> float | None:
        return state[0] / state[1] if state[1] else None


class Change(NamedTuple):
    """A member of a window and its weight before (None where it is new) and after."""

    member: str
    before: int | None
    after: int


class Members(Aggregate[E]):
    """An aggregate over the members of a window and their weights. Its values are lists of (member, weight)."""

    def start(self) -> Any:
        raise NotImplementedError

    def absorb(self, state: Any, changes: Iterable[Change]) -> Any:
        """The state after some members changed."""
        raise NotImplementedError

    def recount(self, count: int, heaviest: list[tuple[str, int]]) -> Any:
        """The state from the members themselves: how many, and the first :attr:`wanted` by weight."""
        raise NotImplementedError

    @property
    def wanted(self) -> int:
        return 0

    def merge(self, state: Any, value: Any) -> Any:  # noqa: ARG002  # its members are merged, and counted anew
        return state


@dataclass(frozen=True)
class _Distinct(Members[E]):
    value: Callable[[E], str | int | None]
    kind: Kind = int

    def value_of(self, event: E) -> list[tuple[str, int]] | None:
        value = self.value(event)
        return None if value is None else [(str(value), 1)]

    def start(self) -> int:
        return 0

    def absorb(self, state: int, changes: Iterable[Change]) -> int:
        return state + sum(change.before is None for change in changes)

    def recount(self, count: int, heaviest: list[tuple[str, int]]) -> int:  # noqa: ARG002  # the base's signature
        return count


@dataclass(frozen=True)
class _TopK(Members[E]):
    k: int
    item: Callable[[E], Items]
    weight: Callable[[E], int] | None
    kind: Kind = str

    @property
    def wanted(self) -> int:
        return self.k

    def value_of(self, event: E) -> list[tuple[str, int]] | None:
        item = self.item(event)
        if item is None:
            return None
        if isinstance(item, Mapping):
            return [(str(each), _weight(weight)) for each, weight in item.items()]
        return [(str(item), 1 if self.weight is None else _weight(self.weight(event)))]

    def start(self) -> list[Any]:
        return []

    def absorb(self, state: list[Any], changes: Iterable[Change]) -> list[Any]:
        # Weights only grow: whoever is among the first now either was before or has just grown.
        found: dict[str, int] = dict(state)
        found.update((change.member, change.after) for change in changes)
        return self._first(found.items())

    def recount(self, count: int, heaviest: list[tuple[str, int]]) -> list[Any]:  # noqa: ARG002  # the base's signature
        return self._first(heaviest)

    def _first(self, pairs: Iterable[tuple[str, int]]) -> list[Any]:
        return [list(pair) for pair in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[: self.k]]

    def result(self, state: list[Any]) -> str:
        return msgspec.json.encode(state).decode()


@dataclass(frozen=True)
class _Fold(Aggregate[E], Generic[E, S]):
    codec: Codec[S]
    first: Callable[[], S]
    step: Callable[[S, E], S]
    show: Callable[[S], Cell]
    kind: Kind
    join: Callable[[S, S], S] | None

    @property
    def mergeable(self) -> bool:
        return self.join is not None

    def value_of(self, event: E) -> E:
        return event

    def start(self) -> S:
        return self.first()

    def load(self, stored: str) -> S:
        return self.codec.decode(stored.encode())

    def dump(self, state: S) -> str:
        return self.codec.encode(state).decode()

    def add(self, state: S, value: E) -> S:
        return self.step(state, value)

    def merge(self, state: S, value: S) -> S:
        assert self.join is not None
        return self.join(state, value)

    def result(self, state: S) -> Cell:
        shown = self.show(state)
        return shown if self.kind is str else _checked(shown, self.kind)


def count(where: Callable[[E], bool] | None = None) -> Aggregate[E]:
    """How many events, or how many for which ``where`` is true."""
    return _Count(where)


def sum_(value: Callable[[E], float | None], kind: Number = int) -> Aggregate[E]:
    """The sum. ``kind`` says whether it is of whole numbers (exact; money in its smallest unit) or of floats."""
    return _Sum(value, kind)


def min_(value: Callable[[E], float | None], kind: Number = int) -> Aggregate[E]:
    """The smallest, or null."""
    return _Min(value, kind)


def max_(value: Callable[[E], float | None], kind: Number = int) -> Aggregate[E]:
    """The largest, or null."""
    return _Max(value, kind)


def avg(value: Callable[[E], float | None]) -> Aggregate[E]:
    """The mean, or null."""
    return _Average(value, float)


def distinct(value: Callable[[E], str | int | None]) -> Aggregate[E]:
    """How many different values, exactly. A row is kept for each until the window is forgotten."""
    return _Distinct(value)


def top_k(k: int, item: Callable[[E], Items], weight: Callable[[E], int] | None = None) -> Aggregate[E]:
    """The ``k`` items with the greatest weight (how often they came, where none is given), exactly.

    An event with several items gives a mapping of them to their weights. Shown as JSON, heaviest first:
    ``[["mug", 12], ["pen", 7]]``. Weights are whole numbers from 0.
    """
    if k < 1:
        raise StreamDeclarationError(f"top_k({k})", "Ask for at least 1.")
    return _TopK(k, item, weight)


def fold(
    start: Callable[[], S],
    step: Callable[[S, E], S],
    *,
    state: type[S],
    show: Callable[[S], Cell],
    kind: Kind = int,
    merge: Callable[[S, S], S] | None = None,
) -> Aggregate[E]:
    """Any other: ``step`` makes the next state of the one before and an event.

    Args:
        start: the state of a window without events.
        step: pure; it may be run again for an event whose transaction failed.
        state: the type of the state, a value as contracts have them.
        show: what of the state stands in the view, of type ``kind``.
        merge: the state of two sessions that became one; needed in session windows only.
    """
    return _Fold(codec(state), start, step, show, kind, merge)


def _weight(weight: Any) -> int:
    if type(weight) is not int or not 0 <= weight <= _INTEGER_MAX:
        raise StreamValueError(f"the weight {weight!r} in top_k is not a whole number from 0", "Count upwards.")
    return weight


def _checked(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if kind is int:
        if type(value) is not int or abs(value) > _INTEGER_MAX:
            raise StreamValueError(
                f"{value!r} is not a whole number of 64 bits", "Give whole numbers, or say kind=float."
            )
        return value
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise StreamValueError(f"{value!r} is not a finite number", "Leave out such events with `where`.")
    return float(value)
