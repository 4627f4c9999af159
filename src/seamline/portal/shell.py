"""What every page stands in: its entry in the navigation, and how its content becomes an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from seamline.portal.session import caller_of
from seamline.run.roles import Role, suffices

if TYPE_CHECKING:
    from seamline.portal.app import Portal

Group = Literal["watch", "look", "work", "trust", "more"]
GROUPS: dict[Group, str] = {
    "watch": "Now", "look": "Signals", "work": "Work", "trust": "Trust", "more": "More",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of the portal: what stands in the navigation, and the routes behind it.

    Args:
        path: of the page itself, ``/traces``; what is below it belongs to it, too.
        key: the letter that leads there after ``g``.
        icon: a symbol of ``static/icons.svg``.
        order: within its group.
        routes: answer with content (``page``), live fragments (``live``) or actions (``acting``).
    """

    title: str
    path: str
    key: str
    icon: str
    group: Group
    order: int
    routes: Sequence[BaseRoute]


@dataclass(frozen=True, kw_only=True)
class ModulePart:
    """What another page adds to each module's page: a ``module_part`` beside its ``page``.

    Args:
        order: among the others.
        draw: gives the HTML about the module of this name, empty for nothing.
    """

    title: str
    order: int
    draw: Callable[[Request, str], Awaitable[str]]


def portal_of(request: Request) -> Portal:
    return cast("Portal", request.app.state.portal)


def render(request: Request, template: str, **context: Any) -> str:
    """The text of a template, or of one of its parts, ``topology.html#panel`` (a Jinja block)."""
    environment: Environment = request.app.state.templates
    name, _, block = template.partition("#")
    found = environment.get_template(name)
    whole = {**_common(request), **context}
    whole["ui"] = environment.get_template("macros.html").make_module(whole)
    if not block:
        return found.render(whole)
    return "".join(found.blocks[block](found.new_context(whole)))


def page(request: Request, template: str, *, title: str, status_code: int = 200, **context: Any) -> Response:
    """The content of a page. The shell, which has no data, was sent before by ``app``."""
    text = render(request, template, title=title, **context)
    return HTMLResponse(text, status_code, headers={"cache-control": "no-store", "vary": "hx-request"})


def fragment(request: Request, template: str, **context: Any) -> Response:
    """A part of a page, for an ``hx-get`` on it."""
    return page(request, template, title="", **context)


def _common(request: Request) -> dict[str, Any]:
    caller = caller_of(request)

    def may(role: Role) -> bool:
        return suffices(caller.role, role)

    return {"request": request, "path": request.url.path, "query": request.query_params, "visitor": caller, "may": may}
