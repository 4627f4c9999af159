"""What changes is noticed in time, what is noise is not, and nothing that comes in breaks detection."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from tests.observe.synthetic import BEGIN_NS, MODULES, Fault, Shop
from tests.observe.trials import flow, many_edges, try_kind, try_quiet, window

from seamline.kernel.settings.observe import ObserveSettings, SloSettings
from seamline.observe.detect.counts import Failures, Rare
from seamline.observe.detect.detector import SILENT_AFTER, Detector
from seamline.observe.detect.level import ACCEPTED_AFTER, BLOCK, Level, Rule
from seamline.observe.incidents import Symptom
from seamline.observe.records import Mark
from seamline.observe.windows import Flow

S = 1_000_000_000
RULE = Rule(step_ratio=0.3, drift_ratio=0.2, least=0.0)
SEEDS = range(200, 204)
"""Neither those that were tuned on nor those that the docs report."""


@pytest.mark.parametrize(
    ("fault", "pages_per_s", "median_s"),
    [
        ("calls take 100 ms more", 10.0, 15.0),
        ("all calls fail", 10.0, 15.0),
        ("30 % of calls fail", 60.0, 15.0),
        ("10 MB a second leak", 10.0, 25.0),
        ("latency grows by 2 % a second", 60.0, 75.0),
        ("a module is not called any more", 60.0, 25.0),
        ("an event goes to the dead letters", 10.0, 15.0),
    ],
)
def test_faults_are_found_in_time(fault: str, pages_per_s: float, median_s: float):
    """All of them, the median within the limit; in simulated time, so that a busy machine changes nothing."""
    outcome = try_kind(fault, pages_per_s, SEEDS)
    assert outcome.found == outcome.trials, outcome
    assert outcome.median_s <= median_s, outcome


@pytest.mark.parametrize("pages_per_s", [10.0, 60.0])
def test_quiet_hours_are_quiet(pages_per_s: float):
    """In an hour with rushes, releases and hiccups at most one incident is opened, where three sigma does not rest."""
    quiet = try_quiet(pages_per_s, SEEDS[:2], hours=0.5)
    assert quiet.incidents <= 1, quiet
    assert quiet.three_sigma > 50, quiet


@pytest.mark.torture
def test_a_day_is_quiet():
    """Twelve hours at each load: less than one false incident in two hours."""
    for pages_per_s in (10.0, 60.0):
        quiet = try_quiet(pages_per_s, range(300, 312))
        assert quiet.incidents <= 6, quiet


def fed(detector: Detector, begin: int, count: int, each: Flow | None) -> list[Symptom]:
    """Windows of one edge at whose caller a visit comes for each call."""
    found: list[Symptom] = []
    for number in range(begin, begin + count):
        edges = {("a", "b", "B.m", "client"): each, ("", "a", "GET /", "http"): flow(each.calls)} if each else {}
        found += detector.feed(window(number, edges))
    return found


def test_one_failure_of_three_calls_is_no_incident_and_three_of_three_are():
    """At one call a second a lone failure says nothing, and failures in a row say much."""
    detector = Detector()
    assert not fed(detector, 0, 60, flow(2))
    assert not fed(detector, 60, 1, flow(3, 1))
    assert not fed(detector, 61, 60, flow(2))
    found = fed(detector, 121, 3, flow(2, 2))
    assert [(each.what, each.module, each.edge) for each in found] == [("errors", "b", ("a", "b", "B.m"))]
    assert found[0].after > 0.9
    assert BEGIN_NS + 121 * 2 * S <= found[0].detected_ns <= BEGIN_NS + 124 * 2 * S


def test_what_always_fails_a_little_is_usual():
    """Of an edge with 20 % declined cards the 20 % are no news; 80 % are."""
    failures = Failures()
    found = [failures.feed(10, 2, number) for number in range(300)]
    assert not any(found)
    assert any(failures.feed(10, 8, number) for number in range(10))


def test_a_service_that_fails_from_its_first_call_on_is_noticed():
    """There is no past to compare with, and it needs none."""
    assert any(each.what == "errors" for each in fed(Detector(), 0, 10, flow(5, 5)))


def test_a_change_of_less_than_two_milliseconds_is_of_no_account():
    """Ten times slower, but nobody could feel it."""
    detector = Detector()
    assert not fed(detector, 0, 100, flow(50, latency_ms=0.1))
    assert not fed(detector, 100, 100, flow(50, latency_ms=1.0))


def test_a_fault_does_not_become_the_usual():
    """While it goes on nothing is learned; when it ends, that is said; after half an hour it is accepted."""
    detector = Detector()
    fed(detector, 0, 100, flow(50, latency_ms=5))
    assert fed(detector, 100, 10, flow(50, latency_ms=50))
    fed(detector, 110, 200, flow(50, latency_ms=50))
    assert "a > b B.m latency" in detector.active
    fed(detector, 310, 10, flow(50, latency_ms=5))
    assert not detector.active
    assert fed(detector, 320, 5, flow(50, latency_ms=50)), "it is as remarkable as the first time"
    fed(detector, 325, ACCEPTED_AFTER + 5 * BLOCK, flow(50, latency_ms=50))
    assert not detector.active
    assert not fed(detector, 325 + ACCEPTED_AFTER + 5 * BLOCK, 50, flow(50, latency_ms=50))


def test_frozen_modules_learn_nothing():
    """While an incident is open, what is around it keeps its past."""
    detector = Detector()
    fed(detector, 0, 100, flow(50, latency_ms=5))
    detector.frozen = frozenset({"a", "b"})
    fed(detector, 100, 300, flow(50, latency_ms=6.4))
    edge = detector._edges["a", "b", "B.m", "client"]
    usual = edge.latency.usual
    assert usual is not None
    assert usual < 1.8, "5 ms, as a logarithm"


def test_slow_growth_is_found_by_page_hinkley_though_no_value_stands_out():
    """A level that grows by a thousandth of its spread each window, over an hour: no step, but a creep."""
    level = Level(RULE)
    found: list[str] = []
    for number in range(1800):
        noise = 0.02 * (number * 7919 % 11 - 5) / 5
        found.append(level.feed(1.0 + number * 0.0005 + noise, 0.0, number))
    assert [each for each in found if each][:1] == ["creep"]


def test_more_visitors_are_no_fault_but_belong_to_one():
    """The door's flood is a symptom that opens nothing by itself."""
    detector = Detector()
    for number in range(100):
        detector.feed(window(number, {("", "a", "GET /", "http"): flow(10)}))
    found: list[Symptom] = []
    for number in range(100, 120):
        found += detector.feed(window(number, {("", "a", "GET /", "http"): flow(200)}))
    assert found
    assert all(each.supporting for each in found)


def test_load_that_ends_is_no_fault():
    """When nobody comes any more nothing is dropped, slow or failing."""
    detector = Detector()
    assert not fed(detector, 0, 100, flow(50))
    assert not fed(detector, 100, 100, None)
    assert not detector.active


def test_windows_without_anything_and_values_that_are_none_do_no_harm():
    """Empty, NaN, infinite, negative, zero-long in effect: nothing is raised and nothing is found."""
    detector = Detector()
    for number in range(60):
        strange = window(number)
        for value in (nan, inf, -inf, -1.0, 0.0):
            strange.module(f"m{value}").events_lag = value
            strange.workload(f"w{value}").loop_lag_ms = value
            strange.points["seamline.model.score", f"{value}"] = value
        strange.edges["a", "b", "m", "client"] = Flow(3, 0, 0)
        strange.edges["a", "b", "n", "client"] = Flow(0, 0, 0)
        assert not detector.feed(strange)


def test_clocks_that_run_backwards_do_no_harm():
    """Detection goes by the order of windows; an hour back changes nothing."""
    detector = Detector()
    assert not fed(detector, 3000, 100, flow(50))
    assert not fed(detector, 0, 100, flow(50))
    assert fed(detector, 50, 5, flow(50, 25))


def test_of_modules_about_which_nothing_is_known_nothing_is_said():
    """A worker is silent for a minute: its calls are not dropped, and that it is silent is a symptom of its own."""
    shop, detector = Shop(4, habits=False), Detector()
    for each in shop.windows(300):
        assert not detector.feed(each)
    found: list[Symptom] = []
    for each in shop.windows(60):
        each.edges = {key: flow for key, flow in each.edges.items() if key[0] != "checkout"}
        each.silent, each.unknown = ["checkout/0"], ["checkout"]
        found += detector.feed(each)
    assert [(each.series, each.what) for each in found] == [("workload checkout silent", "saturation")]
    assert found[0].detected_ns - found[0].at_ns == SILENT_AFTER * 2 * S
    detector.feed(shop.window())
    assert not detector.active


def test_processes_that_were_stopped_on_purpose_may_be_silent():
    """After a switch of topology the old ones tell no more, and the new ones are of another size."""
    shop, detector = Shop(5, habits=False), Detector()
    for each in shop.windows(300):
        detector.feed(each)
    switch = shop.window()
    switch.marks.append(Mark(switch.at_ns, "switch", "monolith"))
    found = detector.feed(switch)
    for each in shop.windows(200):
        each.silent = ["checkout/0"] if each.at_ns < switch.at_ns + 62 * S else []
        for workload in each.workloads.values():
            workload.rss_bytes *= 3
        found += detector.feed(each)
    assert not found


@pytest.mark.parametrize(("kind", "title"), [("switch", "services"), ("other", "started as services")])
def test_after_a_switch_only_what_visitors_notice_is_a_symptom(kind: Any, title: str):
    """A call to another process takes longer than one within; a door that is as fast as before is well."""
    for door_ms, expected in ((10.0, []), (80.0, ["visitors > a GET / latency"])):
        detector = Detector()
        inner, door = ("a", "b", "B.m", "client"), ("", "a", "GET /", "http")
        for number in range(100):
            detector.feed(window(number, {inner: flow(20, latency_ms=0.01), door: flow(20, latency_ms=10)}))
        found: list[Symptom] = []
        for number in range(100, 160):
            each = window(number, {inner: flow(20, latency_ms=15), door: flow(20, latency_ms=door_ms)})
            if number == 100:
                each.marks.append(Mark(each.at_ns, kind, title))
            found += detector.feed(each)
        assert [each.series for each in found] == expected


def test_a_restart_storm_is_one_symptom_that_ends():
    """Twenty restarts in a row are told once, and it ends when they do."""
    detector = Detector()
    fed(detector, 0, 50, flow(20))
    found: list[Symptom] = []
    for number in range(50, 70):
        storm = window(number)
        storm.workload("shop").restarts = 1
        found += detector.feed(storm)
    assert [each.series for each in found] == ["workload shop restarts"]
    for number in range(70, 90):
        calm = window(number)
        calm.workload("shop").restarts = 0
        detector.feed(calm)
    assert not detector.active


def test_rare_things_that_are_usual_are_no_news():
    """A dead letter every ten seconds, for hours, is not told each time."""
    rare = Rare()
    found = sum(rare.feed(number % 5 == 0, number) for number in range(3000))
    assert found <= 3


def test_a_wait_that_the_callee_does_not_see_is_its_callers():
    """Client slow, server as ever: the symptom speaks of the caller, where the packets go."""
    detector = Detector()
    client, server = ("a", "b", "B.m", "client"), ("a", "b", "B.m", "server")
    for number in range(60):
        detector.feed(window(number, {client: flow(20, latency_ms=5), server: flow(20, latency_ms=4)}))
    found: list[Symptom] = []
    for number in range(60, 66):
        found += detector.feed(window(number, {client: flow(20, latency_ms=105), server: flow(20, latency_ms=4)}))
    assert [(each.module, each.what) for each in found] == [("a", "latency")]


@pytest.mark.parametrize(("method", "noticed"), [("B.m", ["rate"]), ("b_events.follow", [])])
def test_how_often_a_log_is_asked_is_no_news(method: str, noticed: list[str]):
    """A module that is not called any more is; that one answer held what ten did before is not."""
    detector = Detector()
    visits, edge = ("", "a", "GET /", "http"), ("a", "b", method, "client")
    found: list[Symptom] = []
    for number in range(90):
        detector.feed(window(number, {visits: flow(20), edge: flow(20)}))
    for number in range(90, 105):
        found += detector.feed(window(number, {visits: flow(20)}))
    assert [each.what for each in found] == noticed


def test_the_first_seconds_are_not_the_usual():
    """A process that answers little while it starts, and then as always, has no surge."""
    detector = Detector()
    visits, edge = ("", "a", "GET /", "http"), ("a", "b", "B.m", "client")
    found: list[Symptom] = []
    for number in range(200):
        found += detector.feed(window(number, {visits: flow(40), edge: flow(5 if number < 4 else 27)}))
    assert found == []


def test_a_step_after_another_begins_by_itself():
    """The sum of what was before, and was no matter, does not make it older than it is."""
    level = Level(Rule(step_ratio=0.3, drift_ratio=9.0, least=0.0, sudden_z=1e9))
    values = [1.0] * 40 + [1.5, 1.5, 1.0, 1.0] * 5 + [1.0] * 6
    assert not any(level.feed(value, 0.0, at) for at, value in enumerate(values))
    at = began = len(values)
    while level.feed(1.6, 0.0, at) != "step":
        at += 1
    assert level.rise_ns == began


def test_what_has_to_grow_began_when_it_began_to_grow():
    """A level that was higher for long, and then grows, is as old as its growth."""
    level = Level(Rule(step_ratio=0.26, drift_ratio=0.1, least=0.0, spread_min=0.008, sudden_z=1e9, growing=True))
    for at in range(120):
        level.feed(5.0 if at < 60 else 5.05, 0.0, at)
    at = 120
    while not level.feed(5.05 + 0.02 * (at - 119), 0.0, at):
        at += 1
    assert level.rise_ns >= 118


def test_five_thousand_edges_are_watched_each_by_itself():
    """One of them fails, and that one is found among them; what it costs stands in ``detection.json``."""
    detector, edges = Detector(), many_edges()
    for number in range(40):
        assert not detector.feed(window(number, edges))
    assert detector.readiness().ready == 5000
    edges["m7", "m7", "M.4177", "client"] = flow(9, 9)
    found = [each for number in range(40, 44) for each in detector.feed(window(number, edges))]
    assert [each.series for each in found] == ["m7 > m7 M.4177 errors"]


def test_more_edges_than_there_is_room_for_are_counted_and_not_watched():
    """Twenty thousand are watched; what is beyond costs no memory."""
    detector = Detector()
    edges = {("a", "b", f"B.{n}", "client"): flow(1) for n in range(20_100)}
    detector.feed(window(0, edges))
    assert detector.unwatched == 100
    assert detector.readiness().series == 20_000


def test_it_is_said_how_long_warming_up_takes():
    """And that it is over."""
    detector = Detector(ObserveSettings(window_s=2))
    assert detector.readiness().ready_in_s == 32
    fed(detector, 0, 20, flow(20))
    assert detector.readiness().ready_in_s == 0
    assert detector.readiness().ready >= 1


def test_a_models_score_that_shifts_is_drift():
    """Up or down, by more than it usually wanders."""
    shifted: list[str] = []
    for change in (-0.2, 0.2):
        detector = Detector()
        for number in range(100):
            each = window(number)
            each.points["seamline.model.confidence", "recommender"] = 0.7 + 0.01 * (number % 3) + change * (number > 60)
            shifted += [f"{found.series} {found.what}" for found in detector.feed(each)]
    assert shifted == ["recommender confidence falls drift", "recommender confidence rises drift"]


SLO = SloSettings(target="http:frontend", objective=0.99)


def promised(slo: SloSettings) -> Detector:
    return Detector(ObserveSettings(slos={"shop": slo}))


def test_a_promise_burns_by_several_windows_and_its_budget_is_told():
    """At 40 % failures at once; one window of them does not count; the budget left is what it should be."""
    detector = promised(SLO)
    for number in range(900):
        detector.feed(window(number, {("", "frontend", "GET /", "http"): flow(20)}))
    found = detector.feed(window(900, {("", "frontend", "GET /", "http"): flow(20, 8)}))
    assert not [each for each in found if each.what == "slo"]
    for number in range(901, 940):
        found += detector.feed(window(number, {("", "frontend", "GET /", "http"): flow(20, 8)}))
    burns = [each for each in found if each.what == "slo"]
    assert [each.module for each in burns] == ["frontend"]
    state = detector.promises.states()[0]
    assert (state.good + state.bad, state.bad) == (940 * 20, 40 * 8)
    assert state.budget_left == pytest.approx(1 - 320 / (18_800 * 0.01))
    assert state.burning
    for number in range(940, 1100):
        detector.feed(window(number, {("", "frontend", "GET /", "http"): flow(20)}))
    assert not detector.promises.states()[0].burning
    assert "SLO shop" not in detector.active


def test_a_slow_burn_is_found_by_the_long_windows():
    """8 % failures use the budget up eight times too fast: the six-hour window says so, the one-hour one does not."""
    detector = promised(SLO)
    found: list[Symptom] = []
    for number in range(1000):
        found += detector.feed(window(number, {("", "frontend", "GET /", "http"): flow(25, 2)}))
    assert [each.series for each in found if each.what == "slo"] == ["SLO shop"]
    assert detector.promises.states()[0].burning == "6 h"


def test_an_answer_that_is_too_slow_is_not_good():
    """Where the promise is about latency; one that failed slowly is bad once."""
    detector = promised(SloSettings(target="module:b", objective=0.9, latency_ms=100))
    each = flow(10, latency_ms=500)
    each.errors = 4
    detector.feed(window(0, {("a", "b", "B.m", "client"): each, ("a", "b", "B.m", "server"): each}))
    detector.feed(window(1, {("a", "b", "B.m", "client"): flow(10, latency_ms=50)}))
    state = detector.promises.states()[0]
    assert (state.good, state.bad) == (10, 10)


def test_what_the_store_remembers_counts():
    """After a restart the budget is what it was."""
    detector = promised(SLO)
    detector.promises.remember("shop", [(BEGIN_NS - 3600 * S, 9_000, 50)])
    detector.feed(window(0))
    state = detector.promises.states()[0]
    assert (state.good, state.bad) == (9_000, 50)
    assert state.budget_left == pytest.approx(1 - 50 / 90.5)


def test_the_synthetic_shop_is_the_same_for_the_same_seed():
    """Else a failed trial could not be looked at again."""
    one, two = (Shop(7, faults=(Fault("latency", MODULES[0], 5, 10),)) for _ in range(2))
    assert one.windows(60) == two.windows(60)
