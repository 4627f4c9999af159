"""One module: what it offers, with a form to try it; whom it needs; how it does, what it costs, what went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.kernel.errors import SeamlineError
from seamline.observe.store.query import LogQuery, SeriesQuery, TraceQuery
from seamline.portal import forms
from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import NotFoundError
from seamline.portal.flames import flames
from seamline.portal.live import fragments
from seamline.portal.marking import chart_marks
from seamline.portal.now import Picture, Row, newest, picture, rates, strip
from seamline.portal.session import caller_of
from seamline.portal.shell import ModulePart, Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.span_of_time import TimeSpan, time_span
from seamline.portal.status import running

_PARTS: Final = ("figures", "strips", "methods", "edges", "replicas")
_ERRORS: Final = 6
_ERROR_SEVERITY: Final = 17
_LIVE_SPAN: Final = "15m"
_DESCRIBED_S = 3.0


async def _now(request: Request) -> tuple[list[Row], Picture]:
    portal = portal_of(request)
    rows = portal.rows()
    status, incidents = await asyncio.gather(
        running(request), asyncio.to_thread(portal.reader.incidents, open_only=True)
    )
    return rows, picture(newest(rows), portal.settings.modules, status, incidents, portal.recent.seen)


async def _modules(request: Request) -> Response:
    rows, found = await _now(request)
    sparks = {name: rates(rows, name) for name in found.modules}
    return answer(request, "modules.html", title="Modules", live="/live/modules", picture=found, sparks=sparks)


async def _live_modules(request: Request) -> Response:
    async def draw() -> dict[str, str]:
        rows, found = await _now(request)
        sparks = {name: rates(rows, name) for name in found.modules}
        return {"modules-list": render(request, "modules.html#list", picture=found, sparks=sparks)}

    return fragments(request, draw, "windows", "incidents")


# One module.


def _named(request: Request) -> str:
    """Raises NotFoundError for what was neither named in the settings nor ever told of a call."""
    name = request.path_params["name"]
    portal = portal_of(request)
    known = (each.window.edges for each in portal.rows())
    if name not in portal.settings.modules and not any(name in key[:2] for edges in known for key in edges):
        raise NotFoundError(f"there is no module {name!r}", "See Modules.")
    return name


async def _described(request: Request, name: str) -> dict[str, Any]:
    """What the module says of itself; ``trouble`` says why it says nothing."""
    nothing: dict[str, Any] = {
        "contracts": {}, "faults": {}, "events": {}, "types": {}, "texts": {}, "owner": "", "version": "", "routes": [],
        "calls": [], "hears": [], "sagas": [], "views": [],
    }  # fmt: skip
    try:
        async with asyncio.timeout(_DESCRIBED_S):
            return {**nothing, **await portal_of(request).admin.ask("describe", as_=caller_of(request), module=name)}
    except SeamlineError as error:
        return {**nothing, "trouble": error.fact}
    except TimeoutError:  # a page about a module in trouble must not wait for it
        return {**nothing, "trouble": f"it did not answer within {_DESCRIBED_S:g} s"}


async def _context(request: Request, name: str) -> dict[str, Any]:
    portal = portal_of(request)
    span = time_span(request.query_params, portal.now_ns(), _LIVE_SPAN)
    method = request.query_params.get("method", "")
    rows, found = await _now(request)
    marks = await asyncio.to_thread(portal.reader.marks, span.since_ns, span.until_ns)
    ours = [each for each in marks if not each.modules or name in each.modules]
    if span.span == _LIVE_SPAN:
        columns: Mapping[str, list[Any]] = strip(rows, module=name, method=method)
    else:
        columns = await asyncio.to_thread(_kept, request, name, method, span)
    module = found.modules[name]
    return {
        "name": name, "module": module, "picture": found, "span": span, "method": method,
        "charts": _charts(columns, chart_marks(ours)), "methods": _methods(found, rows, name),
        "inward": [each for each in found.edges if each.callee == name],
        "outward": [each for each in found.edges if each.caller == name],
        "homes": [each for each in found.workloads if name in each.modules],
        "share": module.cpu_share / (sum(each.cpu_share for each in found.modules.values()) or 1.0),
    }  # fmt: skip


def _kept(request: Request, name: str, method: str, span: TimeSpan) -> dict[str, list[Any]]:
    query = SeriesQuery(module=name, method=method, since_ns=span.since_ns, until_ns=span.until_ns)
    found = portal_of(request).reader.red(query)
    step_s = found.step_ns / 1e9 or 1.0
    return {
        "at": [each / 1e9 for each in found.at_ns],
        "rate": found.columns["rate"],
        "errors": [None if each is None else each / step_s for each in found.columns["errors"]],
        "p50": found.columns["p50_ms"],
        "p95": found.columns["p95_ms"],
    }


def _charts(columns: Mapping[str, list[Any]], marks: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    def chart(*series: tuple[str, str, str, str]) -> dict[str, Any]:
        shown = [{"name": n, "values": columns[c], "unit": u, "colour": k} for n, c, u, k in series]
        return {"at": columns["at"], "series": shown, "marks": marks}

    return [
        ("Rate", chart(("calls", "rate", "/s", "accent"))),
        ("Errors", chart(("errors", "errors", "/s", "bad"))),
        ("Duration", chart(("p95", "p95", "ms", "accent"), ("p50", "p50", "ms", "muted"))),
    ]


def _methods(found: Picture, rows: list[Row], name: str) -> list[tuple[str, Any, list[Any]]]:
    """Every method that was called lately: its course now, and its rate over time."""
    courses = {method: course for edge in found.edges if edge.callee == name for method, course in edge.methods.items()}
    return [(method, course, rates(rows, name, method=method)) for method, course in sorted(courses.items())]


async def _module(request: Request) -> Response:
    name = _named(request)
    reader = portal_of(request).reader
    context, described = await asyncio.gather(_context(request, name), _described(request, name))
    span: TimeSpan = context["span"]
    failed = TraceQuery(module=name, status="failed", since_ns=span.since_ns, until_ns=span.until_ns, limit=_ERRORS)
    logged = LogQuery(
        module=name, severity=_ERROR_SEVERITY, since_ns=span.since_ns, until_ns=span.until_ns, limit=_ERRORS
    )
    traces, logs, stacks = await asyncio.gather(
        asyncio.to_thread(reader.traces, failed),
        asyncio.to_thread(reader.logs, logged),
        asyncio.to_thread(reader.profile, name, span.since_ns, span.until_ns),
    )
    live = f"/live/modules/{quote(name)}?{request.url.query}" if span.live else None
    return answer(
        request, "module.html", title=name, live=live, described=described, failed=traces.items, logged=logs.items,
        flames=flames(stacks), forms=_forms(described), written=forms.written, tried=request.query_params.get("try"),
        more=await _parts(request, name),
        **context,
    )  # fmt: skip


async def _parts(request: Request, name: str) -> list[tuple[str, Markup]]:
    """What other pages have to say of the module."""
    parts: list[ModulePart] = request.app.state.parts
    texts = await asyncio.gather(*(each.draw(request, name) for each in parts))
    return [(part.title, Markup(text)) for part, text in zip(parts, texts, strict=True) if text]  # noqa: S704  # our own


def _forms(described: Mapping[str, Any]) -> dict[str, list[forms.Field]]:
    """Method to the form for its arguments."""
    return {
        f"{contract}.{method}": forms.fields(told["parameters"], described["types"])
        for contract, each in described["contracts"].items()
        for method, told in each["methods"].items()
    }


async def _live(request: Request) -> Response:
    name = _named(request)

    async def draw() -> dict[str, str]:
        context = await _context(request, name)
        return {f"module-{part}": render(request, f"module.html#{part}", **context) for part in _PARTS}

    return fragments(request, draw, "windows", "incidents")


async def _try(act: Act) -> Done:
    name, method = act.request.path_params["name"], act.field("method")
    described = await act.ask("describe", module=name)
    form = _forms(described).get(method)
    if form is None:
        raise NotFoundError(f"module {name!r} has no method {method!r}", "Reload the page.")
    raw = act.field("json", "")
    given = forms.raw(raw) if raw else forms.arguments(form, act.values())
    found = await act.ask("try", module=name, method=method, arguments=given)
    result = found.get("result")
    try:
        shown = (
            json.dumps(json.loads(result), indent=2, ensure_ascii=False) if result and not found["left_out"] else result
        )
    except ValueError:
        shown = result
    text = render(act.request, "try_result.html", found=found, shown=shown, given=given)
    return Done("", into=f"tried-{method}", html=text)


page = Page(
    title="Modules",
    path="/modules",
    key="m",
    icon="modules",
    group="watch",
    order=30,
    routes=[
        Route("/modules", _modules),
        Route("/live/modules", _live_modules),
        action("/modules/{name:path}/try", "operator", _try),
        Route("/modules/{name:path}", _module),
        Route("/live/modules/{name:path}", _live),
    ],
)
