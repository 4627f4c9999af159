"""Incidents: what happened, who is suspected on what evidence, what was changed before, what people did about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.observe.incidents import Incident, Symptom
from seamline.observe.records import Mark
from seamline.observe.store import TelemetryReader
from seamline.observe.store.query import SeriesQuery
from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import NotFoundError, PortalError
from seamline.portal.live import fragments
from seamline.portal.marking import chart_marks
from seamline.portal.pages.metrics import step_of
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import hues
from seamline.portal.span_of_time import ago_ns

if TYPE_CHECKING:
    from seamline.portal.app import Kept

KINDS: Final = {
    "code": "its own code", "latency": "slow by itself", "errors": "fails by itself", "network": "the network to it",
    "cpu": "processor time", "memory": "memory", "blocked": "a blocked event loop", "database": "its database",
    "queue": "events that wait", "release": "a release", "switch": "a switch of topology", "settings": "settings",
    "policy": "policy", "dependency": "something it calls", "traffic": "more or other requests",
    "drift": "a model's drift",
}  # fmt: skip
_COLUMNS: Final = {"errors": ("error_ratio", "ratio"), "latency": ("p95_ms", "ms"), "rate": ("rate", "/s")}
_AROUND_NS: Final = 600 * 1_000_000_000
_CHARTS_MAX: Final = 3
_NOTE_MAX: Final = 4_000
_LOOKS_MAX: Final = 20
_LOOK_S: Final = 0.1
_LAG: Final = "seamline.events.lag"


async def _list(request: Request) -> Response:
    portal = portal_of(request)
    span, status = request.query_params.get("span") or "7d", request.query_params.get("status", "")
    ago_ns(span)  # raises for what is no time
    return answer(
        request, "incidents.html", title="Incidents", incidents=await _found(request), span=span, status=status,
        live=f"/live/incidents?{request.url.query}", kinds=KINDS, now_ns=portal.now_ns(),
        hue=hues(portal.settings.modules),
    )  # fmt: skip


async def _found(request: Request) -> list[Incident]:
    portal, given = portal_of(request), request.query_params
    since_ns = portal.now_ns() - ago_ns(given.get("span") or "7d")
    found = await asyncio.to_thread(portal.reader.incidents, since_ns=since_ns, open_only=given.get("status") == "open")
    if given.get("status") == "closed":
        found = [each for each in found if each.status == "closed"]
    return sorted(found, key=lambda each: (each.status != "open", -each.began_ns))


async def _list_live(request: Request) -> Response:
    portal = portal_of(request)

    async def draw() -> dict[str, str]:
        text = render(
            request, "incidents.html#rows", incidents=await _found(request), kinds=KINDS, now_ns=portal.now_ns(),
            hue=hues(portal.settings.modules), status=request.query_params.get("status", ""),
        )  # fmt: skip
        return {"incident-rows": text}

    return fragments(request, draw, "incidents", at_least_every_s=10.0)


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the timeline."""

    at_ns: int
    kind: str
    text: str
    by: str = ""


@dataclass(slots=True)
class SymptomChart:
    symptom: Symptom
    id: str
    data: dict[str, Any] | None = None
    link: str = ""
    names: list[str] = field(default_factory=list[str])


async def _detail(request: Request) -> Response:
    found = str(request.path_params["incident"])
    context = await _context(request)
    return answer(
        request, "incident.html", title=context["incident"].title, live=f"/live/incidents/{found}", **context
    )  # fmt: skip


async def _detail_live(request: Request) -> Response:
    async def draw() -> dict[str, str]:
        return {"incident-body": render(request, "incident.html#all", **await _context(request))}

    return fragments(request, draw, "incidents", at_least_every_s=5.0)


async def _context(request: Request) -> dict[str, Any]:
    portal = portal_of(request)
    wanted = str(request.path_params["incident"])
    incident = await asyncio.to_thread(portal.reader.incident, wanted)
    if incident is None:
        raise NotFoundError(f"there is no incident {wanted!r}", "The list has all that are kept.")
    since_ns = incident.began_ns - _AROUND_NS
    until_ns = min(portal.now_ns(), (incident.ended_ns or portal.now_ns()) + _AROUND_NS)
    marks = await asyncio.to_thread(portal.reader.marks, since_ns, until_ns)
    charts = await asyncio.to_thread(_charts, portal.reader, incident, since_ns, until_ns, marks)
    numbers = {each.id: number for number, each in enumerate((e for s in incident.suspects for e in s.evidence), 1)}
    return {
        "incident": incident, "charts": charts, "timeline": _timeline(incident), "kinds": KINDS, "numbers": numbers,
        "hue": hues(portal.settings.modules), "now_ns": portal.now_ns(),
        "strongest": max((each.score for each in incident.suspects), default=1.0) or 1.0,
        "around": {"from": str(since_ns), "until": str(until_ns)},
    }  # fmt: skip


def _charts(
    reader: TelemetryReader, incident: Incident, since_ns: int, until_ns: int, marks: list[Mark]
) -> list[SymptomChart]:
    """The symptoms, the strongest first; the first few drawn with the marks."""
    ranked = sorted(incident.symptoms, key=lambda each: -each.score)
    charts = [SymptomChart(each, f"symptom-{number}") for number, each in enumerate(ranked)]
    said = chart_marks(marks)
    said.append({"at": incident.began_ns / 1e9, "title": "the incident began", "kind": "began"})
    drawn = 0
    for chart in charts:
        line = _line(reader, chart.symptom, since_ns, until_ns) if drawn < _CHARTS_MAX else None
        if line is not None:
            at_ns, values, unit = line
            drawn += 1
            chart.data = {
                "at": [each / 1e9 for each in at_ns],
                "series": [{"name": chart.symptom.series, "values": values, "unit": unit, "colour": "bad"}],
                "marks": said,
            }
    return charts


def _line(
    reader: TelemetryReader, symptom: Symptom, since_ns: int, until_ns: int
) -> tuple[list[int], list[float | None], str] | None:
    """What was measured of it over time; None where that is not kept by edge or module."""
    step_ns = step_of(until_ns - since_ns)
    since_ns = since_ns // step_ns * step_ns
    if symptom.what in _COLUMNS and symptom.edge is not None:
        caller, callee, method = symptom.edge
        column, unit = _COLUMNS[symptom.what]
        asked = SeriesQuery(
            caller=caller, callee=callee, method=method, since_ns=since_ns, until_ns=until_ns, step_ns=step_ns
        )
        found = reader.red(asked)
        return found.at_ns, found.columns[column], unit
    if symptom.what == "lag":
        lags = reader.metric(_LAG, module=symptom.module, since_ns=since_ns, until_ns=until_ns, step_ns=step_ns)
        return (lags[0].at_ns, lags[0].columns["value"], "") if lags else None
    return None


def _timeline(incident: Incident) -> list[Told]:
    """What the observer saw, what was changed, and what people wrote, in the order of time."""
    marked = {each.at_ns for each in incident.timeline if each.kind == "mark"}
    found = [Told(each.at_ns, each.kind, each.text) for each in incident.timeline]
    found += [Told(each.at_ns, "mark", each.title) for each in incident.marks if each.at_ns not in marked]
    found += [Told(each.at_ns, "note", each.text, each.by) for each in incident.notes]
    return sorted(found, key=lambda each: each.at_ns)


# What people do about it.


async def _acknowledge(act: Act) -> Done:
    wanted, kept = await _permitted(act, "acknowledge")
    _open(kept.acknowledge(wanted, act.caller.name), wanted)
    await _written(act, lambda incident: incident.acknowledged_by == act.caller.name)
    return Done(f"{wanted} is yours.", again=True)


async def _note(act: Act) -> Done:
    text = act.field("text")[:_NOTE_MAX]
    wanted, kept = await _permitted(act, "note")
    _open(kept.note(wanted, act.caller.name, text), wanted)
    await _written(act, lambda incident: any(each.text == text for each in incident.notes))
    return Done("The note is kept.", again=True)


async def _close(act: Act) -> Done:
    wanted, kept = await _permitted(act, "close")
    _open(kept.close(wanted, act.caller.name), wanted)
    await _written(act, lambda incident: incident.status == "closed")
    return Done(f"{wanted} is closed.", again=True)


async def _permitted(act: Act, operation: str) -> tuple[str, Kept]:
    """The incident's id, when the supervisor has permitted the act and written it to the audit."""
    wanted = str(act.request.path_params["incident"])
    await act.ask("incident", operation=operation, incident=wanted)
    observatory = portal_of(act.request).observatory
    if observatory is None:
        raise PortalError("nobody watches the application now", "Start it with `seamline up`.")
    return wanted, observatory.incidents


def _open(done: bool, wanted: str) -> None:
    if not done:
        raise NotFoundError(f"{wanted!r} is not open", "Closed incidents stay as they are.")


async def _written(act: Act, there: Callable[[Incident], bool]) -> None:
    """Wait, though not for ever, until the store has it, which the page is then drawn from."""
    reader, wanted = portal_of(act.request).reader, str(act.request.path_params["incident"])
    for _ in range(_LOOKS_MAX):
        found = await asyncio.to_thread(reader.incident, wanted)
        if found is not None and there(found):
            return
        await asyncio.sleep(_LOOK_S)


page = Page(
    title="Incidents",
    path="/incidents",
    key="i",
    icon="incidents",
    group="watch",
    order=40,
    routes=[
        Route("/incidents", _list),
        Route("/live/incidents", _list_live),
        Route("/incidents/{incident}", _detail),
        Route("/live/incidents/{incident}", _detail_live),
        action("/incidents/{incident}/acknowledge", "operator", _acknowledge),
        action("/incidents/{incident}/note", "operator", _note),
        action("/incidents/{incident}/close", "operator", _close),
    ],
)
