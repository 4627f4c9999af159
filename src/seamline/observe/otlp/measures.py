"""Metrics into points: what a gauge shows, by how much a counter grew, how values spread over buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from itertools import pairwise
from math import inf, isfinite
from typing import Final

import msgspec

from seamline.observe.otlp import messages
from seamline.observe.otlp.bounds import BUCKETS_MAX, METRICS_MAX, TIMES_MAX
from seamline.observe.otlp.messages import CUMULATIVE, Bag
from seamline.observe.otlp.names import Places, clean
from seamline.observe.otlp.series import Series
from seamline.observe.records import Attribute, Point

Refuse = Callable[[str], None]
Teller = tuple[str, str, bytes]
"""Module, scope, and all that the resource says."""

_NO_VALUE: Final = 1
"""A flag: the series has ended, there is no value."""
_ATTRIBUTES_MAX: Final = 24
_CHARACTERS_MAX: Final = 200
RESERVED: Final = frozenset({"workload", "replica", "module"})
"""Our own processes say here for whom they speak."""
_EXPONENT_MAX: Final = 1023.0
_TOO_MANY_SERIES: Final = "there are more series than are kept: fewer attributes, or fewer values of them"


class Measures:
    """Makes points; remembers the totals of counters.

    Args:
        began_ns: when, by the wall clock.
    """

    def __init__(self, began_ns: int) -> None:
        self.series = Series(began_ns)
        self._names: Places[str] = Places(METRICS_MAX)

    def points(
        self, metric: messages.Metric, teller: Teller, instance: str, now_ns: int, refuse: Refuse
    ) -> Iterator[tuple[int, Point]]:
        """Each with its time; those that say nothing new are left out."""
        name, unit = clean(metric.name), clean(metric.unit)
        if not name:
            return
        if not self._names.admit(name, now_ns):
            refuse(f"there are more than {METRICS_MAX} names of metrics")
            return
        maker = _Maker(self.series, name, unit, teller, instance, now_ns, refuse)
        if metric.gauge is not None:
            for point in metric.gauge.data_points or ():
                yield from maker.gauge(point)
        if metric.sum is not None:
            for point in metric.sum.data_points or ():
                yield from maker.sum(point, metric.sum)
        if metric.histogram is not None:
            cumulative = metric.histogram.aggregation_temporality == CUMULATIVE
            for point in metric.histogram.data_points or ():
                yield from maker.histogram(point, cumulative)
        if metric.exponential_histogram is not None:
            cumulative = metric.exponential_histogram.aggregation_temporality == CUMULATIVE
            for point in metric.exponential_histogram.data_points or ():
                yield from maker.exponential(point, cumulative)
        if metric.summary is not None:
            for point in metric.summary.data_points or ():
                yield from maker.summary(point)

    @staticmethod
    def by_time(points: dict[int, list[Point]], at_ns: int, point: Point, refuse: Refuse) -> None:
        """Puts a point to those of its time."""
        same = points.get(at_ns)
        if same is not None:
            same.append(point)
        elif len(points) < TIMES_MAX:
            points[at_ns] = [point]
        else:
            refuse(f"measurements of more than {TIMES_MAX} different times in one request")


class _Maker:
    """Of one metric's points."""

    def __init__(
        self, series: Series, name: str, unit: str, teller: Teller, instance: str, now_ns: int, refuse: Refuse
    ) -> None:
        self._series = series
        self._name = name
        self._unit = unit
        self._teller = teller
        self._instance = instance
        self._now_ns = now_ns
        self._refuse = refuse

    def gauge(self, point: messages.NumberPoint) -> Iterator[tuple[int, Point]]:
        value = _number(point)
        if value is None:
            return
        labels = self._labels(point.attributes)
        if self._key(labels):
            yield point.time_unix_nano, self._point("gauge", float(value), labels)

    def sum(self, point: messages.NumberPoint, total: messages.Sum) -> Iterator[tuple[int, Point]]:
        value = _number(point)
        if value is None:
            return
        labels = self._labels(point.attributes)
        key = self._key(labels)
        if not key:
            return
        cumulative = total.aggregation_temporality == CUMULATIVE
        if not total.is_monotonic:
            level = value if cumulative else self._series.level(key, value)
            yield point.time_unix_nano, self._point("gauge", float(level), labels)
            return
        grown: float | None = value
        if cumulative:
            growth = self._series.growth(key, point.start_time_unix_nano, point.time_unix_nano, (value,))
            grown = growth.values[0] if growth else None
        if grown is not None:
            yield point.time_unix_nano, self._point("counter", float(grown), labels)

    def histogram(self, point: messages.HistogramPoint, cumulative: bool) -> Iterator[tuple[int, Point]]:
        bounds, counts = point.explicit_bounds or [], point.bucket_counts or []
        if point.flags & _NO_VALUE:
            return
        if (counts and len(counts) != len(bounds) + 1) or not all(a < b for a, b in pairwise((-inf, *bounds, inf))):
            self._refuse("a histogram has one bucket more than it has bounds, and those rise")
            return
        if len(counts) > BUCKETS_MAX:
            self._refuse(f"a histogram has at most {BUCKETS_MAX} buckets")
            return
        edges = (*bounds, inf) if counts else ()
        yield from self._spread(point, edges, counts, cumulative)

    def exponential(self, point: messages.ExponentialPoint, cumulative: bool) -> Iterator[tuple[int, Point]]:
        if point.flags & _NO_VALUE:
            return
        size = sum(len(part.bucket_counts or ()) for part in (point.positive, point.negative) if part)
        offsets = [part.offset for part in (point.positive, point.negative) if part]
        if size > BUCKETS_MAX or not -32 <= point.scale <= 32 or any(abs(offset) >= 2**31 for offset in offsets):
            self._refuse(f"an exponential histogram has at most {BUCKETS_MAX} buckets, and a scale of -32 to 32")
            return
        buckets = _exponential_buckets(point)
        edges = tuple(bound for bound, _ in buckets)
        yield from self._spread(point, edges, [n for _, n in buckets], cumulative)

    def summary(self, point: messages.SummaryPoint) -> Iterator[tuple[int, Point]]:
        """The quantiles as gauges, count and sum as a histogram without buckets."""
        if point.flags & _NO_VALUE:
            return
        for quantile in (point.quantile_values or [])[:16]:
            labels = self._labels(point.attributes) | {"quantile": str(quantile.quantile)}
            if self._key(labels):
                yield point.time_unix_nano, self._point("gauge", quantile.value, labels)
        yield from self._spread(point, (), [], True)

    def _spread(
        self,
        point: messages.HistogramPoint | messages.ExponentialPoint | messages.SummaryPoint,
        edges: tuple[float, ...],
        counts: list[int],
        cumulative: bool,
    ) -> Iterator[tuple[int, Point]]:
        total, count = point.sum or 0.0, point.count
        if not isfinite(total) or any(not 0 <= n < 2**63 for n in (count, *counts)):
            self._refuse("a count is a number of 63 bits, and a sum is a number")
            return
        labels = self._labels(point.attributes)
        key = self._key(labels, 1 + len(counts))
        if not key:
            return
        if cumulative:
            start_ns, time_ns = point.start_time_unix_nano, point.time_unix_nano
            growth = self._series.growth(key, start_ns, time_ns, (count, *counts), total, edges)
            if growth is None:
                return
            count, *counts = (int(number) for number in growth.values)
            total = growth.total
        buckets = dict(zip(map(str, edges), counts, strict=True))
        yield point.time_unix_nano, self._point("histogram", total, labels, count, buckets)

    def _point(
        self, kind: str, value: float, labels: dict[str, str], count: int = 0, buckets: Mapping[str, int] | None = None
    ) -> Point:
        return Point(self._name, value, self._teller[0], kind, self._unit, labels, count, dict(buckets or {}))  # pyright: ignore[reportArgumentType]

    def _labels(self, bag: Bag | None) -> dict[str, str]:
        """Attributes as texts; those that would speak for a process of ours under another name."""
        labels: dict[str, str] = {}
        for key, value in (bag.values if bag is not None else {}).items():
            if len(labels) >= _ATTRIBUTES_MAX:
                break
            labels[f"otlp.{key}" if key in RESERVED else key] = _text(value)
        if self._instance:
            labels.setdefault("service.instance.id", self._instance[:_CHARACTERS_MAX])
        return labels

    def _key(self, labels: Mapping[str, str], size: int = 1) -> bytes:
        """Of the series; empty where there is no room for it."""
        told = msgspec.msgpack.encode((self._teller, self._name, sorted(labels.items())))
        key = blake2b(told, digest_size=16).digest()
        if self._series.admit(key, self._now_ns, size):
            return key
        self._refuse(_TOO_MANY_SERIES)
        return b""


def _number(point: messages.NumberPoint) -> float | None:
    """What can be added up; not NaN, which says that there is nothing to say."""
    if point.flags & _NO_VALUE:
        return None
    if point.as_int is not None:
        return point.as_int if -(2**63) <= point.as_int < 2**63 else None
    return point.as_double if point.as_double is not None and isfinite(point.as_double) else None


def _text(value: Attribute) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return value[: _CHARACTERS_MAX // 2].hex()
        case None:
            return ""
        case _:
            return str(value)[:_CHARACTERS_MAX]


def _exponential_buckets(point: messages.ExponentialPoint) -> list[tuple[float, int]]:
    """Upper bounds and counts, rising; an empty bucket stands where a run of full ones begins."""
    ratio = 2.0**-point.scale
    found: list[tuple[float, int]] = []

    def bound(index: int) -> float:
        exponent = index * ratio
        return 2.0**exponent if abs(exponent) < _EXPONENT_MAX else (inf if exponent > 0 else 0.0)

    negative, positive = point.negative, point.positive
    if negative is not None and any(negative.bucket_counts or ()):
        counts = negative.bucket_counts or []
        found.append((-bound(negative.offset + len(counts)), 0))
        found += [(-bound(negative.offset + i), n) for i, n in reversed(list(enumerate(counts)))]
    if point.zero_count:
        found += [(-point.zero_threshold, 0)] if point.zero_threshold > 0 else []
        found.append((point.zero_threshold, point.zero_count))
    if positive is not None and any(positive.bucket_counts or ()):
        counts = positive.bucket_counts or []
        found.append((bound(positive.offset), 0))
        found += [(bound(positive.offset + i + 1), n) for i, n in enumerate(counts)]
    merged: dict[float, int] = {}
    for upper, count in found:
        merged[upper + 0.0] = merged.get(upper + 0.0, 0) + count
    return sorted(merged.items())
