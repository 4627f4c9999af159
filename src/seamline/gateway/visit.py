"""One public request: route, limits, app, and what the gateway adds to the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.gateway import headers as heads
from seamline.gateway.asgi import AsgiApp, AsgiExchange, make_scope
from seamline.gateway.auth import cookies
from seamline.gateway.auth.errors import Refused
from seamline.gateway.compression import accepts_gzip
from seamline.gateway.limits.addresses import TrustedProxies
from seamline.gateway.normal import Hosts, path_of
from seamline.gateway.pages import error_page
from seamline.gateway.routes import Route, RouteTable
from seamline.gateway.told import SWITCHED, TRACE, Asked, asked, class_of, request_span, trace_of
from seamline.gateway.websocket import WebSocketRun, handshake_of
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.signal.trace import Tracer, new_span_id
from seamline.kernel.wire.http1 import Disconnected, Exchange, Header, HttpRefusal
from seamline.mesh.outcome import retry_header
from seamline.module.errors import (
    CallError,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

if TYPE_CHECKING:
    from seamline.gateway.auth.door import Caller, Door, Record
    from seamline.gateway.limits.limiter import Limiter, Standing

_log = logging.getLogger("seamline.gateway")
_HTTP = "http"
GATEWAY = "gateway"
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"dpop"})


@dataclass(slots=True)
class Site:
    """What all requests share."""

    settings: GatewaySettings
    apps: Callable[[str], AsgiApp]
    scheme: str
    cors: heads.Cors | None
    defaults: tuple[Header, ...]
    """Headers of every answer whose app does not say otherwise."""
    loop: asyncio.AbstractEventLoop
    # Asking asyncio for the running loop costs a system call (getpid), so it is asked once.
    hosts: Hosts
    proxies: TrustedProxies
    door: Door | None = None
    """Who says who is asking; None without ``[auth]``."""
    audit: Record | None = None
    limiter: Limiter | None = None
    """Who counts; None where ``[limits]`` has no rules."""
    tracer: Tracer = field(default_factory=lambda: Tracer(0.0))


class Visit:
    """Serves one exchange. ``status`` and ``module`` tell afterwards what came of it."""

    def __init__(self, site: Site, table: RouteTable, exchange: Exchange, now: float) -> None:
        request = exchange.request
        self.site = site
        self.exchange = exchange
        self.host = request.header(b"host") or b""
        self.path = ""
        self.route: Route | None = None
        self._astray: HttpRefusal | None = None
        self._standing: Standing | None = None
        try:
            self._address(table)
        except HttpRefusal as refusal:
            self._astray = refusal
        self.module = self.route.module if self.route is not None else ""
        self.trace = site.tracer.enter(trace_of(request.headers))
        self._parent_id = self.trace.span_id
        self.trace.span_id = new_span_id()  # what is done for the request is done under its span
        self._started = monotonic()
        self._error: BaseException | None = None
        self.identity = heads.request_id(request.header(b"x-request-id"), self.trace.trace_id)
        self.origin = request.header(b"origin") if site.cors is not None else None
        self.run: AsgiExchange | WebSocketRun | None = None
        timeout_s = (self.route.timeout_s if self.route is not None else 0) or site.settings.request_timeout_s
        self._deadline = now + timeout_s
        self._task: asyncio.Task[Any] | None = None
        self._timed_out = False
        self._status = 0
        self._asked = Asked(request.method, f"{self.route.root_path if self.route else ''}/*", self.path)
        self._caller: Caller | None = None

    @property
    def status(self) -> int:
        """The status of the answer; 499 when the client left before there was one."""
        return self._status or (self.run.status if self.run is not None else 0) or 499

    async def serve(self) -> None:
        request = self.exchange.request
        site = self.site
        if self._astray is not None:
            self._turn_away(self._astray)
            return
        if self._preflight():
            return
        if site.door is not None and site.door.owns(self.path):
            await self._own_page(site.door)
            return
        route = self.route
        if route is None:
            self.page(404, "Nothing is mounted here.")
            return
        limit = route.body_bytes_max or site.settings.body_bytes_max
        if (request.content_length or 0) > limit or request.received > limit:
            self._turn_away(HttpRefusal(413, "payload_too_large", f"The body is larger than {limit} bytes."))
            return
        request.body_bytes_max = limit
        self._task = asyncio.current_task(site.loop)
        try:
            if site.door is not None:
                self._caller = site.door.at_once(self.exchange) or await site.door.caller(self.exchange)
            if site.limiter is not None and not await self._within(site.limiter):
                return
            if request.upgrade == b"websocket":
                await self._web_socket(route)
            else:
                await self._http(route)
        except asyncio.CancelledError:
            if not self._timed_out:
                raise
            if self._task is not None:
                self._task.uncancel()
            self._fail(504, "The answer took too long.")
        except Disconnected:
            pass
        except Refused as refused:
            self._refused(refused)
        except Exception as error:
            self._failed(error)
        finally:
            self._task = None
            self._status = self.status
            self.run = None  # else visit and run hold each other, and the garbage collector has to find out

    def _address(self, table: RouteTable) -> None:
        """Who is meant, and by whom, in the one form that everything after this sees. Raises HttpRefusal."""
        exchange, site = self.exchange, self.site
        request, state = exchange.request, exchange.connection_state
        peer: str | None = state.get("peer")
        if peer is not None and site.proxies.trusts(peer):
            told = [value for name, value in request.headers if name == b"x-forwarded-for"]
            client = site.proxies.client(peer, told)
            state["client"], state["client_host"] = (client, 0), client.encode()
        server: tuple[str, int] | None = state.get("server")
        host = site.hosts.check(self.host, server[0] if server else "")
        self.path = path_of(request.path) if request.path != b"*" or request.method != "OPTIONS" else "*"
        self.route = table.match(host, self.path)
        if site.limiter is not None:
            self._standing = site.limiter.before(self.path, request.method, state["client_host"].decode())

    def _turn_away(self, refusal: HttpRefusal, principal: str = "") -> None:
        """Answer what is not looked at any further, and write it down."""
        site, exchange = self.site, self.exchange
        if site.audit is not None:
            peer = exchange.connection_state["client_host"].decode()
            resource = exchange.request.path[:200].decode("latin-1")
            site.audit(
                "refuse", principal=principal, action=_HTTP, resource=resource, reason=refusal.message, peer=peer
            )
        self.page(refusal.status, refusal.message, refusal.headers)

    async def _within(self, limiter: Limiter) -> bool:
        """Whether whoever sends this may have it; the answer is given if not."""
        caller = self._caller
        user, used = (caller.user, caller.used) if caller is not None else (None, "")
        address = self.exchange.connection_state["client_host"].decode()
        method = self.exchange.request.method
        try:
            self._standing = limiter.after(self.path, method, address, user, used) or self._standing
            if limiter.quotas is not None:
                await limiter.use_quota(self.path, method, address, user, used)
        except HttpRefusal as refusal:
            self._turn_away(refusal, user.id if user is not None else "")
            return False
        return True

    def late(self, now: float) -> bool:
        """Whether the client has waited too long for the beginning of an answer."""
        return now > self._deadline and self._task is not None and self.run is not None and not self.run.status

    def give_up(self) -> None:
        """Cancel the app; the client hears 504."""
        if self._task is not None:
            self._timed_out = True
            self._task.cancel()

    def page(self, status: int, message: str, more: Iterable[Header] = (), *, leave: bool = False) -> None:
        """Answer with an error page; ``leave`` offers to sign out."""
        self._status = status
        accept = self.exchange.request.header(b"accept") or b""
        headers, body = error_page(status, message, self.identity.decode(), accept, leave)
        self.exchange.respond(status, self.shape(status, [*headers, *more]), body)

    def shape(self, status: int, headers: list[Header]) -> list[Header]:
        """An answer's headers with what the gateway adds; what the app says itself wins."""
        shaped = heads.from_app(headers)
        site = self.site
        if status != 101 and site.cors is not None and self.origin is not None:
            heads.with_defaults(shaped, site.cors.answer(self.origin))
            heads.vary(shaped, b"origin")
        defaults = site.defaults if status != 101 else ()
        heads.with_defaults(shaped, (*defaults, (b"x-request-id", self.identity)))
        if self._standing is not None:
            heads.with_defaults(shaped, self._standing.headers())
        if site.door is not None:
            shaped = self._with_cookie(cookies.from_apps(shaped))
        return shaped

    def _with_cookie(self, headers: list[Header]) -> list[Header]:
        """A renewed session goes along, unless others may be given this answer as well."""
        cookie = self._caller.cookie if self._caller is not None else None
        if cookie is not None and not any(name == b"cache-control" and b"public" in value for name, value in headers):
            headers.append(cookie)
        return headers

    def _preflight(self) -> bool:
        request = self.exchange.request
        cors = self.site.cors
        if (
            cors is None
            or self.origin is None
            or request.method != "OPTIONS"
            or request.header(b"access-control-request-method") is None
        ):
            return False
        self._status = 204
        self.exchange.respond(204, [*cors.preflight(self.origin), (b"x-request-id", self.identity)])
        return True

    def _scope(self, kind: str, scheme: str, root_path: str) -> dict[str, Any]:
        exchange = self.exchange
        client = exchange.connection_state["client_host"]
        headers = heads.for_app(exchange.request.headers, self.identity, client, self.site.scheme.encode(), self.host)
        scope = make_scope(exchange, kind, scheme, self.path, root_path, headers)
        scope[TRACE] = self.trace
        caller = self._caller
        if caller is not None:
            scope["seamline.user"] = caller.user
            # What proves who somebody is stays here: a module is told, and cannot be them elsewhere.
            if caller.used in ("token", "key"):
                scope["headers"] = [header for header in headers if header[0] not in _CREDENTIALS]
            elif any(name == b"cookie" and cookies.MARK in value for name, value in headers):
                scope["headers"] = [
                    (name, cookies.for_apps(value) if name == b"cookie" else value) for name, value in headers
                ]
        return scope

    async def _http(self, route: Route) -> None:
        settings = self.site.settings
        request = self.exchange.request
        # The length that HEAD tells is that of the plain answer.
        gzip = settings.compression and request.method != "HEAD" and accepts_gzip(request.header(b"accept-encoding"))
        run = AsgiExchange(self.exchange, self.site.loop, self.shape, settings.compression_bytes_min if gzip else None)
        self.run = run
        scope = self._scope("http", self.site.scheme, route.root_path)
        try:
            await run.run(self.site.apps(route.module), scope)
        except Exception:
            if run.refused is None:  # else the app failed for want of a body that we refused
                raise
        finally:
            self._asked = asked(scope, route.path)
        if run.refused is not None:
            self._fail(run.refused.status, run.refused.message)
        elif run.unanswered and not self.exchange.disconnected:
            _log.error("%s %s: module %r gave no answer", request.method, self.path, self.module)
            self._fail(500, "The request was not answered.")

    async def _web_socket(self, route: Route) -> None:
        exchange = self.exchange
        accept, subprotocols = handshake_of(exchange.request)
        run = WebSocketRun(exchange, accept, self.shape, self.site.settings.websocket_message_bytes_max)
        self.run = run
        scheme = "ws" if self.site.scheme == "http" else "wss"
        scope = self._scope("websocket", scheme, route.root_path)
        del scope["method"]
        scope["subprotocols"] = subprotocols
        scope["extensions"] = {"websocket.http.response": {}}
        try:
            await run.run(self.site.apps(route.module), scope)
        finally:
            self._asked = asked(scope, route.path)
        if not exchange.started and not exchange.disconnected:
            self._fail(500, "The WebSocket was neither accepted nor refused.")

    def tell(self) -> None:
        """Count the request, and record its span if its trace is recorded or is to be."""
        status, tracer, request = self.status, self.site.tracer, self._asked
        module = self.module or GATEWAY
        if status != SWITCHED:
            stats = tracer.flows.stats(GATEWAY, module, request.name, "http")
            stats.record(monotonic() - self._started, class_of(status))
        user = self._caller.user if self._caller is not None else None
        request_span(
            tracer, self.trace, (self.trace.span_id, self._parent_id), (GATEWAY, ""), request, status, self._started,
            self._error, user,
        )  # fmt: skip

    def _failed(self, error: Exception) -> None:
        request = self.exchange.request
        self._error = error
        if isinstance(error, HttpRefusal):
            self._fail(error.status, error.message)
            return
        status, message = _told(error)
        leave = False
        if isinstance(error, Unauthenticated) and self.site.door is not None:
            self._ask_who(self.site.door)
            return
        if isinstance(error, PermissionDenied) and self._caller is not None and self._caller.user is not None:
            message = f"You are signed in as {self._caller.user.name or self._caller.user.id}, and may not do this."
            leave = self._caller.used == "session"
        if isinstance(error, CallError):
            _log.warning("%s %s: module %r: %s", request.method, self.path, self.module, error)
        else:
            _log.error("%s %s: module %r failed", request.method, self.path, self.module, exc_info=error)
        self._fail(status, message, retry_header(error), leave=leave)

    async def _own_page(self, door: Door) -> None:
        try:
            answer = await door.answer(self.exchange, self.path)
        except Refused as refused:
            self._refused(refused)
        except Disconnected:
            pass
        except Exception as error:
            self._failed(error)
        else:
            self._status = answer.status
            self.exchange.respond(answer.status, self._safe(answer.headers), answer.body)

    def _safe(self, headers: list[Header]) -> list[Header]:
        """Headers of an answer of the gateway's own, which may set its cookies."""
        shaped = list(headers)
        heads.with_defaults(shaped, (*self.site.defaults, (b"x-request-id", self.identity)))
        return shaped

    def _refused(self, refused: Refused) -> None:
        door = self.site.door
        assert door is not None
        door.refused(refused, self.exchange)
        headers = refused.headers
        if refused.status == 401 and not any(name == b"www-authenticate" for name, _ in headers):
            headers = [*headers, *door.challenges()]
        self._fail(refused.status, refused.told, headers)

    def _ask_who(self, door: Door) -> None:
        """Something asks for a user: a browser is sent to sign in, a program is told how to say who it is."""
        place = door.sign_in_at(self.exchange.request)
        if place is None:
            self._fail(401, "Sign in first.", door.challenges())
        elif not self.exchange.started and not self.exchange.disconnected:
            self._status = 303
            headers = [(b"location", place.encode("ascii")), (b"cache-control", b"no-store")]
            self.exchange.respond(303, self.shape(303, headers))

    def _fail(self, status: int, message: str, headers: Iterable[Header] = (), *, leave: bool = False) -> None:
        """Answer with an error page if no answer has begun; a begun one is broken off by the server."""
        if self.exchange.started:
            return
        if self.exchange.disconnected:
            self._status = 499
            return
        self.page(status, message, headers, leave=leave)


def _told(error: Exception) -> tuple[int, str]:
    """Status and message for a stranger: what happened, never how."""
    match error:
        case DeadlineExceeded():
            return 504, "The answer took too long."
        case Unavailable() | Overloaded():
            return 503, "This part is not available at the moment. Try again shortly."
        case PermissionDenied() | Unauthenticated():
            return 403, "The gateway may not pass requests to this part."
        case Unimplemented():
            return 501, "This part cannot be reached this way."
        case InternalError():
            return 500, "Something went wrong here."
        case CallError():
            return 502, "This part failed to answer."
        case _:
            return 500, "Something went wrong here."
