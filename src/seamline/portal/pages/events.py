"""Events: topics and what is in them, consumer groups and how far they are, and what could not be handled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.kernel.errors import SeamlineError
from seamline.observe.store.query import Series, SeriesQuery
from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import FieldError, NotFoundError
from seamline.portal.live import fragments
from seamline.portal.marking import chart_marks
from seamline.portal.pages.metrics import step_of
from seamline.portal.rooms import ask_one, ask_rows
from seamline.portal.session import caller_of
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import cut
from seamline.portal.span_of_time import time_span

LISTED: Final = 50
_LETTERS: Final = 100
_LAG: Final = "seamline.events.lag"
_DATA_MAX: Final = 20_000
_OFFSET_MAX: Final = 2**63 - 1
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


# Topics and groups.


async def _overview(request: Request) -> Response:
    return answer(request, "events.html", title="Events", live="/live/events", **await _told(request))


async def _overview_live(request: Request) -> Response:
    async def draw() -> dict[str, str]:
        return {"events-body": render(request, "events.html#all", **await _told(request))}

    return fragments(request, draw, at_least_every_s=3.0)


async def _told(request: Request) -> dict[str, Any]:
    topics, groups = await asyncio.gather(ask_rows(request, "topics"), ask_rows(request, "lag"))
    portal = portal_of(request)
    until_ns = portal.now_ns() // 10_000_000_000 * 10_000_000_000
    lags = await asyncio.to_thread(_lags, request, until_ns - 900 * 1_000_000_000, until_ns)
    return {
        "topics": sorted(topics, key=lambda each: each["module"]),
        "groups": sorted(groups, key=lambda each: (-(each["events"] or 0), each["group"])),
        "sparks": {group: each.columns["value"] for group, each in lags.items()},
        "promises": sorted({(each["transport"], each["durable_when"]) for each in topics}),
        "dead": sum(each["dead"] for each in groups),
        "readers": {each["module"]: [g["group"] for g in groups if g["topic"] == each["module"]] for each in topics},
    }


def _lags(request: Request, since_ns: int, until_ns: int, module: str = "") -> dict[str, Series]:
    """By group, or by module where the point does not say which group."""
    step_ns = step_of(until_ns - since_ns)
    found = portal_of(request).reader.metric(
        _LAG, module=module, since_ns=since_ns // step_ns * step_ns, until_ns=until_ns, step_ns=step_ns
    )
    return {each.attributes.get("group", each.module): each for each in found}


async def _group(request: Request) -> Response:
    module, name = str(request.path_params["module"]), str(request.path_params["group"])
    groups = [each for each in await ask_rows(request, "lag", module) if each["group"] == name]
    if not groups:
        raise NotFoundError(f"there is no consumer group {name!r}", "Events lists those there are.")
    span = time_span(request.query_params, portal_of(request).now_ns(), "1h")
    lags = await asyncio.to_thread(_lags, request, span.since_ns, span.until_ns, module)
    marks = await asyncio.to_thread(portal_of(request).reader.marks, span.since_ns, span.until_ns)
    series = lags.get(name) or lags.get(module)
    chart = series and {
        "at": [at / 1e9 for at in series.at_ns],
        "series": [{"name": "events behind", "values": series.columns["value"], "unit": ""}],
        "marks": chart_marks(marks),
    }
    return answer(request, "events_group.html", title=name, module=module, groups=groups, chart=chart, span=span)


# One topic.


async def _topic(request: Request) -> Response:
    module, given = str(request.path_params["module"]), request.query_params
    topics = await ask_rows(request, "topics", module)
    if not topics:
        raise NotFoundError(f"there is no topic {module!r}", "Events lists those there are.")
    live = None if given.get("before") or given.get("after") else f"/live/events/topics/{module}?{request.url.query}"
    rate = await asyncio.to_thread(_rate, request, module)
    return answer(
        request, "events_topic.html", title=module, topic=topics[0], schemas=await _schemas(request, module), live=live,
        rate=rate, **await _browsed(request, module),
    )  # fmt: skip


async def _topic_live(request: Request) -> Response:
    module = str(request.path_params["module"])

    async def draw() -> dict[str, str]:
        return {"topic-events": render(request, "events_topic.html#list", **await _browsed(request, module))}

    return fragments(request, draw, at_least_every_s=2.0)


async def _browsed(request: Request, module: str) -> dict[str, Any]:
    """A page of events, the newest first."""
    given = request.query_params
    arguments: dict[str, Any] = {"limit": LISTED}
    if given.get("type"):
        arguments["types"] = [given["type"]]
    if given.get("key"):
        arguments["key"] = given["key"]
    if given.get("after"):
        arguments["after"] = _offset(given["after"]) - 1
    elif given.get("before"):
        arguments["before"] = _offset(given["before"])
    found = await ask_one(request, "events", "tail", module, **arguments)
    records = [_shown(each) for each in reversed(found["records"])]
    since = found.get("since")
    return {
        "records": records, "module": module, "through": found["through"],
        "older": since if since is not None and since > found["first"] else 0,
        "newer": found["through"] if given.get("after") and records else 0, "since": since,
    }  # fmt: skip


def _offset(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) > _OFFSET_MAX:
        raise FieldError(f"{text!r} is no offset", "It counts the events of a topic: 1200.")
    return int(text)


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its data as people read it, and the trace that it came from."""
    found = _TRACEPARENT.fullmatch(record.get("trace") or "")
    data, headers = str(record["data"]), cast("dict[str, Any]", record.get("headers") or {})
    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON is shown as it is
        data = json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    return {
        **record,
        "data": cut(data, _DATA_MAX),
        "trace_id": found[1] if found else "",
        "headers": {name: cut(str(value), 1000) for name, value in headers.items()},
    }


async def _schemas(request: Request, module: str) -> dict[str, Any]:
    """What the module says of its events; empty where it does not answer."""
    try:
        found = await portal_of(request).admin.ask("describe", as_=caller_of(request), module=module)
    except SeamlineError:
        return {}
    return {"events": found.get("events") or {}}


def _rate(request: Request, module: str) -> list[float | None]:
    portal = portal_of(request)
    until_ns = portal.now_ns()
    query = SeriesQuery(
        caller=module, side="event", since_ns=until_ns - 900 * 1_000_000_000, until_ns=until_ns,
        step_ns=20_000_000_000,
    )  # fmt: skip
    return portal.reader.red(query).columns["rate"]


# What could not be handled.


async def _dead(request: Request) -> Response:
    given = request.query_params
    letters = await _letters(request)
    modules = sorted({each["module"] for each in await ask_rows(request, "lag")})
    return answer(
        request, "events_dead.html", title="Dead letters", letters=letters, modules=modules, live=None,
        after=letters[-1]["number"] if len(letters) >= _LETTERS and given.get("module") else 0,
        script="pages/events.js",
    )  # fmt: skip


async def _letters(request: Request) -> list[dict[str, Any]]:
    given = request.query_params
    arguments: dict[str, Any] = {"limit": _LETTERS}
    if given.get("group"):
        arguments["group"] = given["group"]
    if given.get("after"):
        arguments["after"] = _offset(given["after"])
    return await ask_rows(request, "dead list", given.get("module") or None, **arguments)


async def _letter(request: Request) -> Response:
    module, number = str(request.path_params["module"]), _offset(str(request.path_params["number"]))
    found = await ask_one(request, "events", "dead show", module, number=number)
    record = _shown(found["record"])
    moments = {name: _ms_ns(record.pop(f"{name}_ms", 0)) for name in ("time", "due", "expires")}
    return answer(
        request, "events_letter.html", title=f"{found['topic']}.{found['type']}", letter=found, record=record,
        module=module, detail=cut(str(found.get("detail") or found.get("traceback") or ""), _DATA_MAX),
        first_ns=_ms_ns(found["first_ms"]), last_ns=_ms_ns(found["last_ms"]), moments=moments,
    )  # fmt: skip


def _ms_ns(ms: int | None) -> int:
    return (ms or 0) * 1_000_000


# What people do.


async def _retry(act: Act) -> Done:
    return await _settle(act, "dead retry", "handled")


async def _drop(act: Act) -> Done:
    return await _settle(act, "dead drop", "dropped")


async def _settle(act: Act, operation: str, word: str) -> Done:
    """One, those that are ticked (``module number`` each), or all of a group."""
    done, failed = 0, list[str]()
    for module, arguments in _chosen(act):
        found = await act.ask("events", module=module, operation=operation, arguments=arguments)
        for row in (row for each in found["answers"] for row in each["result"] or ()):
            if row["done"]:
                done += 1
            else:
                failed.append(f"{row['number']}: {row['reason']}")
                act.say(f"number {row['number']} of {module} stays: {cut(row['reason'], 300)}")
    text = f"{done} {word}" + (f", {len(failed)} stay: {cut(failed[0], 300)}" if failed else "") + "."
    return Done(text, go=act.field("back", "") or "", again=not act.field("back", ""))


def _chosen(act: Act) -> list[tuple[str, dict[str, Any]]]:
    ticked = act.fields("letter")
    if ticked:
        found: list[tuple[str, dict[str, Any]]] = []
        for each in ticked:
            module, _, number = each.rpartition(" ")
            found.append((module, {"number": _offset(number)}))
        return found
    group = act.field("group", "")
    if group:
        return [(act.field("module"), {"group": group})]
    raise FieldError("no dead letter is chosen", "Tick those that are meant.")


async def _replay(act: Act) -> Done:
    where = act.field("where")
    start = where if where in {"earliest", "latest"} else act.field("start")
    if start.isdecimal():
        start = str(_offset(start))
    elif start not in {"earliest", "latest"}:
        try:
            at = datetime.fromisoformat(start)
        except ValueError:
            raise FieldError(f"{start!r} is no place in a topic", "Write an offset, or 2026-03-01T00:00.") from None
        start = (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
    module, group = act.field("module"), act.field("group")
    await act.ask("events", module=module, operation="replay", arguments={"group": group, "start": start})
    return Done(f"{group} begins again from {start}.", again=True)


page = Page(
    title="Events",
    path="/events",
    key="e",
    icon="events",
    group="work",
    order=1,
    routes=[
        Route("/events", _overview),
        Route("/live/events", _overview_live),
        Route("/events/topics/{module}", _topic),
        Route("/live/events/topics/{module}", _topic_live),
        Route("/events/groups/{module}/{group}", _group),
        Route("/events/dead", _dead),
        Route("/events/dead/{module}/{number}", _letter),
        action("/events/dead/retry", "operator", _retry),
        action("/events/dead/drop", "operator", _drop),
        action("/events/replay", "operator", _replay),
    ],
)
