"""Histograms: what is read from them is near what was put in, and they add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seamline.kernel.signal.metrics import BUCKETS, EdgeStats, quantile_ms

LATENCIES_MS = st.floats(0.004, 3_600_000)


@given(LATENCIES_MS)
def test_a_latency_is_read_back_within_an_eighth(latency_ms: float):
    """From four microseconds to an hour."""
    stats = EdgeStats()
    stats.record(latency_ms / 1000)
    read = quantile_ms(stats.histogram, 0.5)
    assert abs(read - latency_ms) <= latency_ms / 8 + 0.001


@given(st.lists(LATENCIES_MS, min_size=1, max_size=200))
def test_quantiles_are_ordered_and_histograms_add_up(latencies_ms: list[float]):
    """The sum of two processes' histograms is the histogram of both."""
    whole, first, second = EdgeStats(), EdgeStats(), EdgeStats()
    for number, latency_ms in enumerate(latencies_ms):
        whole.record(latency_ms / 1000)
        (first if number % 2 else second).record(latency_ms / 1000, "" if number % 3 else "internal")
    added = [a + b for a, b in zip(first.histogram, second.histogram, strict=True)]
    assert added == whole.histogram
    assert whole.calls == first.calls + second.calls == len(latencies_ms)
    median, high = quantile_ms(added, 0.5), quantile_ms(added, 0.99)
    assert median <= high


def test_the_extremes_have_a_place():
    """Nothing, a clock that stood still, one that ran back, and a day."""
    stats = EdgeStats()
    assert quantile_ms(stats.histogram, 0.99) == 0.0
    for seconds in (0.0, -1.0, 86_400.0, 1e9):
        stats.record(seconds, "internal")
    assert (stats.calls, stats.errors, sum(stats.histogram)) == (4, 4, 4)
    assert stats.histogram[0] == 2
    assert stats.histogram[BUCKETS - 1] >= 1
