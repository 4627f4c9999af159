"""One public port in front of the modules' routes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from seamline.gateway.asgi import AsgiApp
from seamline.gateway.headers import SECURITY, STRICT_TRANSPORT, Cors
from seamline.gateway.limits.addresses import TrustedProxies, host_of
from seamline.gateway.normal import Hosts
from seamline.gateway.routes import Route, RouteTable
from seamline.gateway.tls import CertificateFiles
from seamline.gateway.visit import Site, Visit
from seamline.gateway.websocket import GOING_AWAY, WebSocketRun
from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.settings.auth import loopback
from seamline.kernel.signal.metrics import EdgeStats
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.wire.http1 import Exchange, HttpLimits, HttpRefusal, HttpServer

if TYPE_CHECKING:
    from seamline.gateway.auth.door import Door, Record
    from seamline.gateway.limits.limiter import Limiter

OnRequest = Callable[[str, str, int, float], None]
"""Told of every answer: module (empty without a route), method, status, seconds."""

_log = logging.getLogger("seamline.gateway")

_TICK_S = 0.25
_BEAT_S = 20.0
_CERTIFICATE_S = 5.0


class Gateway:
    """Serves the public from one socket.

    Args:
        settings: ``[gateway]``.
        routes: which module answers where.
        apps: the ASGI app that is a module's public face, local or a tunnel; asked for each request.
        on_request: told of every answer.
        door: says who is asking; opened by :meth:`serve`, closed by :meth:`stop`.
        client_ca: PEM file of those who certify clients.
        hosts: names that the gateway answers to, beside those of ``[gateway] hosts`` or else of the routes.
        audit: told of what is turned away before anybody is asked who they are.
        limiter: counts requests; opened by :meth:`serve`, closed by :meth:`stop`.
        connections_per_address_max: of an IPv4 address or a /64 of IPv6; 0 is any number.
        tracer: counts requests by route, and takes their spans.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        routes: Iterable[Route],
        apps: Callable[[str], AsgiApp],
        *,
        on_request: OnRequest | None = None,
        clock: Clock | None = None,
        door: Door | None = None,
        client_ca: str = "",
        hosts: Iterable[str] = (),
        audit: Record | None = None,
        limiter: Limiter | None = None,
        connections_per_address_max: int = 0,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._names = tuple(hosts)
        self._audit = audit
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._limiter = limiter
        self._tracer = tracer or Tracer(0.0)
        self._door = door
        self._clock = clock or SystemClock()
        self._on_request = on_request
        self._certificate = (
            CertificateFiles(settings.tls_certificate, settings.tls_key, client_ca)
            if settings.tls_certificate
            else None
        )
        self._runners = Runners()
        self._server = HttpServer(
            self._handle,
            HttpLimits(
                head_bytes_max=settings.header_bytes_max,
                body_bytes_max=settings.body_bytes_max,
                head_timeout_s=settings.head_timeout_s,
                idle_timeout_s=settings.idle_timeout_s,
                connections_max=settings.connections_max,
                connections_per_peer_max=connections_per_address_max,
            ),
            runners=self._runners,
            on_connect=_introduce,
            peer_of=self._peer_of,
            on_refused=self._malformed,
            scheme="http" if self._certificate is None else "https",
            clock=self._clock,
            cancel_on_disconnect=False,
        )
        self._apps = apps
        self._site: Site | None = None
        self._stats: dict[str, EdgeStats] = {}
        self._visits: set[Visit] = set()
        self._listener: asyncio.AbstractServer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_beat = self._clock.monotonic() + _BEAT_S
        self._next_certificate = self._clock.monotonic() + _CERTIFICATE_S
        self._table = RouteTable()
        self.set_routes(routes)

    def set_routes(self, routes: Iterable[Route]) -> None:
        """Replace the routes; requests under way end where they began. Raises RouteError."""
        self._table = RouteTable(routes)
        if self._site is not None:
            self._site.hosts = self._hosts()
        largest = max([self._settings.body_bytes_max, *(route.body_bytes_max for route in self._table.routes)])
        self._server.limits = replace(self._server.limits, body_bytes_max=largest)

    async def serve(self, sock: socket.socket) -> None:
        """Start to answer on a bound socket; returns at once. Raises CertificateError, AuthenticationError."""
        loop = asyncio.get_running_loop()
        if self._door is not None:
            await self._door.open(self._server.scheme, sock.getsockname()[:2])
        if self._limiter is not None:
            await self._limiter.open()
        self._site = self._make_site(loop)
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {"ssl": self._certificate.context, "ssl_handshake_timeout": self._settings.head_timeout_s}
        self._listener = await loop.create_server(self._server.protocol, sock=sock, backlog=2048, **tls)
        self._timer = loop.call_later(_TICK_S, self._tick)

    def _make_site(self, loop: asyncio.AbstractEventLoop) -> Site:
        settings = self._settings
        cors = Cors(
            settings.cors_origins,
            settings.cors_methods,
            settings.cors_headers,
            settings.cors_credentials,
            settings.cors_age_max_s,
        )
        defaults = SECURITY if settings.security_headers else ()
        if self._certificate is not None and settings.security_headers:
            defaults = (*defaults, STRICT_TRANSPORT)
        return Site(
            settings=settings,
            apps=self._apps,
            scheme=self._server.scheme,
            cors=cors if settings.cors_origins else None,
            defaults=defaults,
            loop=loop,
            hosts=self._hosts(),
            proxies=self._proxies,
            door=self._door,
            audit=self._audit,
            limiter=self._limiter,
            tracer=self._tracer,
        )

    def _peer_of(self, transport: asyncio.Transport) -> str | None:
        """Whom a connection counts for: nobody, if it is this machine's or a proxy's."""
        address = cast("object", transport.get_extra_info("peername"))
        if not isinstance(address, tuple):
            return None
        host = cast("tuple[str, int]", address)[0]
        return None if loopback(host) or self._proxies.trusts(host) else host_of(host)

    def _hosts(self) -> Hosts:
        named = self._settings.hosts or [route.host for route in self._table.routes if route.host]
        return Hosts([*named, *self._names])

    async def drain(self, timeout_s: float) -> bool:
        """Accept nobody new, finish what came, ask WebSockets to come back. False when time ran out."""
        if self._listener is not None:
            self._listener.close()
        for visit in list(self._visits):
            if isinstance(visit.run, WebSocketRun):
                visit.run.part(GOING_AWAY)
        return await self._server.drain(timeout_s)

    async def stop(self) -> None:
        """Cut off whoever is still there."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.close()
        await self._server.close()
        await self._runners.stop()
        if self._door is not None:
            await self._door.close()
        if self._limiter is not None:
            await self._limiter.close()

    def stats(self) -> dict[str, Any]:
        """Connections, requests under way, and for each module calls, errors (5xx) and latencies; for JSON."""
        return {
            "connections": self._server.connections,
            "inflight": self._server.inflight,
            "websockets": sum(isinstance(visit.run, WebSocketRun) for visit in self._visits),
            "routes": [{"module": module, **stats.snapshot()} for module, stats in self._stats.items()],
        }

    def sweep(self) -> None:
        """Enforce request timeouts, beat WebSockets, follow the certificate. Runs by itself while serving."""
        now = self._clock.monotonic()
        for visit in list(self._visits):
            if visit.late(now):
                visit.give_up()
        if now >= self._next_beat:
            self._next_beat = now + _BEAT_S
            for visit in list(self._visits):
                if isinstance(visit.run, WebSocketRun):
                    visit.run.beat()
        if self._certificate is not None and now >= self._next_certificate:
            self._next_certificate = now + _CERTIFICATE_S
            self._certificate.refresh()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self.sweep()

    async def _handle(self, exchange: Exchange) -> None:
        now = self._clock.monotonic
        started = now()
        assert self._site is not None
        visit = Visit(self._site, self._table, exchange, started)
        self._visits.add(visit)
        try:
            await visit.serve()
        finally:
            self._visits.discard(visit)
            self._count(visit, now() - started)
            visit.tell()

    def _malformed(self, state: dict[str, Any], refusal: HttpRefusal) -> None:
        """Write down what is no request, or never became one."""
        if self._audit is not None:
            peer = state["client_host"].decode()
            self._audit("refuse", principal="", action="http", resource="", reason=refusal.message, peer=peer)

    def _count(self, visit: Visit, seconds: float) -> None:
        status, module = visit.status, visit.module
        if status != 101:
            stats = self._stats.get(module)
            if stats is None:
                stats = self._stats[module] = EdgeStats()
            stats.record(seconds, "" if status < 500 else "5xx")
        if self._on_request is not None:
            self._on_request(module, visit.exchange.request.method, status, seconds)


def _introduce(transport: asyncio.Transport, state: dict[str, Any]) -> None:
    """Note both ends of a connection as ASGI tells them."""
    for key, name in (("client", "peername"), ("server", "sockname")):
        address = cast("object", transport.get_extra_info(name))
        state[key] = tuple(cast("tuple[str, int]", address)[:2]) if isinstance(address, tuple) else None
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is not None and tls.context.verify_mode is not ssl.CERT_NONE:
        state["client_certificate"] = tls.getpeercert(binary_form=True)
    state["peer"] = state["client"][0] if state["client"] else None
    state["client_host"] = state["client"][0].encode() if state["client"] else b"unknown"
