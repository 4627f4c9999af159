"""The inside of mail: hears of orders, and has a face of its own, which in many processes is behind a tunnel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from errand.orders import Placed
from errand.payments import Payments
from seamline import Module, Principal, use

module = Module("mail")


@module.on(Placed)
async def send(event: Placed, payments: Payments) -> None:
    await payments.pay(event.note)


async def face(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """``GET /mail/who``, and ``GET /mail/wait``, which begins an answer and never ends it."""
    del receive
    who = await use(Principal)()
    asked = await (await use(Payments)()).who()
    user = scope["seamline.user"]
    body = {"scope": user.id if user else "", "user": who.user.id if who.user else "", "chain": asked.chain}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    waits = scope["path"].endswith("/wait")
    text = json.dumps({**body, "asked": asked.user}).encode()
    await send({"type": "http.response.body", "body": text, "more_body": waits})
    if waits:
        await asyncio.Event().wait()


module.mount(face, at="/mail")
