"""Windows are the same for all processes, whatever rhythm and clock each tells by."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.kernel.clock import ManualClock
from seamline.observe.records import Batch, Log, Mark, Point, Profile, Source, Traffic
from seamline.observe.windows import CPU, EVENTS_LAG, LOOP_LAG, RSS, Flow, Window, Windows, merged

S = 1_000_000_000


class Rig:
    """A clock that the test moves, and workers that tell every second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.windows = Windows(2.0, self.clock)
        self.seen: list[Window] = []

    @property
    def now_ns(self) -> int:
        return int(self.clock.now().timestamp() * S)

    def tell(self, workload: str = "shop", calls: int = 10, *, ago_s: float = 0.0, interval_s: float = 1.0,
             caller: str = "a", errors: int = 0, pid: int = 1, **more: object) -> None:  # fmt: skip
        traffic = [Traffic(caller, "b", "B.m", "client", calls, errors, sum_ns=calls * 1_000_000, histogram={40: calls},
                           codes={"internal": errors} if errors else {})] if calls else []  # fmt: skip
        at_ns = self.now_ns - int(ago_s * S)
        self.windows.add(Batch(Source(workload, 0, pid), at_ns, int(interval_s * S), traffic=traffic, **more))  # pyright: ignore[reportArgumentType]

    def second(self, *workloads: str, phase_s: float = 0.4, calls: int = 10) -> None:
        self.clock.advance(phase_s)
        for workload in workloads:
            self.tell(workload, calls)
        self.clock.advance(1 - phase_s)
        self.seen += self.windows.take()


def calls(window: Window, caller: str = "a") -> int:
    return sum(flow.calls for key, flow in window.edges.items() if key[0] == caller)


@pytest.mark.parametrize("phase_s", [0.01, 0.3, 0.5, 0.77, 0.99])
def test_a_steady_rate_is_steady_whatever_the_phase_of_its_teller(phase_s: float):
    """Batches are split at a window's border, so that none has a third of the calls more than its neighbour."""
    rig = Rig()
    for _ in range(20):
        rig.second("shop", phase_s=phase_s)
    assert len(rig.seen) >= 8
    assert {calls(window) for window in rig.seen[1:]} == {20}


def test_the_parts_of_a_split_batch_are_the_batch():
    """Calls, failures, histogram and codes: nothing is lost or made up, and each part agrees with itself."""
    rig = Rig()
    for number in range(30):
        rig.clock.advance(0.7)
        rig.tell(calls=7 + number % 5, errors=number % 4, interval_s=0.7)
        rig.clock.advance(0.3)
        rig.seen += rig.windows.take()
    rig.clock.advance(10)
    rig.seen += rig.windows.take()
    told = sum(7 + number % 5 for number in range(30))
    flows = [flow for window in rig.seen for flow in window.edges.values()]
    assert sum(flow.calls for flow in flows) + rig.windows.late == told
    assert sum(flow.errors for flow in flows) == sum(number % 4 for number in range(30))
    for flow in flows:
        assert sum(flow.histogram.values()) == flow.calls
        assert flow.errors <= flow.calls


def test_a_window_is_whole_as_soon_as_all_have_told_of_it():
    """And not a moment sooner; nobody waits for the grace to run out."""
    rig = Rig()
    for _ in range(4):
        rig.second("shop", "pay", phase_s=0.1)
    rig.seen.clear()
    begin_ns = rig.now_ns
    for _ in range(2):
        rig.clock.advance(1.0)
        rig.tell("shop")
        rig.tell("pay")
    rig.seen += rig.windows.take()
    assert [window.at_ns for window in rig.seen][-1] == begin_ns
    assert calls(rig.seen[-1]) == 40


def test_nothing_is_known_of_whom_only_a_silent_process_tells():
    """Its modules are unknown, which is not the same as idle; after a minute it is forgotten."""
    rig = Rig()
    for _ in range(6):
        rig.clock.advance(0.5)
        rig.tell("shop", caller="a")
        rig.tell("pay", caller="p")
        rig.clock.advance(0.5)
        rig.seen += rig.windows.take()
    rig.seen.clear()
    for _ in range(90):
        rig.second("shop")
    quiet = [window for window in rig.seen if window.silent]
    assert 26 <= len(quiet) <= 32
    assert all(window.silent == ["pay/0"] and window.unknown == ["p"] for window in quiet)
    assert not rig.seen[-1].silent


def test_a_late_batch_is_counted_as_late_and_spoils_no_window():
    """Of a batch that comes ten seconds late no call is put where it does not belong."""
    rig = Rig()
    rig.clock.advance(2)
    for _ in range(10):
        rig.second("shop", "pay")
    rig.clock.advance(9.0)
    rig.second("shop")
    rig.tell("pay", 1000, ago_s=9.0, caller="late")
    for _ in range(10):
        rig.second("shop")
    assert rig.windows.late == 1000
    assert all(calls(window, "late") == 0 for window in rig.seen)


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0, -40.0, 40.0])
def test_a_worker_whose_clock_is_wrong_is_read_by_its_own_rhythm(skew_s: float):
    """An hour ahead or behind: its calls stand beside those of the others."""
    rig = Rig()
    for _ in range(20):
        rig.clock.advance(0.4)
        rig.tell("shop")
        rig.tell("far", 5, ago_s=skew_s, caller="f")
        rig.clock.advance(0.6)
        rig.seen += rig.windows.take()
    assert {calls(window, "f") for window in rig.seen[1:]} == {10}
    assert {calls(window) for window in rig.seen[1:]} == {20}


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_when_our_own_clock_is_moved_windows_begin_anew(jump_s: int):
    """No thousand empty windows, none twice, and the next ones stand at the new time."""
    rig = Rig()
    for _ in range(10):
        rig.second("shop")
    before = len(rig.seen)
    rig.clock._now += timedelta(seconds=jump_s)
    for _ in range(10):
        rig.second("shop")
    after = rig.seen[before:]
    assert 2 <= len(after) <= 7
    assert {calls(window) for window in after[1:]} == {20}
    assert abs(after[-1].at_ns - rig.now_ns) < 10 * S


def test_after_the_machine_slept_there_is_a_gap_and_no_flood():
    """What lies between is not known, and is not made up."""
    rig = Rig()
    for _ in range(6):
        rig.second("shop")
    before = len(rig.seen)
    rig.clock.advance(7200)
    rig.seen += rig.windows.take()
    for _ in range(6):
        rig.second("shop")
    assert len(rig.seen) - before < 8
    assert max(calls(window) for window in rig.seen) == 20


def test_empty_windows_come_though_nobody_tells():
    """So that what is open is closed in its time."""
    rig = Rig()
    rig.clock.advance(20)
    windows = rig.windows.take()
    assert len(windows) >= 7
    assert all(not window.edges and not window.silent for window in windows)


def test_points_that_are_no_numbers_and_counters_set_back_do_no_harm():
    """NaN and infinity are left out, and a counter cannot have grown by less than nothing."""
    rig = Rig()
    points = [Point("x", float("nan")), Point("x", float("inf")), Point("y", -5.0, kind="counter"),
              Point("y", 3.0, kind="counter"), Point(RSS, float("nan")), Point(RSS, 5e6)]  # fmt: skip
    rig.tell(points=points)
    rig.clock.advance(5)
    window = rig.windows.take()[0]
    assert window.points == {("y", ""): 3.0, (RSS, ""): 5e6}
    assert window.workloads["shop"].rss_bytes == 5_000_000


def test_what_is_known_by_name_finds_its_place():
    """CPU and memory of workloads, also as the supervisor tells of them; lag, stacks and errors of modules."""
    rig = Rig()
    rig.clock.advance(2)
    rig.tell(
        points=[
            Point(CPU, 0.5, kind="counter", unit="s"),
            Point(LOOP_LAG, 0.25, unit="s"),
            Point(RSS, 7e6, attributes={"workload": "pay"}),
            Point(EVENTS_LAG, 12, module="mail"),
        ],
        profiles=[Profile("a", "main;work", 3_000_000), Profile("a", "main;wait", 0, 9_000_000)],
        logs=[Log(0, 17, "a", "oh"), Log(0, 9, "a", "well")],
        marks=[Mark(0, "release", "a 2")],
    )
    rig.clock.advance(5)
    window = rig.windows.take()[0]
    assert (window.workloads["shop"].cpu_s, window.workloads["shop"].loop_lag_ms) == (0.5, 250.0)
    assert window.workloads["pay"].rss_bytes == 7_000_000
    assert window.modules["mail"].events_lag == 12
    module = window.modules["a"]
    assert (module.cpu_ns, module.blocked_ns, module.errors_logged) == (3_000_000, 9_000_000, 1)
    assert (module.stacks, module.blocked_stacks) == ({"main;work": 3_000_000}, {"main;wait": 9_000_000})
    assert [mark.title for mark in window.marks] == ["a 2"]
    assert window.workloads["shop"].modules == ["a"]


def test_the_longest_lag_counts_and_not_the_mean_and_dead_letters_are_those_that_consumers_count():
    """Nine turns in no time do not hide one of a quarter of a second."""
    window = Window(0, 2 * S)
    lags = Point(LOOP_LAG, 0.26, kind="histogram", unit="s", count=10, buckets={"0.001": 9, "0.25": 1, "inf": 0})
    window.add_point(lags, "shop")
    assert window.workloads["shop"].loop_lag_ms == 250.0
    window.add_traffic(Traffic("orders", "mail", "OrderPlaced/mail", "event", 3, 2, codes={"dead_letter": 2}))
    assert window.modules["mail"].dead_letters == 2


def test_windows_laid_together_add_counts_and_keep_the_highest_levels():
    one, two = Window(0, 2 * S), Window(2 * S, 2 * S)
    one.edges[("a", "b", "m", "client")] = Flow(2, 1, 10, histogram={3: 2})
    two.edges[("a", "b", "m", "client")] = Flow(3, 0, 5, histogram={3: 1, 4: 2})
    one.workload("w").rss_bytes, two.workload("w").rss_bytes = 9, 4
    whole = merged([one, two])
    assert whole.length_ns == 4 * S
    assert whole.edges[("a", "b", "m", "client")] == Flow(5, 1, 15, histogram={3: 3, 4: 2})
    assert whole.workloads["w"].rss_bytes == 9
    assert merged([]).edges == {}


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 50), st.floats(-5, 5000), st.floats(0, 4)), max_size=60))
def test_whatever_comes_in_whatever_order_no_call_is_counted_twice(told: list[tuple[float, int, float, float]]):
    """Calls in windows and late calls are never more than what was told, and windows come in order without a gap."""
    rig = Rig()
    for pause_s, count, ago_s, interval_s in told:
        rig.clock.advance(pause_s)
        rig.tell(calls=count, ago_s=ago_s, interval_s=interval_s)
        rig.seen += rig.windows.take()
    rig.clock.advance(10)
    rig.seen += rig.windows.take()
    assert sum(calls(window) for window in rig.seen) + rig.windows.late == sum(count for _, count, _, _ in told)
    times = [window.at_ns for window in rig.seen]
    assert times == sorted(set(times))
