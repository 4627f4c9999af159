"""What processes that host modules answer about their events, sagas and policies, put together."""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request

from seamline.portal.session import caller_of
from seamline.portal.shell import portal_of


async def ask_all(
    request: Request, room: str, operation: str, module: str | None = None, /, **arguments: Any
) -> list[Any]:
    """Each workload's answer. Raises what the supervisor or the room refused."""
    answer = await portal_of(request).admin.ask(
        room, as_=caller_of(request), module=module, operation=operation, arguments=arguments
    )
    return [each["result"] for each in answer["answers"]]


async def ask_rows(
    request: Request, operation: str, module: str | None = None, /, **arguments: Any
) -> list[dict[str, Any]]:
    """The rows of all about events, each once: while a topology changes, two workloads may host a module."""
    unique: dict[str, dict[str, Any]] = {}
    for rows in await ask_all(request, "events", operation, module, **arguments):
        for row in cast("list[dict[str, Any]]", rows or []):
            unique.setdefault(json.dumps([row.get(name) for name in ("module", "group", "topic", "number")]), row)
    return list(unique.values())


async def ask_one(request: Request, room: str, operation: str, module: str | None = None, /, **arguments: Any) -> Any:
    """The first answer that is one; None where nobody has it."""
    found = await ask_all(request, room, operation, module, **arguments)
    return next((each for each in found if each is not None), None)
