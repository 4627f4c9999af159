"""What plain methods make of the same windows, to be printed beside every figure of our own.

They see what metrics tell: rate, errors and duration of each module, and what its process uses where it has one of its
own. All get the right moment of the fault. ``n_sigma`` and ``robust`` rank modules by the metric of theirs that moved
most, the second after BARO (Pham et al., 2024): by median and interquartile range instead of mean and deviation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median, pstdev, quantiles
from typing import Final

from seamline.observe.explain.picture import Slice, both_sides, hosts
from seamline.observe.windows import Window

Ranking = list[str]
_SERVED: Final = ("client", "server", "http", "event")
_Series = dict[tuple[str, str], list[float]]
"""By module and metric, a value for each window."""


def n_sigma(before: Sequence[Window], after: Sequence[Window]) -> Ranking:
    def score(usual: Sequence[float], now: Sequence[float]) -> float:
        return max(abs(each - fmean(usual)) for each in now) / max(pstdev(usual), 1e-9)

    return _ranked(before, after, score)


def robust(before: Sequence[Window], after: Sequence[Window]) -> Ranking:
    def score(usual: Sequence[float], now: Sequence[float]) -> float:
        lower, _, upper = quantiles(usual, n=4)
        return max(abs(each - median(usual)) for each in now) / max(upper - lower, 1e-9)

    return _ranked(before, after, score)


def slowest(before: Sequence[Window], after: Sequence[Window]) -> Ranking:
    """Trivial: the module whose answers take the most additional time."""
    usual, now = _series(before), _series(after)
    modules = {module for module, metric in now if metric == "latency"}
    grew = {module: fmean(now[module, "latency"]) - fmean(usual.get((module, "latency"), [0.0])) for module in modules}
    return sorted(modules, key=lambda module: (-grew[module], module))


def by_lot(modules: Sequence[str], seed: int) -> Ranking:
    return random.Random(seed).sample(sorted(modules), len(modules))


METHODS: Final[Mapping[str, Callable[[Sequence[Window], Sequence[Window]], Ranking]]] = {
    "n-sigma": n_sigma,
    "BARO-style": robust,
    "slowest answers": slowest,
}


def modules_of(windows: Sequence[Window]) -> list[str]:
    """The modules that did anything."""
    return sorted({key[1] for window in windows for key in window.edges if key[3] in _SERVED and key[1]})


def _ranked(
    before: Sequence[Window], after: Sequence[Window], score: Callable[[Sequence[float], Sequence[float]], float]
) -> Ranking:
    usual, now = _series(before), _series(after)
    worst: dict[str, float] = {}
    for key, values in now.items():
        known = usual.get(key)
        if known is not None and len(known) >= 2:
            worst[key[0]] = max(worst.get(key[0], 0.0), score(known, values))
    return sorted(worst, key=lambda module: (-worst[module], module))


def _series(windows: Sequence[Window]) -> _Series:
    series: _Series = {}
    two_sided = both_sides(windows)
    slices = [Slice(window, two_sided) for window in windows]
    hosted = hosts(slices, modules_of(windows))
    for each in slices:
        for module, flows in each.served.items():
            calls = sum(flow.calls for flow in flows.values())
            if calls:
                spent = sum(flow.sum_ns for flow in flows.values())
                series.setdefault((module, "latency"), []).append(spent / calls / 1e6)
            series.setdefault((module, "rate"), []).append(calls / each.seconds)
            series.setdefault((module, "errors"), []).append(sum(flow.errors for flow in flows.values()) / each.seconds)
        for name, workload in each.window.workloads.items():
            if len(hosted.get(name, ())) == 1:
                series.setdefault((hosted[name][0], "cpu"), []).append(workload.cpu_s / each.seconds)
                series.setdefault((hosted[name][0], "memory"), []).append(workload.rss_bytes / 1e6)
                series.setdefault((hosted[name][0], "lag"), []).append(workload.loop_lag_ms)
    return series
