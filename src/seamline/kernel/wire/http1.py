"""An HTTP/1.1 server on httptools that bounds everything a client can take.

It exists beside well-known servers because the mesh needs what they do not give: the peer's
certificate, limits on heads, and a drain after which no keep-alive client has lost a request.

    HttpServer      limits, drain, the sweep that enforces timeouts
    HttpConnection  one client: parse, queue pipelined requests, run handlers (http1_connection)
    KnownHead       a head that comes again, which is not parsed again (http1_again)
    Exchange        one request and its answer (http1_exchange)
    HttpRequest     head, body, limits (http1_message)
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import Runners, Running
from seamline.kernel.wire.http1_connection import HttpConnection
from seamline.kernel.wire.http1_exchange import Exchange, RawStream
from seamline.kernel.wire.http1_message import (
    Disconnected,
    Header,
    HttpLimits,
    HttpRefusal,
    HttpRequest,
    date_line,
)

__all__ = [
    "Disconnected",
    "Exchange",
    "Handler",
    "Header",
    "HttpConnection",
    "HttpLimits",
    "HttpRefusal",
    "HttpRequest",
    "HttpServer",
    "RawStream",
]

Handler = Callable[[Exchange], Coroutine[Any, Any, None]]

_log = logging.getLogger("seamline.http")


class HttpServer:
    """Gives connections their limits and handler; ``protocol`` is what ``create_server`` takes.

    ``on_connect(transport, state)`` may fill the connection's state, or raise to refuse the client.
    ``peer_of(transport)`` names whom a connection counts for, or None for nobody. With ``cancel_on_disconnect`` a
    handler is cancelled when its client goes away. ``on_refused(state, refusal)`` hears of what is no request that a
    handler could see.
    """

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits | None = None,
        *,
        runners: Runners,
        on_connect: Callable[[asyncio.Transport, dict[str, Any]], None] | None = None,
        peer_of: Callable[[asyncio.Transport], str | None] | None = None,
        on_refused: Callable[[dict[str, Any], HttpRefusal], None] | None = None,
        scheme: str = "http",
        clock: Clock | None = None,
        cancel_on_disconnect: bool = True,
    ) -> None:
        self.handler = handler
        self.limits = limits or HttpLimits()
        self.on_connect = on_connect
        self.on_refused = on_refused
        self._peer_of = peer_of
        self._peers: Counter[str] = Counter()
        self.scheme = scheme
        self.cancel_on_disconnect = cancel_on_disconnect
        self.open_connections: set[HttpConnection] = set()
        self.inflight = 0
        self.draining = False
        self._runners = runners
        self._clock = clock or SystemClock()
        self.now = self._clock.monotonic()  # as of the last sweep: exact enough, and free to read
        self.date = date_line(self._clock.now().timestamp())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._drain_since = 0.0
        self._idle_grace_s = 0.0
        shortest = min(
            self.limits.head_timeout_s,
            self.limits.body_timeout_s,
            self.limits.idle_timeout_s,
            self.limits.write_timeout_s,
        )
        self._sweep_interval_s = min(1.0, max(0.02, shortest / 4))

    @property
    def connections(self) -> int:
        return len(self.open_connections)

    def protocol(self) -> HttpConnection:
        return HttpConnection(self)

    async def drain(self, timeout_s: float, idle_grace_s: float = 2.0) -> bool:
        """Answer what comes with ``connection: close`` until every client has gone.

        An idle connection is closed after ``idle_grace_s``, so that a request that was already on
        its way is still answered. True when nobody had to be cut off at ``timeout_s``.
        """
        self.draining = True
        self._drain_since = self._clock.monotonic()
        self._idle_grace_s = idle_grace_s
        self._sweep_interval_s = min(self._sweep_interval_s, 0.1)
        if not self.open_connections:
            return True
        self._schedule()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            await self.close()
            return False
        return True

    async def close(self) -> None:
        """Cut every connection off."""
        for connection in list(self.open_connections):
            connection.transport.abort()
        await self._empty.wait()

    def sweep(self) -> None:
        """Enforce the timeouts. Runs by itself while there are connections."""
        now = self._clock.monotonic()
        elapsed_s = now - self.now
        self.now = now
        self.date = date_line(self._clock.now().timestamp())
        for connection in list(self.open_connections):
            connection.sweep(now, elapsed_s)

    # What a connection calls.

    def begin(self, connection: HttpConnection, exchange: Exchange) -> Running:
        self.inflight += 1
        return self._runners.start(self._run(connection, exchange))

    async def _run(self, connection: HttpConnection, exchange: Exchange) -> None:
        exchange.begun = True
        try:
            if not exchange.disconnected:
                await self.handler(exchange)
        except HttpRefusal as refusal:
            if not exchange.started:
                exchange.refuse(refusal)
        except Disconnected:
            pass
        except Exception:
            _log.exception("%s %r failed", exchange.request.method, exchange.request.path)
        finally:
            self.inflight -= 1
            connection.handled(exchange)

    def joined(self, connection: HttpConnection) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self.open_connections.add(connection)
        if self._peer_of is not None:
            connection.peer = peer = self._peer_of(connection.transport)
            if peer is not None:
                self._peers[peer] += 1
        self._empty.clear()
        if self._timer is None:
            self.now = self._clock.monotonic()
            self.date = date_line(self._clock.now().timestamp())
            self._schedule()

    def left(self, connection: HttpConnection) -> None:
        self.open_connections.discard(connection)
        peer, connection.peer = connection.peer, None
        if peer is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
        if not self.open_connections:
            self._empty.set()

    def crowded(self, connection: HttpConnection) -> bool:
        """Whether its peer has more connections than one may have."""
        most = self.limits.connections_per_peer_max
        return bool(most) and connection.peer is not None and self._peers[connection.peer] > most

    def grace_over(self, now: float, idle_since: float) -> bool:
        return self.draining and now - max(idle_since, self._drain_since) >= self._idle_grace_s

    def later(self, callback: Callable[[], object]) -> None:
        assert self._loop is not None
        self._loop.call_soon(callback)

    def close_later(self, transport: asyncio.Transport, delay_s: float) -> None:
        assert self._loop is not None
        self._loop.call_later(delay_s, transport.close)

    def new_future(self) -> asyncio.Future[None]:
        assert self._loop is not None
        return self._loop.create_future()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        assert self._loop is not None
        self._timer = self._loop.call_later(self._sweep_interval_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.sweep()
        if self.open_connections:
            self._schedule()
