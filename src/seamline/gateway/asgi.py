"""One exchange of the wire as an ASGI app sees it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, cast

from seamline.gateway.compression import Gzip, compressible, encoded
from seamline.gateway.errors import AppProtocolError
from seamline.kernel.wire.http1 import Disconnected, Exchange, Header, HttpRefusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Shape = Callable[[int, list[Header]], list[Header]]
"""What the gateway makes of an app's answer headers."""

_SLICE_BYTES = 65_536  # compressed at a time, before others have their turn
_ASGI = {"version": "3.0", "spec_version": "2.3"}


def make_scope(
    exchange: Exchange, kind: str, scheme: str, path: str, root_path: str, headers: list[Header]
) -> dict[str, Any]:
    """The ASGI scope of a request; ``path`` is decoded and holds ``root_path``, as ASGI has it."""
    request = exchange.request
    return {
        "type": kind,
        "asgi": _ASGI,
        "http_version": request.http_version,
        "scheme": scheme,
        "method": request.method,
        "path": path,
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": root_path,
        "headers": headers,
        "client": exchange.connection_state.get("client"),
        "server": exchange.connection_state.get("server"),
        "state": {},
        "extensions": {},
    }


class AsgiExchange:
    """``receive`` and ``send`` of one HTTP request.

    An answer that comes in one piece leaves in one write. Otherwise the head leaves as soon as the app
    waits for something, so that the client of a slow stream sees it at once.
    """

    __slots__ = (
        "_asked", "_coder", "_error", "_exchange", "_finished", "_flush", "_gzip_bytes_min", "_head_waits",
        "_headers", "_loop", "_shape", "_stepping", "refused", "status",
    )  # fmt: skip

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, shape: Shape, gzip_bytes_min: int | None
    ) -> None:
        self._exchange = exchange
        self._loop = loop
        self._shape = shape
        self._gzip_bytes_min = gzip_bytes_min
        self._headers: list[Header] = []
        self._coder: Gzip | None = None
        self._flush: asyncio.Handle | None = None
        self._head_waits = False
        self._stepping = False
        self._finished = False
        self._asked = False
        self._error: Exception | None = None
        self.status = 0
        self.refused: HttpRefusal | None = None

    @property
    def unanswered(self) -> bool:
        """Nothing has been sent to the client."""
        return not self._exchange.started

    async def receive(self) -> Message:
        exchange = self._exchange
        if not self._asked and self.refused is None:
            request = exchange.request
            try:
                body = await request.read()
            except HttpRefusal as refusal:
                self.refused = refusal
                return {"type": "http.disconnect"}
            except Disconnected:
                return {"type": "http.disconnect"}
            self._asked = request.complete
            return {"type": "http.request", "body": body, "more_body": not request.complete}
        if self.refused is None:
            await exchange.wait_disconnected()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._error is not None:
            raise self._error
        if self.refused is not None or self._exchange.disconnected:
            raise Disconnected("the client is not served any more")
        match message["type"]:
            case "http.response.start":
                if self.status:
                    raise AppProtocolError("the app started its answer twice")
                status = cast("int", message["status"])
                if status < 200:  # a client would take what follows for another answer
                    raise AppProtocolError(f"the app answered with {status}, which is not the end of an answer")
                self.status = status
                self._headers = self._shape(self.status, list(message.get("headers") or ()))
                self._head_waits = True
                if not self._stepping:  # a task of the app's own sends: look again when it has had its turn
                    self._flush = self._loop.call_soon(self.flush_head)
            case "http.response.body":
                if not self.status or self._finished:
                    raise AppProtocolError("the app sent a body outside its answer")
                await self._body(message.get("body", b""), message.get("more_body", False))
            case kind:
                raise AppProtocolError(f"the app sent {kind!r} in answer to an HTTP request")

    @types.coroutine
    def run(self, app: AsgiApp, scope: Scope) -> Generator[Any, Any, None]:
        """Await the app, and send a waiting head whenever it suspends.

        To look in the next turn of the loop instead would cost every request a poll of the sockets.
        """
        steps: Generator[Any, Any, None] = app(scope, self.receive, self.send).__await__()
        step: Callable[[Any], Any] = steps.send
        argument: Any = None
        try:
            while True:
                self._stepping = True
                try:
                    awaited = step(argument)
                except StopIteration:
                    return
                finally:
                    self._stepping = False
                if self._head_waits:
                    self.flush_head()
                try:
                    step, argument = steps.send, (yield awaited)
                except GeneratorExit:
                    raise
                except BaseException as error:  # the app's to handle
                    step, argument = steps.throw, error
        finally:
            steps.close()
            self._head_waits = False  # the app is over: a head that no body followed is not sent
            if self._flush is not None:
                self._flush.cancel()

    def flush_head(self) -> None:
        if not self._head_waits:
            return
        self._head_waits = False
        if self._exchange.started or self._exchange.disconnected:
            return
        try:
            self._start()
        except ValueError as error:
            self._error = error

    def _start(self) -> None:
        headers = self._headers
        if self._gzip_bytes_min is not None and compressible(self.status, headers):
            length = next((int(value) for name, value in headers if name == b"content-length"), None)
            if length is None or length >= self._gzip_bytes_min:
                self._coder = Gzip()
                headers = encoded(headers)
        self._exchange.start(self.status, headers)

    async def _body(self, body: bytes, more: bool) -> None:
        exchange = self._exchange
        self._head_waits = False
        if not exchange.started:
            if not more and exchange.request.method != "HEAD":
                await self._whole(body)
                return
            self._start()
        self._finished = not more
        coder = self._coder
        if coder is None:
            if more:
                await exchange.write(body)
            else:
                exchange.end(body)
        elif more:
            await exchange.write(coder.feed(body) + coder.flush() if body else b"")
        else:
            exchange.end(coder.feed(body) + coder.finish())

    async def _whole(self, body: bytes) -> None:
        self._finished = True
        headers = self._headers
        smallest = self._gzip_bytes_min
        sized = False
        if smallest is not None and len(body) >= smallest and compressible(self.status, headers):
            headers = encoded(headers)
            body = await _compressed(body)
        else:
            told = [value for name, value in headers if name == b"content-length"]
            sized = told == [b"%d" % len(body)]
            if told and not sized:
                headers = [header for header in headers if header[0] != b"content-length"]
        self._exchange.respond(self.status, headers, body, sized=sized)


async def _compressed(body: bytes) -> bytes:
    coder = Gzip()
    if len(body) <= _SLICE_BYTES:
        return coder.feed(body) + coder.finish()
    parts: list[bytes] = []
    for start in range(0, len(body), _SLICE_BYTES):
        parts.append(coder.feed(body[start : start + _SLICE_BYTES]))
        await asyncio.sleep(0)
    parts.append(coder.finish())
    return b"".join(parts)
