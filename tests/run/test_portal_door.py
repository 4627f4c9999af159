"""Through the control API to the portal: who is let in, what is handed on, and what is never believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from seamline.kernel.audit import AuditLog
from seamline.kernel.clock import SystemClock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import AdminSettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.run.api import COOKIE, ControlApi
from seamline.run.operations import AdminServer
from seamline.run.sockets import listen_unix

HX = (b"hx-request", b"true")


class StrawPortal:
    """Answers each request with its own head, or in two pieces, the second when it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heads: list[str] = []
        self.go = asyncio.Event()
        self.break_off = False
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=listen_unix(self.path))

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    (int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0
                )
                body = await reader.readexactly(length)
                self.heads.append(head + body.decode())
                if " /live" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                    writer.write(b"transfer-encoding: chunked\r\n\r\n")
                    writer.write(b"5\r\nfirst\r\n")
                    await self.go.wait()
                    if self.break_off:
                        writer.close()
                        return
                    writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
                else:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nx-frame-options: SAMEORIGIN\r\n"
                        b"content-length: 4\r\n\r\npage"
                    )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class Door:
    """The API, the portal behind it, and a browser's way to it."""

    def __init__(self, folder: Path) -> None:
        self.portal = StrawPortal(folder / "run" / "portal.sock")
        settings = AdminSettings(hosts=("portal.example:1",))
        nothing = cast("AdminServer", None)
        self.api = ControlApi(settings, nothing, AuditLog(folder / "a.jsonl"), SystemClock(), folder, self.portal.path)
        self.owner = TaskOwner("door")

    async def open(self) -> None:
        await self.portal.open()
        listener = self.api.listen()
        self.port = listener.getsockname()[1]
        self.owner.spawn(self.api.serve(listener), name="API")
        self.pool = HttpPool("127.0.0.1", self.port)

    async def close(self) -> None:
        await self.pool.close()
        await self.owner.stop()
        await self.portal.close()

    def signed_in(self, role: Any = "viewer") -> list[tuple[bytes, bytes]]:
        opened = self.api.sessions.open(self.api.sessions.new_token(role))
        assert opened is not None
        return [(b"cookie", f"{COOKIE}={opened.bearer}".encode()), (b"x-seamline-page", opened.page.encode()), HX]

    async def get(self, path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> tuple[int, bytes]:
        async with await self.pool.request(method, path, headers, timeout_s=10) as answer:
            return answer.status, await answer.read_all()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncGenerator[Door]:
    found = Door(tmp_path)
    await found.open()
    yield found
    await found.close()


async def test_the_shell_and_its_files_are_for_everybody(door: Door):
    """They hold no data; nobody's name goes with the request, also if somebody has signed in."""
    for path in ("/", "/traces?module=cart", "/assets/0/portal.js"):
        assert await door.get(path, *door.signed_in()[:2]) == (200, b"page")
    assert await door.get("/assets/0/portal.js", HX) == (200, b"page")
    assert all("x-seamline" not in head for head in door.portal.heads if "x-seamline-page" not in head)
    assert all("cookie" not in head for head in door.portal.heads)


async def test_content_needs_a_session_and_the_word_of_the_page(door: Door):
    """A cookie alone, a wrong word, nothing at all: the portal does not hear of it."""
    cookie, page, _ = door.signed_in()
    for headers in ((HX,), (HX, cookie), (HX, cookie, (b"x-seamline-page", b"x")), (HX, page)):
        for method in ("GET", "POST", "DELETE"):
            assert (await door.get("/traces", *headers, method=method))[0] == 401
    assert (await door.get("/topology/switch", cookie, method="POST"))[0] == 401
    assert door.portal.heads == []


async def test_who_asks_is_said_by_us_alone(door: Door):
    """What a client says of its own role is thrown away, however it is spelled."""
    claims = [(b"x-seamline-role", b"admin"), (b"X-Seamline-Role", b"admin"), (b"x-seamline-caller", b"root")]
    status, _ = await door.get("/traces", *door.signed_in("viewer"), *claims)
    assert status == 200
    (head,) = door.portal.heads
    assert head.lower().count("x-seamline-role: ") == 1
    assert "x-seamline-role: viewer" in head
    assert "x-seamline-caller: session " in head
    assert "root" not in head
    assert "cookie" not in head.lower()


async def test_the_portal_cannot_be_reached_through_the_api_of_another_host(door: Door):
    """Also the shell is answered to our own names only; other sites' pages cannot act."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
    assert b" 421 " in await reader.read()
    writer.close()
    others = ((b"origin", b"http://evil.example"), (b"sec-fetch-site", b"cross-site"))
    assert (await door.get("/traces", *door.signed_in(), *others))[0] == 403


async def test_a_link_on_another_site_leads_to_the_shell(door: Door):
    """It has no data, and what fills it is asked for by itself."""
    came = ((b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"navigate"))
    assert await door.get("/incidents/INC-1", *came) == (200, b"page")


async def test_what_is_live_comes_as_it_comes(door: Door):
    """The first piece is there before the second is written."""
    async with await door.pool.request("GET", "/live", door.signed_in(), timeout_s=10) as answer:
        assert await answer.read() == b"first"
        door.portal.go.set()
        assert await answer.read_all() == b"second"


async def test_half_an_answer_does_not_look_like_a_whole_one(door: Door):
    """The portal dies in the middle: the client's connection ends without an end."""
    door.portal.break_off = True
    async with await door.pool.request("GET", "/live", door.signed_in(), timeout_s=10) as answer:
        assert await answer.read() == b"first"
        door.portal.go.set()
        with pytest.raises(ConnectionError):
            await answer.read_all()


async def test_without_a_portal_there_is_a_sentence_and_it_comes_back(door: Door):
    """503 while it is away, and the API itself goes on."""
    await door.get("/")
    await door.portal.close()
    door.portal.path.unlink()
    await asyncio.sleep(0.05)
    status, body = await door.get("/", (b"connection", b"close"))
    assert (status, b"portal" in body) == (503, True)
    assert (await door.get("/v1/session"))[0] == 401
    await door.portal.open()
    assert (await door.get("/"))[0] == 200


async def test_the_portals_words_on_its_defence_go_before_ours(door: Door):
    async with await door.pool.request("GET", "/", timeout_s=10) as answer:
        await answer.read_all()
        assert answer.header(b"x-frame-options") == b"SAMEORIGIN"
        assert answer.header(b"x-content-type-options") == b"nosniff"
