"""Counts over time: the same sums from every tier, whoever told when, and after a restart."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from tests.observe.stored import MODULES, NOW, S, clock, opened

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.incidents import Incident
from seamline.observe.records import Batch, Mark, Point, Profile, Source, Traffic
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.observe.store.query import EdgeSummary, SeriesQuery
from seamline.observe.store.rollups import EDGES_MAX, MINE_MAX
from seamline.observe.windows import Flow

HOUR = 3600 * S


def traffic(lot: random.Random) -> Traffic:
    calls = lot.randrange(1, 30)
    histogram: dict[int, int] = {}
    for _ in range(calls):
        bucket = min(int(abs(lot.gauss(40, 8))), 139)
        histogram[bucket] = histogram.get(bucket, 0) + 1
    errors = lot.randrange(calls) // 4
    return Traffic(
        lot.choice(MODULES), lot.choice(MODULES), lot.choice(("get", "place")), lot.choice(("client", "server")), calls,
        errors, lot.randrange(3), lot.randrange(3), calls * 10**6, histogram, {"unavailable": errors} if errors else {},
    )  # fmt: skip


def tell(store: TelemetryStore, lot: random.Random, at_ns: int) -> list[Traffic]:
    told = [traffic(lot) for _ in range(lot.randrange(1, 6))]
    store.add(Batch(Source(lot.choice("abc")), at_ns, S, traffic=told))
    return told


def total(graph: list[EdgeSummary]) -> dict[tuple[str, str, str, str], tuple[int, ...]]:
    return {
        (edge.caller, edge.callee, edge.method, edge.side): (
            edge.calls, edge.errors, edge.retries, sum(edge.codes.values()),
        )
        for edge in graph
    }  # fmt: skip


def summed(told: list[Traffic]) -> dict[tuple[str, str, str, str], Flow]:
    flows: dict[tuple[str, str, str, str], Flow] = {}
    for each in told:
        flows.setdefault((each.caller, each.callee, each.method, each.side), Flow()).add(each)
    return flows


def expected(told: list[Traffic]) -> dict[tuple[str, str, str, str], tuple[int, ...]]:
    return {
        key: (flow.calls, flow.errors, flow.retries, sum(flow.codes.values())) for key, flow in summed(told).items()
    }


def test_the_graph_of_any_time_is_the_sum_of_what_was_told(tmp_path: Path) -> None:
    """Over three hours, with restarts in between: for drawn times the graph has the exact counts, and the quantiles of
    the histograms added up, whichever of windows, minutes and hours they are read from."""
    lot, time = random.Random(5), clock()
    told: list[tuple[int, list[Traffic]]] = []
    for _ in range(4):
        with opened(tmp_path, at=time) as (store, _reader):
            for _ in range(900):
                time.advance(lot.choice((1, 2, 7)))
                now = store.now_ns()
                told.append((now, tell(store, lot, now)))
                if lot.random() < 0.02:
                    store.flush()
            time.advance(30)
            store.flush()
    reader = TelemetryReader(tmp_path)
    end = told[-1][0]
    for _ in range(25):
        # Windows begin at even seconds, a batch tells of the second before its time; older than two hours are minutes.
        since = lot.randrange(NOW, end) // (2 * S) * 2 * S
        until = lot.randrange(since, end + 10 * S) // (2 * S) * 2 * S
        within = [each for at, batch in told if since <= at - S // 2 < until for each in batch]
        graph = reader.graph(since, until, by_method=True)
        assert total(graph) == expected(within)
        flows = summed(within)
        for edge in graph:
            flow = flows[edge.caller, edge.callee, edge.method, edge.side]
            assert (edge.p50_ms, edge.p99_ms) == (flow.quantile_ms(0.5), flow.quantile_ms(0.99))
            assert edge.mean_ms == pytest.approx(1.0)
    reader.close()


async def test_hours_stand_for_minutes_when_these_are_gone(tmp_path: Path) -> None:
    """After weeks the counts of a day are still there, to the hour, and what is older than that is not."""
    lot, time = random.Random(6), clock()
    settings = ObserveSettings(history_days=2)
    with opened(tmp_path, settings, time) as (store, reader):
        told: list[Traffic] = []
        for _ in range(300):
            time.advance(97)
            told += tell(store, lot, store.now_ns())
        store.flush()
        time.advance(600)
        told += tell(store, lot, store.now_ns())
        store.flush()
        for days in (0, 1, 5, 10):
            time.advance(days * 24 * 3600)
            await store.tend()
            assert total(reader.graph(NOW, NOW + 9 * HOUR, by_method=True)) == expected(told), days
        time.advance(30 * 24 * 3600)
        await store.tend()
        assert reader.graph(NOW, NOW + 24 * HOUR) == []


def test_red_has_each_step_once(tmp_path: Path) -> None:
    """Rates add up to the calls, errors and latencies are those of the step; a call is not counted at both its ends."""
    with opened(tmp_path) as (store, reader):
        for second in range(120):
            at = NOW - 120 * S + second * S + S
            both = [
                Traffic("frontend", "cart", "get", side, 4, second % 2, histogram={30: 4}, sum_ns=4 * 10**6)
                for side in ("client", "server")
            ]
            only = Traffic("cart", "database", "query", "client", 1, histogram={10: 1})
            store.add(Batch(Source("w"), at, S, traffic=[*both, only]))
        store.flush()
        since, until = NOW - 120 * S, NOW
        series = reader.red(SeriesQuery(module="cart", since_ns=since, until_ns=until, step_ns=10 * S))
        assert series.at_ns == list(range(since, until, 10 * S))
        assert series.columns["calls"] == [40.0] * 12
        assert series.columns["rate"] == [4.0] * 12
        assert series.columns["errors"] == [5.0] * 12
        assert series.columns["error_ratio"] == [0.125] * 12
        assert series.columns["mean_ms"] == [1.0] * 12
        everything = reader.red(SeriesQuery(since_ns=since, until_ns=until))
        assert sum(value or 0 for value in everything.columns["calls"]) == 120 * 5
        client = reader.red(SeriesQuery(caller="frontend", side="client", since_ns=since, until_ns=until))
        assert sum(value or 0 for value in client.columns["calls"]) == 480
        empty = reader.red(SeriesQuery(module="nobody", since_ns=since, until_ns=until))
        assert set(empty.columns["calls"]) == {0}
        assert set(empty.columns["p99_ms"]) == {None}


def test_metrics_come_back_by_kind(tmp_path: Path) -> None:
    """A gauge as its mean, a counter as growth a second, a histogram as rate and quantiles; each process on its own."""
    with opened(tmp_path) as (store, reader):
        for second in range(60):
            at = NOW - 60 * S + second * S + S
            points = [
                Point("rss", 100 + second % 2, "cart", unit="By"),
                Point("sent", 3.0, "cart", "counter", attributes={"to": "disk"}),
                Point("sent", 1.0, "cart", "counter", attributes={"to": "net"}),
                Point("took", 5.0, "cart", "histogram", "ms", count=10, buckets={"1": 9, "2": 1, "inf": 0}),
                Point("bad", math.nan, "cart"),
                Point("back", -5.0, "cart", "counter"),
            ]
            for replica in (0, 1):
                store.add(Batch(Source("w", replica), at, S, points=points))
        store.flush()
        since, until = NOW - 60 * S, NOW
        names = {each.name: (each.kind, each.unit, each.series) for each in reader.metric_names(since)}
        names.pop("seamline.telemetry.dropped", None)
        assert names == {"rss": ("gauge", "By", 2), "sent": ("counter", "", 4), "took": ("histogram", "ms", 2)}
        rss = reader.metric("rss", since_ns=since, until_ns=until, step_ns=10 * S)
        assert [(each.replica, each.columns["value"]) for each in rss] == [(0, [100.5] * 6), (1, [100.5] * 6)]
        sent = reader.metric("sent", attributes={"to": "disk"}, since_ns=since, until_ns=until, step_ns=10 * S)
        assert [each.columns["value"] for each in sent] == [[3.0] * 6] * 2
        took = reader.metric("took", module="cart", since_ns=since, until_ns=until, step_ns=30 * S)[0].columns
        assert (took["rate"], took["mean"]) == ([10.0] * 2, [0.5] * 2)
        assert took["p50"] == [pytest.approx(5 / 9)] * 2
        assert took["p99"] == [pytest.approx(1.9)] * 2
        store.flush()
        assert store.dropped["points"] == 120


def test_profiles_marks_and_incidents_come_back(tmp_path: Path) -> None:
    """Stacks add up and the costliest is first; marks are in the order of time; an incident is as it was last put."""
    with opened(tmp_path) as (store, reader):
        for second in range(3):
            profiles = [Profile("cart", "a;b", 10), Profile("cart", "a;c", 100 + second), Profile("email", "x", 5)]
            store.add(Batch(Source("w"), NOW + second * S, S, profiles=profiles))
        marks = [
            Mark(NOW + 5, "release", "cart 1.2", ["cart"], {"version": "1.2"}),
            Mark(NOW + 1, "switch", "services"),
        ]
        store.add(Batch(Source("w"), NOW, marks=marks))
        incident = Incident("INC-7", "checkout fails", began_ns=NOW)
        store.put_incident(incident)
        store.flush()
        assert reader.profile("cart", NOW - 60 * S, NOW + 60 * S) == [("a;c", 303), ("a;b", 30)]
        assert reader.profile("", NOW - 60 * S, NOW + 60 * S)[2] == ("x", 15)
        assert reader.marks(NOW, NOW + 10) == [marks[1], marks[0]]
        assert reader.incident("INC-7") == incident
        incident.status, incident.ended_ns = "closed", NOW + 9
        store.put_incident(incident)
        store.flush()
        assert reader.incidents() == [incident]
        assert reader.incidents(open_only=True) == []
        assert reader.incidents(since_ns=NOW + 10) == []
        assert reader.incident("INC-8") is None


def test_windows_are_as_they_were_told(tmp_path: Path) -> None:
    """What explanation looks at after a restart has the flows, points and stacks of each window."""
    with opened(tmp_path) as (store, reader):
        for second in range(10):
            told = Traffic("frontend", "cart", "get", "server", 2, 1, histogram={20: 2}, codes={"internal": 1})
            points = [Point("process.cpu.time", 0.25, kind="counter"), Point("process.memory.usage", 5e7 + second)]
            at = NOW - 10 * S + second * S + S
            profiles = [Profile("cart", "a;b", 1000)]
            store.add(Batch(Source("backend"), at, S, traffic=[told], points=points, profiles=profiles))
        store.flush()
        windows = reader.windows(NOW - 10 * S, NOW)
        assert [window.at_ns for window in windows] == list(range(NOW - 10 * S, NOW, 2 * S))
        for window in windows:
            flow = window.edges["frontend", "cart", "get", "server"]
            assert (flow.calls, flow.errors, flow.histogram, flow.codes) == (4, 2, {20: 4}, {"internal": 2})
            assert window.workloads["backend"].cpu_s == 0.5
        assert windows[-1].workloads["backend"].rss_bytes == 50_000_009
        assert sum(window.modules["cart"].cpu_ns for window in windows) == 10_000


def test_a_clock_that_is_set_back_costs_nothing_that_was_told(tmp_path: Path) -> None:
    """Counts told before and after the jump are all there, and what comes later is still kept and found."""

    class Set(ManualClock):
        def set_back(self, seconds: float) -> None:
            self._elapsed_s -= seconds

    time = Set(clock().now())
    with opened(tmp_path, at=time) as (store, reader):
        one = Traffic("a", "b", "m", "server", 1, histogram={1: 1})
        for step in range(60):
            time.advance(10)
            if step == 30:
                time.set_back(1800)
            store.add(Batch(Source("w"), store.now_ns(), S, traffic=[one]))
            store.flush()
        assert sum(edge.calls for edge in reader.graph(NOW - HOUR, NOW + HOUR)) == 60
        assert store.dropped == {}


def test_a_module_with_endless_methods_is_put_together(tmp_path: Path) -> None:
    """The number of edges is bounded: beyond it calls of new methods count as those of one, and nothing is lost."""
    with opened(tmp_path) as (store, reader):
        many = [Traffic("a", "noisy", f"m{number}", "server", 1, histogram={1: 1}) for number in range(MINE_MAX + 500)]
        store.add(Batch(Source("w"), NOW, S, traffic=many))
        store.add(Batch(Source("w"), NOW, S, traffic=[Traffic("a", "quiet", "m", "server", 1, histogram={1: 1})]))
        store.flush()
        graph = reader.graph(NOW - 60 * S, NOW + 60 * S, by_method=True)
        assert len(graph) <= EDGES_MAX
        assert sum(edge.calls for edge in graph if edge.callee == "noisy") + store.dropped["points"] == MINE_MAX + 500
        assert [edge.calls for edge in graph if edge.callee == "quiet"] == [1]
