"""The audit: what was decided and done, whether anybody has altered it, and all of it for other systems."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from seamline.kernel.audit import Written
from seamline.kernel.audit.ocsf import event
from seamline.kernel.audit.search import Place, Query, entries, latest, place_of
from seamline.kernel.audit.verify import LogReport, verify
from seamline.kernel.errors import SeamlineError
from seamline.portal.errors import FieldError
from seamline.portal.live import fragments
from seamline.portal.session import caller_of, require
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import shown, without
from seamline.portal.span_of_time import TimeSpan, time_span
from seamline.run.roles import suffices

LISTED: Final = 100
DECISIONS: Final = ("allow", "deny", "refuse", "revoke", "fail")
TONES: Final = {"allow": "good", "deny": "bad", "refuse": "bad", "revoke": "warn", "fail": "warn"}
KINDS: Final = ("call", "authentication", "identity", "secret", "policy", "admin", "audit")
_TOLD: Final = (
    "number",
    "time",
    "kind",
    "decision",
    "principal",
    "action",
    "resource",
    "reason",
    "log",
    "prev",
    "hash",
)
_QUICK_FILES: Final = 2
_ALL_FILES: Final = 1 << 30


async def _page(request: Request) -> Response:
    allowed = suffices(caller_of(request).role, "operator")
    span = time_span(request.query_params, portal_of(request).now_ns(), "24h")
    thorough = request.query_params.get("verify") == "all"
    live = (
        f"/live/audit?{request.url.query}" if allowed and span.live and not request.query_params.get("cursor") else None
    )
    return answer(
        request, "audit.html", title="Audit", span=span, reports=await _verified(request, thorough), thorough=thorough,
        allowed=allowed, kinds=KINDS, decisions=DECISIONS, live=live, script="pages/audit.js",
        **(await _listed(request, span) if allowed else {"lines": [], "cursor": "", "tones": TONES}),
    )  # fmt: skip


async def _live(request: Request) -> Response:
    require(request, "operator")

    async def draw() -> dict[str, str]:
        span = time_span(request.query_params, portal_of(request).now_ns(), "24h")
        return {"audit-lines": render(request, "audit.html#list", **await _listed(request, span))}

    return fragments(request, draw, at_least_every_s=3.0)


async def _listed(request: Request, span: TimeSpan) -> dict[str, Any]:
    given = request.query_params
    before = _place(given.get("cursor", ""))
    found = await asyncio.to_thread(latest, _folder(request), _query(given, span), LISTED, before)
    more = "|".join(map(str, place_of(found[-1]))) if len(found) == LISTED else ""
    return {"lines": [_told(each) for each in found], "cursor": more, "tones": TONES}


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A line with what every line has, and the rest as names and values."""
    known = {name: shown(entry.get(name, ""), 2_000) for name in _TOLD}
    rest = [(name, shown(value)) for name, value in entry.items() if name not in _TOLD]
    return {**known, "rest": rest}


def _query(given: Mapping[str, str], span: TimeSpan) -> Query:
    return Query(
        since=_iso(span.since_ns),
        until="" if span.live else _iso(span.until_ns),
        kind=given.get("kind", ""),
        principal=given.get("principal", ""),
        action=given.get("action", ""),
        decision=given.get("decision", ""),
        text=given.get("text", ""),
    )


def _iso(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _place(text: str) -> Place | None:
    if not text:
        return None
    time, _, rest = text.partition("|")
    log, _, number = rest.rpartition("|")
    if not re.fullmatch("[0-9]{1,18}", number):
        raise FieldError(f"{text[:100]!r} is no place in the audit", "Begin with the newest lines.")
    return Place(time, log, int(number))


def _folder(request: Request) -> Path:
    return portal_of(request).settings.data_folder / "audit"


async def _verified(request: Request, thorough: bool) -> list[LogReport]:
    """The newest files of each log: hashes, neighbours, signatures, and what the supervisor holds in memory."""
    held: list[Written] = []
    try:
        heads = await portal_of(request).admin.ask("audit-heads", as_=caller_of(request))
        held = [Written(each["log"], each["lines"], each["head"]) for each in heads.get("heads", ())]
    except SeamlineError:
        pass  # nobody runs; the folder alone is looked at
    files_max = _ALL_FILES if thorough else _QUICK_FILES
    return await asyncio.to_thread(verify, _folder(request), held=held, files_max=files_max)


async def _export(request: Request) -> Response:
    """Every line that fits, as an event of OCSF or as it was written, one JSON object a line."""
    require(request, "operator")
    given = without(request.query_params, "cursor")
    query = _query(given, time_span(given, portal_of(request).now_ns(), "24h"))
    folder, product = _folder(request), version("seamline")

    def written() -> Iterator[bytes]:
        for entry in entries(folder, query):
            content = entry if given.get("form") == "lines" else event(entry, product)
            yield json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"

    headers = {"content-disposition": 'attachment; filename="audit.jsonl"', "cache-control": "no-store"}
    return StreamingResponse(written(), media_type="application/x-ndjson", headers=headers)


page = Page(
    title="Audit",
    path="/audit",
    key="a",
    icon="audit",
    group="trust",
    order=2,
    routes=[Route("/audit", _page), Route("/live/audit", _live), Route("/audit/export", _export)],
)
