"""The page is what Prometheus' own parser reads, in both formats, with the right types, names and totals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from seamline.kernel.signal.metrics import BUCKETS, bucket_of
from seamline.observe import prometheus
from seamline.observe.prometheus import OPENMETRICS, TEXT, Totals, durations, label_names, metric_name, render
from seamline.observe.records import Batch, Point, Source, Span, Traffic

SECOND = 10**9
NOW = 1_760_000_000 * SECOND
ACCEPTS = {TEXT: "", OPENMETRICS: "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}


def batch(*things: Point | Traffic | Span, workload: str = "shop", replica: int = 0, at_s: float = 0) -> Batch:
    return Batch(
        Source(workload, replica),
        NOW + int(at_s * SECOND),
        SECOND,
        spans=[thing for thing in things if isinstance(thing, Span)],
        traffic=[thing for thing in things if isinstance(thing, Traffic)],
        points=[thing for thing in things if isinstance(thing, Point)],
    )


def call(**more: Any) -> Traffic:
    told: dict[str, Any] = {"calls": 3, "sum_ns": 6_000_000, "histogram": {bucket_of(1000): 2, bucket_of(4000): 1}}
    return Traffic("frontend", "cart", "Cart.add", "server", **(told | more))


def samples(page: tuple[bytes, str] | bytes) -> dict[str, Any]:
    """By name and labels, as Prometheus' own parser reads them."""
    body, kind = page if isinstance(page, tuple) else (page, TEXT)
    parse = cast("Any", openmetrics_parser if kind == OPENMETRICS else text_parser).text_string_to_metric_families
    found: dict[str, Any] = {}
    for family in cast("Iterable[Any]", parse(body.decode())):
        for sample in family.samples:
            inside = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            key = f"{sample.name}{{{inside}}}"
            assert key not in found, "a series stands twice"
            found[key] = sample
            found[f"type {family.name}"] = family.type
    return found


EDGE = "callee=cart,caller=frontend"
SHOP = "method=Cart.add,replica=0,side=server,workload=shop"


@pytest.mark.parametrize("kind", ACCEPTS)
def test_growth_is_added_up(kind: str):
    """Two batches of three calls are six, in every bucket, in both formats."""
    totals = Totals()
    for at_s in (0, 1):
        totals.add(batch(call(errors=1, codes={"internal": 1}, retries=2, inflight=4), at_s=at_s))
    page = totals.render(ACCEPTS[kind])
    assert page[1] == kind
    found = samples(page)
    name = prometheus.CALL_DURATION
    assert found[f"{name}_count{{{EDGE},{SHOP}}}"].value == 6
    assert found[f"{name}_sum{{{EDGE},{SHOP}}}"].value == pytest.approx(0.012)  # pyright: ignore[reportUnknownMemberType]
    assert found[f"{name}_bucket{{{EDGE},le=0.001024,{SHOP}}}"].value == 4
    assert found[f"{name}_bucket{{{EDGE},le=0.004096,{SHOP}}}"].value == 6
    assert found[f"{name}_bucket{{{EDGE},le=+Inf,{SHOP}}}"].value == 6
    assert found[f"{prometheus.CALL_ERRORS}_total{{{EDGE},code=internal,{SHOP}}}"].value == 2
    assert found[f"{prometheus.CALL_RETRIES}_total{{{EDGE},{SHOP}}}"].value == 4
    assert found[f"{prometheus.CALLS_IN_FLIGHT}{{{EDGE},{SHOP}}}"].value == 4
    assert found[f"type {name}"] == "histogram"
    assert found[f"type {prometheus.CALLS_IN_FLIGHT}"] == "gauge"


def test_points_of_every_kind():
    """Gauges show the last, counters and histograms the sum."""
    totals = Totals()
    for value in (2.0, 3.0):
        totals.add(
            batch(
                Point("queue.length", value, "cart"),
                Point("jobs", value, "cart", "counter", "{job}", {"kind": "mail"}),
                Point("took", value, "cart", "histogram", "ms", {}, 2, {"5.0": 1, "10.0": 0, "inf": 1}),
            )
        )
    found = samples(totals.render(ACCEPTS[OPENMETRICS]))
    where = "module=cart,replica=0,workload=shop"
    assert found[f"queue_length{{{where}}}"].value == 3.0
    assert found[f"jobs_total{{kind=mail,{where}}}"].value == 5.0
    assert found[f"took_milliseconds_bucket{{le=5.0,{where}}}"].value == 2
    assert found[f"took_milliseconds_bucket{{le=+Inf,{where}}}"].value == 4
    assert found[f"took_milliseconds_sum{{{where}}}"].value == 5.0


def test_of_one_workload_and_of_all():
    """A workload's page has its own series; the merged page has all, told apart by label."""
    totals = Totals()
    totals.add(batch(Point("up", 1.0), workload="shop", replica=1))
    totals.add(batch(Point("up", 0.0), workload="mail"))
    one, all_ = samples(totals.render(workload="shop")), samples(totals.render())
    assert "up{replica=1,workload=shop}" in one
    assert "up{replica=0,workload=mail}" not in one
    assert {"up{replica=1,workload=shop}", "up{replica=0,workload=mail}"} <= set(all_)


def test_a_call_is_an_example_of_its_bucket():
    """OpenMetrics names a trace beside the bucket that its call fell into, while it is young."""
    totals = Totals()
    example = Span(b"\1" * 16, b"\2" * 8, b"", "Cart.add", "server", "cart", "frontend", NOW - SECOND, 3_000_000)
    totals.add(batch(call(), example))
    found = samples(totals.render(ACCEPTS[OPENMETRICS]))
    exemplars = {key: s.exemplar for key, s in found.items() if getattr(s, "exemplar", None)}
    ((key, exemplar),) = exemplars.items()
    assert "le=0.004096" in key
    assert exemplar.labels == {"trace_id": "01" * 16, "span_id": "02" * 8}
    assert exemplar.value == 0.003
    assert b"# {" not in totals.render()[0]
    totals.add(batch(Point("up", 1.0), at_s=600))
    assert b" # {" not in totals.render(ACCEPTS[OPENMETRICS])[0]


texts = st.text(max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    texts,
    st.sampled_from(["", "s", "ms", "By", "1", "{x}", "By/s", "m/s", "%", "weird unit", "ß", "/", "1/s"]),
    st.sampled_from(["gauge", "counter", "histogram"]),
    st.dictionaries(texts, texts, max_size=4),
    st.sampled_from(list(ACCEPTS)),
)
def test_whatever_is_told_can_be_read(name: str, unit: str, kind: Any, attributes: dict[str, str], accept: str):
    """Names, units and labels of any text give a page that Prometheus' parser reads, with the labels' values intact."""
    totals = Totals()
    totals.add(batch(Point(name, 1.5, "cart", kind, unit, attributes, 1, {"1.0": 0, "inf": 1})))
    found = samples(totals.render(ACCEPTS[accept]))
    shown = {value for s in found.values() if hasattr(s, "labels") for value in s.labels.values()}
    if len({label for label, _ in label_names(attributes)} - {"module", "workload", "replica"}) == len(attributes):
        assert {value.replace("\r", " ") for value in attributes.values()} <= shown


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "histogram", ("http_server_request_duration_seconds", "seconds")),
        ("process.memory.usage", "By", "gauge", ("process_memory_usage_bytes", "bytes")),
        ("seamline.loop.lag", "ms", "gauge", ("seamline_loop_lag_milliseconds", "milliseconds")),
        ("cpu.share", "1", "gauge", ("cpu_share_ratio", "ratio")),
        ("jobs.total", "1", "counter", ("jobs", "")),
        ("network.io", "By/s", "gauge", ("network_io_bytes_per_second", "bytes_per_second")),
        ("rate", "1/s", "gauge", ("rate_1_per_second", "1_per_second")),
        ("jobs", "{job}", "counter", ("jobs", "")),
        ("uptime_seconds", "s", "gauge", ("uptime_seconds", "seconds")),
        ("2xx..count", "", "counter", ("_2xx_count", "")),
        ("größe", "", "gauge", ("gr_e", "")),
        ("", "", "gauge", ("_", "")),
    ],
)
def test_names_follow_opentelemetrys_rules(name: str, unit: str, kind: Any, expected: tuple[str, str]):
    """Dots become underscores, units stand last in words, and ``_total`` only behind counters."""
    assert metric_name(name, unit, kind) == expected


def test_labels_that_become_one_are_joined():
    """Two attributes that differ by a dot and an underscore keep both values."""
    assert label_names({"a.b": "1", "a_b": "2", "9": "x", "__name__": "y", "le": "z"}) == (
        ("a_b", "1;2"), ("key_9", "x"), ("key__name__", "y"), ("key_le", "z"),
    )  # fmt: skip


def test_one_name_has_one_type():
    """A second kind under the same name is left out and counted; the page stays readable."""
    totals = Totals()
    totals.add(batch(Point("jobs", 1.0, kind="gauge"), Point("jobs", 1.0, kind="counter")))
    found = samples(totals.render())
    assert found["type jobs"] == "gauge"
    assert found[f"{prometheus.SERIES_DROPPED}_total{{}}"].value == 1


def test_series_are_bounded():
    """A label with ever new values takes the places there are, and no more; known series go on."""
    totals = Totals(series_max=100)
    for number in range(500):
        totals.add(batch(Point("jobs", 1.0, kind="counter", attributes={"user": str(number)})))
    assert len(totals) == 100
    totals.add(batch(Point("jobs", 1.0, kind="counter", attributes={"user": "7"})))
    found = samples(totals.render())
    assert found["jobs_total{replica=0,user=7,workload=shop}"].value == 2
    assert found[f"{prometheus.SERIES_DROPPED}_total{{}}"].value == 400


def test_a_process_that_is_gone_makes_room():
    """Series go with the process that told them; those of one that tells stay, however quiet they are."""
    totals = Totals(series_max=2)
    totals.add(batch(Point("a", 1.0), workload="old"))
    totals.add(batch(Point("b", 1.0, kind="counter"), workload="shop"))
    for at_s in (200, 400):
        totals.add(batch(workload="shop", at_s=at_s))
    found = samples(totals.render())
    assert "a{replica=0,workload=old}" not in found
    assert found["b_total{replica=0,workload=shop}"].value == 1
    totals.add(batch(Point("c", 1.0), workload="shop", at_s=400))
    assert len(totals) == 2


def test_totals_that_were_added_up_elsewhere():
    """``render`` shows points and traffic as they are."""
    found = samples(render([Point("a", 1.0)], [call()]))
    assert found["a{}"].value == 1.0
    assert found[f"{prometheus.CALL_DURATION}_count{{{EDGE},method=Cart.add,side=server}}"].value == 3


def test_values_that_are_no_numbers_are_left_out():
    """NaN and infinity would spoil every sum they are added to."""
    totals = Totals()
    totals.add(batch(Point("a", math.nan), Point("b", math.inf), Point("c", 1.0)))
    assert {key.partition("{")[0] for key in samples(totals.render()) if "{" in key} == {
        "c", f"{prometheus.SERIES_DROPPED}_total",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.3", OPENMETRICS),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text; q=0.000", TEXT),
    ],
)
def test_who_asks_for_openmetrics_gets_it(accept: str, kind: str):
    """By the request's Accept header."""
    assert Totals().render(accept)[1] == kind


@given(st.integers(0, 200_000_000))
def test_every_duration_falls_below_its_bound(micros: int):
    """The bucket of ours that a duration falls into lies within the one it is shown in."""
    counts = durations({bucket_of(micros): 1})
    place = counts.index(1)
    bounds = (*prometheus.DURATION_BOUNDS_S, math.inf)
    assert micros / 1e6 <= bounds[place]
    assert place == 0 or micros / 1e6 >= bounds[place - 1]
    assert sum(durations(dict.fromkeys(range(BUCKETS), 1))) == BUCKETS
