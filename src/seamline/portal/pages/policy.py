"""Policy: who may call what and by which rule, a request put to the test, and what is permitted and never used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.kernel.errors import SeamlineError
from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import FieldError
from seamline.portal.rooms import ask_one
from seamline.portal.session import caller_of
from seamline.portal.shell import Page, portal_of
from seamline.portal.shell import page as answer
from seamline.portal.showing import hues

VIEWS: Final = (
    ("matrix", "Who may call what"),
    ("rules", "Rules"),
    ("test", "Test a request"),
    ("used", "Permitted and used"),
)
_PLAIN: Final = ("http", "events", "views")
_LISTED_MAX: Final = 400
Call = tuple[str, str, str]
"""Caller, callee and call."""


async def _page(request: Request) -> Response:
    view = request.query_params.get("view") or "matrix"
    if view not in dict(VIEWS):
        raise FieldError(f"there is no view {view!r}", f"There are {', '.join(dict(VIEWS))}.")
    overview = await ask_one(request, "policies", "overview")
    if overview is None:
        raise FieldError("no process says which policy is in force", "See `seamline status`.")
    prepare = {"matrix": _matrix, "rules": _rules, "test": _test, "used": _used}[view]
    return answer(
        request, "policy.html", title="Policy", view=view, views=VIEWS, overview=overview,
        hue=hues(portal_of(request).settings.modules), **await prepare(request, overview),
    )  # fmt: skip


# Who may call what.


@dataclass(frozen=True, slots=True)
class Cell:
    """What a caller may do at a callee."""

    caller: str
    callee: str
    methods: int
    permitted: int
    conditional: int
    plain: tuple[str, ...]
    """``http``, ``events`` and ``views``, if permitted."""

    @property
    def words(self) -> str:
        """For people who hear the table."""
        some = f"{self.permitted} of {self.methods} methods" if self.permitted else ""
        on = f", {self.conditional} on conditions" if self.conditional else ""
        return f"{self.caller} at {self.callee}: {', '.join(filter(None, (some + on, *self.plain))) or 'nothing'}"


async def _matrix(request: Request, overview: Mapping[str, Any]) -> dict[str, Any]:
    permitted = _permitted(overview)
    methods = Counter(each["callee"] for each in overview["calls"] if each["call"] not in _PLAIN)
    callees = sorted({each["callee"] for each in overview["calls"]})
    callers = [each for each in overview["callers"] if any(call[0] == each for call in permitted)]
    cells = {caller: [_cell(caller, callee, methods[callee], permitted) for callee in callees] for caller in callers}
    given = request.query_params
    chosen = (given.get("caller", ""), given.get("callee", ""))
    calls = [
        {**each, "state": permitted.get((chosen[0], each["callee"], each["call"]), "denied")}
        for each in overview["calls"]
        if each["callee"] == chosen[1]
    ]
    return {"callees": callees, "cells": cells, "chosen": chosen, "calls": calls if all(chosen) else []}


def _permitted(overview: Mapping[str, Any]) -> dict[Call, str]:
    return {
        (each["caller"], each["callee"], each["call"]): "on conditions" if each["conditional"] else "allowed"
        for each in overview["permitted"]
    }


def _cell(caller: str, callee: str, methods: int, permitted: Mapping[Call, str]) -> Cell:
    mine = {call: state for (a, b, call), state in permitted.items() if (a, b) == (caller, callee)}
    own = [state for call, state in mine.items() if call not in _PLAIN]
    return Cell(
        caller, callee, methods, len(own), own.count("on conditions"), tuple(each for each in _PLAIN if each in mine)
    )


# The rules.


async def _rules(request: Request, overview: Mapping[str, Any]) -> dict[str, Any]:
    words = request.query_params.get("text", "").lower().split()
    rules = [
        each
        for each in overview["policies"]
        if all(word in f"{each['name']} {each['place']} {each['text']}".lower() for word in words)
    ]
    return {"rules": rules}


# A request put to the test.


async def _test(request: Request, overview: Mapping[str, Any]) -> dict[str, Any]:
    given = request.query_params
    context: dict[str, Any] = {
        "explanation": None,
        "refusal": None,
        "calls": sorted({c["call"] for c in overview["calls"]}),
    }
    if not given.get("caller") or not given.get("call"):
        return context
    arguments: dict[str, Any] = {"caller": given["caller"], "call": given["call"], "request": _request(given)}
    if given.get("callee"):
        arguments["callee"] = given["callee"]
    try:
        context["explanation"] = await ask_one(request, "policies", "explain", **arguments)
    except SeamlineError as error:
        context["refusal"] = error
    return context


def _request(given: Mapping[str, str]) -> dict[str, Any]:
    """As ``tests.toml`` would write it. Raises FieldError."""
    found: dict[str, Any] = {
        name: given[name] for name in ("user", "agent", "method", "path", "tenant") if given.get(name)
    }
    if given.get("roles"):
        found["roles"] = given["roles"].replace(",", " ").split()
    for name in ("args", "attributes"):
        if given.get(name):
            found[name] = _object(given[name], name)
    return found


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FieldError(f"{name} is not a JSON object", 'Write {"cents": 4200}.')
    return cast("dict[str, Any]", found)


# What is permitted, and what was seen.


async def _used(request: Request, overview: Mapping[str, Any]) -> dict[str, Any]:
    observed = await portal_of(request).admin.ask("observed", as_=caller_of(request))
    seen = _seen(observed)
    permitted = _permitted(overview)
    unused = sorted(call for call in permitted if call not in seen)
    narrow = await ask_one(request, "policies", "narrow", seen=[list(each) for each in sorted(seen)])
    coming = await ask_one(request, "policies", "diff")
    return {
        "seen": len(seen & permitted.keys()), "permitted": len(permitted), "unused": unused[:_LISTED_MAX],
        "states": permitted, "narrow": narrow, "coming": coming, "lines": _lines(narrow["diff"] if narrow else ""),
    }  # fmt: skip


def _seen(observed: Mapping[str, Any]) -> set[Call]:
    found: set[Call] = set()
    for process in observed["processes"]:
        found |= {(each["caller"], each["callee"], each["action"]) for each in process["edges"] if each["calls"]}
        found |= {(each["caller"], each["callee"], "http") for each in process["public"]}
    return found


def _lines(diff: str) -> list[tuple[str, str]]:
    """Each line with what it is: added, removed, a place, or as it was."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [
        ("file" if each.startswith(("+++", "---")) else kinds.get(each[:1], ""), each)
        for each in diff.splitlines()[:2000]
    ]


async def _reload(act: Act) -> Done:
    await act.ask("policy")
    return Done("The policy in the folder is in force.", again=True)


page = Page(
    title="Policy",
    path="/policy",
    key="p",
    icon="policy",
    group="trust",
    order=1,
    routes=[Route("/policy", _page), action("/policy/reload", "operator", _reload)],
)
