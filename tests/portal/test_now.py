"""What the windows in memory add up to: who counts a call, what is called well, courses in whole steps."""

from __future__ import annotations

from typing import Any

import pytest

from seamline.observe.incidents import Incident, Suspect, Symptom
from seamline.observe.records import Mark, Profile, Side
from seamline.observe.windows import Flow, Window
from seamline.portal.flames import flames
from seamline.portal.now import Recent, newest, picture, rates, strip

SECOND = 1_000_000_000
STEP = 2 * SECOND
START = 1_800_000_000 * SECOND


def window(index: int, **calls: int) -> Window:
    """Calls of ``a`` to ``b`` by side, in the window of this number."""
    found = Window(START + index * STEP, STEP)
    for side, number in calls.items():
        found.edges["a", "b", "B.do", _side(side)] = Flow(number, 0, histogram={20: number})
    return found


def _side(name: str) -> Side:
    sides: dict[str, Side] = {"client": "client", "server": "server", "http": "http", "event": "event"}
    return sides[name]


def asked(windows: list[Window]) -> float:
    """Calls that came to ``b``."""
    found = picture(Recent().look(windows), ["a", "b"], {}, [])
    return found.modules["b"].inward.flow.calls


def test_a_call_counts_once_whoever_tells_of_it():
    """In one process the caller alone tells; in two both do, and not in the same window."""
    assert asked([window(i, client=4) for i in range(5)]) == 20
    assert asked([window(i, client=4, server=4) for i in range(5)]) == 20
    apart = [window(i, **({"client": 4} if i % 2 else {"server": 4})) for i in range(10)]
    assert asked(apart) == 20


def test_after_a_switch_to_one_process_the_caller_counts_at_once():
    """What the callee counted before says nothing of a topology that is over."""
    split = [window(i, client=4, server=4) for i in range(5)]
    switch = Window(START + 5 * STEP, STEP, marks=[Mark(START, "switch", "services to monolith")])
    assert asked([*split, switch, *(window(i, client=4) for i in range(6, 11))]) == 40


def test_rows_are_made_once_and_leave_with_their_windows():
    """Looked at again, only what is new is looked at."""
    recent, windows = Recent(), [window(i, client=1) for i in range(10)]
    first = recent.look(windows[:6])
    second = recent.look(windows[4:])
    assert second[0] is first[4]
    assert [each.window.at_ns for each in second] == [each.at_ns for each in windows[4:]]
    assert [each.window for each in newest(second, 4.0)] == windows[-2:]
    assert recent.look([]) == []


@pytest.mark.parametrize("count", [1, 2, 7, 40, 450])
def test_a_course_is_in_whole_steps(count: int):
    """A constant rate is a flat line, wherever the windows begin and end; both kinds of course agree."""
    for begin in range(7):
        rows = Recent().look([window(i, client=6, http=6) for i in range(begin, begin + count)])
        course = strip(rows, module="b", steps=150)
        if count > 20:
            assert set(course["rate"]) == {6.0}
            assert set(rates(rows, "b")) == {6.0}
            assert set(rates(rows, "b", method="B.other")) == {0.0}
        assert len(course["at"]) == len(course["rate"]) == len(course["p95"]) <= 151
        assert sorted(course["at"]) == course["at"]


def test_nothing_told_is_nothing_and_no_error():
    """Before the first window, and for a module of which nobody has ever heard."""
    nothing = picture([], ["a"], {}, [])
    assert nothing.modules["a"].state == "idle"
    assert nothing.cpu_ms_per_request is None
    assert strip([]) == {"at": [], "rate": [], "errors": [], "p50": [], "p95": []}
    assert rates([], "a") == []


def failing(errors: int, calls: int) -> dict[str, Any]:
    found = Window(START, STEP)
    found.edges["a", "b", "B.do", "client"] = Flow(calls, errors)
    module = picture(Recent().look([found]), ["a", "b"], {}, []).modules["b"]
    return {"state": module.state, "why": module.why}


def test_one_failure_of_three_calls_is_no_trouble():
    """It takes three failures to be in trouble, two to need a look, and a share that matters."""
    assert failing(1, 3)["state"] == "good"
    assert failing(2, 40)["state"] == "warn"
    assert failing(3, 40) == {"state": "bad", "why": "7.5% of its answers are errors"}
    assert failing(3, 4000)["state"] == "good"


def test_what_is_suspected_is_in_trouble_and_what_suffers_needs_a_look():
    """The suspect of an open incident, and who has its symptoms; a workload that crashes ill-becomes its modules."""
    incident = Incident(
        "INC-1", "b", suspects=[Suspect("b", "cpu")], symptoms=[Symptom("s", "latency", "a"), Symptom("s", "rate", "b")]
    )
    loop = {"crashes": 5}
    replica = {"state": "restarting", "crash_loop": loop}
    status = {"workloads": [{"name": "w", "modules": ["c"], "replicas": [replica]}]}
    found = picture(Recent().look([window(0, client=1)]), ["a", "b", "c"], status, [incident]).modules
    assert (found["b"].state, found["b"].why) == ("bad", "suspected in INC-1")
    assert (found["a"].state, found["a"].why) == ("warn", "affected by INC-1")
    assert (found["c"].state, found["c"].why) == ("bad", "w: keeps crashing")


def test_cpu_is_by_module_and_by_call():
    """Half of a core for ten calls in two seconds is 100 ms each."""
    found = window(0, client=10)
    found.add_profile(Profile("b", "b.py:1 do", SECOND))
    module = picture(Recent().look([found]), ["b"], {}, []).modules["b"]
    assert (module.cpu_share, module.cpu_ms_per_call) == (0.5, 100.0)


def test_flames_are_the_biggest_first_and_lose_nothing_that_matters():
    """Shares are of the whole, own time is what is left, chains are one row, what is below one percent is left out."""
    found = flames([("a;b;c", 600), ("a;b;d", 300), ("a;e", 95), ("a;f", 5)])
    assert [(each.frames, each.depth) for each in found] == [(["a"], 0), (["b"], 1), (["c"], 2), (["d"], 2), (["e"], 1)]
    assert [round(each.share, 3) for each in found] == [1.0, 0.9, 0.6, 0.3, 0.095]
    assert found[1].own == 0.0
    assert flames([("a;b;c", 10)])[0].frames == ["a", "b", "c"]
    assert flames([]) == []
    assert len(flames([(";".join(f"{i}-{j}" for j in range(3)), 1) for i in range(90)])) <= 180
