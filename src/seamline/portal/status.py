"""What stands at the head of every page: the application, its topology, open incidents. Live on each page."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.kernel.errors import SeamlineError
from seamline.portal.live import fragments
from seamline.portal.session import caller_of
from seamline.portal.shell import portal_of, render


async def running(request: Request) -> dict[str, Any]:
    """What the supervisor says of itself; empty where it does not answer."""
    try:
        return await portal_of(request).admin.ask("status", as_=caller_of(request))
    except SeamlineError:
        return {}


async def _status(request: Request) -> Response:
    portal = portal_of(request)

    async def draw() -> dict[str, str]:
        status = await running(request)
        incidents = await asyncio.to_thread(portal.reader.incidents, open_only=True)
        return {
            "sl-status": render(
                request, "status.html", status=status, incidents=incidents, app=portal.settings.app.name
            )
        }

    return fragments(request, draw, "incidents", at_least_every_s=5.0)


status_route = Route("/live/status", _status)
