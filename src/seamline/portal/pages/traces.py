"""Traces: found by what is known of them, drawn with their critical path, two of them compared."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.observe.records import Log, Span
from seamline.observe.store.query import LogQuery, TraceQuery, TraceSummary
from seamline.observe.waterfall import Pair, Row, Waterfall, compare, waterfall
from seamline.portal.errors import FieldError, NotFoundError
from seamline.portal.live import fragments
from seamline.portal.shell import Page, fragment, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import attributes_in, hues, number, rows, shown, without
from seamline.portal.span_of_time import TimeSpan, time_span

LISTED: Final = 100
DRAWN: Final = 400
"""So many spans of a trace at a time."""
_NEW_MAX: Final = 50
_COMPARED_MAX: Final = 2_000
_ALIKE_NS: Final = 6 * 3600 * 1_000_000_000
_UNIT: Final = 1000.0
"""A bar is drawn on a line of this length."""


# The list.


async def _list(request: Request) -> Response:
    portal = portal_of(request)
    span = time_span(request.query_params, portal.now_ns())
    query = trace_query(request, span)
    found = await asyncio.to_thread(portal.reader.traces, query)
    newest = max((each.started_ns for each in found.items), default=span.since_ns)
    fields = {**without(request.query_params, "cursor"), "newest": str(newest)}
    live = f"/live/traces?{urlencode(fields)}" if span.live and not query.cursor else None
    return answer(
        request, "traces.html", title="Traces", found=found, span=span, plot=_plot(found.items, span), live=live,
        hue=hues(portal.settings.modules), modules=sorted(portal.settings.modules), script="pages/traces.js",
    )  # fmt: skip


async def _news(request: Request) -> Response:
    """How many traces have come that the page does not show: it is the visitor who says when the list moves."""
    portal = portal_of(request)
    try:
        newest = int(request.query_params.get("newest", "0"))
    except ValueError:
        raise FieldError("`newest` is no number") from None

    async def draw() -> dict[str, str]:
        now_ns = portal.now_ns()
        query = trace_query(request, TimeSpan(newest + 1, now_ns, ""), limit=_NEW_MAX)
        found = await asyncio.to_thread(portal.reader.traces, query)
        text = f"{len(found.items)}{' or more' if found.next else ''}"
        return {"traces-new": render(request, "traces.html#news", count=len(found.items), text=text)}

    return fragments(request, draw, at_least_every_s=3.0)


def trace_query(request: Request, span: TimeSpan, limit: int = LISTED) -> TraceQuery:
    """What the page's address asks for. Raises FieldError."""
    given = request.query_params
    return TraceQuery(
        module=given.get("module", ""),
        name=given.get("name", ""),
        status=given.get("status", ""),
        slower_than_ms=number(given.get("slower", ""), "milliseconds"),
        attributes=attributes_in(given.get("where", "")),
        text=given.get("text", ""),
        roots_only=False,
        since_ns=span.since_ns,
        until_ns=0 if span.live else span.until_ns,
        limit=limit,
        cursor=given.get("cursor", ""),
    )


@dataclass(frozen=True, slots=True)
class Dot:
    """A trace in the plot; places are percent from the left and from the top."""

    trace: TraceSummary
    x: float
    y: float


def _plot(found: list[TraceSummary], span: TimeSpan) -> dict[str, Any]:
    """Durations over time, on a scale of powers of ten, with the lines at each."""
    if not found:
        return {"dots": [], "lines": [], "since_ns": 0, "until_ns": 0}
    lengths = [max(each.duration_ns, 1_000) for each in found]
    low, high = math.floor(math.log10(min(lengths))), math.ceil(math.log10(max(lengths) * 1.05))
    high = max(high, low + 1)
    since = max(min(each.started_ns for each in found), span.since_ns)
    until = max(*(each.started_ns for each in found), since + 1_000_000_000)

    def y(length_ns: float) -> float:
        return 96 - 90 * (math.log10(length_ns) - low) / (high - low)

    return {
        "dots": [
            Dot(each, round(2 + 96 * (each.started_ns - since) / (until - since), 2), round(y(length), 2))
            for each, length in zip(found, lengths, strict=True)
        ],
        "lines": [(round(y(10**power), 2), 10**power) for power in range(low, high + 1)],
        "since_ns": since,
        "until_ns": until,
    }


# One trace.


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the waterfall, and where its bar is drawn."""

    row: Row
    number: int
    x: float
    width: float
    critical: list[tuple[float, float]]


def bars(trace: Waterfall, first: int = 0, count: int = DRAWN) -> list[Bar]:
    length = max(trace.duration_ns, 1)

    def place(begin: int, until: int) -> tuple[float, float]:
        x = _UNIT * (begin - trace.start_ns) / length
        return round(x, 3), round(_UNIT * max(until - begin, 0) / length, 3)

    return [
        Bar(row, number, *place(row.span.start_ns, row.end_ns), [place(*each) for each in row.critical])
        for number, row in enumerate(trace.rows[first : first + count], first)
    ]


async def _read(request: Request, trace_id: str) -> Waterfall:
    """Raises NotFoundError."""
    spans = await asyncio.to_thread(portal_of(request).reader.trace, trace_id)
    if not spans:
        raise NotFoundError(
            f"there is no trace {trace_id!r}",
            "It was not recorded ([telemetry] sample), or is older than what is kept ([observe] history_days).",
        )
    return waterfall(spans)


async def _detail(request: Request) -> Response:
    portal = portal_of(request)
    trace_id = str(request.path_params["trace"])
    trace = await _read(request, trace_id)
    chosen = request.query_params.get("span", "")
    place = next((i for i, row in enumerate(trace.rows) if row.span.span_id.hex() == chosen), None)
    top = _top(trace)
    lines = await asyncio.to_thread(portal.reader.logs, LogQuery(trace_id=trace_id, limit=200))
    last = DRAWN if place is None else max(DRAWN, place + 1)
    return answer(
        request, "trace.html", title=top.span.name or "A trace", trace_id=trace_id, trace=trace, top=top,
        bars=bars(trace, 0, last), drawn=last, ticks=_ticks(trace), chosen=chosen, lines=lines,
        script="pages/traces.js", hue=hues(portal.settings.modules),
        panel=None if place is None else _panel(trace, place, lines.items),
    )  # fmt: skip


def _top(trace: Waterfall) -> Row:
    """The span by which the trace is called: the first that has no parent at all, or the first."""
    return next((row for row in trace.rows if row.parent < 0 and not row.lost), trace.rows[0])


def _ticks(trace: Waterfall) -> list[int]:
    return [trace.duration_ns * share // 4 for share in range(5)]


async def _rows(request: Request) -> Response:
    """The spans that follow those that are drawn."""
    trace = await _read(request, str(request.path_params["trace"]))
    try:
        first = max(int(request.query_params.get("first", "0")), 0)
    except ValueError:
        raise FieldError("`first` is no number") from None
    return fragment(
        request, "trace_rows.html", trace_id=request.path_params["trace"], trace=trace, bars=bars(trace, first),
        drawn=first + DRAWN, chosen="", hue=hues(portal_of(request).settings.modules),
    )  # fmt: skip


async def _span(request: Request) -> Response:
    trace_id, chosen = str(request.path_params["trace"]), str(request.path_params["span"])
    trace = await _read(request, trace_id)
    place = next((i for i, row in enumerate(trace.rows) if row.span.span_id.hex() == chosen), None)
    if place is None:
        raise NotFoundError(f"the trace has no span {chosen!r}", "Choose one of its rows.")
    lines = await asyncio.to_thread(portal_of(request).reader.logs, LogQuery(trace_id=trace_id, limit=1000))
    return fragment(
        request, "trace_span.html", trace_id=trace_id, trace=trace, panel=_panel(trace, place, lines.items),
        hue=hues(portal_of(request).settings.modules),
    )  # fmt: skip


def _panel(trace: Waterfall, number: int, lines: list[Log]) -> dict[str, Any]:
    """All there is to say of one span."""
    row = trace.rows[number]
    span = row.span
    return {
        "row": row,
        "span": span,
        "after_ns": span.start_ns - trace.start_ns,
        "attributes": rows(span.attributes),
        "resource": rows(span.resource),
        "events": [
            (each.name, each.at_ns - trace.start_ns, _stack(each.attributes), rows(_without_stack(each.attributes)))
            for each in span.events
        ],
        "links": [(each.trace_id.hex(), each.span_id.hex(), rows(each.attributes)) for each in span.links],
        "lines": [each for each in lines if each.span_id == span.span_id],
    }


_STACK: Final = "exception.stacktrace"


def _stack(attributes: dict[str, Any]) -> str:
    return shown(attributes[_STACK], 20_000) if _STACK in attributes else ""


def _without_stack(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != _STACK}


# Two traces.


async def _compare(request: Request) -> Response:
    portal = portal_of(request)
    given = request.query_params
    first, second = given.get("a", "").strip(), given.get("b", "").strip()
    if not first:
        raise FieldError("it is not said which traces", "Open a trace and choose another to compare it with.")
    before = await _read(request, first)
    top = _top(before).span
    others = await asyncio.to_thread(portal.reader.traces, _alike(top))
    context: dict[str, Any] = {
        "a": first, "b": second, "before": before, "top": top, "only": given.get("only", ""), "pairs": [],
        "others": [each for each in others.items if each.trace_id != first], "after": None, "longest_ns": 1, "more": 0,
        "hue": hues(portal.settings.modules),
    }  # fmt: skip
    if second:
        after = await _read(request, second)
        pairs = compare(before, after)
        changed = [each for each in pairs if each.change != "same"]
        wanted = changed if context["only"] else pairs
        context |= {
            "after": after, "pairs": wanted[:_COMPARED_MAX], "more": max(len(wanted) - _COMPARED_MAX, 0),
            "changed": len(changed), "worst": _worst(changed),
            "longest_ns": max((abs(each.self_change_ns) for each in pairs), default=1) or 1,
        }  # fmt: skip
    return answer(request, "trace_compare.html", title="Compare two traces", **context)


def _alike(top: Span) -> TraceQuery:
    """Traces that began with the same work, around the same time."""
    return TraceQuery(
        module=top.module, name=top.name, since_ns=max(top.start_ns - _ALIKE_NS, 1), until_ns=top.start_ns + _ALIKE_NS,
        limit=40,
    )  # fmt: skip


def _worst(changed: list[Pair]) -> list[Pair]:
    """Who took the time that was lost, or gave back what was won: the largest changes first."""
    return sorted(changed, key=lambda each: -abs(each.self_change_ns))[:3]


page = Page(
    title="Traces",
    path="/traces",
    key="r",
    icon="traces",
    group="look",
    order=1,
    routes=[
        Route("/traces", _list),
        Route("/live/traces", _news),
        Route("/traces/compare", _compare),
        Route("/traces/{trace}", _detail),
        Route("/traces/{trace}/rows", _rows),
        Route("/traces/{trace}/spans/{span}", _span),
    ],
)
