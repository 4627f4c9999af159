"""The control API: what the admin socket can, over HTTP, for people who have signed in with a one-time token.

``POST /v1/<operation>`` with a JSON object asks. ``docs/admin-api.md`` has the rest.

It stands on the loopback, where every page in every browser of this machine can send it requests. So the ``host`` must
be one of its own names (a name of another site that was made to point here is refused), requests that another origin
made a browser send are refused, and a cookie counts only together with a word that the page alone knows: cookies do not
tell ports apart, and other servers of this machine are sent them, too.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from seamline.gateway.auth.cookies import cookie_value
from seamline.gateway.auth.same_origin import Origins
from seamline.gateway.tls import CertificateFiles
from seamline.kernel.audit import AuditLog
from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import AdminSettings
from seamline.kernel.settings.auth import loopback
from seamline.kernel.signal import log
from seamline.kernel.wire.http1 import Disconnected, Exchange, Header, HttpLimits, HttpRefusal, HttpRequest, HttpServer
from seamline.run.api_sessions import ApiSessions
from seamline.run.errors import (
    BusyError,
    ControlError,
    NotAllowedError,
    NotSignedInError,
    PortTakenError,
    RunError,
    UnknownTargetError,
)
from seamline.run.forward import Forwarder
from seamline.run.roles import Caller
from seamline.run.sockets import listen_public

if TYPE_CHECKING:
    from seamline.run.operations import AdminServer

_log = log.get("seamline.run")
COOKIE = "__Host-seamline-admin"
PAGE_HEADER = b"x-seamline-page"
_LIMITS = HttpLimits(body_bytes_max=1024 * 1024, connections_max=256, pipelined_max=4)
_JSON = b"application/json"
_LINES = b"application/x-ndjson"
_SECURE: tuple[Header, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class ControlApi:
    """Serves the API of one supervisor.

    Args:
        operations: performs what is asked.
        folder: the application's, which the certificate's files are relative to.
        portal: the socket of the portal, where there is one; it gets all that is not below ``/v1/``.
    """

    def __init__(
        self,
        settings: AdminSettings,
        operations: AdminServer,
        audit: AuditLog,
        clock: Clock,
        folder: Path,
        portal: Path | None = None,
    ) -> None:
        self.sessions = ApiSessions(settings, clock)
        self.url = ""
        self._settings = settings
        self._operations = operations
        self._audit = audit
        self._portal = Forwarder(portal, _SECURE) if portal is not None else None
        self._tls: ssl.SSLContext | None = None
        if settings.tls_certificate:
            self._tls = CertificateFiles(folder / settings.tls_certificate, folder / settings.tls_key).context
        self._scheme = "https" if self._tls else "http"
        self._origins: list[Origins] = []
        self._runners = Runners()
        self._http = HttpServer(self._handle, _LIMITS, runners=self._runners, scheme=self._scheme, clock=clock)
        self._server: asyncio.Server | None = None

    def listen(self) -> socket.socket:
        """Bind, and learn the address. Raises PortTakenError."""
        try:
            listener = listen_public(*self._settings.address)
        except PortTakenError as error:
            remedy = "Stop it, or name another address with listen = ... under [admin]."
            raise PortTakenError(error.fact, remedy, place=error.place) from None
        host, port = listener.getsockname()[:2]
        self._origins = [Origins("", self._scheme, (host, port))]
        self._origins += [
            Origins(f"{self._scheme}://{name}", self._scheme, (host, port)) for name in self._settings.hosts
        ]
        self.url = self._origins[-1].canonical if not loopback(host) else self._origins[0].canonical
        return listener

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._http.protocol, sock=listener, ssl=self._tls)
        try:
            await self._server.serve_forever()
        finally:
            self._server.close()
            if self._portal is not None:
                await self._portal.close()
            await self._http.close()
            await self._runners.stop()

    async def finish(self) -> None:
        """Let answers under way (that of ``stop`` among them) end, shortly."""
        await self._http.drain(1.0, idle_grace_s=0.0)

    # One request.

    async def _handle(self, exchange: Exchange) -> None:
        try:
            await self._answer(exchange)
        except HttpRefusal as refusal:
            if not exchange.started:
                exchange.respond(refusal.status, [(b"content-type", _JSON), *_SECURE], refusal.body())
        except SeamlineError as error:
            if not exchange.started:
                self._respond(exchange, _status_of(error), {"error": error.to_json()})

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        peer = _peer(exchange)
        self._check_host(request, peer)
        path = request.path.decode("latin-1")
        if self._portal is not None and not path.startswith("/v1/") and _has_no_data(request, path):
            await self._portal.forward(exchange, None)
            return
        self._check_origin(request, peer)
        if path == "/v1/session" and request.method == "POST":
            await self._begin(exchange, peer)
            return
        caller, bearer = self._caller(request, peer)
        if path == "/v1/session":
            self._session(exchange, caller, bearer)
            return
        if self._portal is not None and not path.startswith("/v1/"):
            await self._portal.forward(exchange, caller)
            return
        name = path.removeprefix("/v1/")
        if name == path or not name:
            raise HttpRefusal(404, "not_found", "The control API is below /v1/: see docs/admin-api.md.")
        if request.method != "POST":
            raise HttpRefusal(405, "method_not_allowed", "Operations are asked with POST.", [(b"allow", b"POST")])
        await self._perform(exchange, name, caller)

    def _ours(self, request: HttpRequest) -> Origins | None:
        host = request.header(b"host") or b""
        return next((each for each in self._origins if each.known(host)), None)

    def _check_host(self, request: HttpRequest, peer: str) -> None:
        if self._ours(request) is None:
            host = (request.header(b"host") or b"")[:100].decode("latin-1")
            self._refuse(peer, f"the host {host!r} is not ours")
            raise HttpRefusal(421, "misdirected", "This address does not serve that host.")

    def _check_origin(self, request: HttpRequest, peer: str) -> None:
        ours = self._ours(request)
        if ours is not None and ours.came_from_here(request) is False:
            origin = (request.header(b"origin") or b"another origin")[:100].decode("latin-1")
            self._refuse(peer, f"a page of {origin!r} sent it")
            raise HttpRefusal(403, "cross_origin", "Requests of other origins' pages are refused.")

    async def _begin(self, exchange: Exchange, peer: str) -> None:
        """A one-time token for a session."""
        if self.sessions.wait:
            raise HttpRefusal(429, "too_many", "Too many wrong tokens: wait a minute.", [(b"retry-after", b"60")])
        asked = await _object(exchange.request)
        token = asked.get("token")
        opened = self.sessions.open(token) if isinstance(token, str) else None
        if opened is None:
            self._refuse(peer, "a wrong, used or expired token")
            raise NotSignedInError("the token is wrong, was used, or is too old", "`seamline admin token` makes one.")
        self._audit.write(
            "authentication", "allow", principal=f"session {opened.number}", action="sign in", resource="control API",
            peer=peer, role=opened.role, always=True,
        )  # fmt: skip
        told: dict[str, Any] = {"session": opened.number, "role": opened.role}
        if asked.get("cookie") is True:
            value = f"{COOKIE}={opened.bearer}; Path=/; Secure; HttpOnly; SameSite=Strict"
            value += f"; Max-Age={int(self._settings.session_max_s)}"
            self._respond(exchange, 200, {**told, "page": opened.page}, ((b"set-cookie", value.encode("ascii")),))
        else:
            self._respond(exchange, 200, {**told, "bearer": opened.bearer})

    def _caller(self, request: HttpRequest, peer: str) -> tuple[Caller, str]:
        """Who has signed in. Raises NotSignedInError."""
        given = request.header(b"authorization") or b""
        page: str | None = None
        if given:
            scheme, _, rest = given.partition(b" ")
            bearer = rest.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
        else:
            bearer = cookie_value(request.header(b"cookie") or b"", COOKIE)
            page = (request.header(PAGE_HEADER) or b"").decode("latin-1")
        if not bearer:
            raise NotSignedInError("nobody is signed in", "POST a one-time token to /v1/session.")
        caller = self.sessions.caller(bearer, page, peer)
        if caller is None:
            self._refuse(peer, "a session that is none, is over, or whose page is another")
            raise NotSignedInError("the session is none, or is over", "`seamline admin token` makes a token for one.")
        return caller, bearer

    def _session(self, exchange: Exchange, caller: Caller, bearer: str) -> None:
        match exchange.request.method:
            case "GET":
                self._respond(exchange, 200, {"session": caller.name.removeprefix("session "), "role": caller.role})
            case "DELETE":
                self.sessions.close(bearer)
                self._audit.write(
                    "authentication", "allow", principal=caller.name, action="sign out", resource="control API",
                    peer=caller.peer, always=True,
                )  # fmt: skip
                clear = f"{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0".encode("ascii")
                self._respond(exchange, 200, {}, ((b"set-cookie", clear),))
            case _:
                raise HttpRefusal(405, "method_not_allowed", "GET, POST or DELETE.", [(b"allow", b"GET, POST, DELETE")])

    async def _perform(self, exchange: Exchange, name: str, caller: Caller) -> None:
        # Who acts is who has signed in, whatever the body says.
        request = {**await _object(exchange.request), "who": caller.name, "by": caller.name}
        if _LINES not in (exchange.request.header(b"accept") or b""):
            result = await self._operations.perform(name, request, _Nothing(), caller)
            self._respond(exchange, 200, result)
            return
        answer, error = _LinesOut(exchange), None
        async with asyncio.TaskGroup() as group:
            group.create_task(answer.pump())
            try:
                answer.line({"done": True, "result": await self._operations.perform(name, request, answer, caller)})
            except SeamlineError as raised:
                error = raised
            if error is not None and answer.begun:
                answer.line({"error": error.to_json()})
            answer.end()
        if error is not None and not answer.begun:
            raise error
        exchange.end()

    def _respond(
        self, exchange: Exchange, status: int, content: Mapping[str, Any], more: tuple[Header, ...] = ()
    ) -> None:
        headers = [(b"content-type", _JSON), *_SECURE, *more]
        if status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="seamline control API"'))
        exchange.respond(status, headers, json.dumps(content, default=str).encode())

    def _refuse(self, peer: str, reason: str) -> None:
        self._audit.write(
            "authentication", "refuse", principal="", action="sign in", resource="control API", reason=reason, peer=peer
        )


class _Nothing:
    """Nobody hears the progress."""

    def line(self, content: Mapping[str, Any]) -> None:
        """Forget it."""

    def say(self, text: str) -> None:
        """Forget it."""

    async def flush(self) -> None:
        """Nothing waits."""


class _LinesOut:
    """The progress as lines of JSON, as it comes."""

    def __init__(self, exchange: Exchange) -> None:
        self.begun = False
        self._exchange = exchange
        self._waiting: list[bytes] = []
        self._more = asyncio.Event()
        self._ended = False

    def line(self, content: Mapping[str, Any]) -> None:
        self.begun = True
        self._waiting.append(json.dumps(content, default=str).encode() + b"\n")
        self._more.set()

    def say(self, text: str) -> None:
        self.line({"progress": text})

    def end(self) -> None:
        self._ended = True
        self._more.set()

    async def flush(self) -> None:
        """Write what waits, as fast as the client takes it."""
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        if not self._exchange.started:
            self._exchange.start(200, [(b"content-type", _LINES), *_SECURE])
        await self._exchange.write(b"".join(lines))

    async def pump(self) -> None:
        """Write until the end."""
        try:
            while not self._ended or self._waiting:
                await self._more.wait()
                self._more.clear()
                await self.flush()
        except Disconnected:
            return  # the handler is cancelled by the server


async def _object(request: HttpRequest) -> dict[str, Any]:
    """The request's body. Raises HttpRefusal."""
    body = await request.read_all()
    if body and (request.header(b"content-type") or b"").partition(b";")[0].strip().lower() != _JSON:
        # A form of another site cannot say this type without asking first.
        raise HttpRefusal(415, "unsupported_media_type", "Bodies are application/json.")
    try:
        found: Any = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HttpRefusal(400, "bad_request", "The body is a JSON object.")
    return cast("dict[str, Any]", found)


def _has_no_data(request: HttpRequest, path: str) -> bool:
    """Whether a request of the portal gets what is the same for everybody: the shell of a page, or a file of it.

    So a link on another site may lead there; what fills the shell asks with a header that no link can send.
    """
    asks = request.method in {"GET", "HEAD"}
    return asks and (path.startswith("/assets/") or request.header(b"hx-request") is None)


def _peer(exchange: Exchange) -> str:
    name = exchange.transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if name else ""


def _status_of(error: SeamlineError) -> int:
    match error:
        case NotSignedInError():
            return 401
        case NotAllowedError():
            return 403
        case UnknownTargetError():
            return 404
        case BusyError():
            return 409
        case ControlError():
            return 400
        case RunError():
            return 500
        case _:
            return 422
