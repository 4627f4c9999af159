"""Features as they are declared, and the one function that computes them, now and for any moment before.

Windows end with the moment that is asked about and hold it: ``(at - within, at]``. An event counts from the moment it
was known here, whatever time it is of: one that comes late changes what is served from then on, and never what a
decision before it is said to have known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from seamline.events.streams import Stream
from seamline.events.streams.stream import Source, check_name
from seamline.models.features.errors import FeatureDeclarationError
from seamline.module.values import Event

Cell = float | int | str | None
"""What a feature is. None where there is nothing to say it of."""

ROWS_MAX: Final = 5_000
"""Of one entity's events so many are looked at, the newest."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class Row(NamedTuple):
    """What one event says of one entity."""

    id: int
    """In the order in which events became known."""
    at_ms: int
    known_ms: int
    stream: int
    values: Sequence[Cell]
    """One for each feature of the stream."""


@dataclass(frozen=True, slots=True)
class Case:
    """A question about the past: ``entity`` as it stood at ``at``.

    ``seen`` is that of the :class:`Vector` that was served then, if one was: it tells exactly what was known. Without
    it, what was known at ``at`` by the clock counts.
    """

    entity: str
    at: datetime
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Vector:
    """The features of an entity at a moment."""

    entity: str
    at: datetime
    values: Mapping[str, Cell]
    seen: int
    """Which events were known; keep it with the decision, and the same features can be had again."""
    complete: bool = True
    """Whether all events that its windows reach back to are still kept."""


@dataclass(frozen=True)
class Feature:
    """One value. Made by :func:`count` and its like."""

    stream: Stream[Any]
    within_ms: int
    value: Callable[[Any], Cell] | None
    compute: Callable[[Sequence[tuple[int, Cell]], int], Cell]
    """Of times and values in the window, oldest first, at a moment."""
    shape: str


class FeatureSet:
    """Features of one kind of entity, over streams that have it as their only key.

    ::

        orders = stream(OrderPlaced, at=lambda e: e.at).by(shopper=lambda e: e.shopper)
        SHOPPER = FeatureSet(
            "shopper",
            orders_1h=count(orders, within_s=3600),
            spent_30d=total(orders, lambda e: e.cents, within_s=30 * 86_400),
        )

    Args:
        name: of the set, as it is stored.
        version: raise it when a feature changes: the new version is built from the log's beginning.
    """

    def __init__(self, name: str, *, version: int = 1, **features: Feature) -> None:
        check_name(name, "a set of features")
        if not features or version < 1:
            raise FeatureDeclarationError(
                f"the features {name!r} are {len(features)}, in version {version}", "Name one, in version 1 or above."
            )
        self.name = name
        self.version = version
        self.features = features
        self._streams: list[Stream[Any]] = []
        for feature in features.values():
            if feature.stream not in self._streams:
                self._streams.append(feature.stream)
        entities = {tuple(source.keys) for each in self._streams for source in each.sources}
        if len(entities) != 1 or len(next(iter(entities))) != 1:
            raise FeatureDeclarationError(
                f"the streams of the features {name!r} have the keys {sorted(entities)}",
                "Give all of them the same one: the entity, `.by(shopper=lambda e: e.shopper)`.",
            )
        ((self.entity,),) = entities
        self._of_stream = [
            [feature for feature in features.values() if feature.stream == stream] for stream in self._streams
        ]
        self._places: dict[str, tuple[int, int]] = {}
        for each, feature in features.items():
            number = self._streams.index(feature.stream)
            self._places[each] = number, self._of_stream[number].index(feature)
        self._sources: dict[type[Event], list[tuple[int, Source]]] = {}
        for number, stream in enumerate(self._streams):
            for source in stream.sources:
                self._sources.setdefault(source.event, []).append((number, source))
        self.horizon_ms = max(feature.within_ms for feature in features.values())

    @property
    def events(self) -> list[type[Event]]:
        return list(self._sources)

    @property
    def shape(self) -> str:
        """What is stored, to notice that the code has changed."""
        features = ", ".join(f"{name} {feature.shape}" for name, feature in self.features.items())
        return f"of {self.entity}: {features}"

    def read(self, event: Event) -> list[tuple[str, int, int, list[Cell]]]:
        """What an event says, of whom and when: entity, time, stream and values. Raises what the functions raise."""
        found: list[tuple[str, int, int, list[Cell]]] = []
        for number, source in self._sources.get(type(event), ()):
            if source.where is not None and not source.where(event):
                continue
            (key,) = source.keys.values()
            values = [each.value(event) if each.value is not None else None for each in self._of_stream[number]]
            found.append((str(key(event)), milliseconds(source.at(event)), number, values))
        return found

    def compute(self, rows: Sequence[Row], at_ms: int) -> dict[str, Cell]:
        """All features at a moment, of rows none of which is of later, in the order of :func:`in_order`."""
        times = [row.at_ms for row in rows]
        values: dict[str, Cell] = {}
        for name, feature in self.features.items():
            stream, place = self._places[name]
            begin = bisect_right(times, at_ms - feature.within_ms)
            inside = [(row.at_ms, row.values[place]) for row in rows[begin:] if row.stream == stream]
            values[name] = feature.compute(inside, at_ms)
        return values

    def join(self, rows: Mapping[str, Sequence[Row]], cases: Iterable[Case]) -> list[Vector]:
        """The point-in-time join: each case with what was known of its entity then. ``rows`` are in order."""
        vectors: list[Vector] = []
        for case in cases:
            at_ms = milliseconds(case.at)
            of_entity = rows.get(case.entity, ())
            known = [
                row
                for row in of_entity[: bisect_right(of_entity, at_ms, key=lambda row: row.at_ms)]
                if (row.known_ms <= at_ms if case.seen is None else row.id <= case.seen)
            ]
            known = newest(known)
            seen = case.seen if case.seen is not None else max((row.id for row in known), default=0)
            vectors.append(Vector(case.entity, case.at, self.compute(known, at_ms), seen))
        return vectors

    def of_history(self, events: Iterable[Event], cases: Iterable[Case]) -> list[Vector]:
        """The join over events at hand, in the order in which they became known, each as soon as it happened: for
        training on a history that no database has."""
        rows: dict[str, list[Row]] = {}
        for number, event in enumerate(events, 1):
            for entity, at_ms, stream, values in self.read(event):
                rows.setdefault(entity, []).append(Row(number, at_ms, at_ms, stream, values))
        return self.join({entity: in_order(each) for entity, each in rows.items()}, cases)


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By event time, and by arrival where that is the same."""
    return sorted(rows, key=lambda row: (row.at_ms, row.id))


def newest(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[-ROWS_MAX:]


def milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MS


# What features there are.

_Numbers = Sequence[float]
_Value = Callable[[Any], Cell]


def count(stream: Stream[Any], *, within_s: float) -> Feature:
    """How many events."""
    return _feature(stream, within_s, None, lambda rows, _: len(rows), "count")


def total(stream: Stream[Any], value: _Value, *, within_s: float) -> Feature:
    """The sum; 0 of nothing."""
    return _feature(stream, within_s, value, lambda rows, _: sum(_numbers(rows)), "total")


def mean(stream: Stream[Any], value: _Value, *, within_s: float) -> Feature:
    """The mean, or None."""
    return _of_numbers(stream, value, within_s, lambda numbers: sum(numbers) / len(numbers), "mean")


def largest(stream: Stream[Any], value: _Value, *, within_s: float) -> Feature:
    return _of_numbers(stream, value, within_s, max, "largest")


def smallest(stream: Stream[Any], value: _Value, *, within_s: float) -> Feature:
    return _of_numbers(stream, value, within_s, min, "smallest")


def distinct(stream: Stream[Any], value: _Value, *, within_s: float) -> Feature:
    """How many different values, exactly."""
    return _feature(
        stream, within_s, value, lambda rows, _: len({each for _, each in rows if each is not None}), "distinct"
    )


def last(stream: Stream[Any], value: _Value, *, within_s: float) -> Feature:
    """The value of the newest event that has one, or None."""

    def compute(rows: Sequence[tuple[int, Cell]], _: int) -> Cell:
        return next((each for _, each in reversed(rows) if each is not None), None)

    return _feature(stream, within_s, value, compute, "last")


def since_last(stream: Stream[Any], *, within_s: float) -> Feature:
    """Seconds since the newest event, or None."""
    return _feature(
        stream, within_s, None, lambda rows, at_ms: (at_ms - rows[-1][0]) / 1000 if rows else None, "since_last"
    )


def since_first(stream: Stream[Any], *, within_s: float) -> Feature:
    """Seconds since the oldest event in the window, or None."""
    return _feature(
        stream, within_s, None, lambda rows, at_ms: (at_ms - rows[0][0]) / 1000 if rows else None, "since_first"
    )


def _feature(
    stream: Stream[Any],
    within_s: float,
    value: _Value | None,
    compute: Callable[[Sequence[tuple[int, Cell]], int], Cell],
    kind: str,
) -> Feature:
    within_ms = round(within_s * 1000)
    if within_ms < 1:
        raise FeatureDeclarationError(f"{kind}(within_s={within_s!r})", "Give it seconds above 0.")
    events = sorted(source.event.__name__ for source in stream.sources)
    return Feature(stream, within_ms, value, compute, f"{kind} of {events} within {within_ms} ms")


def _of_numbers(
    stream: Stream[Any], value: _Value, within_s: float, of: Callable[[_Numbers], float], kind: str
) -> Feature:
    def compute(rows: Sequence[tuple[int, Cell]], _: int) -> Cell:
        numbers = _numbers(rows)
        return of(numbers) if numbers else None

    return _feature(stream, within_s, value, compute, kind)


def _numbers(rows: Sequence[tuple[int, Cell]]) -> _Numbers:
    return [each for _, each in rows if isinstance(each, int | float)]
