"""A shop that exists in numbers only: windows of telemetry as the boutique would tell them, with its bad habits.

Load has a day, minutes of rush and Poisson noise; latencies are lognormal, follow the load, wander, and now and then
all are slow for one window (a collection, a neighbour); some edges fail now and then, some in clusters; releases make
things slow for a few seconds; memory saws and settles. None of that is a fault. Faults are planted by :class:`Fault`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import cos, exp, log, pi
from typing import Literal

from seamline.observe.records import Mark
from seamline.observe.windows import Flow, Window

BEGIN_NS = 1_790_000_000_000_000_000

GRAPH: dict[tuple[str, str, str], tuple[float, float]] = {
    ("", "frontend", "GET /"): (0.35, 14.0),
    ("", "frontend", "GET /product/{id}"): (0.40, 11.0),
    ("", "frontend", "GET /cart"): (0.15, 9.0),
    ("", "frontend", "POST /cart/checkout"): (0.10, 40.0),
    ("frontend", "catalog", "Catalog.list"): (0.50, 2.0),
    ("frontend", "catalog", "Catalog.get"): (0.60, 0.8),
    ("frontend", "currency", "Currency.convert"): (1.20, 0.5),
    ("frontend", "cart", "Cart.get"): (0.95, 1.5),
    ("frontend", "ads", "Ads.pick"): (0.75, 0.9),
    ("frontend", "recommender", "Recommender.similar"): (0.55, 3.0),
    ("recommender", "catalog", "Catalog.list"): (0.55, 2.0),
    ("frontend", "checkout", "Checkout.place"): (0.10, 25.0),
    ("checkout", "cart", "Cart.get"): (0.10, 1.5),
    ("checkout", "catalog", "Catalog.get"): (0.22, 0.8),
    ("checkout", "currency", "Currency.convert"): (0.30, 0.5),
    ("checkout", "shipping", "Shipping.quote"): (0.10, 1.2),
    ("checkout", "payments", "Payments.charge"): (0.10, 6.0),
    ("checkout", "shipping", "Shipping.ship"): (0.09, 2.0),
    ("checkout", "cart", "Cart.clear"): (0.09, 1.0),
    ("checkout", "mail", "Mail.confirm"): (0.09, 4.0),
}
"""How often an edge is used for each page, and its median latency in milliseconds."""
MODULES = sorted({callee for _, callee, _ in GRAPH})

What = Literal["latency", "errors", "ramp", "leak", "dead", "stop"]


@dataclass(frozen=True)
class Fault:
    """From ``at_s`` on: ``amount`` is milliseconds more (``latency``), the share that fails (``errors``), the share by
    which latency grows each second (``ramp``), megabytes a second (``leak``). ``callee`` has it, and who waits for it.
    """

    what: What
    callee: str
    amount: float
    at_s: float
    until_s: float = 1e12
    method: str = ""


class Shop:
    """Yields windows. With ``quiet`` nothing happens but noise."""

    def __init__(
        self, seed: int, *, pages_per_s: float = 10.0, length_s: float = 2.0, faults: tuple[Fault, ...] = (),
        habits: bool = True, begin_ns: int = BEGIN_NS
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.pages_per_s = pages_per_s
        self.length_s = length_s
        self.faults = faults
        self.habits = habits
        self.now_s = 0.0
        self._begin_ns = begin_ns
        self._phase = self.random.random() * 2 * pi
        self._rush = 1.0
        self._rush_until = 0.0
        self._wander = dict.fromkeys(MODULES, 0.0)
        self._slow_until: dict[str, float] = {}
        self._usual_errors = {key: self.random.choice((0.0, 0.0, 0.0, 0.001, 0.003, 0.02)) * habits for key in GRAPH}
        self._mix = {key: ratio * self.random.uniform(0.8, 1.25) for key, (ratio, _) in GRAPH.items()}
        self._cluster: dict[tuple[str, str, str], int] = {}
        self._rss = {module: self.random.uniform(60e6, 120e6) for module in MODULES}
        self._rss_usual = dict(self._rss)

    def window(self) -> Window:
        rng, length = self.random, self.length_s
        at_s = self.now_s
        self.now_s += length
        window = Window(self._begin_ns + int(at_s * 1e9), int(length * 1e9))
        load = self._load(at_s)
        pages = self._poisson(self.pages_per_s * load * length)
        hiccup = rng.uniform(1.5, 4.0) if self.habits and rng.random() < 0.004 else 1.0
        for module in MODULES:
            self._wander[module] = 0.9 * self._wander[module] + rng.gauss(0.0, 0.03)
            if self.habits and rng.random() < 0.0006:
                self._slow_until[module] = at_s + 5.0
                window.marks.append(Mark(window.at_ns, "release", f"{module} 1.{int(at_s)}", [module]))
        extra = self._extra_ms(at_s)
        for key in GRAPH:
            flow = self._flow(key, pages, load, hiccup, at_s, extra)
            if flow.calls:
                window.edges[(*key, "client" if key[0] else "http")] = flow
        self._processes(window, at_s, pages)
        return window

    def windows(self, seconds: float) -> list[Window]:
        return [self.window() for _ in range(int(seconds / self.length_s))]

    def _load(self, at_s: float) -> float:
        if not self.habits:
            return 1.0
        if at_s >= self._rush_until and self.random.random() < 0.002 * self.length_s:
            self._rush, self._rush_until = self.random.uniform(1.5, 2.5), at_s + self.random.uniform(10, 60)
        rush = self._rush if at_s < self._rush_until else 1.0
        return rush * (1.0 + 0.5 * cos(self._phase + 2 * pi * at_s / 86_400))

    def _extra_ms(self, at_s: float) -> dict[str, float]:
        """Milliseconds that calls of a module take longer, with those of the modules it waits for."""
        extra: dict[str, float] = {}
        for fault in self.faults:
            if fault.what == "latency" and fault.at_s <= at_s < fault.until_s:
                extra[fault.callee] = extra.get(fault.callee, 0.0) + fault.amount
        for caller, callee in (("checkout", "payments"), ("checkout", "shipping"), ("recommender", "catalog")):
            if callee in extra:
                extra[caller] = extra.get(caller, 0.0) + extra[callee]
        waited = [extra[module] for module in ("catalog", "currency", "cart", "recommender", "ads") if module in extra]
        if waited:
            extra["frontend"] = extra.get("frontend", 0.0) + max(waited)
        if "checkout" in extra:
            extra["frontend POST /cart/checkout"] = extra["checkout"]
        return extra

    def _flow(
        self, key: tuple[str, str, str], pages: int, load: float, hiccup: float, at_s: float, extra: dict[str, float]
    ) -> Flow:  # fmt: skip
        rng = self.random
        caller, callee, method = key
        if any(f.what == "stop" and f.callee == callee and f.at_s <= at_s < f.until_s for f in self.faults):
            return Flow()
        calls = self._poisson(pages * self._mix[key])
        flow = Flow(calls=calls)
        if not calls:
            return flow
        slow = 1.5 if self._slow_until.get(callee, 0.0) > at_s else 1.0
        middle = log(GRAPH[key][1] * hiccup * slow * load**0.3) + self._wander[callee] + self._ramp(callee, at_s)
        more_ms = extra.get(callee, 0.0) + (extra.get(f"{callee} {method}", 0.0) if not caller else 0.0)
        drawn = min(calls, 40)
        for number in range(drawn):
            share = calls // drawn + (number < calls % drawn)
            latency_ms = exp(rng.gauss(middle, 0.45)) + more_ms
            flow.sum_ns += int(latency_ms * 1e6) * share
            bucket = bucket_of(latency_ms)
            flow.histogram[bucket] = flow.histogram.get(bucket, 0) + share
        flow.errors = min(calls, self._failed(key, calls, at_s))
        if flow.errors:
            flow.codes["internal"] = flow.errors
        return flow

    def _ramp(self, callee: str, at_s: float) -> float:
        return sum(
            log(1 + fault.amount * (min(at_s, fault.until_s) - fault.at_s))
            for fault in self.faults
            if fault.what == "ramp" and fault.callee == callee and at_s >= fault.at_s
        )

    def _failed(self, key: tuple[str, str, str], calls: int, at_s: float) -> int:
        rng, share = self.random, self._usual_errors[key]
        failed = self._binomial(calls, share)
        if self.habits and rng.random() < 0.0002 * self.length_s:
            failed += rng.randint(1, 3)  # one bad visitor, tried again and again
        for fault in self.faults:
            if fault.what == "errors" and fault.at_s <= at_s < fault.until_s:
                own = fault.callee == key[1] and fault.method in ("", key[2])
                waits = fault.callee in ("payments", "shipping") and key[2] in ("Checkout.place", "POST /cart/checkout")
                if own or waits:
                    failed += self._binomial(calls, fault.amount)
        return failed

    def _processes(self, window: Window, at_s: float, pages: int) -> None:
        rng = self.random
        for module in MODULES:
            held = window.module(module)
            held.cpu_ns = int(max(pages * rng.uniform(0.0002, 0.0012), 0) * 1e9)
            held.events_lag = float(rng.randint(0, 5)) if module == "mail" else 0.0
            held.dead_letters = sum(
                1 for f in self.faults if f.what == "dead" and f.callee == module and f.at_s <= at_s < f.at_s + 2
            )
            workload = window.workload(module)
            self._rss[module] += 0.02 * (self._rss_usual[module] - self._rss[module]) + rng.gauss(0, 0.4e6)
            if self.habits and rng.random() < 0.002:
                self._rss[module] += rng.uniform(1e6, 8e6)
            for fault in self.faults:
                if fault.what == "leak" and fault.callee == module and fault.at_s <= at_s < fault.until_s:
                    self._rss[module] += fault.amount * 1e6 * self.length_s
                    self._rss_usual[module] += fault.amount * 1e6 * self.length_s
            workload.rss_bytes = int(self._rss[module])
            spike = rng.uniform(20, 120) if self.habits and rng.random() < 0.005 else 0.0
            workload.loop_lag_ms = exp(rng.gauss(0.3, 0.5)) + spike
            workload.replicas = 1
            workload.modules = [module]

    def _poisson(self, mean: float) -> int:
        if mean > 60:
            return max(round(self.random.gauss(mean, mean**0.5)), 0)
        product, count, least = self.random.random(), 0, exp(-mean)
        while product > least:
            product *= self.random.random()
            count += 1
        return count

    def _binomial(self, calls: int, share: float) -> int:
        if share <= 0:
            return 0
        if calls * share > 40:
            return min(max(round(self.random.gauss(calls * share, (calls * share * (1 - share)) ** 0.5)), 0), calls)
        return sum(self.random.random() < share for _ in range(min(calls, 2000)))


def bucket_of(latency_ms: float) -> int:
    """As :class:`seamline.kernel.signal.metrics.EdgeStats` counts it."""
    micros = int(latency_ms * 1000)
    if micros < 4:
        return max(micros, 0)
    bits = micros.bit_length()
    return min(((bits - 2) << 2) + ((micros >> (bits - 3)) & 3), 139)
