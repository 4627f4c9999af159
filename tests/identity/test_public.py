"""A user who signs in at the public side: seen by the app, by what it calls, behind a tunnel; cut off when revoked."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, TextMessage

from seamline.kernel.wire.http1_client import HttpClientError
from seamline.testing.app import TopologyApp

pytestmark = pytest.mark.seamline(app="tests/identity/errand_app", topologies=["local", "processes", "duo", "monolith"])


async def test_the_user_is_seen_by_the_app_and_by_what_it_calls(topology_app: TopologyApp):
    """By the face beside the gateway as by the one behind a tunnel; and nobody after the sign-out."""
    http = topology_app.http
    await http.sign_in("ada", "lovelace")
    assert (await http.get("/who")).json() == {
        "scope": "ada", "user": "ada", "chain": ["front", "orders"], "asked": "ada",
    }  # fmt: skip
    assert (await http.get("/mail/who")).json() == {"scope": "ada", "user": "ada", "chain": ["mail"], "asked": "ada"}
    await http.sign_out()
    assert (await http.get("/mail/who")).json() == {"scope": "", "user": "", "chain": [], "asked": ""}


@pytest.mark.parametrize("path", ["/watch", "/mail/wait"])
async def test_an_answer_under_way_is_cut_off(topology_app: TopologyApp, path: str):
    """A stream that would never end breaks off when its user is revoked, here or behind a tunnel."""
    http = topology_app.http
    await http.sign_in("bo", "needle")
    async with http.stream("GET", path) as answer:
        pieces = aiter(answer)
        assert b"bo" in await anext(pieces)
        topology_app.revoke("user", "bo", reason="stolen")
        async with asyncio.timeout(5):  # before the call's own deadline
            with pytest.raises(HttpClientError):
                async for _ in pieces:
                    pass


async def test_a_websocket_is_closed(topology_app: TopologyApp):
    """With 1008: to come back needs another sign-in."""
    http = topology_app.http
    await http.sign_in("cleo", "thimble")
    host, _, port = http.base_url.removeprefix("http://").rpartition(":")
    cookie = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
    reader, writer = await asyncio.open_connection(host, int(port))
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /live HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"origin: http://{host}:{port}\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n"
        f"cookie: {cookie}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):  # before the call's own deadline
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        socket = Connection(ConnectionType.CLIENT)
        events = _events(reader, socket)
        said = await anext(events)
        assert isinstance(said, TextMessage)
        assert said.data == "cleo"
        topology_app.revoke("user", "cleo", reason="stolen")
        closed = await anext(events)
    assert isinstance(closed, CloseConnection)
    assert closed.code == 1008
    writer.close()


async def _events(reader: asyncio.StreamReader, socket: Connection) -> AsyncIterator[Event]:
    while data := await reader.read(65_536):
        socket.receive_data(data)
        for event in socket.events():
            yield event
