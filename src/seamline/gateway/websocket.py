"""A WebSocket as an ASGI app sees it. No compression extension: its memory is not worth its bytes here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import deque
from typing import Any, cast

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from seamline.gateway.asgi import AsgiApp, Message, Scope, Shape
from seamline.gateway.errors import AppProtocolError
from seamline.kernel.wire.http1 import Disconnected, Exchange, Header, HttpRefusal, HttpRequest, RawStream
from seamline.module.errors import Unauthenticated

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_QUEUE_BYTES_MAX = 65_536  # of messages that the app has not taken; then the socket is left unread
_MESSAGE_OVERHEAD = 256
_CLOSE_GRACE_S = 5.0
GOING_AWAY = 1012  # "service restart": a client may come back at once
ABNORMAL = 1006
_REVOKED = 1008  # "policy violation": coming back needs another sign-in


def handshake_of(request: HttpRequest) -> tuple[bytes, list[str]]:
    """The accept key and the offered subprotocols. Raises HttpRefusal for a bad handshake."""
    if request.header(b"sec-websocket-version") != b"13":
        raise HttpRefusal(426, "upgrade_required", "use WebSocket version 13", [(b"sec-websocket-version", b"13")])
    key = request.header(b"sec-websocket-key") or b""
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        good = False
    if not good:
        raise HttpRefusal(400, "bad_request", "the WebSocket key is malformed")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    offered = [value for name, value in request.headers if name == b"sec-websocket-protocol"]
    return accept, [item.strip() for item in b",".join(offered).decode("latin-1").split(",") if item.strip()]


class WebSocketRun:
    """One WebSocket from its handshake to its close."""

    def __init__(self, exchange: Exchange, accept: bytes, shape: Shape, message_bytes_max: int) -> None:
        self._exchange = exchange
        self._accept = accept
        self._shape = shape
        self._message_bytes_max = message_bytes_max
        self._wire = Connection(ConnectionType.SERVER)
        self._raw: RawStream | None = None
        self._inbox: deque[Message] = deque([{"type": "websocket.connect"}])
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._text: list[str] = []
        self._bytes: list[bytes] = []
        self._partial = 0
        self._over = False
        self._denial: tuple[int, list[Header], bytearray] | None = None
        self._heard = True
        self.status = 0
        """The HTTP status of the handshake's answer; 101 once accepted."""

    async def run(self, app: AsgiApp, scope: Scope) -> None:
        """Run the app; whatever it leaves open is closed. What it raises is raised again."""
        error: Exception | None = None
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read())
            try:
                await app(scope, self.receive, self.send)
            except Exception as failure:
                error = failure
            await self._leave(error)
            reader.cancel()
        if error is not None and not isinstance(error, Disconnected):
            raise error

    # ASGI

    async def receive(self) -> Message:
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        if message["type"] == "websocket.disconnect":
            self._inbox.append(message)  # whoever asks again hears it again
        else:
            self._inbox_bytes -= len(message.get("bytes") or message.get("text") or "") + _MESSAGE_OVERHEAD
            self._room.set()
        return message

    async def send(self, message: Message) -> None:
        kind: str = message["type"]
        if self._raw is None:
            await self._answer_handshake(kind, message)
        elif kind == "websocket.send":
            if self._over:
                raise Disconnected("the client has gone")
            text = message.get("text")
            data: Event = TextMessage(data=text) if text is not None else BytesMessage(data=message["bytes"])
            await self._emit(data)
        elif kind == "websocket.close":
            await self.close(message.get("code") or 1000, message.get("reason") or "")
        else:
            raise AppProtocolError(f"the app sent {kind!r} on an open WebSocket")

    # What the gateway calls.

    async def close(self, code: int, reason: str = "") -> None:
        if self._raw is None or self._over:
            return
        self._over = True
        await self._emit(CloseConnection(code=code, reason=reason[:120]))

    def part(self, code: int) -> None:
        """Say good-bye without waiting; the app hears of the client's answer."""
        if self._raw is not None and not self._over:
            self._over = True
            self._raw.post(self._wire.send(CloseConnection(code=code)))

    def beat(self) -> None:
        """Ping, or give the client up that has said nothing since the last beat."""
        if self._raw is None or self._over:
            return
        if not self._heard:
            self._raw.close()
            return
        self._heard = False
        self._raw.post(self._wire.send(Ping()))

    # The handshake

    async def _answer_handshake(self, kind: str, message: Message) -> None:
        if self._exchange.disconnected:
            raise Disconnected("the client has gone")
        match kind:
            case "websocket.accept":
                await self._open(message)
            case "websocket.close":
                self.status = 403
                self._exchange.refuse(HttpRefusal(403, "permission_denied", "the WebSocket was refused"))
            case "websocket.http.response.start":
                self.status = cast("int", message["status"])
                self._denial = (self.status, list(message.get("headers") or ()), bytearray())
            case "websocket.http.response.body" if self._denial is not None:
                status, headers, body = self._denial
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    shaped = [header for header in self._shape(status, headers) if header[0] != b"content-length"]
                    self._exchange.respond(status, shaped, bytes(body))
            case _:
                raise AppProtocolError(f"the app sent {kind!r} before it accepted the WebSocket")

    async def _open(self, message: Message) -> None:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", self._accept),
        ]
        subprotocol = message.get("subprotocol")
        if subprotocol:
            headers.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        extra = [item for item in self._shape(101, list(message.get("headers") or ())) if item[0] != b"content-length"]
        self.status = 101
        self._raw = self._exchange.switch(headers + extra)

    # Frames

    async def _emit(self, event: Event) -> None:
        assert self._raw is not None
        try:
            data = self._wire.send(event)
        except LocalProtocolError as error:
            raise Disconnected("the WebSocket is closed") from error
        await self._raw.send(data)

    async def _read(self) -> None:
        """Take frames off the wire until the client has gone; answer pings and closes at once."""
        await self._exchange.wait_disconnected()  # or until the handshake is answered
        raw = self._raw
        code, reason = ABNORMAL, ""
        while raw is not None and (data := await raw.receive()):
            self._heard = True
            closed = await self._take(data)
            if closed is not None:
                code, reason = closed
                break
        self._over = True
        self._put({"type": "websocket.disconnect", "code": code, "reason": reason}, 0)

    async def _take(self, data: bytes) -> tuple[int, str] | None:
        """Handle what arrived; returns code and reason when the socket is to be closed."""
        self._wire.receive_data(data)
        for event in self._wire.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._partial += len(event.data)
                    if self._partial > self._message_bytes_max:
                        return await self._hang_up(1009, "the message is too large")
                    self._collect(event)
                    while self._inbox_bytes > _QUEUE_BYTES_MAX:
                        self._room.clear()
                        await self._room.wait()
                case Ping():
                    if not self._over:
                        await self._emit(event.response())
                case CloseConnection():
                    return await self._hang_up(event.code, event.reason or "")
                case _:
                    pass
        return None

    async def _hang_up(self, code: int, reason: str) -> tuple[int, str]:
        if not self._over:
            self._over = True
            answer = 1000 if code in (1005, ABNORMAL) else code
            await self._emit(CloseConnection(code=answer, reason=reason[:120]))
        return code, reason

    def _collect(self, event: TextMessage | BytesMessage) -> None:
        if isinstance(event.data, str):
            self._text.append(event.data)
        else:
            self._bytes.append(bytes(event.data))
        if not event.message_finished:
            return
        message: dict[str, Any] = {"type": "websocket.receive"}
        if isinstance(event.data, str):
            message["text"] = "".join(self._text)
        else:
            message["bytes"] = b"".join(self._bytes)
        size, self._partial = self._partial, 0
        self._text.clear()
        self._bytes.clear()
        self._put(message, size + _MESSAGE_OVERHEAD)

    def _put(self, message: Message, size: int) -> None:
        self._inbox.append(message)
        self._inbox_bytes += size
        self._arrived.set()

    async def _leave(self, error: Exception | None) -> None:
        """The app has returned or raised."""
        if self._raw is None:
            return
        try:
            if isinstance(error, Unauthenticated):
                await self.close(_REVOKED, "the sign-in is no longer good: sign in again")
            else:
                await self.close(1000 if error is None else 1011)
            async with asyncio.timeout(_CLOSE_GRACE_S):
                while not self._raw.closed and not any(m["type"] == "websocket.disconnect" for m in self._inbox):
                    self._arrived.clear()
                    self._inbox.clear()
                    self._inbox_bytes = 0
                    self._room.set()
                    await self._arrived.wait()
        except (Disconnected, TimeoutError):
            pass
        self._raw.close()
