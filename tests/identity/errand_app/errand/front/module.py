"""The inside of front: a bare ASGI app."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from errand.orders import Orders
from seamline import Module, Principal, use

module = Module("front")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def front(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """``GET /who``, what this face and payments see; ``GET /watch``, a stream without end; a WebSocket, likewise."""
    who = await use(Principal)()
    orders = await use(Orders)()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        async for asked in orders.watch():
            await send({"type": "websocket.send", "text": asked.user})
        return
    user = scope["seamline.user"]
    if scope["path"] == "/who":
        asked = await orders.call()
        body = {"scope": user.id if user else "", "user": who.user.id if who.user else "", "chain": asked.chain}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps({**body, "asked": asked.user}).encode()})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] != "/watch":
        await send({"type": "http.response.body", "body": b"hello"})
        return
    async for asked in orders.watch():
        await send({"type": "http.response.body", "body": asked.user.encode(), "more_body": True})


module.mount(front, at="/")
