"""Values of metrics on their way out of this process, and what adds them up until then."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import msgspec


class Measure(msgspec.Struct, frozen=True, gc=False):
    """What a gauge shows, or by how much a counter or a histogram grew since it was taken last.

    Of a histogram ``value`` is the sum and ``count`` how many values it has; ``buckets`` counts those that are above
    the bucket before and not above this upper bound, the last of which is ``inf``.
    """

    name: str
    value: float
    module: str = ""
    kind: Literal["gauge", "counter", "histogram"] = "gauge"
    unit: str = ""
    attributes: dict[str, str] = {}
    count: int = 0
    buckets: dict[str, int] = {}


class Histogram:
    """Values by bucket. ``bounds`` are the upper ones, ascending, without the last."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.sum += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def take(self, name: str, module: str, unit: str, attributes: dict[str, str]) -> Measure | None:
        """What was added since it was taken last, None where that is nothing."""
        counts, total = self._counts, self.sum
        if not any(counts):
            return None
        self._counts, self.sum = [0] * len(counts), 0.0
        bounds = [*(f"{bound:g}" for bound in self._bounds), "inf"]
        buckets = {bound: count for bound, count in zip(bounds, counts, strict=True) if count}
        return Measure(name, total, module, "histogram", unit, attributes, sum(counts), buckets)
