"""Which modules share a process, what flows between them, and changing both."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import FieldError, NotFoundError
from seamline.portal.live import EventStream, Write, ticks, told, write_changed
from seamline.portal.now import Edge, ModuleNow, Picture, newest, picture
from seamline.portal.shell import Page, fragment, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.status import running

_PARTS: Final = ("now", "workloads", "edges")
_REPLICAS_MAX: Final = 64
PUBLIC: Final = "public"
"""The node that stands for everybody outside."""


async def _context(request: Request) -> dict[str, Any]:
    portal = portal_of(request)
    status, incidents = await asyncio.gather(
        running(request), asyncio.to_thread(portal.reader.incidents, open_only=True)
    )
    found = picture(newest(portal.rows()), portal.settings.modules, status, incidents, portal.recent.seen)
    return {"picture": found, "status": status, "graph": graph(found), "topologies": portal.settings.topologies}


def graph(found: Picture) -> dict[str, list[dict[str, Any]]]:
    """Nodes and edges as the script draws them: a module in one workload only, also while it moves to another."""
    homes = {name: _home(module, found) for name, module in found.modules.items()}
    nodes: list[dict[str, Any]] = [
        {"id": f"w:{each.name}", "kind": "workload", "label": each.name, "state": each.state,
         "note": f"{len(each.replicas)} \N{MULTIPLICATION SIGN}" if len(each.replicas) > 1 else ""}
        for each in found.workloads
        if each.name in homes.values()
    ]  # fmt: skip
    nodes += [
        {"id": f"m:{each.name}", "kind": "module", "label": each.name, "state": each.state, "rate": each.inward.rate,
         "p95": each.inward.p95_ms, "parent": f"w:{homes[each.name]}" if homes[each.name] else None}
        for each in found.modules.values()
    ]  # fmt: skip
    if any(each.kind == "public" for each in found.edges):
        nodes.append({"id": PUBLIC, "kind": "public", "label": "public", "state": "idle", "rate": found.public.rate})
    edges = [
        {"id": _edge_id(each), "kind": each.kind, "state": each.all.state, "rate": each.all.rate,
         "source": f"m:{each.caller}" if each.caller else PUBLIC, "target": f"m:{each.callee}",
         "p95": each.all.p95_ms, "errors": each.all.error_ratio}
        for each in found.edges
        if each.caller or each.kind == "public"
    ]  # fmt: skip
    return {"nodes": nodes, "edges": edges}


def _home(module: ModuleNow, found: Picture) -> str:
    """Where calls go: a workload that is ready, before one that starts."""
    homes = [each for each in found.workloads if each.name in module.workloads]
    ready = [each for each in homes if any(replica["state"] == "ready" for replica in each.replicas)]
    return next((each.name for each in (*ready, *homes)), "")


def _edge_id(edge: Edge) -> str:
    return f"e:{edge.caller}>{edge.callee}>{edge.kind}"


async def _topology(request: Request) -> Response:
    context = await _context(request)
    return answer(request, "topology.html", title="Topology", live="/live/topology", **context)


async def _live(request: Request) -> Response:
    async def produce(write: Write) -> None:
        before: dict[str, str] = {}
        async with aclosing(ticks(request, "windows", "incidents")) as news:
            async for _ in news:
                context = await _context(request)
                await write(told("graph", context["graph"]))
                parts = {f"topology-{part}": render(request, f"topology.html#{part}", **context) for part in _PARTS}
                await write_changed(before, parts, write)

    return EventStream(request, produce)


async def _panel(request: Request) -> Response:
    """What is known of one node or edge of the graph."""
    context = await _context(request)
    found: Picture = context["picture"]
    node = request.query_params.get("node", "")
    kind, _, name = node.partition(":")
    chosen: Mapping[str, Any] = {}
    if kind == "m" and name in found.modules:
        chosen = {"module": found.modules[name]}
    elif kind == "w":
        chosen = {"workload": next((each for each in found.workloads if each.name == name), None)}
    elif kind == "e":
        chosen = {"edge": next((each for each in found.edges if _edge_id(each) == node), None)}
    elif node == PUBLIC:
        chosen = {"public": found.public}
    if not any(chosen.values()):
        raise NotFoundError(f"there is no {node!r} in the topology now", "It may have been moved.")
    nothing = dict.fromkeys(("module", "workload", "edge", "public"))
    return fragment(request, "topology_panel.html", **{**context, **nothing, **chosen, "node": node})


async def _switch(act: Act) -> Done:
    wanted = act.field("topology")
    result = await act.ask("switch", topology=wanted)
    return Done(f"The topology is {result.get('topology', wanted)} now. No request had to fail for it.", again=True)


async def _scale(act: Act) -> Done:
    workload, text = act.field("workload"), act.field("replicas")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _REPLICAS_MAX:
        raise FieldError(f"{text!r} is no number of replicas", f"Give 1 to {_REPLICAS_MAX}.")
    await act.ask("scale", replicas={workload: int(text)})
    return Done(f"{workload} has {text} {'replica' if text == '1' else 'replicas'} now.", again=True)


async def _restart(act: Act) -> Done:
    workload = act.field("workload")
    await act.ask("restart", workload=workload)
    return Done(f"{workload} has new processes.", again=True)


page = Page(
    title="Topology",
    path="/topology",
    key="t",
    icon="topology",
    group="watch",
    order=20,
    routes=[
        Route("/topology", _topology),
        Route("/topology/panel", _panel),
        Route("/live/topology", _live),
        action("/topology/switch", "operator", _switch),
        action("/topology/scale", "operator", _scale),
        action("/topology/restart", "operator", _restart),
    ],
)
