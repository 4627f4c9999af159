"""Metrics: what is measured, any of it as a chart with the marks of what was changed, beside how it was before."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.observe.records import Mark
from seamline.observe.store import TelemetryReader
from seamline.observe.store.query import MetricName, Series, SeriesQuery
from seamline.portal.errors import FieldError
from seamline.portal.live import fragments
from seamline.portal.marking import chart_marks
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import attributes_in, without
from seamline.portal.span_of_time import TimeSpan, ago_ns, time_span

CALLS: Final = "calls"
"""Not one metric but what is counted of all calls: their rate, errors and latency."""
LINES_MAX: Final = 12
_STEPS: Final = 150
_STEPS_S: Final = (2, 4, 6, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400)
_BEFORE: Final = {"1h": "an hour before", "24h": "a day before", "7d": "a week before"}
_NS: Final = 1_000_000_000
_LATE_NS: Final = 3 * _NS
"""What processes have not told yet."""
_LIST_NS: Final = 24 * 3600 * _NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page's address asks for."""

    name: str
    module: str
    caller: str
    method: str
    where: Mapping[str, str]
    before: str
    since_ns: int
    until_ns: int
    step_ns: int

    def earlier(self) -> Asked:
        shift_ns = ago_ns(self.before)
        return replace(self, since_ns=self.since_ns - shift_ns, until_ns=self.until_ns - shift_ns, before="")


@dataclass(slots=True)
class Chart:
    """One chart of the page, and the figures in it."""

    title: str
    id: str
    unit: str
    at_ns: list[int]
    series: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    left_out: int = 0

    def data(self, marks: Sequence[Mark]) -> dict[str, Any]:
        return {
            "at": [at / 1e9 for at in self.at_ns],
            "series": self.series,
            "marks": chart_marks(marks),
        }

    def add(self, name: str, values: Sequence[float | None], kind: str = "", colour: str = "") -> None:
        # Laid over each other by their place: both have the same steps, and the later may have one more.
        aligned = [*values, *[None] * len(self.at_ns)][: len(self.at_ns)]
        more = {"colour": colour} if colour else {}
        rounded = [None if each is None else float(f"{each:.6g}") for each in aligned]
        self.series.append({"name": name, "values": rounded, "unit": self.unit, "kind": kind, **more})


async def _page(request: Request) -> Response:
    portal = portal_of(request)
    span = time_span(request.query_params, portal.now_ns())
    names = await asyncio.to_thread(portal.reader.metric_names, span.until_ns - max(_LIST_NS, span.length_ns))
    context = await _drawn(request, span, names)
    query = urlencode(without(request.query_params, "from", "until"))
    return answer(
        request, "metrics.html", title="Metrics", names=names, span=span, befores=list(_BEFORE.items()),
        modules=sorted(portal.settings.modules), live=f"/live/metrics?{query}" if span.live else None,
        script="pages/metrics.js", **context,
    )  # fmt: skip


async def _live(request: Request) -> Response:
    portal = portal_of(request)

    async def draw() -> dict[str, str]:
        span = time_span(request.query_params, portal.now_ns())
        names = await asyncio.to_thread(portal.reader.metric_names, span.until_ns - max(_LIST_NS, span.length_ns))
        return {"metrics-body": render(request, "metrics.html#charts", span=span, **await _drawn(request, span, names))}

    return fragments(request, draw, at_least_every_s=5.0)


async def _drawn(request: Request, span: TimeSpan, names: list[MetricName]) -> dict[str, Any]:
    asked = asked_for(request.query_params, span)
    chosen = next((each for each in names if each.name == asked.name), None)
    reader = portal_of(request).reader
    charts = await asyncio.to_thread(charts_of, reader, asked, chosen)
    marks = await asyncio.to_thread(reader.marks, asked.since_ns, asked.until_ns)
    return {"asked": asked, "chosen": chosen, "charts": charts, "marks": marks, "fixed": span.fixed()}


def asked_for(given: Mapping[str, str], span: TimeSpan) -> Asked:
    """Raises FieldError."""
    before = given.get("before", "")
    if before and before not in _BEFORE:
        raise FieldError(f"{before!r} is no time to compare with", f"Choose one of {', '.join(_BEFORE)}.")
    step_ns = step_of(span.length_ns)
    until_ns = span.until_ns - (_LATE_NS if span.live else 0)
    return Asked(
        name=given.get("name") or CALLS, module=given.get("module", ""), caller=given.get("caller", ""),
        method=given.get("method", ""), where=attributes_in(given.get("where", "")), before=before,
        since_ns=span.since_ns // step_ns * step_ns, until_ns=until_ns // step_ns * step_ns, step_ns=step_ns,
    )  # fmt: skip


def step_of(length_ns: int) -> int:
    """A step that people count in, so that there are about 150 of them."""
    wanted_s = length_ns / _STEPS / _NS
    return next((each for each in _STEPS_S if each >= wanted_s), _STEPS_S[-1]) * _NS


def charts_of(reader: TelemetryReader, asked: Asked, chosen: MetricName | None) -> list[Chart]:
    if asked.name == CALLS:
        return _of_calls(reader, asked)
    found = _read(reader, asked)
    earlier = _read(reader, asked.earlier()) if asked.before else []
    at_ns = found[0].at_ns if found else []
    unit = plain_unit(chosen.unit) if chosen else ""
    if chosen is not None and chosen.kind == "histogram":
        return _of_histogram(found, earlier, asked, unit, at_ns)
    chart = Chart(asked.name, "value", _per_second(unit) if chosen and chosen.kind == "counter" else unit, at_ns)
    _lines(chart, "value", found, earlier, asked)
    return [chart] if found else []


def _read(reader: TelemetryReader, asked: Asked) -> list[Series]:
    return reader.metric(
        asked.name, module=asked.module, attributes=dict(asked.where) or None, since_ns=asked.since_ns,
        until_ns=asked.until_ns, step_ns=asked.step_ns,
    )  # fmt: skip


def _of_histogram(found: list[Series], earlier: list[Series], asked: Asked, unit: str, at_ns: list[int]) -> list[Chart]:
    charts: list[Chart] = []
    for column, title in (("p50", "Median"), ("p95", "95th percentile"), ("p99", "99th percentile"), ("rate", "Rate")):
        chart = Chart(f"{asked.name}: {title.lower()}", column, "/s" if column == "rate" else unit, at_ns)
        _lines(chart, column, found, earlier, asked)
        charts.append(chart)
    return charts if found else []


def _lines(chart: Chart, column: str, found: list[Series], earlier: list[Series], asked: Asked) -> None:
    """The largest series, each with how it was before."""
    ranked = sorted(found, key=lambda each: -_size(each.columns.get(column, [])))
    before = {_key(each): each for each in earlier}
    names = _names(ranked)
    for index, each in enumerate(ranked[:LINES_MAX]):
        colour = f"series-{index}" if len(ranked) > 1 else ""
        chart.add(names[index], each.columns.get(column, []), colour=colour)
        past = before.get(_key(each))
        if past is not None:
            values = past.columns.get(column, [])
            chart.add(f"{names[index]}, {_BEFORE[asked.before]}", values, "before", colour or "muted")
    chart.left_out = max(len(ranked) - LINES_MAX, 0)


def _names(found: list[Series]) -> list[str]:
    """What tells series apart: only what is not the same in all of them."""
    parts = [
        {
            "module": each.module,
            "workload": f"{each.workload} #{each.replica}" if each.workload else "",
            **each.attributes,
        }
        for each in found
    ]
    telling = [
        key for key in dict.fromkeys(key for each in parts for key in each) if len({e.get(key) for e in parts}) > 1
    ]
    names: list[str] = []
    for each in parts:
        words = [
            each[key] if key in {"module", "workload"} else f"{key}={each[key]}" for key in telling if each.get(key)
        ]
        names.append(", ".join(words) or each["module"] or each["workload"] or "all")
    return names


def _key(series: Series) -> tuple[Any, ...]:
    return series.module, series.workload, series.replica, tuple(sorted(series.attributes.items()))


def _size(values: Sequence[float | None]) -> float:
    return sum(abs(each) for each in values if each is not None)


def plain_unit(unit: str) -> str:
    """Without what the Unified Code for Units of Measure writes in braces: that is no unit, but what is counted."""
    return re.sub(r"\{[^}]*\}", "", unit)


def _per_second(unit: str) -> str:
    return f"{unit}/s" if unit and unit != "1" else "/s"


def _of_calls(reader: TelemetryReader, asked: Asked) -> list[Chart]:
    now, past = _red(reader, asked), _red(reader, asked.earlier()) if asked.before else None
    rate = Chart("Calls", "rate", "/s", now.at_ns)
    errors = Chart("Share that failed", "errors", "ratio", now.at_ns)
    latency = Chart("Latency", "latency", "ms", now.at_ns)
    for chart, column, name, colour in (
        (rate, "rate", "calls", ""), (errors, "error_ratio", "failed", "bad"), (latency, "p50_ms", "median", "accent"),
        (latency, "p95_ms", "95 %", "warn"), (latency, "p99_ms", "99 %", "bad"),
    ):  # fmt: skip
        chart.add(name, now.columns[column], colour=colour)
        if past is not None and column != "p99_ms":
            chart.add(f"{name}, {_BEFORE[asked.before]}", past.columns[column], "before", "muted")
    return [rate, errors, latency]


def _red(reader: TelemetryReader, asked: Asked) -> Series:
    return reader.red(
        SeriesQuery(
            caller=asked.caller, callee=asked.module if asked.caller else "", method=asked.method,
            module="" if asked.caller else asked.module, since_ns=asked.since_ns, until_ns=asked.until_ns,
            step_ns=asked.step_ns,
        )
    )  # fmt: skip


page = Page(
    title="Metrics",
    path="/metrics",
    key="c",
    icon="metrics",
    group="look",
    order=3,
    routes=[Route("/metrics", _page), Route("/live/metrics", _live)],
)
