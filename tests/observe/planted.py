"""Windows of an imagined shop with one fault planted in it, as its processes would have told them.

A request is played through the boutique's call graph, call by call, with times that vary as real ones do; what each
side would have counted goes into windows, what would have been traced into spans. Only the counting is imagined away:
no clock, no sockets, no waiting.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from seamline.observe.incidents import Symptom
from seamline.observe.records import Mark, Span, SpanEvent
from seamline.observe.windows import Flow, Window

Topology = Literal["monolith", "services"]
MS: Final = 1_000_000
S: Final = 1_000_000_000
BEGIN_NS: Final = 1_800_000_000 * S

# What each method does itself (ms), and what it calls one after another.
METHODS: Final[dict[str, tuple[float, tuple[str, ...]]]] = {
    "GET /": (1.2, ("catalog.list", "currency.convert", "currency.convert", "cart.contents", "ads.choose")),
    "GET /product": (
        1.0,
        (
            "catalog.product", "currency.convert", "cart.contents", "recommendations.others", "ads.choose",
            "inventory.levels",
        ),
    ),
    "POST /cart": (0.8, ("catalog.product", "cart.add")),
    "GET /cart": (1.1, ("cart.contents", "catalog.product", "currency.convert", "shipping.quote")),
    "POST /checkout": (1.5, ("checkout.place",)),
    "catalog.list": (0.4, ()),
    "catalog.product": (0.2, ()),
    "currency.convert": (0.1, ()),
    "cart.contents": (0.6, ()),
    "cart.add": (1.5, ()),
    "cart.empty": (1.2, ()),
    "ads.choose": (0.2, ()),
    "recommendations.others": (0.5, ("catalog.list",)),
    "inventory.levels": (0.4, ()),
    "inventory.reserve": (1.6, ()),
    "shipping.quote": (0.3, ()),
    "shipping.ship": (1.0, ()),
    "payments.charge": (2.0, ()),
    "checkout.place": (
        3.0,
        (
            "cart.contents", "catalog.product", "currency.convert", "shipping.quote", "inventory.reserve",
            "payments.charge", "shipping.ship", "cart.empty",
        ),
    ),
    "emails.letter": (2.0, ("cart.contents",)),
}  # fmt: skip
PAGES: Final = {"GET /": 3, "GET /product": 10, "POST /cart": 2, "GET /cart": 3, "POST /checkout": 1}
TOLERATED: Final = frozenset({"ads", "recommendations"})
"""The page is made without them when they fail."""
MODULES: Final = sorted({"frontend", *(name.partition(".")[0] for name in METHODS if "." in name)})
SHARE_OF_TIME_ON_CPU: Final = 0.5
RSS: Final = 90 * 1024 * 1024

FaultKind = Literal[
    "delay", "network", "loss", "error", "exception", "cpu", "cpu-beside", "memory", "block", "slow-sql", "lock",
    "poison", "empty", "flood", "release", "crash",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    kind: FaultKind
    module: str
    amount: float = 1.0
    caller: str = ""
    """Of a fault on the way between two."""
    stumbles: bool = False
    """Who calls the module fails over its empty answers."""


@dataclass
class Shop:
    """Plays requests, a window at a time."""

    seed: int
    topology: Topology
    rate: float = 20.0
    """Pages a second."""
    length_s: float = 2.0
    fault: Fault | None = None
    noise: float = 0.35
    _window: Window = field(init=False)
    _number: int = field(init=False, default=0)
    spans: list[list[Span]] = field(init=False, default_factory=list[list[Span]])
    _leaked: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._trace: list[Span] = []
        self._cpu: dict[str, float] = defaultdict(float)
        self._busy_until = 0.0

    # Windows.

    def windows(self, count: int) -> list[Window]:
        return [self.window() for _ in range(count)]

    def window(self) -> Window:
        length_ns = int(self.length_s * S)
        self._window = Window(BEGIN_NS + self._number * length_ns, length_ns)
        self._cpu.clear()
        fault = self.fault
        rate = self.rate * (fault.amount if fault is not None and fault.kind == "flood" else 1.0)
        pages = sum(self._random.random() < 0.5 for _ in range(int(rate * self.length_s * 2)))
        for _ in range(pages):
            self._page()
        self._events()
        self._used()
        self._number += 1
        return self._window

    def _has(self, kind: FaultKind, module: str = "") -> bool:
        return self.fault is not None and self.fault.kind == kind and module in ("", self.fault.module)

    def _page(self) -> None:
        (page,) = self._random.choices(list(PAGES), list(PAGES.values()))
        self._trace = []
        trace_id = self._random.randbytes(16)
        seconds, failed = self._run("frontend", page, trace_id, b"", "")
        self._count("public", "frontend", page, "http", seconds, "internal" if failed else "")
        if self._trace and len(self.spans) < 4000:
            self.spans.append(self._trace)

    def _events(self) -> None:
        orders = self._window.edges.get(("frontend", "checkout", "checkout.place", "client"), Flow()).calls
        known = self._window.module("emails")
        for _ in range(orders):
            poisoned = self._has("poison", "emails") and self._random.random() < 0.7
            self._count("checkout", "emails", "OrderPlaced", "event", self._took(2.0), "internal" if poisoned else "")
            known.dead_letters += poisoned

    def _used(self) -> None:
        """CPU, loops and memory of the modules and their workloads."""
        fault = self.fault
        seconds = self.length_s
        for module in MODULES:
            if fault is not None and fault.kind == "cpu-beside" and fault.module == module:
                self._cpu[module] += fault.amount * seconds
        hosted = {module: [module] for module in MODULES} if self.topology == "services" else {"monolith": MODULES}
        for name, modules in hosted.items():
            workload = self._window.workload(name)
            cpu = sum(self._cpu[module] for module in modules)
            workload.cpu_s = cpu + 0.01 * seconds
            busy = min(cpu / seconds, 0.97)
            blocked = sum(self._window.module(module).blocked_ns for module in modules) / 1e9 / seconds
            workload.loop_lag_ms = abs(self._random.gauss(0.6, 0.3)) + 25 * max(busy - 0.3, 0.0) + 150 * blocked
            workload.replicas = 1
            if fault is not None and fault.kind == "memory" and fault.module in modules:
                self._leaked += int(fault.amount * 1024 * 1024 * seconds)
            workload.rss_bytes = RSS + int(self._random.gauss(0, 0.3) * 1024 * 1024) + (
                self._leaked if fault is not None and fault.module in modules else 0
            )  # fmt: skip
            if fault is not None and fault.kind == "crash" and fault.module in modules and self.topology == "services":
                workload.restarts = 1
        for module, spent in self._cpu.items():
            known = self._window.module(module)
            known.cpu_ns = int(max(spent * self._random.gauss(1, 0.1), 0) * 1e9)
            known.stacks = {f"run;handle;{module}.work ({module}/module.py:42)": known.cpu_ns}

    # One call.

    def _run(self, module: str, method: str, trace_id: bytes, parent: bytes, caller: str) -> tuple[float, bool]:
        """Run a handler: seconds, and whether it failed."""
        own_ms, calls = METHODS[method]
        span_id = self._random.randbytes(8)
        fault = self.fault
        here = fault is not None and fault.module == module
        if fault is not None and here and fault.kind == "empty":
            self._count_server(caller, module, method, 0.00002, "")
            return 0.00002, False
        own_s = self._took(own_ms)
        raised = ""
        if fault is not None and here:
            own_s += self._fault_s(fault)
            if fault.kind in ("error", "exception", "release") and self._random.random() < fault.amount:
                raised = "ValueError" if fault.kind != "error" else "Unavailable"
        self._cpu[module] += own_s * SHARE_OF_TIME_ON_CPU if not here or self._on_cpu() else self._took(own_ms) / 2
        seconds = own_s
        if not raised:
            for callee in calls:
                took, failed = self._call(module, callee, trace_id, span_id)
                seconds += took
                if failed and callee.partition(".")[0] not in TOLERATED:
                    raised = "failed"
                    break
                if fault is not None and fault.stumbles and fault.module == callee.partition(".")[0]:
                    raised = "TypeError"
                    break
        self._span(trace_id, span_id, parent, module, method, seconds, raised)
        self._count_server(caller, module, method, seconds, "internal" if raised else "")
        return seconds, bool(raised)

    def _on_cpu(self) -> bool:
        return self.fault is not None and self.fault.kind in ("cpu", "cpu-beside", "memory")

    def _fault_s(self, fault: Fault) -> float:
        if fault.kind == "block":
            self._window.module(fault.module).blocked_ns += int(fault.amount * MS)
            known = self._window.module(fault.module).blocked_stacks
            stack = f"run;handle;{fault.module}.sleep"
            known[stack] = known.get(stack, 0) + int(fault.amount * MS)
        if fault.kind == "lock":
            self._window.module(fault.module).db_wait_ms += fault.amount
        if fault.kind == "slow-sql":
            self._count(fault.module, "", "SELECT", "sql", fault.amount / 1000, "")
        return fault.amount / 1000 if fault.kind in ("delay", "cpu", "block", "lock", "slow-sql") else 0.0

    def _call(self, caller: str, method: str, trace_id: bytes, parent: bytes) -> tuple[float, bool]:
        module = method.partition(".")[0]
        fault = self.fault
        if self._has("crash", module) and self._random.random() < 0.5:
            self._count(caller, module, method, "client", 0.001, "unavailable")
            return 0.001, True
        seconds, failed = self._run(module, method, trace_id, parent, caller)
        if self.topology == "services":
            seconds += self._took(0.3)
            if fault is not None and fault.module == module and fault.caller in ("", caller):
                if fault.kind == "network":
                    seconds += self._took(fault.amount, 0.1)
                if fault.kind == "loss" and self._random.random() < fault.amount:
                    seconds += 0.2
        self._count(caller, module, method, "client", seconds, "internal" if failed else "")
        return seconds, failed

    def _took(self, mean_ms: float, noise: float | None = None) -> float:
        spread = self.noise if noise is None else noise
        slow = 6.0 if self._random.random() < 0.01 else 1.0
        return mean_ms / 1000 * self._random.lognormvariate(-spread * spread / 2, spread) * slow

    # Counting.

    def _count_server(self, caller: str, module: str, method: str, seconds: float, code: str) -> None:
        if self.topology == "services" and caller:
            self._count(caller, module, method, "server", seconds, code)
        if method == "slow":
            return
        base = METHODS[method][0] / 1000
        if not (self.fault is not None and self.fault.kind == "slow-sql" and self.fault.module == module):
            self._count(module, "", "SELECT", "sql", self._took(base * 300), "")

    def _count(self, caller: str, callee: str, method: str, side: str, seconds: float, code: str) -> None:
        flow = self._window.edges.setdefault((caller, callee, method, side), Flow())
        flow.calls += 1
        flow.sum_ns += int(seconds * 1e9)
        micros = max(int(seconds * 1e6), 4)
        bits = micros.bit_length()
        bucket = min(((bits - 2) << 2) + ((micros >> (bits - 3)) & 3), 139)
        flow.histogram[bucket] = flow.histogram.get(bucket, 0) + 1
        if code:
            flow.errors += 1
            flow.codes[code] = flow.codes.get(code, 0) + 1

    def _span(
        self, trace_id: bytes, span_id: bytes, parent: bytes, module: str, method: str, seconds: float, raised: str
    ) -> None:
        events: list[SpanEvent] = []
        if raised and raised != "failed":
            stack = f"{module}/module.py:42 {method}"
            events = [
                SpanEvent(
                    0, "exception", {"exception.type": raised, "exception.message": "7", "exception.stacktrace": stack}
                )
            ]
        at_ns = self._window.at_ns + int(self._random.random() * self.length_s * S)
        self._trace.append(
            Span(
                trace_id,
                span_id,
                parent,
                method,
                "server",
                module,
                "",
                at_ns,
                int(seconds * 1e9),
                "internal" if raised else "ok",
                events=events,
            )
        )


@dataclass(frozen=True)
class Planted:
    """A fault, and what there is to see of it."""

    fault: Fault | None
    before: list[Window]
    after: list[Window]
    symptoms: list[Symptom]
    marks: list[Mark]
    spans: list[list[Span]]

    def traces(self, module: str, *, failed: bool, since_ns: int, until_ns: int) -> list[list[Span]]:
        wanted: Callable[[Span], bool] = lambda span: span.module == module and (not failed or span.status != "ok")  # noqa: E731
        return [
            spans
            for spans in self.spans
            if any(wanted(span) and since_ns <= span.start_ns <= until_ns for span in spans)
        ][:20]


def plant(
    fault: Fault | None, topology: Topology, seed: int, *, rate: float = 20.0, before: int = 30, after: int = 5
) -> Planted:
    """The shop without the fault for a minute, and with it for some windows."""
    shop = Shop(seed, topology, rate)
    usual = shop.windows(before)
    shop.spans.clear()
    shop.fault = fault
    now = shop.windows(after)
    began_ns = now[0].at_ns
    marks: list[Mark] = []
    if fault is not None and fault.kind == "release":
        marks.append(Mark(began_ns - S, "release", f"{fault.module} 1.4", [fault.module]))
    return Planted(fault, usual, now, noticed(usual, now), marks, shop.spans)


def noticed(before: Sequence[Window], after: Sequence[Window]) -> list[Symptom]:
    """What a plain detector would notice: edges whose mean time or share of errors has risen, and nothing finer."""
    found: list[Symptom] = []
    sums: list[dict[tuple[str, str, str, str], Flow]] = []
    for windows in (before, after):
        total: dict[tuple[str, str, str, str], Flow] = {}
        for window in windows:
            for key, flow in window.edges.items():
                total.setdefault(key, Flow()).add(flow)
        sums.append(total)
    for key, now in sums[1].items():
        usual = sums[0].get(key)
        caller, callee, method, side = key
        if usual is None or side not in ("client", "http") or now.calls < 5:
            continue
        edge, at_ns = (caller, callee, method), after[0].at_ns
        if now.error_ratio > usual.error_ratio + 0.05:
            found.append(
                Symptom(
                    f"{caller} > {method} errors",
                    "errors",
                    callee,
                    edge,
                    usual.error_ratio,
                    now.error_ratio,
                    "ratio",
                    5,
                    at_ns,
                )
            )
        if now.mean_ms > 1.5 * usual.mean_ms + 0.5:
            found.append(
                Symptom(
                    f"{caller} > {method} latency", "latency", callee, edge, usual.mean_ms, now.mean_ms, "ms", 5, at_ns
                )
            )
    return found
