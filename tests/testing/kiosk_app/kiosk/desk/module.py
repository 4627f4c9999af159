"""The inside of desk: a bare ASGI app."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from kiosk.till import SoldOut, Till
from seamline import Module, use

module = Module("desk")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def desk(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """``POST /sell``, ``GET /sales``, ``GET /count`` in pieces, ``GET /again`` redirects, ``GET /cookie``."""
    if scope["type"] != "http":
        message = "only HTTP"
        raise NotImplementedError(message)
    till = await use(Till)()
    match scope["method"], scope["path"]:
        case "POST", "/sell":
            form = parse_qs((await _body(receive)).decode())
            try:
                sale = await till.sell(form["sku"][0])
            except SoldOut as fault:
                await _answer(send, 409, {"sold out": fault.sku})
            else:
                await _answer(send, 200, {"sold": sale.sku, "left": sale.left, "at": sale.at.isoformat()})
        case "GET", "/sales":
            await _answer(send, 200, await till.sales())
        case "GET", "/count":
            await _start(send, 200, "text/plain")
            for number in range(3):
                await send({"type": "http.response.body", "body": f"{number}\n".encode(), "more_body": True})
            await send({"type": "http.response.body"})
        case "GET", "/again":
            await _start(send, 303, "text/plain", (b"location", b"/cookie?again"), (b"set-cookie", b"seen=yes; Path=/"))
            await send({"type": "http.response.body"})
        case "GET", "/cookie":
            await _answer(send, 200, {"cookie": dict(scope["headers"]).get(b"cookie", b"").decode()})
        case _:
            await _answer(send, 404, "nothing here")


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, value: object) -> None:
    await _start(send, status, "application/json")
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def _start(send: Send, status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind.encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})


module.mount(desk, at="/")
