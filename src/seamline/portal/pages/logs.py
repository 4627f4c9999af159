"""Logs: lines of all modules, searched, followed as they come, and the list stays smooth however long it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from seamline.observe.records import Log
from seamline.observe.store.query import ROWS_MAX, LogQuery
from seamline.portal.live import EventStream, Write, told
from seamline.portal.session import caller_of
from seamline.portal.shell import Page, portal_of
from seamline.portal.shell import page as answer
from seamline.portal.showing import cut, hues, number, rows, shown
from seamline.portal.span_of_time import TimeSpan, time_span

LEVELS: Final = (("9", "info and above"), ("13", "warnings and above"), ("17", "errors"))
_MESSAGE_MAX: Final = 8_000
_TOGETHER_S: Final = 0.1
_TOLD_MAX: Final = 2_000


async def _page(request: Request) -> Response:
    portal = portal_of(request)
    span = time_span(request.query_params, portal.now_ns(), "24h" if request.query_params.get("trace") else "1h")
    log_query(request, span)  # what is wrong in the address is told before the list is drawn
    query = urlencode([each for each in request.query_params.multi_items() if each[1]])
    return answer(
        request, "logs.html", title="Logs", span=span, lines=f"/logs/lines?{query}", levels=LEVELS,
        live=f"/live/logs?{query}" if span.live else None, modules=sorted(portal.settings.modules),
        script="pages/logs.js", search=request.query_params.get("text", ""),
    )  # fmt: skip


def log_query(request: Request, span: TimeSpan) -> LogQuery:
    """What the page's address asks for. Raises FieldError."""
    given = request.query_params
    return LogQuery(
        module=given.get("module", ""),
        severity=int(number(given.get("level", ""), "a level")),
        text=given.get("text", ""),
        trace_id=given.get("trace", ""),
        since_ns=span.since_ns,
        until_ns=0 if span.live else span.until_ns,
        limit=ROWS_MAX,
        cursor=given.get("cursor", ""),
    )


async def _lines(request: Request) -> Response:
    """A page of lines, the newest first, as the list wants them."""
    caller_of(request)
    portal = portal_of(request)
    span = time_span(request.query_params, portal.now_ns(), "24h" if request.query_params.get("trace") else "1h")
    found = await asyncio.to_thread(portal.reader.logs, log_query(request, span))
    hue = hues(portal.settings.modules)
    content = {"lines": [line_of(each, hue(each.module)) for each in found.items], "next": found.next}
    return JSONResponse({**content, "notes": found.notes}, headers={"cache-control": "no-store", "vary": "hx-request"})


def line_of(line: Log, hue: str) -> list[Any]:
    """A line as the page's script reads it. Moments are milliseconds: a script's numbers do not hold nanoseconds."""
    return [
        line.at_ns / 1e6, line.severity, line.module, cut(line.message, _MESSAGE_MAX), line.logger,
        f"{line.workload} #{line.replica}" if line.workload else "", line.trace_id.hex(), line.span_id.hex(),
        shown(line.exception, 20_000), rows(line.attributes), rows(line.resource), hue,
    ]  # fmt: skip


async def _live(request: Request) -> Response:
    portal = portal_of(request)
    query = log_query(request, time_span(request.query_params, portal.now_ns()))
    observatory, hue = portal.observatory, hues(portal.settings.modules)

    async def produce(write: Write) -> None:
        if observatory is None:
            return
        with observatory.live.listen("logs") as queue:
            while True:
                found = [each for each in await queue.get() if fits(each, query)]
                await asyncio.sleep(_TOGETHER_S)
                while not queue.empty():
                    found += [each for each in queue.get_nowait() if fits(each, query)]
                if found:
                    lost = max(len(found) - _TOLD_MAX, 0)
                    lines = [line_of(each, hue(each.module)) for each in found[lost:]]
                    await write(told("lines", {"lines": lines, "lost": lost}))

    return EventStream(request, produce)


def fits(line: Log, query: LogQuery) -> bool:
    """Whether a new line is one that the store would find, too."""
    if line.severity < query.severity or (query.module and query.module not in (line.module, line.workload)):
        return False
    if query.trace_id and line.trace_id.hex() != query.trace_id:
        return False
    return not query.text or _has(line, query.text.lower().split())


def _has(line: Log, words: Iterable[str]) -> bool:
    text = "\n".join((line.message, line.exception, *(f"{k} {v}" for k, v in line.attributes.items()))).lower()
    return all(word.strip('"*') in text for word in words)


page = Page(
    title="Logs",
    path="/logs",
    key="l",
    icon="logs",
    group="look",
    order=2,
    routes=[Route("/logs", _page), Route("/logs/lines", _lines), Route("/live/logs", _live)],
)
