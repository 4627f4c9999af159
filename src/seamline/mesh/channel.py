"""Channels: the connection from one module to another's replica, opened on first need and replaced in time."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import Ahead
from seamline.mesh.connection import ClientConnection, ClientDuplex, OnLoad, fresh
from seamline.mesh.errors import IdentityError
from seamline.mesh.identity import explain_tls_failure
from seamline.mesh.outcome import deadline_exceeded
from seamline.module.context import CallContext
from seamline.module.errors import CallError, Unauthenticated, Unavailable, Unreachable

if TYPE_CHECKING:
    from seamline.kernel.settings import MeshSettings
    from seamline.mesh.balance import Endpoint
    from seamline.mesh.edge import Edge
    from seamline.mesh.identity import WorkloadIdentity

CONNECT_TIMEOUT_S = 5.0


class Channel(Protocol):
    """A way to call one replica as one module."""

    @property
    def open(self) -> bool:
        """Whether it may be called now, without :meth:`ready`."""
        ...

    def unary(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> Coroutine[Any, Any, bytes]: ...

    def stream(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> AsyncGenerator[bytes]: ...

    async def ready(self, deadline: float) -> None:
        """Be connected. Raises Unavailable, Unauthenticated or DeadlineExceeded."""
        ...

    async def close(self, timeout_s: float) -> None: ...


class FrameChannel:
    """A channel that speaks ``seamline/1``."""

    def __init__(
        self, identity: WorkloadIdentity, settings: MeshSettings, app: str, caller: str, callee: str, endpoint: Endpoint
    ) -> None:
        del app  # the frames name methods without it
        self._identity = identity
        self._settings = settings
        self._caller = caller
        self._callee = callee
        self._endpoint = endpoint
        self._connection: ClientConnection | None = None
        self._opening: asyncio.Task[ClientConnection] | None = None
        self._draining: set[ClientConnection] = set()
        self._replace_at = 0.0
        self._shut = False
        self.on_load: OnLoad = _unheard
        """Told what the replica tells of its load."""

    @property
    def connection(self) -> ClientConnection | None:
        """The one that serves now, if any does."""
        return self._connection if self._connection is not None and not self._connection.closed else None

    @property
    def open(self) -> bool:
        connection = self._connection
        return (
            connection is not None
            and not connection.draining
            and not connection.closed
            and monotonic() < self._replace_at
        )

    async def ready(self, deadline: float) -> None:
        connection = self._connection
        if connection is not None and not connection.draining and not connection.closed:
            if monotonic() >= self._replace_at and self._opening is None:
                self._begin_opening()  # the old one serves until the new one is there
            return
        if self._shut:
            raise _unreached(f"module {self._callee!r} has moved from {self._endpoint.address}")
        opening = self._opening or self._begin_opening()
        left = deadline - monotonic()
        done, _ = await asyncio.wait({opening}, timeout=left if left < CONNECT_TIMEOUT_S + 1 else None)
        if not done:
            raise deadline_exceeded(f"connecting to {self._callee}")
        if self._opening is opening:  # it ended in the very turn in which the time did, and is not in its place yet
            await asyncio.sleep(0)
        if opening.cancelled():
            raise _unreached(f"module {self._callee!r} has moved from {self._endpoint.address}")
        error = opening.exception()
        if isinstance(error, CallError):
            raise fresh(error)  # many calls wait for one connection
        verdict = opening.result().verdict
        if verdict is not None:
            raise fresh(verdict)

    def _begin_opening(self) -> asyncio.Task[ClientConnection]:
        self._opening = asyncio.get_running_loop().create_task(self._open())
        self._opening.add_done_callback(self._opened)
        return self._opening

    def _opened(self, task: asyncio.Task[ClientConnection]) -> None:
        self._opening = None
        if task.cancelled() or task.exception() is not None:
            self._replace_at = monotonic() + CONNECT_TIMEOUT_S
            return
        old, new = self._connection, task.result()
        self._replace_at = new.opened + self._settings.connection_age_max_s * random.uniform(0.8, 1.0)
        if new.closed or new.draining:
            return  # the peer was leaving; the next call tries again
        self._connection = new
        if old is not None:
            self._draining.add(old)
            old.drain()

    async def _open(self) -> ClientConnection:
        endpoint, callee = self._endpoint, self._callee
        peer = f"module {callee!r} at {endpoint.address}"
        settings = self._settings
        loop = asyncio.get_running_loop()
        try:
            context = self._identity.client_context(self._caller, frames.ALPN)
        except IdentityError as error:
            raise Unauthenticated(f"module {self._caller!r} cannot call {peer}: {error.fact}", error.remedy) from None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                transport, connection = await loop.create_connection(
                    lambda: ClientConnection(
                        peer,
                        payload_bytes_max=settings.frame_bytes_max,
                        credit=settings.stream_credit_bytes,
                        keepalive_s=settings.keepalive_s,
                        inflight_max=settings.inflight_per_connection_max,
                        on_closed=self._closed,
                        on_load=self._loaded,
                    ),
                    endpoint.host,
                    endpoint.port,
                    ssl=context,
                    server_hostname=self._identity.server_name(callee),
                )
        except TimeoutError:
            raise _unreached(f"{peer} did not accept a connection within {CONNECT_TIMEOUT_S:g} s") from None
        except ssl.SSLError as error:
            refused = Unavailable(
                f"{peer} could not be reached: {explain_tls_failure(error)}",
                "Compare trust domain, application and expiry of both certificates.",
            )
            refused.started = False
            raise refused from None
        except OSError as error:
            raise _unreached(f"{peer} could not be reached: {explain_tls_failure(error)}") from None
        try:
            self._identity.authenticate(transport.get_extra_info("ssl_object"), expect=callee)
        except Exception as error:
            connection.abort()
            raise Unauthenticated(f"{peer} did not prove that it is {callee!r}: {error}") from None
        return connection

    def _closed(self, connection: ClientConnection) -> None:
        if self._connection is connection:
            self._connection = None
            self.on_load(monotonic(), 0, None)  # who has gone has nothing to do
        if connection.closed:
            self._draining.discard(connection)
        else:
            self._draining.add(connection)

    def _loaded(self, now: float, under_way: int, ahead: Ahead | None) -> None:
        self.on_load(now, under_way, ahead)

    def _usable(self) -> ClientConnection:
        connection = self._connection
        if connection is None or connection.closed:
            if self._shut:
                raise _unreached(f"module {self._callee!r} has moved from {self._endpoint.address}")
            raise _unreached(f"the connection to module {self._callee!r} was lost before the call was sent")
        return connection

    def unary(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> Coroutine[Any, Any, bytes]:
        return self._usable().unary(edge.spec, edge.faults, body, context, upstream, edge.proof(context))

    def stream(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> AsyncGenerator[bytes]:
        return self._usable().stream(edge.spec, edge.faults, body, context, upstream, edge.proof(context))

    def duplex(self, module: str, trace: TraceContext | None, proof: str | None = None) -> ClientDuplex:
        """A raw stream to the module's public HTTP face."""
        return self._usable().duplex(f"http:{module}", trace, proof)

    async def close(self, timeout_s: float) -> None:
        """Finish what is under way, at most ``timeout_s`` seconds, and close."""
        self._shut = True
        if self._opening is not None:
            self._opening.cancel()
        connections = {c for c in (self._connection, *self._draining) if c is not None and not c.closed}
        for connection in connections:
            connection.drain()
        end = monotonic() + timeout_s
        try:
            while any(not c.closed for c in connections) and monotonic() < end:  # noqa: ASYNC110  # many to wait for
                await asyncio.sleep(0.01)
        finally:
            for connection in connections:
                connection.abort()


def _unheard(_now: float, _under_way: int, _ahead: Ahead | None) -> None:
    """Nobody balances by it."""


def _unreached(fact: str) -> Unreachable:
    return Unreachable(fact, "Is its workload running? `seamline status` tells.")
