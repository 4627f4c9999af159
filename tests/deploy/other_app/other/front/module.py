"""The inside of front."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from other.echo import Echo
from seamline import Module, use

module = Module("front")


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]):
    """Every path is said to echo."""
    del receive
    if scope["type"] != "http":
        return
    said = await (await use(Echo)()).say(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": said.encode()})


module.mount(app)
