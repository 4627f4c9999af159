"""Totals become growth, histograms keep their shape, and no sender fills the memory with series."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from seamline.observe.otlp import bounds
from seamline.observe.otlp.decoding import Decoding
from seamline.observe.otlp.mapping import Mapper, Taken
from seamline.observe.otlp.series import Series
from seamline.observe.records import Point

SECOND = 10**9
BEGAN = 1_700_000_000 * SECOND
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
BEFORE = BEGAN - 3600 * SECOND


class Service:
    """Sends metrics, one request each, a second apart."""

    def __init__(self, name: str = "billing") -> None:
        self._decoding = Decoding(Mapper((), BEGAN, 14), 2**24)
        self._name = name
        self.now_ns = BEGAN

    def send(self, *metrics: Metric, instance: str = "") -> Taken:
        request = ExportMetricsServiceRequest()
        block = request.resource_metrics.add()
        for key, value in (("service.name", self._name), ("service.instance.id", instance)):
            if value:
                block.resource.attributes.add(key=key).value.string_value = value
        block.scope_metrics.add().metrics.extend(metrics)
        self.now_ns += SECOND
        return self._decoding.take("metrics", "protobuf", "", request.SerializeToString(), self.now_ns)

    def points(self, *metrics: Metric, instance: str = "") -> list[Point]:
        return [point for batch in self.send(*metrics, instance=instance).batches for point in batch.points]

    def counter(self, value: float, start_ns: int = BEGAN, **more: Any) -> Metric:
        metric = Metric(name="jobs", unit="1")
        metric.sum.is_monotonic = more.pop("monotonic", True)
        metric.sum.aggregation_temporality = more.pop("temporality", CUMULATIVE)
        kind = {"as_int": value} if isinstance(value, int) else {"as_double": value}
        metric.sum.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=self.now_ns + SECOND, **kind, **more)
        return metric

    def histogram(self, counts: list[int], total: float, edges: tuple[float, ...] = (1.0, 2.0), **more: Any) -> Metric:
        metric = Metric(name="took", unit="ms")
        metric.histogram.aggregation_temporality = more.pop("temporality", CUMULATIVE)
        metric.histogram.data_points.add(
            start_time_unix_nano=more.pop("start_ns", BEGAN), time_unix_nano=self.now_ns + SECOND,
            count=sum(counts), sum=total, bucket_counts=counts, explicit_bounds=edges, **more,
        )  # fmt: skip
        return metric

    def exponential(self, scale: int, offset: int, counts: list[int], **more: Any) -> Metric:
        metric = Metric(name="spread")
        metric.exponential_histogram.aggregation_temporality = CUMULATIVE
        point = metric.exponential_histogram.data_points.add(
            start_time_unix_nano=BEGAN, time_unix_nano=self.now_ns + SECOND, scale=scale,
            count=sum(counts) + more.get("zero_count", 0), sum=1.0, **more,
        )  # fmt: skip
        point.positive.offset = offset
        point.positive.bucket_counts.extend(counts)
        return metric


def grown(service: Service, *values: float, start_ns: int = BEGAN) -> list[float]:
    return [point.value for value in values for point in service.points(service.counter(value, start_ns))]


def test_totals_become_growth():
    """5, 7, 7, 10 in all is 5, 2, 0 and 3 each time."""
    assert grown(Service(), 5, 7, 7, 10) == [5.0, 2.0, 0.0, 3.0]


def test_a_counter_that_ran_before_us_is_no_burst():
    """A process that counted to a million before we began has not just done a million jobs."""
    assert grown(Service(), 1_000_000, 1_000_004, start_ns=BEFORE) == [4.0]


def test_a_counter_that_begins_anew():
    """A value that falls, and a start that moves, are restarts: what is told is growth."""
    assert grown(Service(), 5, 3, 4) == [5.0, 3.0, 1.0]
    service = Service()
    first, second = service.counter(5), service.counter(9, BEGAN + SECOND)
    assert [p.value for p in service.points(first)] == [5.0]
    second.sum.data_points[0].time_unix_nano += SECOND
    assert [p.value for p in service.points(second)] == [9.0]


def test_what_is_told_twice_counts_once():
    """The same point again, as after a lost answer, and an older one, add nothing."""
    service = Service()
    five = service.counter(5)
    older = service.counter(4)
    older.sum.data_points[0].time_unix_nano -= SECOND
    assert [len(service.points(metric)) for metric in (five, five, older)] == [1, 0, 0]
    assert grown(service, 6) == [1.0]


def test_large_whole_numbers_lose_nothing():
    """Beyond 2**53, where doubles skip numbers, growth by one is still seen."""
    assert grown(Service(), 2**62, 2**62 + 1) == [float(2**62), 1.0]


def test_deltas_are_growth_already():
    """And changes of what goes up and down are added up to a level."""
    service = Service()
    assert [p.value for _ in range(2) for p in service.points(service.counter(5, temporality=DELTA))] == [5.0, 5.0]
    service = Service()
    found = [p for v in (5, -2) for p in service.points(service.counter(v, temporality=DELTA, monotonic=False))]
    assert [(p.kind, p.value) for p in found] == [("gauge", 5.0), ("gauge", 3.0)]


def test_two_instances_are_two_series():
    """What one replica counted is not the restart of another."""
    service = Service()
    both = [("a", 100), ("b", 3), ("a", 101), ("b", 5)]
    found = [p for instance, v in both for p in service.points(service.counter(v), instance=instance)]
    assert [p.value for p in found] == [100.0, 3.0, 1.0, 2.0]
    assert {p.attributes["service.instance.id"] for p in found} == {"a", "b"}


def test_histograms_grow_bucket_by_bucket():
    """Counts and sum are those since the last telling."""
    service = Service()
    (first,) = service.points(service.histogram([1, 2, 3], 30.0))
    (second,) = service.points(service.histogram([1, 4, 3], 34.0))
    assert (first.count, first.value, first.buckets) == (6, 30.0, {"1.0": 1, "2.0": 2, "inf": 3})
    assert (second.count, second.value, second.buckets) == (2, 4.0, {"1.0": 0, "2.0": 2, "inf": 0})
    (third,) = service.points(service.histogram([0, 1, 0], 1.5))
    assert (third.count, third.value) == (1, 1.5)


def test_a_sum_may_fall():
    """Histograms of negative values are not taken for restarts."""
    service = Service()
    service.points(service.histogram([1, 0, 0], -5.0))
    (second,) = service.points(service.histogram([2, 0, 0], -9.0))
    assert (second.count, second.value) == (1, -4.0)


def test_exponential_histograms_have_their_bounds():
    """Bucket ``i`` of scale ``s`` ends at 2**((i + 1) / 2**s); zero has its own; an edge stands below the first."""
    service = Service()
    (point,) = service.points(service.exponential(1, 2, [4, 5], zero_count=7))
    edges = {float(bound): count for bound, count in point.buckets.items()}
    assert list(edges) == pytest.approx([0.0, 2.0, 2**1.5, 4.0])  # pyright: ignore[reportUnknownMemberType]
    assert list(edges.values()) == [7, 0, 4, 5]
    assert point.count == 16


def test_exponential_histograms_that_spread_or_grow_coarser():
    """More buckets, or a smaller scale, are the same series: nothing counts twice."""
    service = Service()
    service.points(service.exponential(1, 2, [4, 5]))
    (wider,) = service.points(service.exponential(1, 0, [1, 0, 4, 5, 0, 2]))
    assert {float(b): n for b, n in wider.buckets.items() if n} == {2**0.5: 1, 8.0: 2}
    assert wider.count == 3
    (coarser,) = service.points(service.exponential(0, 0, [1, 9, 3]))
    assert {float(b): n for b, n in coarser.buckets.items() if n} == {8.0: 1}
    assert coarser.count == 1


@pytest.mark.parametrize(("scale", "offset"), [(32, 2**31 - 1), (-32, 2**31 - 1), (20, -(2**31)), (-32, -(2**31))])
def test_extreme_scales(scale: int, offset: int):
    """Bounds that no double holds are infinite or zero; nothing breaks."""
    service = Service()
    for point in service.points(service.exponential(scale, offset, [1, 1])):
        assert not any(math.isnan(float(bound)) for bound in point.buckets)
        assert point.count == 2


def test_summaries():
    """Quantiles are gauges, count and sum grow."""
    service = Service()
    for count, expected in ((4, (4, 40.0)), (6, (2, 20.0))):
        metric = Metric(name="lag")
        point = metric.summary.data_points.add(
            start_time_unix_nano=BEGAN, time_unix_nano=service.now_ns + SECOND, count=count, sum=count * 10.0
        )
        point.quantile_values.add(quantile=0.99, value=12.5)
        gauge, whole = service.points(metric)
        assert (gauge.kind, gauge.value, gauge.attributes) == ("gauge", 12.5, {"quantile": "0.99"})
        assert (whole.count, whole.value) == expected


@pytest.mark.parametrize(
    ("counts", "edges"),
    [([1, 2], (1.0, 2.0)), ([1, 2, 3], (2.0, 1.0)), ([1, 2, 3], (1.0, math.nan)), ([1] * 600, tuple(range(599)))],
)
def test_histograms_that_make_no_sense_are_rejected(counts: list[int], edges: tuple[float, ...]):
    """The rest of the request is taken, and the answer says why this was not."""
    service = Service()
    taken = service.send(service.histogram(counts, 1.0, edges), service.counter(5))
    assert taken.rejected == 1
    assert "histogram" in taken.reason
    assert [point.name for batch in taken.batches for point in batch.points] == ["jobs"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_cannot_be_added_are_left_out(value: float):
    """NaN and infinity are told by nobody's counter."""
    service = Service()
    assert service.points(service.counter(value)) == []
    assert service.points(service.histogram([1, 0, 0], value)) == []


def test_a_series_that_has_ended_says_nothing():
    """The flag for "no value recorded" is heeded."""
    service = Service()
    assert service.points(service.counter(5, flags=1)) == []


def test_nobody_speaks_for_our_processes():
    """Labels by which our own workloads are known are renamed."""
    service = Service()
    metric = service.counter(5)
    for key in ("workload", "replica", "module"):
        metric.sum.data_points[0].attributes.add(key=key).value.string_value = "orders"
    (point,) = service.points(metric)
    assert set(point.attributes) == {"otlp.workload", "otlp.replica", "otlp.module"}
    assert point.module == "billing"


def test_series_are_bounded():
    """A label with ever new values fills the places and no more; the rest is rejected, and says why. After a quarter of
    an hour of silence there is room again."""
    series = Series(BEGAN, series_max=100, numbers_max=1000)
    admitted = sum(series.admit(bytes([n // 256, n % 256]), BEGAN) for n in range(1000))
    assert admitted == len(series) == 100
    assert series.admit(b"\0\0", BEGAN + 1)
    assert not series.admit(b"new", BEGAN + 2 * SECOND)
    assert series.admit(b"new", BEGAN + 1000 * SECOND)
    assert len(series) == 1
    assert not series.admit(b"large", BEGAN + 1000 * SECOND, 1000)
    assert series.admit(b"large", BEGAN + 1000 * SECOND, 999)


def test_a_flood_of_series_is_rejected():
    """More series than are kept: the answer counts what was not taken."""
    service = Service()
    metric = service.counter(5)
    for number in range(bounds.SERIES_MAX + 500):
        point = metric.sum.data_points.add(start_time_unix_nano=BEGAN, time_unix_nano=service.now_ns, as_int=1)
        point.attributes.add(key="user").value.int_value = number
    taken = service.send(metric)
    assert taken.rejected == 501
    assert "series" in taken.reason


def test_names_of_metrics_are_bounded():
    """A service that makes up names gets so many; what has a name already goes on."""
    service = Service()
    made = [Metric(name=f"m{number}") for number in range(bounds.METRICS_MAX + 7)]
    for metric in made:
        metric.gauge.data_points.add(time_unix_nano=service.now_ns, as_double=1.0)
    assert service.send(*made).rejected == 7
    assert service.send(made[0]).rejected == 0


def test_times_are_kept_and_bounded():
    """Points of different times are batches of their own, to the nanosecond; of a thousand times most are rejected."""
    service = Service()
    metric = Metric(name="level")
    for number in range(1000):
        metric.gauge.data_points.add(time_unix_nano=BEGAN + number, as_double=1.0)
    taken = service.send(metric)
    assert [batch.at_ns for batch in taken.batches] == [BEGAN + n for n in range(bounds.TIMES_MAX)]
    assert taken.rejected == 1000 - bounds.TIMES_MAX


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=30))
def test_growth_adds_up_to_the_total(steps: list[tuple[int, bool]]):
    """Whatever a counter does, and however often it begins anew, its growth adds up to all that was counted."""
    series = Series(BEGAN)
    series.admit(b"k", BEGAN)
    value = counted = told = 0
    start_ns = BEGAN
    for number, (step, restart) in enumerate(steps, 1):
        if restart:
            value, start_ns = 0, BEGAN + number
        value += step
        counted += step
        growth = series.growth(b"k", start_ns, BEGAN + number, (value,))
        assert growth is not None
        told += int(growth.values[0])
    assert told == counted
