"""The portal as an ASGI app: the shell, the pages, the assets, and the headers that keep the pages to themselves."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log
from seamline.observe.detect.promises import Promises
from seamline.observe.live import Live
from seamline.observe.windows import Window
from seamline.portal import pages
from seamline.portal.assets import Assets
from seamline.portal.errors import NotFoundError, PortalError
from seamline.portal.fragments import environment
from seamline.portal.now import Recent, Row
from seamline.portal.shell import GROUPS, ModulePart, Page, page
from seamline.portal.status import status_route
from seamline.run.roles import Caller

if TYPE_CHECKING:
    from seamline.observe.store import TelemetryReader

_log = log.get("seamline.portal")
_SECURE: Final = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Admin(Protocol):
    """The supervisor, asked on behalf of who has signed in."""

    async def ask(
        self, op: str, say: Callable[[str], None] | None = None, *, as_: Caller | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """The result. ``say`` hears the progress; raises RefusedError with what the supervisor raised."""
        ...


class Kept(Protocol):
    """The incidents that are watched now. Each answers whether it could be done."""

    def acknowledge(self, name: str, by: str) -> bool: ...
    def note(self, name: str, by: str, text: str) -> bool: ...
    def close(self, name: str, by: str) -> bool: ...


class Watching(Protocol):
    """What the observatory has in memory."""

    @property
    def live(self) -> Live: ...
    @property
    def incidents(self) -> Kept:
        """Those that are open, for people to act on."""
        ...

    @property
    def latest(self) -> Sequence[Window]:
        """The newest windows, oldest first."""
        ...

    @property
    def promises(self) -> Promises:
        """How service levels are kept."""
        ...


@dataclass(frozen=True)
class Portal:
    """What the pages stand on.

    Args:
        reader: of what is kept; synchronous, so pages call it in a thread.
        observatory: what is in memory and comes live; None where nothing runs.
        admin: the supervisor.
        settings: the application's.
    """

    reader: TelemetryReader
    observatory: Watching | None
    admin: Admin
    settings: Settings
    clock: Clock

    recent: Recent = field(default_factory=Recent)

    def rows(self) -> list[Row]:
        """What is in memory, oldest first; nothing where nothing runs."""
        return self.recent.look(self.observatory.latest) if self.observatory is not None else []

    def now_ns(self) -> int:
        return int(self.clock.now().timestamp() * 1e9)


def found_pages() -> list[Page]:
    """Every ``page`` of the modules in ``pages/``, as they stand in the navigation."""
    found: list[Page] = _found("page")
    return sorted(found, key=lambda each: (list(GROUPS).index(each.group), each.order))


def found_parts() -> list[ModulePart]:
    """What they add to a module's page."""
    found: list[ModulePart] = _found("module_part")
    return sorted(found, key=lambda each: each.order)


def _found(name: str) -> list[Any]:
    modules = [
        importlib.import_module(f"{pages.__name__}.{each.name}") for each in pkgutil.iter_modules(pages.__path__)
    ]
    return [getattr(each, name) for each in modules if hasattr(each, name)]


def make_app(portal: Portal, *, parts: Sequence[ModulePart] | None = None) -> Starlette:
    """The app that serves all pages. ``parts`` stand on each module's page, those of the pages if not said."""
    entries = found_pages()
    assets = Assets()
    templates = environment(assets)
    routes = [
        Route("/assets/{digest}/{name:path}", assets.serve),
        status_route,
        *(route for entry in entries for route in entry.routes),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={SeamlineError: _on_error, HTTPException: _on_missing},
    )
    app.state.portal, app.state.templates = portal, templates
    app.state.parts = found_parts() if parts is None else parts
    app.add_middleware(_Front, shell=_shell(templates, entries))
    return app


def _shell(templates: Environment, entries: list[Page]) -> bytes:
    groups = [(title, [each for each in entries if each.group == name]) for name, title in GROUPS.items()]
    keys = {each.key: each.path for each in entries if each.key}
    return templates.get_template("shell.html").render(groups=groups, entries=entries, keys=keys).encode()


class _Front:
    """Gives the shell to a browser that opens an address, and everybody the headers of defence."""

    def __init__(self, app: ASGIApp, shell: bytes) -> None:
        self._app = app
        self._shell = HTMLResponse(shell, headers={"cache-control": "no-cache", "vary": "hx-request"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _SECURE.items():
                    headers[name] = value
            await send(message)

        opened = scope["method"] in {"GET", "HEAD"} and not any(name == b"hx-request" for name, _ in scope["headers"])
        plain = opened and not scope["path"].startswith("/assets/")
        try:
            await (self._shell if plain else self._app)(scope, receive, send_safely)
        except Exception as error:
            if started:
                raise
            _log.exception("%s %s failed", scope["method"], scope["path"])
            trouble = PortalError(f"{type(error).__name__}: {error}", "The portal's log has more.")
            await (await _on_error(Request(scope, receive), trouble))(scope, receive, send_safely)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SeamlineError)
    status = error.status if isinstance(error, PortalError) else 422
    if status == 401 or request.method != "GET":
        return JSONResponse({"error": error.to_json()}, status)
    title = "Not found" if status == 404 else "This cannot be shown"
    return page(request, "trouble.html", title=title, status_code=status, error=error)


async def _on_missing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 404:
        return JSONResponse({"error": PortalError(error.detail).to_json()}, error.status_code)
    return await _on_error(request, NotFoundError("there is no such page", "See the navigation."))
