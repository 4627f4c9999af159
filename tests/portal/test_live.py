"""What is live: told only when it is different, over when the visitor has gone, in trouble with a word on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message
from tests.portal.front import FakeObservatory, Front

from seamline.portal.errors import NoCallerError, NotFoundError
from seamline.portal.live import EventStream, Write, event, fragments, html
from seamline.portal.pages import modules
from seamline.portal.session import CALLER_HEADER, ROLE_HEADER
from seamline.portal.shell import ModulePart


class Visitor:
    """The other end of one stream."""

    def __init__(self, front: Front, *, signed_in: bool = True) -> None:
        app = Starlette()
        app.state.portal = front.portal
        headers = {CALLER_HEADER: "session 1", ROLE_HEADER: "viewer"} if signed_in else {}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": raw, "app": app}
        self.request = Request(self.scope)
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message.get("body"):
            await self.heard.put(message["body"])

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.heard.get(), 10)


@pytest.fixture
async def visitor(front: Front) -> AsyncIterator[Visitor]:
    found = Visitor(front)
    yield found
    found.gone.set()


def test_data_of_many_lines_is_one_event():
    """Whatever ends its lines, and a line that looks like another event is data."""
    assert (
        event("a", "1\r\n2\rdata: x\n\nevent: b")
        == b"event: a\ndata: 1\ndata: 2\ndata: data: x\ndata: \ndata: event: b\n\n"
    )
    assert html("it", "<p>") == b"event: html\nid: it\ndata: <p>\n\n"


async def test_only_what_is_different_is_sent(front: Front, visitor: Visitor):
    """Drawn again at each news, sent where it is not as before."""
    observatory = front.portal.observatory
    assert isinstance(observatory, FakeObservatory)
    drawn: list[dict[str, str]] = [{"a": "1", "b": "1"}, {"a": "1", "b": "2"}, {"a": "2", "b": "2"}]

    async def draw() -> dict[str, str]:
        return drawn.pop(0)

    stream = fragments(visitor.request, draw, "windows", at_least_every_s=60)
    async with asyncio.TaskGroup() as group:
        group.create_task(stream(visitor.scope, visitor.receive, visitor.send))
        assert [await visitor.next() for _ in range(3)] == [b": open\n\n", html("a", "1"), html("b", "1")]
        for expected in (html("b", "2"), html("a", "2")):
            observatory.live.tell("windows", None)
            assert await visitor.next() == expected
        visitor.gone.set()
    assert drawn == []
    assert not observatory.live.heard("windows")


async def test_who_has_gone_is_not_worked_for(visitor: Visitor):
    """What produces is cancelled, and may clean up."""
    cleaned = False

    async def produce(write: Write) -> None:
        nonlocal cleaned
        try:
            await write(b"x")
            await asyncio.Event().wait()
        finally:
            cleaned = True

    async with asyncio.TaskGroup() as group:
        group.create_task(EventStream(visitor.request, produce)(visitor.scope, visitor.receive, visitor.send))
        assert [await visitor.next(), await visitor.next()] == [b": open\n\n", b"x"]
        visitor.gone.set()
    assert cleaned


async def test_trouble_is_told_and_ends_it(visitor: Visitor):
    """An error with a code reaches the page as one."""

    async def produce(_: Write) -> None:
        raise NotFoundError("gone", "Look elsewhere.")

    await EventStream(visitor.request, produce)(visitor.scope, visitor.receive, visitor.send)
    assert await visitor.next() == b": open\n\n"
    name, data = (await visitor.next()).decode().split("\n", 1)
    assert name == "event: trouble"
    assert json.loads(data.removeprefix("data: "))["code"] == "SL6603"


async def test_a_stranger_hears_nothing(front: Front):
    """A stream is not even made without a session."""

    async def produce(_: Write) -> None:
        raise AssertionError

    with pytest.raises(NoCallerError):
        EventStream(Visitor(front, signed_in=False).request, produce)


@pytest.mark.parametrize("text", ["<p>seven of nine</p>", ""])
async def test_other_pages_add_to_a_modules_page(front: Front, text: str):
    """A part is drawn for the module that is looked at; one with nothing to say is not there."""
    asked: list[str] = []

    async def draw(_: Request, name: str) -> str:
        asked.append(name)
        return text

    part = ModulePart(title="Scorecard", order=1, draw=draw)
    async with Front(front.portal, front.admin, parts=[part]).serving() as served:
        reply = await served.visit("/modules/payments")
    assert asked == ["payments"]
    assert ("Scorecard" in reply.text) == bool(text)
    assert text in reply.text


async def test_a_module_that_does_not_answer_is_shown_all_the_same(front: Front, monkeypatch: pytest.MonkeyPatch):
    """Its page says so instead of the contract, and has what others told of it."""
    monkeypatch.setattr(modules, "_DESCRIBED_S", 0.05)
    front.admin.silent.add("describe")
    reply = await front.visit("/modules/payments")
    assert reply.status == 200
    assert "it did not answer within 0.05 s" in reply.text
    assert "Payments.charge" in reply.text
