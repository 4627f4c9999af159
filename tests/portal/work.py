"""What the rooms of the planted shop would answer: its events, sagas, policies; and an audit in its data folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.portal.front import FakeAdmin
from tests.portal.planted import HOSTILE, TRACE

from seamline.kernel.audit import AuditLog
from seamline.kernel.settings import Settings
from seamline.run.admin import RefusedError

NOW = datetime.now(UTC)
SAGA = "019ab2c3d4e5f60718293a4b5c6d"
STUCK = "019ab2c3d4e5f60718293a4b5c6e"
ASKS = "019ab2c3d4e5f60718293a4b5c6f"
TRACEPARENT = f"00-{TRACE.hex()}-00f067aa0ba902b7-01"
BINARY = b"\x00\xff\xfe<script>".decode(errors="backslashreplace")


def plant(admin: FakeAdmin) -> None:
    """Have the supervisor answer for the rooms."""
    admin.answers |= {"events": _events, "sagas": _sagas, "policies": _policies, "observed": _observed}


def _ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _ms(seconds: float) -> int:
    return int((NOW - timedelta(seconds=seconds)).timestamp() * 1000)


def _answered(*results: Any) -> dict[str, Any]:
    return {"answers": [{"workload": f"w{n}", "modules": [], "result": each} for n, each in enumerate(results)]}


# Sagas.


def outline(id_: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "module": "checkout",
        "id": id_,
        "type": "purchase",
        "key": f"order-{id_[-2:]}",
        "version": 1,
        "status": status,
        "owner": "",
        "started": _ago(95),
        "updated": _ago(60),
        "ended": None,
        "waiting": [],
        "trouble": [],
        "stuck": "",
        "trace": TRACEPARENT,
        "parent": "",
        "notes": {},
        "run": 1,
        **more,
    }


def entry(
    place: str, kind: str, name: str, at_s: float, took_ms: int, outcome: str = "ok", **more: Any
) -> dict[str, Any]:
    return {
        "seq": int(place or 99),
        "place": place,
        "kind": kind,
        "name": name,
        "at_ms": _ms(at_s),
        "took_ms": took_ms,
        "outcome": outcome,
        "attempts": 1,
        **more,
    }


OUTLINES = [
    outline(ASKS, "running", waiting=["approval fraud until 2027-01-01 10:00:00 UTC", "signal address"]),
    outline(
        STUCK,
        "stuck",
        stuck="undo Payments.refund has failed 12 times",
        trouble=["undo Payments.refund: SL3104 no route (12 attempts)"],
    ),
    outline(SAGA, "failed", ended=_ago(61), key=HOSTILE),
    *(outline(f"019ab2c3d4e5f60718293a4b{n:04x}", "succeeded", ended=_ago(70)) for n in range(60)),
]
JOURNAL = [
    entry(
        "1",
        "step",
        "Inventory.reserve",
        94.9,
        12,
        input=["o-1", [{"sku": HOSTILE, "pieces": 2}]],
        output={"held": True},
    ),
    entry(
        "2", "step", "Payments.charge", 94.2, 640, input=["o-1", 4200, HOSTILE], output={"charge": "c-9"}, attempts=3
    ),
    entry("3", "sleep", "1 minute", 63.0, 0),
    entry("4", "step", "Shipping.ship", 62.4, 220, "fault", error="CountryNotServed", output={"country": "X" * 5000}),
    entry("2", "undo", "Payments.refund", 62.0, 180, output=None),
    entry("1", "undo", "Inventory.release", 61.7, 9, output=BINARY),
]


def _sagas(asked: dict[str, Any]) -> dict[str, Any]:
    arguments = asked["arguments"]
    if asked["operation"] == "list":
        return _answered(_listed(arguments), None)
    found = next((each for each in OUTLINES if each["id"] == arguments["id"]), None)
    if found is None:
        return _answered(None, None)
    if asked["operation"] == "show":
        journal = JOURNAL if found["id"] == SAGA else JOURNAL[:2]
        result = (
            {"outcome": "fault", "error": "CountryNotServed", "output": {"country": HOSTILE}}
            if found["ended"]
            else None
        )
        return _answered(
            None,
            {
                **found,
                "input": {"cart": HOSTILE, "big": "y" * 9000},
                "result": result,
                "journal": journal,
                "messages": [],
            },
        )
    if asked["operation"] == "signal" and arguments["name"] == "unknown":
        return _answered({"id": found["id"], "module": "checkout", "awaited": False})
    return _answered({"id": found["id"], "module": "checkout", "awaited": True})


def _listed(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [each for each in OUTLINES if not arguments.get("before") or each["id"] < arguments["before"]]
    if arguments.get("parent"):
        return (
            [outline("019ab2c3d4e5f60718293a4b9999", "succeeded", type="parcel")] if arguments["parent"] == SAGA else []
        )
    if arguments.get("status"):
        rows = [each for each in rows if each["status"] == arguments["status"]]
    if arguments.get("text"):
        rows = [each for each in rows if arguments["text"] in str(each)]
    return sorted(rows, key=lambda each: each["id"], reverse=True)[: arguments["limit"]]


# Events.

TOPICS = [
    {
        "module": "checkout",
        "events": ["OrderPlaced", "OrderUndone"],
        "first": 1,
        "last": 240,
        "delayed": 2,
        "transport": "embedded",
        "durable_when": "its transaction is on disk",
    },
    {
        "module": "inventory",
        "events": ["StockLow"],
        "first": 1,
        "last": 0,
        "delayed": 0,
        "transport": "embedded",
        "durable_when": "its transaction is on disk",
    },
]
GROUPS = [
    {
        "module": "payments",
        "group": "payments.on_order",
        "topic": "checkout",
        "events": 0,
        "oldest_s": 0.0,
        "failed": 3,
        "resting": 0,
        "dead": 0,
    },
    {
        "module": "inventory",
        "group": "inventory.on_order",
        "topic": "checkout",
        "events": 37,
        "oldest_s": 81.5,
        "failed": 9,
        "resting": 2,
        "dead": 3,
    },
    {
        "module": "frontend",
        "group": "frontend.on_undone",
        "topic": "checkout",
        "events": None,
        "oldest_s": None,
        "error": {"code": "SL7210", "fact": "its topic cannot be reached", "remedy": ""},
        "failed": 0,
        "resting": 0,
        "dead": 0,
    },
]


def record(offset: int) -> dict[str, Any]:
    data = {
        0: f'{{"order_id":"o-{offset}","amount":{{"cents":4200}}}}',
        1: HOSTILE,
        2: BINARY,
        3: '"' + "z" * 20_000 + '"',
    }[offset % 4]
    return {
        "offset": offset,
        "partition": offset % 8,
        "id": f"01HZ{offset:022}",
        "type": "OrderPlaced" if offset % 3 else "OrderUndone",
        "version": 2,
        "key": f"o-{offset % 5}",
        "time": _ago(240 - offset),
        "trace": TRACEPARENT,
        "headers": {"tenant": HOSTILE},
        "data": data,
    }


def letter(number: int) -> dict[str, Any]:
    return {
        "module": "inventory",
        "number": number,
        "group": "inventory.on_order",
        "topic": "checkout",
        "type": "OrderPlaced",
        "key": HOSTILE if number == 2 else f"o-{number}",
        "attempts": 5,
        "last_ms": _ms(number * 30),
        "reason": f"ValueError: {HOSTILE}",
    }


def _events(asked: dict[str, Any]) -> dict[str, Any]:
    arguments = asked["arguments"]
    match asked["operation"]:
        case "topics":
            return _answered(TOPICS, TOPICS)
        case "lag":
            return _answered(GROUPS)
        case "tail":
            return _answered(_tail(asked["module"], arguments))
        case "dead list":
            if asked["module"] not in (None, "inventory"):
                raise RefusedError({"code": "SL7207", "fact": "it has no handlers of events", "remedy": ""})
            return _answered([letter(n) for n in (1, 2, 3) if n > arguments.get("after", 0)])
        case "dead show":
            shown = letter(arguments["number"])
            trouble = f'Traceback\n  File "inventory/module.py", line 12\nValueError: {HOSTILE}'
            stored = {**record(41), "time_ms": _ms(90), "due_ms": 0, "expires_ms": 0}
            stored.pop("time")
            return _answered({**shown, "first_ms": _ms(300), "traceback": trouble, "record": stored})
        case "dead retry" | "dead drop":
            number = arguments.get("number")
            numbers = [1, 2, 3] if number is None else [number]
            done = asked["operation"] == "dead drop"
            return _answered(
                [{"number": n, "done": done or n != 2, "reason": "" if done or n != 2 else HOSTILE} for n in numbers]
            )
        case "replay":
            return _answered([{"group": arguments["group"], "topic": "checkout", "start": arguments["start"]}])
        case _:
            return _answered([])


def _tail(module: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if module == "inventory":
        return {"records": [], "through": 0, "since": 1, "first": 1}
    limit, types, key = arguments.get("limit", 10), arguments.get("types"), arguments.get("key")
    found = [
        each
        for each in map(record, range(1, 241))
        if (not types or each["type"] in types) and key in (None, each["key"])
    ]
    if arguments.get("after") is not None:
        return {"records": [each for each in found if each["offset"] > arguments["after"]][:limit], "through": 240}
    if arguments.get("before") is not None:
        found = [each for each in found if each["offset"] < arguments["before"]]
    page = found[-limit:]
    return {"records": page, "through": 240, "since": page[0]["offset"] if page else 1, "first": 1}


# Policy.

CALLS = [
    ("catalog", "Catalog.list"),
    ("catalog", "Catalog.get"),
    ("checkout", "Checkout.place"),
    ("inventory", "Inventory.reserve"),
    ("payments", "Payments.charge"),
    ("payments", "Payments.refund"),
    ("frontend", "http"),
    ("checkout", "events"),
]
PERMITTED = [
    ("frontend", "catalog", "Catalog.list"),
    ("frontend", "catalog", "Catalog.get"),
    ("frontend", "checkout", "Checkout.place"),
    ("checkout", "inventory", "Inventory.reserve"),
    ("checkout", "payments", "Payments.charge"),
    ("checkout", "payments", "Payments.refund"),
    ("gateway", "frontend", "http"),
    ("inventory", "checkout", "events"),
    ("payments", "checkout", "events"),
]


def _policies(asked: dict[str, Any]) -> dict[str, Any]:
    arguments = asked["arguments"]
    match asked["operation"]:
        case "overview":
            return _answered(_overview())
        case "explain":
            if arguments["call"] not in {call for _, call in CALLS}:
                raise RefusedError(
                    {"code": "SL4208", "fact": f"there is no method {arguments['call']!r}", "remedy": "Known are: x."}
                )
            allowed = any((a, c) == (arguments["caller"], arguments["call"]) for a, _, c in PERMITTED)
            reasons = [
                {
                    "place": "policy/shop.cedar:3",
                    "name": "the shop (policy/shop.cedar:3)",
                    "effect": "permit",
                    "text": HOSTILE,
                }
            ]
            looks = [
                {
                    "name": "refunds",
                    "effect": "forbid",
                    "outcome": "does not apply",
                    "looks": [{"at": "context.args.cents > 5000", "found": "false"}],
                }
            ]
            return _answered(
                {
                    "allowed": allowed,
                    "caller": arguments["caller"],
                    "callee": "x",
                    "call": arguments["call"],
                    "reasons": reasons if allowed else [],
                    "fact": f"{arguments['caller']!r} {'may' if allowed else 'may not'} call {arguments['call']!r}",
                    "remedy": "" if allowed else "permit (principal, action, resource);",
                    "considered": looks,
                }
            )
        case "diff":
            return _answered(
                {
                    "there": True,
                    "error": None,
                    "changes": [
                        {
                            "caller": "checkout",
                            "callee": "payments",
                            "call": "Payments.refund",
                            "now": "on conditions",
                            "then": "denied",
                        }
                    ],
                }
            )
        case _:
            return _answered(
                {
                    "diff": f"--- a/shop\n+++ b/shop\n@@ -1 +1 @@\n-permit (a);\n+permit (b); // {HOSTILE}\n",
                    "unused": ["old (policy/shop.cedar:9)"],
                    "narrowed": ["the shop (policy/shop.cedar:3)"],
                }
            )


def _overview() -> dict[str, Any]:
    return {
        "policies": [
            {
                "place": "policy/shop.cedar:3",
                "name": "the shop",
                "effect": "permit",
                "audit": False,
                "text": 'permit (\n  principal == Module::"frontend",\n  action in Action::"Catalog",\n  resource\n);',
            },
            {
                "place": "policy/shop.cedar:12",
                "name": HOSTILE,
                "effect": "forbid",
                "audit": True,
                "text": "forbid (principal, action, resource) when { context.args.cents > 5000 };",
            },
        ],
        "callers": ["frontend", "catalog", "checkout", "payments", "inventory", "gateway"],
        "calls": [{"callee": callee, "call": call} for callee, call in CALLS],
        "permitted": [
            {"caller": a, "callee": b, "call": c, "conditional": c == "Payments.refund"} for a, b, c in PERMITTED
        ],
        "roles": ["support", "lead"],
        "agents": ["helper"],
        "attributes": {"desk": "text"},
        "arguments": {"Payments.refund": {"type": "Record", "attributes": {"cents": {"type": "Long"}}}},
        "elsewhere": False,
        "differences": [
            {"caller": "checkout", "callee": "payments", "call": "Payments.refund", "allowed": True, "count": 7}
        ],
    }


def _observed(_: dict[str, Any]) -> dict[str, Any]:
    edges = [{"caller": a, "callee": b, "action": c, "calls": 12} for a, b, c in PERMITTED[:5]]
    return {"processes": [{"edges": edges, "public": [{"caller": "gateway", "callee": "frontend"}]}]}


# The audit.


def plant_audit(shop: Path) -> None:
    """Some hundred lines in the shop's data folder, once."""
    folder = Settings.load(shop, {}).data_folder / "audit"
    if folder.exists():
        return
    folder.mkdir(parents=True)
    log = AuditLog(folder / "supervisor.jsonl")
    for number in range(250):
        decision = "deny" if number % 5 == 0 else "allow"
        log.write("admin", decision, principal=f"session {number}", action="switch", resource="shop", always=True)
    log.write(
        "call", "deny", principal=HOSTILE, action="Payments.charge", resource="payments", reason=HOSTILE, peer=HOSTILE
    )
    log.close()
