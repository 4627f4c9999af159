"""The way of streams to the service: through here, so that one that goes on can be ended when it may no longer.

Envoy asks about a call once, at its start. A call with one answer is over soon; a stream may go on for hours, so what
says who is revoked stands in its way. Messages pass whole: an end of ours never stands within one of theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.deploy.sidecar.envoy import BROKEN, CALLER, GONE, SUBJECT
from seamline.kernel.lifetime import Runners
from seamline.kernel.wire.http1 import Exchange, HttpLimits, HttpRequest, HttpServer
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool, HttpResponse
from seamline.mesh.connect import END_STREAM, HTTP_STATUS, EnvelopeError, EnvelopeReader, envelope, error_json
from seamline.mesh.http_wire import STREAMS_LARGER, answer_error
from seamline.mesh.outcome import error_body
from seamline.module.errors import CallError, Unauthenticated
from seamline.run.sockets import listen_unix

if TYPE_CHECKING:
    import asyncio

    from seamline.kernel.wire.frames import ErrorBody
    from seamline.mesh.identity.revocation import Revocations
    from seamline.module.principal import Subject

_HOPS = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"te", b"upgrade"})
_JSON = ((b"content-type", b"application/json"),)


class Relay:
    """Hands streams to the service, and ends those of whoever is revoked or quarantined.

    Args:
        revocations: of this process.
        module: the one that the service answers for.
        subject_of: on whose behalf a call is made that has passed the check, by the proof it came with.
        service: where it listens.
        message_bytes_max: of one message; a stream upwards has the bound of the JSON wire.
    """

    def __init__(
        self,
        revocations: Revocations,
        module: str,
        subject_of: Callable[[str], Subject | None],
        service: int | Path,
        message_bytes_max: int,
    ) -> None:
        self._revocations = revocations
        self._module = module
        self._subject_of = subject_of
        self._service = service
        self._bytes_max = message_bytes_max
        self._runners = Runners()
        limits = HttpLimits(body_bytes_max=message_bytes_max * STREAMS_LARGER)
        self._http = HttpServer(self._handle, limits, runners=self._runners)
        self._server: asyncio.Server | None = None
        self._under_way: dict[Exchange, str] = {}
        revocations.on_quarantine.append(self._set_apart)

    async def listen(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._server = await loop.create_unix_server(self._http.protocol, sock=listen_unix(path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._http.close()
        await self._runners.stop()

    def _set_apart(self) -> None:
        """Break off what goes on for modules that are quarantined now."""
        for exchange, caller in list(self._under_way.items()):
            if any(self._revocations.refuses_module(name) is not None for name in (caller, self._module)):
                exchange.transport.abort()

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        self._under_way[exchange] = (request.header(CALLER.encode()) or b"").decode("latin-1")
        try:
            with self._revocations.bound(self._subject(request)):
                await self._pass(exchange)
        except CallError as error:
            if exchange.started:
                _end(exchange, error_body(error))
            else:
                answer_error(exchange, error)
        finally:
            del self._under_way[exchange]

    def _subject(self, request: HttpRequest) -> Subject | None:
        """What the check has found just now. Raises Unauthenticated."""
        proof = (request.header(SUBJECT.encode()) or b"").decode("latin-1")
        if not proof:
            return None
        subject = self._subject_of(proof)
        if subject is None:
            raise Unauthenticated("nobody is known by this proof", "Ask again.")
        return subject

    async def _pass(self, exchange: Exchange) -> None:
        request = exchange.request
        host = (request.header(b"host") or b"localhost").decode("latin-1")
        port, path = (self._service, None) if isinstance(self._service, int) else (0, self._service)
        # A connection of its own: what is kept alive may have been closed, and a stream is not begun twice.
        pool = HttpPool("127.0.0.1", port, connections_max=1, host_header=host, path=path)
        try:
            headers = [header for header in request.headers if header[0] not in _HOPS]
            body = request.body if request.body is not None else _upwards(request)
            response = await pool.request(request.method, request.path, headers, body, duplex=True)
            if response.status == 200:
                await self._answer(exchange, response)
            else:
                kind = [header for header in response.headers if header[0] == b"content-type"]
                exchange.respond(response.status, kind, await response.read_all(self._bytes_max))
        except HttpClientError as error:
            _fail(exchange, BROKEN if error.sent else GONE)
        finally:
            await pool.close()

    async def _answer(self, exchange: Exchange, response: HttpResponse) -> None:
        reader = EnvelopeReader(self._bytes_max)
        exchange.start(200, [header for header in response.headers if header[0] not in _HOPS])
        try:
            while chunk := await response.read():
                for flags, message in reader.feed(chunk):
                    if flags & END_STREAM:
                        exchange.end(envelope(message, flags))
                        return
                    await exchange.write(envelope(message, flags))
        except EnvelopeError:
            pass
        _end(exchange, BROKEN)


async def _upwards(request: HttpRequest) -> AsyncIterator[bytes]:
    while chunk := await request.read():
        yield chunk


def _fail(exchange: Exchange, body: ErrorBody) -> None:
    if exchange.started:
        _end(exchange, body)
    elif not exchange.disconnected:
        exchange.respond(HTTP_STATUS[body.code], _JSON, msgspec.json.encode(error_json(body)))


def _end(exchange: Exchange, body: ErrorBody) -> None:
    closing: dict[str, Any] = {"error": error_json(body)}
    if not exchange.ended:
        exchange.end(envelope(msgspec.json.encode(closing), END_STREAM))
