"""Counters and latency histograms that cost a fraction of a microsecond to feed.

A histogram has four buckets for every doubling of the latency in microseconds, so that a quantile read from it is
within 12.5 % of the true one. Histograms add up: the sum over processes is the histogram of them all.
"""

from __future__ import annotations

from collections.abc import Sequence

BUCKETS = 140


def bucket_ms(bucket: int) -> float:
    """The middle of a bucket, in milliseconds."""
    if bucket < 4:
        return bucket / 1000
    bits = (bucket >> 2) + 2
    low = (4 + (bucket & 3)) << (bits - 3)
    return (low + (1 << (bits - 3)) / 2) / 1000


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


class EdgeStats:
    """Calls of one method by one module: how many, how many failed, how long they took."""

    __slots__ = ("calls", "errors", "histogram", "inflight", "retries")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.retries = 0
        self.inflight = 0
        self.histogram = [0] * BUCKETS

    def record(self, seconds: float, ok: bool) -> None:
        self.calls += 1
        if not ok:
            self.errors += 1
        micros = int(seconds * 1e6)
        if micros < 4:
            self.histogram[max(micros, 0)] += 1
        else:
            bits = micros.bit_length()
            self.histogram[min(((bits - 2) << 2) + ((micros >> (bits - 3)) & 3), BUCKETS - 1)] += 1

    def snapshot(self) -> dict[str, object]:
        """Totals since the start, for JSON."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "retries": self.retries,
            "inflight": self.inflight,
            "p50_ms": round(quantile_ms(self.histogram, 0.5), 4),
            "p99_ms": round(quantile_ms(self.histogram, 0.99), 4),
            "histogram": list(self.histogram),
        }
