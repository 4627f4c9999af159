"""One incident for one cause, from its beginning to its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tests.observe.synthetic import BEGIN_NS, MODULES, Fault, Shop
from tests.observe.trials import Opened, flow, window

from seamline.observe.detect import words
from seamline.observe.detect.causes import Case, Graph, sort
from seamline.observe.detect.detector import Detector
from seamline.observe.detect.keeping import QUIET, SYMPTOMS_MAX, TIMELINE_MAX, Incidents
from seamline.observe.explain.interface import Explanation
from seamline.observe.incidents import Claim, Incident, Summary, Suspect, Symptom, What, decode, encode, number_of
from seamline.observe.records import Mark
from seamline.observe.windows import Window

S = 1_000_000_000


class Kept:
    """A store that remembers the last of each incident."""

    def __init__(self) -> None:
        self.last: dict[str, Incident] = {}
        self.puts = 0

    def put_incident(self, incident: Incident) -> None:
        self.last[incident.id] = decode(encode(incident))
        self.puts += 1


class Rig:
    def __init__(
        self, *faults: Fault, seed: int = 1, pages_per_s: float = 10.0, habits: bool = False, **more: Any
    ) -> None:
        self.shop = Shop(seed, pages_per_s=pages_per_s, faults=faults, habits=habits)
        self.told = Opened()
        self.kept = Kept()
        self.incidents = Incidents(Detector(), notify=self.told, store=self.kept, **more)

    def run(self, until_s: float) -> Rig:
        while self.shop.now_s < until_s:
            self.incidents.feed(self.shop.window())
        return self

    @property
    def states(self) -> list[str]:
        return [state for state, _ in self.told.told]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "fault",
    [
        Fault("errors", "payments", 0.6, 200, 280),
        Fault("latency", "catalog", 100, 200, 280),
        Fault("latency", "frontend", 100, 200, 280),
        Fault("stop", "cart", 0, 200, 280),
    ],
    ids=lambda fault: f"{fault.what} of {fault.callee}",
)
def test_one_fault_is_one_incident_though_all_who_wait_for_it_show_it(seed: int, fault: Fault):
    """It is opened once, within twenty seconds, and closed when the fault has ended."""
    rig = Rig(fault, seed=seed).run(460)
    assert rig.states == ["opened", "closed"]
    incident = rig.kept.last["INC-1"]
    assert incident.status == "closed"
    assert BEGIN_NS + 190 * S <= incident.began_ns <= incident.detected_ns <= BEGIN_NS + 222 * S
    assert incident.ended_ns >= BEGIN_NS + (280 + 2 * QUIET) * S


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("later_s", [0, 2, 30])
def test_two_faults_that_have_nothing_to_do_with_each_other_are_two_incidents(seed: int, later_s: int):
    """Although both reach the front door."""
    rig = Rig(Fault("errors", "payments", 0.7, 200), Fault("latency", "ads", 100, 200 + later_s), seed=seed).run(290)
    assert rig.told.count() == 2
    titles = sorted(incident.title.partition(" ")[0] for incident in rig.incidents.open)
    assert titles[0] == "Ads.pick"
    assert titles[1] in {"Payments.charge", "Checkout.place"}


@pytest.mark.parametrize("what", ["errors", "latency"])
@pytest.mark.parametrize("seed", range(3))
def test_all_modules_at_once_are_one_incident(what: Any, seed: int):
    """Not twenty: what all have at once, all have from one thing that they share."""
    amount = 1.0 if what == "errors" else 60.0
    rig = Rig(*(Fault(what, module, amount, 200) for module in MODULES), seed=seed).run(270)
    assert rig.told.count() == 1
    assert "modules at once" in rig.incidents.open[0].title


def test_modules_of_a_process_in_trouble_share_its_fate():
    """A blocked loop makes all of them slow: one incident, about the workload."""
    rig = Rig(Fault("latency", "ads", 80, 200), Fault("latency", "mail", 80, 200))
    while rig.shop.now_s < 260:
        each = rig.shop.window()
        shared = each.workload("shop")
        shared.modules, shared.replicas = list(MODULES), 1
        shared.loop_lag_ms = 90.0 if rig.shop.now_s > 198 else 1.0
        rig.incidents.feed(each)
    assert rig.told.count() == 1


def test_what_comes_back_within_minutes_is_the_same_incident_and_is_not_told_each_time():
    """Six times on and off: one incident, opened again, closed later each time, told at most three times."""
    rig = Rig(*(Fault("errors", "payments", 0.8, 200 + k * 100, 240 + k * 100) for k in range(6))).run(1300)
    assert list(rig.kept.last) == ["INC-1"]
    incident = rig.kept.last["INC-1"]
    assert incident.reopened >= 1
    assert rig.told.count("reopened") <= 2
    assert rig.told.count("closed") <= 3
    assert len(rig.states) <= 6
    kinds = [entry.kind for entry in incident.timeline]
    assert kinds.count("reopened") == incident.reopened


def test_what_was_changed_in_the_ten_minutes_before_is_attached_and_a_drill_is_not():
    """Who looks for a cause must not be told where it was put; what is older has nothing to do with it."""
    rig = Rig(Fault("errors", "payments", 0.9, 900))
    rig.run(100)
    for at_s, kind, title in ((150, "release", "old"), (700, "policy", "charge"), (880, "release", "payments 2"),
                              (890, "drill", "errors in payments")):  # fmt: skip
        rig.run(at_s)
        each = rig.shop.window()
        each.marks.append(Mark(each.at_ns, kind, title, ["payments"]))  # pyright: ignore[reportArgumentType]
        rig.incidents.feed(each)
    rig.run(930)
    assert [mark.title for mark in rig.incidents.open[0].marks] == ["charge", "payments 2"]


def test_a_drill_is_an_incident_as_any_other():
    """It is opened though its mark is known."""
    rig = Rig(Fault("errors", "payments", 0.9, 200))
    rig.run(200)
    each = rig.shop.window()
    each.marks.append(Mark(each.at_ns, "drill", "errors in payments"))
    rig.incidents.feed(each)
    assert rig.run(230).told.count() == 1


async def test_it_is_explained_when_there_is_enough_after_and_again_when_more_is_known():
    """Before and after do not overlap, no window of the fault stands in before, and explaining is off the loop."""
    looks: list[tuple[list[Window], list[Window], list[Symptom], str]] = []

    def explain(
        before: Sequence[Window], after: Sequence[Window], symptoms: Sequence[Symptom], marks: Sequence[Mark]
    ) -> Explanation:
        looks.append((list(before), list(after), list(symptoms), threading.current_thread().name))
        return Explanation([Suspect("payments", "errors", score=9.0)], abstained=False, confidence=0.9)

    async def summarise(incident: Incident) -> Summary:
        return Summary([Claim(f"{incident.suspects[0].module} fails.", ["e1"])])

    rig = Rig(Fault("errors", "payments", 0.9, 200), explain=explain, summarise=summarise)
    while rig.shop.now_s < 330:
        rig.incidents.feed(rig.shop.window())
        await rig.incidents.idle()
    assert 3 <= len(looks) <= 8
    before, after, symptoms, thread = looks[0]
    assert before[-1].end_ns <= after[0].at_ns
    assert BEGIN_NS + 190 * S <= before[-1].end_ns <= BEGIN_NS + 202 * S
    assert after[-1].end_ns <= BEGIN_NS + 222 * S, "the first look is within about twenty seconds"
    assert len(after) >= 3
    assert symptoms
    assert thread != threading.main_thread().name
    assert rig.states == ["opened", "explained"]
    incident = rig.kept.last["INC-1"]
    assert incident.summary.text == "payments fails."
    assert (incident.abstained, incident.suspects[0].module) == (False, "payments")
    await rig.incidents.stop()


async def test_an_explanation_that_fails_or_abstains_leaves_the_incident_as_it_is():
    """It is logged and tried again; nobody is told that something was explained."""
    answers = iter([RuntimeError("no"), Explanation(reason="too few calls")])

    def explain(*_: object) -> Explanation:
        answer = next(answers, Explanation(reason="too few calls"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    rig = Rig(Fault("errors", "payments", 0.9, 200), explain=explain)
    while rig.shop.now_s < 260:
        rig.incidents.feed(rig.shop.window())
        await rig.incidents.idle()
    assert rig.states == ["opened"]
    assert rig.kept.last["INC-1"].reason == "too few calls"
    await rig.incidents.stop()


def test_after_a_restart_the_open_incident_goes_on():
    """It is not opened anew, the past is learned from the windows before, and numbers go on."""
    fault = Fault("errors", "payments", 0.9, 200, 300)
    rig = Rig(fault)
    past: list[Window] = []
    while rig.shop.now_s < 230:
        past.append(rig.shop.window())
        rig.incidents.feed(past[-1])
    known = [rig.kept.last["INC-1"]]
    told, kept = Opened(), Kept()
    again = Incidents(Detector(), notify=told, store=kept)
    again.resume(known, past)
    while rig.shop.now_s < 480:
        again.feed(rig.shop.window())
    assert [state for state, _ in told.told] == ["closed"]
    assert list(kept.last) == ["INC-1"]


def test_people_may_say_so():
    """That they look after it, what they know, and that it is over; what goes on then opens nothing until it ended."""
    rig = Rig(Fault("errors", "payments", 0.9, 200, 300)).run(240)
    assert rig.incidents.acknowledge("INC-1", "ann")
    assert rig.incidents.note("INC-1", "ann", "the bank is down")
    assert rig.incidents.close("INC-1", "ann")
    assert not rig.incidents.close("INC-1", "ann")
    assert not rig.incidents.acknowledge("INC-9", "ann")
    incident = rig.kept.last["INC-1"]
    assert (incident.acknowledged_by, incident.status) == ("ann", "closed")
    assert [note.text for note in incident.notes] == ["the bank is down"]
    rig.run(480)
    assert rig.told.count() == 1
    assert rig.told.count("reopened") == 0


def test_thousands_of_symptoms_make_one_incident_of_bounded_size():
    """Two thousand edges fail at once."""
    told, kept = Opened(), Kept()
    incidents = Incidents(Detector(), notify=told, store=kept)
    for number in range(60):
        failed = 9 if number >= 40 else 0
        edges = {("", f"m{n % 50}", f"GET /{n}", "http"): flow(9, failed) for n in range(2000)}
        incidents.feed(window(number, edges))
    assert told.count() == 1
    incident = incidents.open[0]
    assert len(incident.symptoms) <= SYMPTOMS_MAX
    assert len(incident.timeline) <= TIMELINE_MAX
    assert kept.puts < 500


def test_what_was_stored_does_not_change_afterwards():
    """The store's writer works in a thread of its own."""
    stored: list[Incident] = []

    class Store:
        def put_incident(self, incident: Incident) -> None:
            stored.append(incident)

    shop = Shop(1, habits=False, faults=(Fault("errors", "payments", 0.9, 200, 240),))
    incidents = Incidents(Detector(), store=Store())
    lengths: list[int] = []
    while shop.now_s < 400:
        incidents.feed(shop.window())
        lengths += [len(each.timeline) for each in stored[len(lengths) :]]
    assert [len(each.timeline) for each in stored] == lengths
    assert len(stored) >= 2


def symptom(module: str, what: What = "errors", at_s: float = 0, *, supporting: bool = False) -> Symptom:
    at_ns = int(at_s * S)
    return Symptom(
        f"{module} {what}", what, module, ("x", module, "m"), at_ns=at_ns, detected_ns=at_ns, supporting=supporting
    )


@pytest.mark.parametrize(
    ("what", "caller", "after", "expected"),
    [
        ("errors", "gateway", 0.25, "critical"),
        ("errors", "", 0.1, "major"),
        ("errors", "cart", 0.25, "major"),
        ("errors", "cart", 0.9, "critical"),
        ("latency", "gateway", 30.0, "major"),
        ("latency", "gateway", 15.0, "minor"),
        ("latency", "cart", 300.0, "minor"),
        ("slo", "", 20.0, "critical"),
        ("slo", "", 7.0, "major"),
        ("drift", "", 3e9, "minor"),
    ],
)
def test_it_is_grave_as_far_as_visitors_notice(what: What, caller: str, after: float, expected: str):
    """Failures at the door more than within, slowness only at the door, and a promise by how fast it burns."""
    unit = {"errors": "ratio", "latency": "ms", "slo": "burn"}.get(what, "bytes")
    assert words.severity([Symptom("it", what, "m", (caller, "m", "x"), 10.0, after, unit)]) == expected


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(0.6, "ratio", "60 %"), (0.0049, "ms", "0.0049 ms"), (1520, "ms", "1.5 s"), (153e6, "bytes", "153 MB"),
     (1.5e9, "bytes", "1.5 GB"), (0, "calls/s", "0 calls/s"), (14.4, "burn", "14.4 times what is allowed")],
)  # fmt: skip
def test_figures_are_written_as_people_read_them(value: float, unit: str, said: str):
    assert words.quantity(value, unit) == said


CALLS = {"door": {"a", "b", "c"}, "a": {"d"}, "b": {"e"}, "d": {"f"}}


def test_the_deepest_that_shows_it_is_the_root():
    """In whichever order the symptoms come, and who calls it joins it."""
    graph = Graph(CALLS, {})
    case = Case.of(symptom("door"), graph)
    for module in ("d", "a"):
        each = symptom(module, at_s=4)
        assert case.owns(each, graph)
        case.add(each, graph)
    assert case.roots == {"d"}
    assert not case.owns(symptom("b", at_s=6), graph), "it cannot come from d, and d not from it"
    assert case.owns(symptom("f", at_s=6), graph)
    assert not case.owns(symptom("f", at_s=60), graph), "too late to be what is really wrong"
    assert not case.owns(symptom("door", "drift", at_s=90), graph), "memory does not grow for a callee's sake"
    assert case.owns(symptom("e", "rate", at_s=6, supporting=True), graph)


def test_symptoms_of_one_window_are_placed_from_the_deepest_up():
    """So that two roots are two cases before what they have in common is seen."""
    graph = Graph(CALLS, {})
    found = sort([symptom("door"), symptom("b"), symptom("f"), symptom("a"), symptom("door", "slo")], graph)
    assert [each.series for each in found] == ["f errors", "b errors", "a errors", "door errors", "door slo"]


def test_calls_in_a_circle_are_reached_and_end():
    graph = Graph({"a": {"b"}, "b": {"c"}, "c": {"a"}}, {})
    assert graph.reached("a") == {"b", "c"}


@pytest.mark.parametrize(
    ("name", "number"), [("INC-7", 7), ("INC-", 0), ("inc-7", 0), ("INC-x", 0), ("", 0), ("INC-٣", 0)]
)
def test_numbers_of_incidents(name: str, number: int):
    assert number_of(name) == number
