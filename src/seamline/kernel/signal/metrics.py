"""Counters and latency histograms that cost a fraction of a microsecond to feed.

A histogram has four buckets for every doubling of the latency in microseconds, so that a quantile read from it is
within 12.5 % of the true one. Histograms add up: the sum over processes is the histogram of them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

BUCKETS = 140
OTHER: Final = "other"
"""The method under which is counted what there is no room for."""


def bucket_ms(bucket: int) -> float:
    """The middle of a bucket, in milliseconds."""
    if bucket < 4:
        return bucket / 1000
    bits = (bucket >> 2) + 2
    low = (4 + (bucket & 3)) << (bits - 3)
    return (low + (1 << (bits - 3)) / 2) / 1000


def bucket_of(micros: int) -> int:
    """The bucket of a latency in microseconds."""
    if micros < 4:
        return max(micros, 0)
    bits = micros.bit_length()
    return min(((bits - 2) << 2) + ((micros >> (bits - 3)) & 3), BUCKETS - 1)


QUICK: Final = bytes(map(bucket_of, range(16_384)))
"""The bucket of each latency below 16 ms: to look one up costs a third of working it out."""


def quantile_ms(histogram: Sequence[int], share: float) -> float:
    """The latency in milliseconds below which ``share`` of the calls lie; 0 when there were none."""
    total = sum(histogram)
    if total == 0:
        return 0.0
    rank, seen = share * total, 0
    for bucket, count in enumerate(histogram):
        seen += count
        if seen >= rank and count:
            return bucket_ms(bucket)
    return bucket_ms(BUCKETS - 1)


class Flow(NamedTuple):
    """What happened on one edge since it was last asked for.

    ``side`` is who counted: ``client`` (the caller), ``server`` (a callee in another process), ``http`` (the public
    door), ``event`` (a consumer), ``saga`` (a step). ``histogram`` and ``codes`` have only what is not 0. ``codes`` are
    errors by status, and what is told apart and is none: ``canceled``, ``aborted`` (a saga that was undone), and at the
    public door ``1xx``, ``3xx`` and ``4xx``.
    """

    caller: str
    callee: str
    method: str
    side: str
    calls: int
    errors: int
    retries: int
    inflight: int
    sum_ns: int
    histogram: dict[int, int]
    codes: dict[str, int]


class EdgeStats:
    """Calls of one method by one module: how many, how many failed, how long they took.

    The hottest callers count by themselves what :meth:`record` does for a call that went well: they add to ``sum_s``
    and ``recent``.
    """

    __slots__ = ("_before", "_seen_s", "_taken", "codes", "inflight", "recent", "retries", "sum_s")

    def __init__(self) -> None:
        self.recent = [0] * BUCKETS
        """The calls since the last :meth:`take`, by bucket."""
        self.sum_s = 0.0
        self.retries = 0
        self.inflight = 0
        self.codes: Counter[str] = Counter()
        self._before = [0] * BUCKETS
        self._seen_s = 0.0
        self._taken: tuple[int, Counter[str]] = (0, Counter())

    @property
    def histogram(self) -> list[int]:
        """All calls, by bucket."""
        return [before + recent for before, recent in zip(self._before, self.recent, strict=True)]

    @property
    def calls(self) -> int:
        return sum(self._before) + sum(self.recent)

    @property
    def sum_ns(self) -> int:
        """How long all calls took together."""
        return int(self.sum_s * 1e9)

    @property
    def errors(self) -> int:
        return sum(number for code, number in self.codes.items() if code not in _NO_ERRORS)

    def record(self, seconds: float, code: str = "") -> None:
        """Count a call that has ended; ``code`` says how it failed."""
        self.sum_s += max(seconds, 1e-9)  # a sum that stands still says that nothing happened
        self.recent[bucket_of(int(seconds * 1e6))] += 1
        if code:
            self.codes[code] += 1

    def take(self, caller: str, callee: str, method: str, side: str) -> Flow | None:
        """What happened since the last time; None if nothing did."""
        retries, codes = self._taken
        if self.sum_s == self._seen_s and self.retries == retries and not self.inflight:
            return None
        recent, self.recent = self.recent, [0] * BUCKETS
        histogram = {bucket: number for bucket, number in enumerate(recent) if number}
        for bucket, number in histogram.items():
            self._before[bucket] += number
        new = {code: number - codes[code] for code, number in self.codes.items() if number > codes[code]}
        errors = sum(number for code, number in new.items() if code not in _NO_ERRORS)
        sum_ns = int((self.sum_s - self._seen_s) * 1e9)
        self._seen_s, self._taken = self.sum_s, (self.retries, self.codes.copy())
        return Flow(
            caller, callee, method, side, sum(histogram.values()), errors, self.retries - retries, self.inflight,
            sum_ns, histogram, new,
        )  # fmt: skip

    def snapshot(self) -> dict[str, object]:
        """Totals since the start, for JSON."""
        histogram = self.histogram
        return {
            "calls": sum(histogram),
            "errors": self.errors,
            "retries": self.retries,
            "inflight": self.inflight,
            "p50_ms": round(quantile_ms(histogram, 0.5), 4),
            "p99_ms": round(quantile_ms(histogram, 0.99), 4),
            "histogram": histogram,
        }


_NO_ERRORS: Final = frozenset({"1xx", "3xx", "4xx", "aborted", "canceled"})
"""What is told apart, and is no failure of the callee."""


class Flows:
    """The counters of every edge of one process.

    Args:
        edges_max: how many are told apart; what is more is counted under the method ``other``.
    """

    def __init__(self, edges_max: int = 20_000) -> None:
        self._edges_max = edges_max
        self._edges: dict[tuple[str, str, str, str], EdgeStats] = {}

    def stats(self, caller: str, callee: str, method: str, side: str) -> EdgeStats:
        """The counters of an edge; the same for the same names."""
        key = (caller, callee, method, side)
        found = self._edges.get(key)
        if found is None:
            if len(self._edges) >= self._edges_max and method != OTHER:
                return self.stats(caller, callee, OTHER, side)
            found = self._edges[key] = EdgeStats()
        return found

    def take(self) -> list[Flow]:
        """What happened on each edge since the last time, where anything did."""
        found = [stats.take(*key) for key, stats in list(self._edges.items())]
        return [flow for flow in found if flow is not None]
