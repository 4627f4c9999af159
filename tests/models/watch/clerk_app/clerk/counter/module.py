"""Its inside: ``GET /<case>/<who>/<amount>/<country>``; ``/agree/<who>`` and ``/withdraw/<who>``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from clerk.desk import Desk
from seamline import Module, use

module = Module("counter")


async def face(scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        return
    desk = await use(Desk)()
    match str(scope["path"]).strip("/").split("/"):
        case ["agree", who]:
            await desk.agree(who)
            said = "agreed"
        case ["withdraw", who]:
            said = str(await desk.withdraw(who))
        case [case, who, amount, country]:
            said = await desk.decide(case, who, float(amount), country)
        case _:
            said = ""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": said.encode()})


module.mount(face, at="/")
