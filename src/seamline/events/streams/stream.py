"""Streams as they are declared: events with their times, keyed, joined, cut into windows and aggregated.

What is declared here is only read; :mod:`.engine` does the work.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from seamline.events.streams.aggregates import Aggregate
from seamline.events.streams.errors import StreamDeclarationError
from seamline.events.streams.windows import Session, Window
from seamline.module.values import Event

E = TypeVar("E")
EV = TypeVar("EV", bound=Event)
L = TypeVar("L")
R = TypeVar("R")

Key = Callable[[Any], str | int]
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_OURS: Final = frozenset({"start_ms", "end_ms", "closed"})


@dataclass(frozen=True)
class Source:
    """One event type that a stream is made of."""

    event: type[Event]
    at: Callable[[Any], datetime]
    out_of_order_ms: int
    where: Callable[[Any], bool] | None
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])
    side: int = 0
    """0 left of a join or without one, 1 right."""


@dataclass(frozen=True)
class Pair(Generic[L, R]):
    """What a join gives: ``right`` is None where nothing came in time."""

    left: L
    right: R | None


@dataclass(frozen=True)
class Join:
    """How two streams meet. See :meth:`Stream.join`."""

    within_ms: int
    before_ms: int
    left_outer: bool
    latest: bool
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])
    """Of the pairs."""


@dataclass(frozen=True)
class Definition(Generic[E]):
    """A windowed aggregate of a stream, complete: what :func:`~.view.materialise` takes."""

    sources: tuple[Source, ...]
    join: Join | None
    window: Window
    late_ms: int
    aggregates: Mapping[str, Aggregate[E]]

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(self.join.keys if self.join is not None else self.sources[0].keys)


@dataclass(frozen=True)
class Windowed(Generic[E]):
    """A stream cut into windows."""

    sources: tuple[Source, ...]
    join: Join | None
    window: Window
    late_ms: int

    def aggregate(self, **aggregates: Aggregate[E]) -> Definition[E]:
        """Say what is kept of each window: one column of the view for each name."""
        if not aggregates:
            raise StreamDeclarationError("aggregate() has no aggregates", "Name one: aggregate(events=count()).")
        definition = Definition(self.sources, self.join, self.window, self.late_ms, aggregates)
        _check_names(aggregates)
        if taken := set(aggregates) & (set(definition.key_names) | _OURS):
            raise StreamDeclarationError(f"the aggregates {sorted(taken)} have names of other columns", "Rename them.")
        if isinstance(self.window, Session):
            for name, each in aggregates.items():
                if not each.mergeable:
                    raise StreamDeclarationError(
                        f"the fold {name!r} has no merge, which session windows need", "Give it `merge=`."
                    )
        return definition


@dataclass(frozen=True)
class Pairs(Generic[E]):
    """The pairs of a join, as a stream of their own. A pair's time is its left event's."""

    sources: tuple[Source, ...]
    joined: Join

    def by(self, **keys: Callable[[E], str | int]) -> Pairs[E]:
        """Keep a window for each key; each name is a column of the view."""
        _check_names(keys)
        return dataclasses.replace(self, joined=dataclasses.replace(self.joined, keys=keys))

    def window(self, window: Window, *, late_s: float = 0.0) -> Windowed[E]:
        """Cut into windows. See :meth:`Stream.window`."""
        return Windowed(self.sources, self.joined, window, _late_ms(late_s))


@dataclass(frozen=True)
class Stream(Generic[E]):
    """Events with their times. See :func:`stream`."""

    sources: tuple[Source, ...]

    def by(self, **keys: Callable[[E], str | int]) -> Stream[E]:
        """Keep a window for each key, or join on it; each name is a column of the view."""
        _check_names(keys)
        return Stream(tuple(dataclasses.replace(source, keys=keys) for source in self.sources))

    def merge(self, other: Stream[R]) -> Stream[E | R]:
        """Both streams as one. They have the same keys."""
        self._check_keys(other, "merge()")
        return Stream(self.sources + other.sources)

    def window(self, window: Window, *, late_s: float = 0.0) -> Windowed[E]:
        """Cut into windows: :func:`~.windows.tumbling`, :func:`~.windows.sliding` or :func:`~.windows.session`.

        Args:
            late_s: for so long after a window's end it is kept, and events that come late still change its result.
        """
        return Windowed(self.sources, None, window, _late_ms(late_s))

    def join(
        self,
        other: Stream[R],
        *,
        within_s: float,
        before_s: float = 0.0,
        kind: Literal["inner", "left"] = "inner",
        latest: bool = False,
    ) -> Pairs[Pair[E, R]]:
        """Pair each event with those of ``other`` that have the same key and come within ``within_s`` seconds after.

        Pairs are made in the order of event time, whatever the order of arrival, so each is made when the watermark
        has passed it.

        Args:
            before_s: pair also with events that came up to so much before.
            kind: ``left`` gives an event for which nothing came a pair without a right side, once its time is up.
            latest: an event replaces the one of the same key that still waits, and a pair ends its waiting: of many
                changes of a cart only the last waits for its order.
        """
        self._check_keys(other, "join()")
        if within_s <= 0 or before_s < 0:
            raise StreamDeclarationError(
                f"join(within_s={within_s!r}, before_s={before_s!r})", "within_s is above 0, before_s at least 0."
            )
        if latest and before_s:
            raise StreamDeclarationError(
                "join(latest=True) looks forward only", "Leave out before_s, or swap the two streams."
            )
        right = tuple(dataclasses.replace(source, side=1) for source in other.sources)
        return Pairs(self.sources + right, Join(round(within_s * 1000), round(before_s * 1000), kind == "left", latest))

    def _check_keys(self, other: Stream[Any], what: str) -> None:
        mine, others = ({tuple(source.keys) for source in each.sources} for each in (self, other))
        if len(mine | others) != 1:
            raise StreamDeclarationError(
                f"{what} of streams with the keys {sorted(mine)} and {sorted(others)}",
                "Give both the same keys in the same order: `.by(name=...)`.",
            )


def stream(
    event: type[EV],
    *,
    at: Callable[[EV], datetime],
    out_of_order_s: float = 5.0,
    where: Callable[[EV], bool] | None = None,
) -> Stream[EV]:
    """The events of one type as a stream.

    Args:
        at: when it happened (aware): the event's own time, not that of its arrival.
        out_of_order_s: the watermark is so far behind the newest event: how much later than others an event may come
            without being late. Larger is more patient and closes windows later.
        where: only events for which this is true.
    """
    if out_of_order_s < 0:
        raise StreamDeclarationError(f"stream(out_of_order_s={out_of_order_s!r})", "Give it seconds, at least 0.")
    return Stream((Source(event, at, round(out_of_order_s * 1000), where),))


def check_name(name: str, what: str) -> None:
    """Whether a name can stand in SQL without quotes."""
    if not _NAME.fullmatch(name) or name.startswith(("seamline_", "stream_", "pg_", "sqlite_")):
        raise StreamDeclarationError(
            f"{name!r} cannot be the name of {what}",
            "Lower-case letters, digits and underscores, at most 48; not beginning with seamline_ or stream_.",
        )


def _check_names(named: Mapping[str, object]) -> None:
    for name in named:
        check_name(name, "a column")


def _late_ms(late_s: float) -> int:
    if late_s < 0:
        raise StreamDeclarationError(f"window(late_s={late_s!r})", "Give it seconds, at least 0.")
    return round(late_s * 1000)
