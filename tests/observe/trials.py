"""How well detection does on :mod:`tests.observe.synthetic`: faults planted at a moment known, and hours without any.

``python -m tests.observe.trials`` runs all of it (ten minutes of CPU) and writes ``detection.json`` beside this file,
which ``docs/observability.md`` shows (:func:`table`). The seeds are others than those that the detector was tuned on
(1000 and above). Beside it stands three sigma: each edge's failures and latency against mean and standard deviation of
the last five minutes.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.observe.synthetic import BEGIN_NS, MODULES, Fault, Shop, bucket_of

from seamline.observe.detect.detector import Detector
from seamline.observe.detect.keeping import Incidents
from seamline.observe.incidents import Incident, State
from seamline.observe.windows import EdgeKey, Flow, Window

RESULTS = Path(__file__).with_name("detection.json")
WINDOW_COMPLETE_S = 1.0
"""After a window's end its last batch comes: so much is added to each time."""
BEFORE_S = 300.0
WITHIN_S = 180.0

Make = Callable[[random.Random], Fault]


def _callee(rng: random.Random) -> str:
    return rng.choice([module for module in MODULES if module != "frontend"])


def _slow_enough(rng: random.Random) -> str:
    """Those whose calls take long enough that twice as long is two milliseconds more."""
    return rng.choice(["frontend", "checkout", "payments", "recommender", "mail"])


FAULTS: dict[str, Make] = {
    "calls take 100 ms more": lambda rng: Fault("latency", rng.choice(MODULES), 100, 0),
    "calls take 20 ms more": lambda rng: Fault("latency", rng.choice(MODULES), 20, 0),
    "all calls fail": lambda rng: Fault("errors", rng.choice(MODULES), 1.0, 0),
    "30 % of calls fail": lambda rng: Fault("errors", rng.choice(MODULES), 0.3, 0),
    "10 % of calls fail": lambda rng: Fault("errors", rng.choice(MODULES), 0.1, 0),
    "a module is not called any more": lambda rng: Fault("stop", _callee(rng), 0, 0),
    "latency grows by 2 % a second": lambda rng: Fault("ramp", _slow_enough(rng), 0.02, 0),
    "10 MB a second leak": lambda rng: Fault("leak", rng.choice(MODULES), 10, 0),
    "1 MB a second leaks": lambda rng: Fault("leak", rng.choice(MODULES), 1, 0),
    "an event goes to the dead letters": lambda rng: Fault("dead", rng.choice(MODULES), 1, 0),
}


class Opened:
    """Hears of incidents."""

    def __init__(self) -> None:
        self.told: list[tuple[State, Incident]] = []

    def tell(self, incident: Incident, state: State) -> None:
        self.told.append((state, incident))

    def count(self, state: State = "opened") -> int:
        return sum(each == state for each, _ in self.told)


class ThreeSigma:
    """The trivial baseline: mean and standard deviation of the last 150 windows of each edge."""

    def __init__(self) -> None:
        self._past: dict[tuple[EdgeKey, str], tuple[deque[float], list[float]]] = {}
        self._until: dict[tuple[EdgeKey, str], int] = {}
        self._number = 0

    def feed(self, window: Window) -> int:
        """How many series newly stand out; each again after a minute at the earliest."""
        self._number += 1
        found = 0
        for key, flow in window.edges.items():
            for what, value in (("errors", flow.error_ratio), ("latency", flow.mean_ms)):
                past, sums = self._past.setdefault((key, what), (deque(), [0.0, 0.0]))
                if len(past) >= 30:
                    mean = sums[0] / len(past)
                    sigma = max(sums[1] / len(past) - mean * mean, 0.0) ** 0.5
                    if value > mean + 3 * sigma + 1e-9 and self._until.get((key, what), 0) < self._number:
                        found += 1
                        self._until[key, what] = self._number + 30
                past.append(value)
                oldest = past.popleft() if len(past) > 150 else 0.0
                sums[0] += value - oldest
                sums[1] += value * value - oldest * oldest
        return found


@dataclass
class Outcome:
    """Of one kind of fault at one load."""

    fault: str
    pages_per_s: float
    trials: int
    found: int
    median_s: float
    p90_s: float
    symptom_median_s: float


@dataclass
class Quiet:
    pages_per_s: float
    hours: float
    incidents: int
    three_sigma: int
    us_per_window: float
    series: int


def try_fault(seed: int, make: Make, pages_per_s: float) -> tuple[float | None, float | None, int]:
    """Seconds until a symptom, until the incident was opened, and how many were opened before there was a fault."""
    rng = random.Random(seed)
    at_s = BEFORE_S + rng.uniform(0, 20)
    shop = Shop(seed, pages_per_s=pages_per_s, faults=(replace(make(rng), at_s=at_s),))
    opened = Opened()
    incidents = Incidents(Detector(), notify=opened)
    symptom_s: float | None = None
    early = 0
    while shop.now_s < at_s + WITHIN_S:
        window = shop.window()
        incidents.feed(window)
        after_s = shop.now_s - at_s + WINDOW_COMPLETE_S
        if shop.now_s <= at_s:
            early = opened.count()
            continue
        if symptom_s is None and any(s.detected_ns == window.end_ns for s in incidents.detector.active.values()):
            symptom_s = after_s
        if opened.count() > early:
            return symptom_s, after_s, early
    return symptom_s, None, early


def try_kind(fault: str, pages_per_s: float, seeds: Iterable[int]) -> Outcome:
    tried = [try_fault(seed, FAULTS[fault], pages_per_s) for seed in seeds]
    found = sorted(opened for _, opened, _ in tried if opened is not None)
    first = sorted(symptom for symptom, _, _ in tried if symptom is not None)
    if not found:
        return Outcome(fault, pages_per_s, len(tried), 0, 0.0, 0.0, 0.0)
    p90 = found[min(int(0.9 * len(found)), len(found) - 1)]
    return Outcome(
        fault, pages_per_s, len(tried), len(found), round(statistics.median(found), 1), round(p90, 1),
        round(statistics.median(first), 1),
    )  # fmt: skip


def try_quiet(pages_per_s: float, seeds: Iterable[int], *, hours: float = 1.0) -> Quiet:
    """Hours in which nothing is wrong, run as fast as they go."""
    opened, three, windows, spent, many, series = Opened(), 0, 0, 0.0, 0, 0
    for seed in seeds:
        shop, sigma = Shop(seed, pages_per_s=pages_per_s), ThreeSigma()
        incidents = Incidents(Detector(), notify=opened)
        while shop.now_s < hours * 3600:
            window = shop.window()
            begin = time.thread_time()
            incidents.feed(window)
            spent += time.thread_time() - begin
            windows += 1
            three += sigma.feed(window)
            series = max(series, 3 * len(window.edges) + 3 * len(window.modules) + 3 * len(window.workloads))
        many += 1
    return Quiet(pages_per_s, many * hours, opened.count(), three, round(spent / windows * 1e6), series)


def flow(calls: int, errors: int = 0, latency_ms: float = 5.0) -> Flow:
    return Flow(calls, errors, int(calls * latency_ms * 1e6), histogram={bucket_of(latency_ms): calls} if calls else {})


def window(number: int, edges: dict[EdgeKey, Flow] | None = None) -> Window:
    return Window(BEGIN_NS + number * 2_000_000_000, 2_000_000_000, edges or {})


def many_edges() -> dict[EdgeKey, Flow]:
    """Five thousand, among a hundred modules."""
    return {
        (f"m{n % 100}", f"m{(n * 31 + 20) % 100}", f"M.{n}", "client"): flow(3 + n % 5, latency_ms=1 + n % 9)
        for n in range(5000)
    }


def cost_us(windows: int = 60) -> int:
    """CPU for one window of five thousand edges, the median after warming up."""
    detector, edges, spent = Detector(), many_edges(), list[float]()
    for number in range(windows):
        begin = time.thread_time()
        detector.feed(window(number, edges))
        spent.append(time.thread_time() - begin)
    return round(statistics.median(spent[windows // 2 :]) * 1e6)


def table(told: dict[str, list[dict[str, float | str]]]) -> str:
    """The figures as the page shows them."""
    lines = [
        "| fault | 10 pages/s: found | median, 90 % | 60 pages/s: found | median, 90 % |",
        "|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        cells = [
            f"{each['found']} of {each['trials']} | {each['median_s']:.0f} s, {each['p90_s']:.0f} s"
            for pages in (10.0, 60.0)
            for each in told["faults"]
            if each["fault"] == fault and each["pages_per_s"] == pages
        ]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    quiet = [f"{each['incidents']} in {each['hours']:.0f} h | " for each in told["quiet"]]
    lines.append(f"| none: false incidents | {' | '.join(quiet)} |")
    return "\n".join(lines)


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    faults = [try_kind(fault, pages, range(trials)) for fault in FAULTS for pages in (10.0, 60.0)]
    quiet = [try_quiet(pages, range(20)) for pages in (10.0, 60.0)]
    told = {"faults": [asdict(each) for each in faults], "quiet": [asdict(each) for each in quiet],
            "us_per_5000_edges": cost_us()}  # fmt: skip
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
