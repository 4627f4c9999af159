"""ASGI over a stream of byte messages, so that a module in another process serves its routes.

Each message is one MessagePack map. The gateway's end sends the scope, then what ``receive`` yields; the
module's end sends what the app sends. A stream that ends is a client that has gone, or an app that is done;
an app that fails says so in a last message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol, Required, TypedDict, cast

import msgspec

from seamline.gateway.asgi import AsgiApp, Message, Receive, Scope, Send
from seamline.gateway.errors import TunnelError
from seamline.gateway.told import ROUTE
from seamline.kernel.wire.http1 import Disconnected
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

_log = logging.getLogger("seamline.gateway")

_PIECE_BYTES = 32_768
_FAILED = "seamline.failed"
_NEXT = "next"
_ROUTE = "route"
_HEADS = frozenset({"http.response.start", "websocket.accept"})
_PARTING_S = 5.0
_SCOPE_KEYS = (
    "type", "http_version", "scheme", "method", "path", "raw_path", "query_string", "root_path", "headers",
    "client", "server", "subprotocols", "extensions",
)  # fmt: skip
_FAILURES: dict[str, type[CallError]] = {
    kind.__name__: kind
    for kind in (DeadlineExceeded, Overloaded, PermissionDenied, Unauthenticated, Unavailable, Unimplemented)
}
_encode = msgspec.msgpack.Encoder().encode


class _Wire(TypedDict, total=False):
    """Every field of the ASGI messages and scopes that travel; others are dropped."""

    type: Required[str]
    headers: list[tuple[bytes, bytes]]
    body: bytes
    more_body: bool
    status: int
    trailers: bool
    text: str | None
    bytes: bytes | None
    code: int | None
    reason: str | None
    subprotocol: str | None
    kind: str
    after_s: float
    route: str
    next: _Wire
    http_version: str
    scheme: str
    method: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    subprotocols: list[str]
    extensions: dict[str, dict[str, Any]]


_decode = msgspec.msgpack.Decoder(_Wire).decode


class Duplex(Protocol):
    """A stream of messages both ways. ``send`` waits while the other side does not keep up."""

    async def send(self, message: bytes, /) -> None: ...
    async def receive(self) -> bytes | None:
        """The next message; None at the end."""
        ...

    async def end(self) -> None:
        """Send no more."""
        ...

    def cancel(self) -> None: ...


class TunnelApp:
    """An ASGI app that is served at the other end of a stream; one stream per request."""

    def __init__(self, open_stream: Callable[[Scope], Awaitable[Duplex]]) -> None:
        self._open_stream = open_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = await self._open_stream(scope)
        try:
            await stream.send(_encode({key: scope[key] for key in _SCOPE_KEYS if key in scope}))
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(_pump(stream, receive))
                try:
                    await self._relay(stream, scope, send)
                except Disconnected:
                    await _part(stream)
                    raise
                pump.cancel()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        except Disconnected:
            raise
        except ConnectionError as error:
            raise Unavailable(f"the way to the module broke: {error}") from error
        finally:
            stream.cancel()

    async def _relay(self, stream: Duplex, scope: Scope, send: Send) -> None:
        while (data := await stream.receive()) is not None:
            message = _message(data)
            if message["type"] == _FAILED:
                raise _failure(message)
            route = message.pop(_ROUTE, None)
            if route is not None:
                scope[ROUTE] = route
            following = message.pop(_NEXT, None)
            await send(message)
            if following is not None:
                await send(following)


async def _part(stream: Duplex) -> None:
    """The client has gone, and the app is being told: let it end in its own way, for a while."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_PARTING_S):
            while await stream.receive() is not None:
                pass


async def _pump(stream: Duplex, receive: Receive) -> None:
    """Send what the client sends, until it has gone."""
    try:
        while True:
            message = await receive()
            for piece in _pieces(message):
                await stream.send(_encode(piece))
            if message["type"].endswith(".disconnect"):
                await stream.end()
                return
    except ConnectionError:
        return  # the relay hears of it as well, and tells


def _pieces(message: Message) -> Iterator[Message]:
    """A message, its body cut into pieces that share a connection with others well."""
    body: bytes = message.get("body") or b""
    if len(body) <= _PIECE_BYTES:
        yield message
        return
    view = memoryview(body)
    for start in range(0, len(view), _PIECE_BYTES):
        more = bool(message.get("more_body")) or start + _PIECE_BYTES < len(view)
        yield {**message, "body": bytes(view[start : start + _PIECE_BYTES]), "more_body": more}


def _message(data: bytes) -> Message:
    try:
        return cast("Message", _decode(data))
    except msgspec.DecodeError as error:
        raise TunnelError(f"a message cannot be read: {error}") from error


def _scope(data: bytes) -> Scope:
    scope = _message(data)
    if scope["type"] not in ("http", "websocket") or "path" not in scope:
        raise TunnelError(f"a stream begins with {scope['type']!r} instead of a request")
    scope.setdefault("headers", [])
    scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
    scope["state"] = {}
    return scope


async def serve_tunnel(stream: Duplex, app: AsgiApp, known: Mapping[str, Any] | None = None) -> None:
    """Serve one request that comes over ``stream``; the module's end of a :class:`TunnelApp`.

    ``known`` goes into the scope: what this side knows of the request by itself.
    """
    first = await stream.receive()
    if first is None:
        return
    scope = {**_scope(first), **(known or {})}
    disconnect: Message = (
        {"type": "http.disconnect"} if scope["type"] == "http" else {"type": "websocket.disconnect", "code": 1006}
    )
    gone = False

    async def receive() -> Message:
        nonlocal gone
        if gone:
            return disconnect
        data = await stream.receive()
        if data is None:
            gone = True
            return disconnect
        message = _message(data)
        if message["type"].endswith(".disconnect"):
            gone = True
        return message

    async def send(message: Message) -> None:
        if gone:
            raise Disconnected("the client has gone")
        if message["type"] in _HEADS and ROUTE in scope:
            message = {**message, _ROUTE: scope[ROUTE]}
        await answer.send(message)

    answer = _Answer(stream)
    try:
        async with asyncio.TaskGroup() as group:
            answer.group = group
            try:
                await app(scope, receive, send)
            finally:
                answer.group = None
            await answer.flush()
    except* ConnectionError:
        pass  # the client has gone, or the gateway
    except* Exception as failures:
        error = failures.exceptions[0]
        if isinstance(error, CallError):
            _log.warning("%s %s: %s", scope.get("method", "WebSocket"), scope["path"], error)
        else:
            _log.error("%s %s failed", scope.get("method", "WebSocket"), scope["path"], exc_info=error)
        await _tell_failure(stream, error)
    await stream.end()


class _Answer:
    """What an app sends. A head that a body follows at once travels with it; else it goes in the next turn."""

    def __init__(self, stream: Duplex) -> None:
        self._stream = stream
        self._head: Message | None = None
        self._turn = asyncio.Lock()
        self.group: asyncio.TaskGroup | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._head is None:
            self._head = message
            asyncio.get_running_loop().call_soon(self._flush_soon)
            return
        async with self._turn:
            for piece in _pieces(message):
                head, self._head = self._head, None
                await self._stream.send(_encode(piece if head is None else {**head, _NEXT: piece}))

    async def flush(self) -> None:
        async with self._turn:
            head, self._head = self._head, None
            if head is not None:
                await self._stream.send(_encode(head))

    def _flush_soon(self) -> None:
        # A head is only left here while the app runs, and with it the group.
        if self._head is not None and self.group is not None:
            self.group.create_task(self.flush())


def _failure(message: Message) -> CallError:
    failure = _FAILURES.get(message.get("kind", ""), InternalError)(
        "the app of the module failed; its process tells why in its log"
    )
    if isinstance(failure, Overloaded):
        failure.retry_after_s = message.get("after_s", 0.0)
    return failure


async def _tell_failure(stream: Duplex, error: Exception) -> None:
    told: Message = {"type": _FAILED, "kind": type(error).__name__}
    if isinstance(error, Overloaded):
        told["after_s"] = error.retry_after_s
    try:
        await stream.send(_encode(told))
    except ConnectionError:
        return
