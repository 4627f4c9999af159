"""Sagas: found by what people know of them, drawn step by step with what was undone, acted on when they are stuck."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import FieldError, NotFoundError
from seamline.portal.live import fragments
from seamline.portal.rooms import ask_all, ask_one
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import cut, shown
from seamline.portal.span_of_time import ago_ns

STATUSES: Final = ("active", "running", "undoing", "stuck", "succeeded", "failed", "cancelled")
TONES: Final = {"stuck": "bad", "undoing": "warn", "failed": "warn", "running": "info", "succeeded": "good"}
LISTED: Final = 50
_DRAWN_MAX: Final = 400
_SHOWN_MAX: Final = 4_000
_ANSWERED: Final = ("approval", "signal")


# The list.


async def _list(request: Request) -> Response:
    given = request.query_params
    rows = await _found(request)
    more = rows[LISTED - 1]["id"] if len(rows) >= LISTED else ""
    live = None if given.get("cursor") else f"/live/sagas?{request.url.query}"
    return answer(
        request, "sagas.html", title="Sagas", rows=rows, more=more, statuses=STATUSES, tones=TONES, live=live,
        modules=sorted(portal_of(request).settings.modules), doing=doing,
    )  # fmt: skip


async def _list_live(request: Request) -> Response:
    async def draw() -> dict[str, str]:
        rows = await _found(request)
        return {"saga-rows": render(request, "sagas.html#list", rows=rows, tones=TONES, doing=doing)}

    return fragments(request, draw, at_least_every_s=3.0)


async def _found(request: Request) -> list[dict[str, Any]]:
    given = request.query_params
    since = ""
    if given.get("span"):
        at = portal_of(request).now_ns() - ago_ns(given["span"])
        since = datetime.fromtimestamp(at / 1e9, UTC).isoformat()
    arguments = {
        "type": given.get("type"), "status": given.get("status"), "key": given.get("key"), "text": given.get("text"),
        "before": given.get("cursor"), "since": since or None, "limit": LISTED,
    }  # fmt: skip
    return await _rows(request, given.get("module") or None, {k: v for k, v in arguments.items() if v})


async def _rows(request: Request, module: str | None, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The newest first, each once: while a topology changes, two workloads may host a module."""
    unique: dict[str, dict[str, Any]] = {}
    for rows in await ask_all(request, "sagas", "list", module, **arguments):
        for row in cast("list[dict[str, Any]]", rows or []):
            unique.setdefault(row["id"], row)
    return sorted(unique.values(), key=lambda each: each["id"], reverse=True)[:LISTED]


def doing(row: Mapping[str, Any]) -> str:
    """Why it is not over."""
    return str(row["stuck"] or "; ".join(row["trouble"]) or "; ".join(row["waiting"]))


# One saga.


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the journal, or what goes on now, on the line of time."""

    place: str
    kind: str
    name: str
    outcome: str
    began_ms: int
    ended_ms: int
    attempts: int = 1
    error: str = ""
    input: str = ""
    output: str = ""
    open: bool = False
    x: float = 0.0
    width: float = 0.0

    @property
    def tone(self) -> str:
        if self.open:
            return "open"
        if self.outcome in {"fault", "error", "unknown", "damaged"}:
            return "failed"
        return {"undo": "undo", "step": "step", "child": "step"}.get(self.kind, "wait")


async def _detail(request: Request) -> Response:
    id_ = str(request.path_params["saga"])
    context = await _context(request, id_)
    return answer(
        request, "saga.html", title=f"{context['saga']['module']}.{context['saga']['type']}",
        live=f"/live/sagas/{id_}" if not context["saga"]["ended"] else None, **context,
    )  # fmt: skip


async def _detail_live(request: Request) -> Response:
    id_ = str(request.path_params["saga"])

    async def draw() -> dict[str, str]:
        return {"saga-body": render(request, "saga.html#all", **await _context(request, id_))}

    return fragments(request, draw, at_least_every_s=2.0)


async def _context(request: Request, id_: str) -> dict[str, Any]:
    saga = await ask_one(request, "sagas", "show", id=id_)
    if saga is None:
        raise NotFoundError(f"there is no saga {id_!r}", "The list has those of the modules that run now.")
    children = await _rows(request, saga["module"], {"parent": id_, "limit": LISTED})
    now_ms = portal_of(request).now_ns() // 1_000_000
    steps, true_to_scale = steps_of(saga, now_ms)
    return {
        "saga": saga, "steps": steps[:_DRAWN_MAX], "left_out": max(len(steps) - _DRAWN_MAX, 0), "tones": TONES,
        "scale": true_to_scale, "children": [each for each in children if each["id"] != id_], "doing": doing,
        "waits": waits_of(saga["waiting"]), "trace": _trace(saga["trace"]), "input": _text(saga["input"]),
        "began_ns": _ms(saga["started"]) * 1_000_000, "ended_ns": _ms(saga["ended"]) * 1_000_000,
        "now_ns": now_ms * 1_000_000, "result": _result(saga["result"]), "messages": saga.get("messages", []),
        "undone": [each for each in steps if each.kind == "step" and each.outcome == "ok"],
    }  # fmt: skip


def steps_of(saga: Mapping[str, Any], now_ms: int) -> tuple[list[Step], bool]:
    """The journal on a line from 0 to 1000, and whether it is true to scale: long waits are drawn shorter."""
    began_ms = _ms(saga["started"])
    steps: list[Step] = []
    reached = began_ms
    for each in cast("list[dict[str, Any]]", saga["journal"]):
        ended = int(each.get("at_ms") or reached)
        took = int(each.get("took_ms") or 0)
        begin = ended - took if each["kind"] in {"step", "undo"} else min(reached, ended)
        steps.append(
            Step(
                each["place"], each["kind"], each["name"], each["outcome"], begin, ended,
                int(each.get("attempts") or 1), str(each.get("error") or ""), _text(each.get("input")),
                _text(each.get("output")),
            )
        )  # fmt: skip
        reached = max(reached, ended)
    if not saga["ended"]:
        words = [*((each, "trouble") for each in saga["trouble"]), *((each, "wait") for each in saga["waiting"])]
        steps += [Step("", kind, text, "", reached, max(now_ms, reached), open=True) for text, kind in words]
    return _placed(steps, began_ms)


def _placed(steps: Sequence[Step], began_ms: int) -> tuple[list[Step], bool]:
    moments = sorted({began_ms, *(each.began_ms for each in steps), *(each.ended_ms for each in steps)})
    gaps = [after - before for before, after in pairwise(moments)]
    whole = moments[-1] - moments[0]
    true = not gaps or max(gaps) <= 0.6 * whole
    weights = [float(gap) if true else math.log1p(gap) for gap in gaps]
    total = sum(weights) or 1.0
    at: dict[int, float] = {moments[0]: 0.0}
    for moment, weight in zip(moments[1:], weights, strict=True):
        at[moment] = at[max(at)] + 1000 * weight / total
    placed = [
        Step(
            each.place, each.kind, each.name, each.outcome, each.began_ms, each.ended_ms, each.attempts, each.error,
            each.input, each.output, each.open, round(at[each.began_ms], 2),
            round(max(at[each.ended_ms] - at[each.began_ms], 0), 2),
        )
        for each in steps
    ]  # fmt: skip
    return placed, true


def waits_of(waiting: Sequence[str]) -> list[tuple[str, str]]:
    """What a person can answer: the kind, ``approval`` or ``signal``, and the name."""
    found: list[tuple[str, str]] = []
    for text in waiting:
        kind, _, rest = text.partition(" ")
        if kind in _ANSWERED:
            found.append((kind, rest.rpartition(" until ")[0] if " until " in rest else rest))
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    return cut(value, _SHOWN_MAX) if isinstance(value, str) else shown(value, _SHOWN_MAX)


def _result(result: Any) -> dict[str, str] | None:
    if not isinstance(result, dict):
        return None
    found = cast("dict[str, Any]", result)
    return {"error": str(found.get("error") or ""), "output": _text(found.get("output"))}


def _ms(text: str | None) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000) if text else 0


def _trace(traceparent: str) -> str:
    """Of ``00-<trace>-<span>-01``."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


# What people do.


async def _retry(act: Act) -> Done:
    skip = act.field("skip", "")
    await _tell(act, "retry", **({"skip": skip} if skip else {}))
    return Done("It is tried again." if not skip else f"What was done at place {skip} counts as undone.", again=True)


async def _cancel(act: Act) -> Done:
    await _tell(act, "cancel", reason=act.field("reason", ""))
    return Done("It will stop and be undone, unless it is past its point of no return.", again=True)


async def _signal(act: Act) -> Done:
    name, value = act.field("name"), act.field("value", "null")
    try:
        json.loads(value)
    except ValueError:
        raise FieldError(f"{value[:100]!r} is not JSON", 'Put text in quotes of its own: "yes".') from None
    found = await _tell(act, "signal", name=name, value=value)
    return Done(
        f"It was sent {name}." + ("" if found.get("awaited") else " It does not wait for it now; it is kept."),
        again=True,
    )


async def _approve(act: Act) -> Done:
    approved = act.field("approved") == "yes"
    given = {"name": act.field("name"), "by": act.caller.name, "comment": act.field("comment", "")}
    await _tell(act, "approve", **given, approved=approved)
    return Done("It was approved." if approved else "It was refused.", again=True)


async def _tell(act: Act, operation: str, **arguments: Any) -> dict[str, Any]:
    id_ = str(act.request.path_params["saga"])
    answer = await act.ask(
        "sagas", module=act.field("module", "") or None, operation=operation, arguments={"id": id_, **arguments}
    )
    found = next((each["result"] for each in answer["answers"] if each["result"] is not None), None)
    if found is None:
        raise NotFoundError(f"there is no saga {id_!r}", "The list has those of the modules that run now.")
    return cast("dict[str, Any]", found)


page = Page(
    title="Sagas",
    path="/sagas",
    key="s",
    icon="sagas",
    group="work",
    order=2,
    routes=[
        Route("/sagas", _list),
        Route("/live/sagas", _list_live),
        Route("/sagas/{saga}", _detail),
        Route("/live/sagas/{saga}", _detail_live),
        action("/sagas/{saga}/retry", "operator", _retry),
        action("/sagas/{saga}/cancel", "operator", _cancel),
        action("/sagas/{saga}/signal", "operator", _signal),
        action("/sagas/{saga}/approve", "operator", _approve),
    ],
)
