"""How the application is, in one glance: health, promises, incidents, traffic, what changed last, what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.observe.records import Mark
from seamline.portal.live import fragments
from seamline.portal.marking import chart_marks
from seamline.portal.now import Edge, Picture, newest, picture, rates, strip
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.status import running

_PARTS: Final = ("figures", "strips", "modules", "incidents", "promises", "edges", "changes", "cost")
_SHOWN: Final = 8
_QUARTER_NS: Final = 900_000_000_000


async def _context(request: Request) -> dict[str, Any]:
    portal = portal_of(request)
    rows = portal.rows()
    now_ns = portal.now_ns()
    status, marks, incidents = await asyncio.gather(
        running(request),
        asyncio.to_thread(portal.reader.marks, now_ns - 7 * 24 * 4 * _QUARTER_NS, now_ns),
        asyncio.to_thread(portal.reader.incidents, open_only=True),
    )
    found = picture(newest(rows), portal.settings.modules, status, incidents, portal.recent.seen)
    return {
        "picture": found,
        "status": status,
        "marks": sorted(marks, key=lambda each: -each.at_ns)[:_SHOWN],
        "incidents": incidents,
        "promises": portal.observatory.promises.states() if portal.observatory is not None else [],
        "charts": _charts(strip(rows), [each for each in marks if rows and each.at_ns >= rows[0].window.at_ns]),
        "slowest": _slowest(found),
        "costly": sorted(found.modules.values(), key=lambda each: -each.cpu_share)[:_SHOWN],
        "cpu_all": sum(each.cpu_share for each in found.modules.values()) or 1.0,
        "sparks": {name: rates(rows, name) for name in found.modules},
    }


def _slowest(found: Picture) -> list[Edge]:
    edges = [each for each in found.edges if each.kind == "call" and each.all.flow.calls]
    return sorted(edges, key=lambda each: -(each.all.p95_ms or 0.0))[:_SHOWN]


def _charts(columns: Mapping[str, list[Any]], marks: Sequence[Mark]) -> list[tuple[str, dict[str, Any]]]:
    shown = chart_marks(marks)

    def chart(*series: tuple[str, str, str, str]) -> dict[str, Any]:
        return {
            "at": columns["at"],
            "series": [{"name": n, "values": columns[c], "unit": u, "colour": k} for n, c, u, k in series],
            "marks": shown,
        }

    return [
        ("Requests", chart(("requests", "rate", "/s", "accent"))),
        ("Errors", chart(("errors", "errors", "/s", "bad"))),
        ("Latency", chart(("p95", "p95", "ms", "accent"), ("p50", "p50", "ms", "muted"))),
    ]


async def _overview(request: Request) -> Response:
    return answer(request, "overview.html", title="Overview", live="/live/overview", **await _context(request))


async def _live(request: Request) -> Response:
    async def draw() -> dict[str, str]:
        context = await _context(request)
        return {f"overview-{part}": render(request, f"overview.html#{part}", **context) for part in _PARTS}

    return fragments(request, draw, "windows", "incidents", "marks")


page = Page(
    title="Overview",
    path="/",
    key="o",
    icon="overview",
    group="watch",
    order=10,
    routes=[Route("/", _overview), Route("/live/overview", _live)],
)
