"""What is live on a page: server-sent events, read by ``portal.js`` with fetch, since a session needs its header.

An event ``html`` has the id of an element as its ``id`` and the element's new inside as data; any other event is handed
to the page's own script, as ``sl:<name>`` with the data from JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import ExitStack, aclosing
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from seamline.kernel.errors import SeamlineError
from seamline.observe.live import Topic
from seamline.portal.session import caller_of
from seamline.portal.shell import portal_of

_KEPT_OPEN_S: Final = 15.0
Write = Callable[[bytes], Awaitable[None]]


def event(name: str, data: str, *, id_: str = "") -> bytes:
    """One server-sent event."""
    lines = [f"event: {name}"]
    if id_:
        lines.append(f"id: {id_}")
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def html(id_: str, text: str) -> bytes:
    """Put ``text`` into the element with this id."""
    return event("html", text, id_=id_)


def told(name: str, content: Any) -> bytes:
    """Something for the page's script."""
    return event(name, json.dumps(content, default=str))


class EventStream(Response):
    """What ``produce`` writes, as it comes, until it returns or the visitor has gone.

    A SeamlineError of ``produce`` is told as ``trouble``. Raises NoCallerError when it is made without a session.
    """

    media_type = "text/event-stream"

    def __init__(self, request: Request, produce: Callable[[Write], Awaitable[None]]) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        caller_of(request)
        self._produce = produce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI has it
        """Answer one request."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        turn = asyncio.Lock()

        async def write(data: bytes) -> None:
            async with turn:
                await send({"type": "http.response.body", "body": data, "more_body": True})

        async with asyncio.TaskGroup() as group:
            producing = group.create_task(self._tell(write))
            others = [group.create_task(_until_gone(receive)), group.create_task(_keep_open(write))]
            try:
                await asyncio.wait([producing, others[0]], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in (producing, *others):
                    each.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, write: Write) -> None:
        try:
            await write(b": open\n\n")
            await self._produce(write)
        except SeamlineError as error:
            await write(told("trouble", error.to_json()))


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _keep_open(write: Write) -> None:
    """So that a visitor who has gone without a word is noticed."""
    while True:
        await asyncio.sleep(_KEPT_OPEN_S)
        await write(b": still here\n\n")


async def ticks(request: Request, *topics: Topic, at_least_every_s: float = 5.0) -> AsyncGenerator[None]:
    """At once, whenever the observatory has news on a topic, and now and then. Close it in the end."""
    observatory = portal_of(request).observatory
    with ExitStack() as stack:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        if observatory is not None:
            queue = stack.enter_context(observatory.live.listen(*topics))
        while True:
            yield
            try:
                await asyncio.wait_for(queue.get(), at_least_every_s)
            except TimeoutError:
                continue
            while not queue.empty():  # what came meanwhile is one news
                queue.get_nowait()


def fragments(
    request: Request,
    draw: Callable[[], Awaitable[Mapping[str, str]]],
    *topics: Topic,
    at_least_every_s: float = 5.0,
) -> EventStream:
    """What ``draw`` gives (element id to inside), whenever there is news; only what is different."""

    async def produce(write: Write) -> None:
        before: dict[str, str] = {}
        async with aclosing(ticks(request, *topics, at_least_every_s=at_least_every_s)) as news:
            async for _ in news:
                await write_changed(before, await draw(), write)

    return EventStream(request, produce)


async def write_changed(before: dict[str, str], parts: Mapping[str, str], write: Write) -> None:
    """Those ``parts`` (element id to inside) that are not as ``before``, which then knows them."""
    for id_, text in parts.items():
        if before.get(id_) != text:
            before[id_] = text
            await write(html(id_, text))
