"""A quarter of an hour in the life of a small shop, made up from a seed: what its workers would have told.

Five modules in three workloads; payments slows down and fails in the last two minutes, after a release. The names of
``HOSTILE`` stand where applications put texts of others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from seamline.kernel.signal.metrics import EdgeStats
from seamline.observe.incidents import Claim, Entry, Evidence, Incident, Summary, Suspect, Symptom
from seamline.observe.records import (
    Attribute,
    Batch,
    Kind,
    Log,
    Mark,
    Point,
    Profile,
    Side,
    Source,
    Span,
    SpanEvent,
    Traffic,
)

SECOND = 1_000_000_000
STEP = 2 * SECOND
HOSTILE = "<script>document.title='owned'</script>\"'&\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe\N{ARABIC LETTER ALEF}"
TRACE = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
"""A trace that is always there; its root takes 48 ms."""

WORKLOADS = {"web": ["frontend"], "till": ["checkout", "payments"], "stock": ["catalog", "inventory"]}
EDGES: list[tuple[str, str, str, float, float]] = [
    # caller, callee, method, calls a second, milliseconds
    ("frontend", "catalog", "Catalog.list", 14.0, 2.1),
    ("frontend", "catalog", "Catalog.get", 22.0, 0.9),
    ("frontend", "checkout", "Checkout.place", 3.0, 38.0),
    ("checkout", "inventory", "Inventory.reserve", 3.0, 4.0),
    ("checkout", "payments", "Payments.charge", 3.0, 21.0),
]
PUBLIC = ("", "frontend", "GET /", 18.0, 9.0)


def planted(now_ns: int, *, seed: int = 7, minutes: int = 15) -> Iterator[Batch]:
    """Batches of all workloads, oldest first, the last at ``now_ns``."""
    random_ = random.Random(seed)
    start = now_ns - minutes * 60 * SECOND
    for at in range(start, now_ns + 1, STEP):
        ill = at > now_ns - 120 * SECOND
        for index, (workload, modules) in enumerate(WORKLOADS.items()):
            spans: list[Span] = []
            if not index:
                spans += _trace(random_, at - SECOND, ill)
                spans += known(at - 5 * SECOND) if at + STEP > now_ns else []
            yield Batch(
                source=Source(workload, 0, 4000 + index, "trio", {"payments": "2.4.1"} if workload == "till" else {}),
                at_ns=at,
                interval_ns=STEP,
                traffic=list(_traffic(random_, modules, ill)),
                points=_points(random_, modules),
                profiles=[
                    Profile(each, f"{each}/module.py:{line} {name};json/__init__.py:299 loads", int(cpu * 1e6))
                    for each in modules
                    for line, name, cpu in ((41, "place", 9), (88, "total", 4), (12, "_row", 2))
                ],
                logs=list(_logs(random_, at, workload, modules, ill)),
                spans=spans,
                marks=[*_marks(at, now_ns, start)] if not index else [],
            )


def _traffic(random_: random.Random, modules: list[str], ill: bool) -> Iterator[Traffic]:
    for caller, callee, method, rate, ms in [*EDGES, PUBLIC]:
        slow = ill and (callee == "payments" or method in {"Checkout.place", "GET /"})
        sides: list[Side] = []
        if caller in modules:
            sides.append("client")
        if callee in modules:
            sides.append("server" if caller else "http")
        for side in sides:
            yield _flow(random_, caller, callee, method, side, rate, ms * (9 if slow else 1), 0.3 if slow else 0.002)


def _flow(
    random_: random.Random, caller: str, callee: str, method: str, side: Side, rate: float, ms: float, failing: float
) -> Traffic:
    stats = EdgeStats()
    for _ in range(max(int(random_.gauss(rate * 2, rate**0.5)), 1)):
        stats.record(random_.lognormvariate(0, 0.4) * ms / 1000, "unavailable" if random_.random() < failing else "")
    flow = stats.take(caller, callee, method, side)
    assert flow is not None
    return Traffic(caller, callee, method, side, flow.calls, flow.errors, 0, 0, flow.sum_ns, flow.histogram, flow.codes)


def _points(random_: random.Random, modules: list[str]) -> list[Point]:
    return [
        Point("process.cpu.time", random_.uniform(0.2, 0.5), kind="counter", unit="s"),
        Point("process.memory.usage", random_.uniform(58e6, 61e6), unit="By"),
        Point("seamline.loop.lag", random_.uniform(0.1, 1.5), unit="ms"),
        *(Point("seamline.cpu.time", random_.uniform(0.05, 0.2), each, "counter", "s") for each in modules),
        *(Point("seamline.events.lag", 37.0, each, attributes={"group": f"{each}.on_order"}) for each in modules),
        *(Point("shop.cart.size", random_.uniform(1, 9), each, attributes={"kind": "guest"}) for each in modules),
    ]


def _logs(random_: random.Random, at: int, workload: str, modules: list[str], ill: bool) -> Iterator[Log]:
    for module in modules:
        yield Log(at, 9, module, f"{random_.randint(1, 40)} orders looked at", f"shop.{module}", workload)
    if ill and "payments" in modules:
        trouble = 'Traceback (most recent call last):\n  File "card.py", line 12\nConnectionError: <b>no route</b>'
        yield Log(
            at, 17, "payments", "the card network is not there", "shop.payments", workload, 0, TRACE, b"\1" * 8, trouble
        )
    if random_.random() < 0.05:
        yield Log(at, 13, modules[0], HOSTILE, "shop", workload, attributes={"user-agent": HOSTILE})


def _marks(at: int, now_ns: int, start: int) -> Iterator[Mark]:
    if at == start:
        yield Mark(at + SECOND, "switch", "topology monolith to trio", [], {"by": "user 1000"})
    if now_ns - 140 * SECOND <= at < now_ns - 138 * SECOND:
        yield Mark(at, "release", "payments 2.4.0 to 2.4.1", ["payments"], {"by": HOSTILE})


def _trace(random_: random.Random, at: int, ill: bool) -> list[Span]:
    slow = random_.lognormvariate(0, 0.3) * (6 if ill else 1)
    return _placing(random_, random_.randbytes(16), at, slow, failed=ill and random_.random() < 0.3)


def known(at: int) -> list[Span]:
    """The trace ``TRACE``."""
    return _placing(random.Random(1), TRACE, at, 1.0, failed=False)


_Row = tuple[str, Kind, str, str, int, float, float, dict[str, Attribute]]
_ROWS: list[_Row] = [
    # name, kind, module, peer, the parent's row, begins after ms, takes ms, attributes
    ("POST /checkout", "server", "frontend", "", 0, 0.0, 48.0, {"http.route": "/checkout", "url.path": "/checkout"}),
    ("Checkout.place", "client", "frontend", "checkout", 0, 2.0, 44.0, {}),
    ("Checkout.place", "server", "checkout", "frontend", 1, 3.0, 42.0, {"enduser.id": HOSTILE}),
    ("Inventory.reserve", "server", "inventory", "checkout", 2, 5.0, 6.0, {}),
    ("INSERT orders", "client", "checkout", "", 2, 12.0, 3.0, {"db.query.text": "INSERT INTO orders VALUES (?)"}),
    ("Payments.charge", "server", "payments", "checkout", 2, 17.0, 26.0, {"card.brand": "visa"}),
    ("order placed", "producer", "checkout", "", 2, 43.5, 0.8, {"messaging.destination.name": "OrderPlaced"}),
]


def _placing(random_: random.Random, trace: bytes, at: int, slow: float, *, failed: bool) -> list[Span]:
    def ns(ms: float) -> int:
        return int(ms * slow * 1e6)

    ids = [random_.randbytes(8) for _ in _ROWS]
    where = {module: workload for workload, modules in WORKLOADS.items() for module in modules}
    trouble = SpanEvent(at + ns(30), "exception", {"exception.type": "CardDown", "exception.message": HOSTILE})
    spans: list[Span] = []
    for i, (name, kind, module, peer, parent, begin, ms, attributes) in enumerate(_ROWS):
        guilty = failed and module == "payments"
        status = "unavailable" if failed and (module in {"payments", "checkout"} or not i) else "ok"
        spans.append(
            Span(
                trace,
                ids[i],
                ids[parent] if i else b"",
                name,
                kind,
                module,
                peer,
                at + ns(begin),
                ns(ms),
                status,
                HOSTILE if guilty else "",
                attributes,
                [trouble] if guilty else [],
                workload=where[module],
            )
        )
    return spans


def incident(now_ns: int) -> Incident:
    """Payments is slow and fails since two minutes ago."""
    began, seen = now_ns - 118 * SECOND, now_ns - 110 * SECOND
    charge, place = ("checkout", "payments", "Payments.charge"), ("frontend", "checkout", "Checkout.place")
    evidence = [
        Evidence("self-time", "own time of Payments.charge", 21.0, 188.0, "ms", f"/traces/{TRACE.hex()}", "e1", 4.1),
        Evidence("release", f"payments 2.4.1 was released 21 s before; {HOSTILE}", link="/metrics", id="e2", score=2.0),
    ]
    cpu = Evidence("cpu", "CPU of inventory", 0.11, 0.14, "s/s", id="e3")
    slow = Symptom("checkout > payments Payments.charge p95", "latency", "payments", charge, 31.0, 290.0, "ms", 9.0)
    failing = Symptom("frontend > checkout Checkout.place errors", "errors", "checkout", place, 0.002, 0.3, "ratio", 7)
    return Incident(
        "INC-7",
        "Payments.charge is slow and fails",
        severity="major",
        began_ns=began,
        detected_ns=seen,
        symptoms=[msgspec.structs.replace(each, at_ns=began, detected_ns=seen) for each in (slow, failing)],
        suspects=[
            Suspect("payments", "release", "Payments.charge", 6.1, evidence),
            Suspect("inventory", "cpu", "", 0.7, [cpu]),
        ],
        abstained=False,
        confidence=0.86,
        marks=[Mark(now_ns - 139 * SECOND, "release", "payments 2.4.0 to 2.4.1", ["payments"])],
        explained_ns=began + 14 * SECOND,
        summary=Summary(
            [
                Claim("Payments.charge takes 188 ms of its own, 21 before.", ["e1"]),
                Claim("It began with the release of payments 2.4.1.", ["e2"]),
            ]
        ),
        timeline=[
            Entry(began, "began", "p95 of Payments.charge left its range"),
            Entry(began + 14 * SECOND, "explained", "payments, release"),
        ],
    )


def described(module: str) -> dict[str, Any]:
    """What `describe` answers."""
    text = {"type": "text", "required": True}
    place: dict[str, Any] = {
        "kind": "unary", "idempotent": False, "readonly": False, "timeout_s": None, "result": {"ref": "shop.Receipt"},
        "parameters": {
            "user": text,
            "card": {"type": {"ref": "shop.Card"}, "required": True},
            "lines": {"type": {"list": {"ref": "shop.Line"}}, "required": True},
            "currency": {"type": {"enum": ["EUR", "JPY"]}, "required": False, "default": "EUR"},
            "gift": {"type": "bool", "required": False, "default": False},
            "note": {"type": {"union": ["text", "null"]}, "required": False},
        },
    }  # fmt: skip
    look: dict[str, Any] = {
        "kind": "server_stream", "idempotent": True, "readonly": True, "timeout_s": None, "result": "text",
        "parameters": {"order": {"type": {"limited": "int", "limits": {"ge": 1}}, "required": True}},
    }  # fmt: skip
    return {
        "contracts": {module.title(): {"methods": {"look": look, "place": place}}},
        "faults": {"CardDeclined": {"fields": {"reason": text}}},
        "events": {"OrderPlaced": {"key": "order", "version": 2, "upcasts": [1], "fields": {"order": text}}},
        "types": {
            "shop.Card": {"fields": {"number": text, "year": {"type": "int", "required": True}}},
            "shop.Line": {"fields": {"sku": text, "count": {"type": "int", "required": True}}},
            "shop.Receipt": {"fields": {"id": text}},
        },
        "texts": {module.title(): f"What {HOSTILE} offers.", f"{module.title()}.place": "Buy what is in the bag."},
        "owner": f"team till {HOSTILE}", "version": "2.4.1", "routes": [], "calls": [["Inventory", "inventory"]],
        "hears": [["StockMoved", "inventory"]], "sagas": ["purchase"], "views": [],
    }  # fmt: skip
