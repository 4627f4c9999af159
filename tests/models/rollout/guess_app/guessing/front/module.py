"""Its inside: ``GET /<user>/<text>``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from guessing.oracle import Guess
from seamline import Module, use
from seamline.module.errors import CallError

module = Module("front")


async def face(scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        return
    _, user, text = str(scope["path"]).split("/", 2)
    status, body = 200, b""
    try:
        oracle = await use(Guess)()
        body = json.dumps(await oracle.guess(text, user)).encode()
    except CallError as error:
        status, body = 500, str(error).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


module.mount(face, at="/")
