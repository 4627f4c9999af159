"""How the application is, in one glance."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.portal.shell import Page
from seamline.portal.shell import page as answer


async def _overview(request: Request) -> Response:
    return answer(request, "overview.html", title="Overview")


page = Page(
    title="Overview", path="/", key="o", icon="overview", group="watch", order=10, routes=[Route("/", _overview)]
)
