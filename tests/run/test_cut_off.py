"""What is revoked ends what is under way: handlers, streamed answers and WebSockets, in every topology."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from supervised import Running, Starter, until

from seamline.gateway.auth.api_keys import ApiKeys
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import Settings
from seamline.mesh.identity import WorkloadIdentity, new_key_and_csr
from seamline.run.doorway import gateway_records

FRONT = """
from pathlib import Path
from seamline import Module, use
from shop.desk import Desk
module = Module("front")
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    desk = await use(Desk)()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": (await receive()).get("text") or ""})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": scope["path"] != "/"})
    if scope["path"] != "/":
        try:
            await desk.wait()
        except Exception as error:
            (Path(__file__).parents[2] / "error").write_text(str(error))
            raise
module.mount(app, at="/")
"""
DESK = """
import asyncio
from seamline import Contract
class Desk(Contract):
    async def wait(self) -> None: ...
"""
DESK_MODULE = """
import asyncio
from pathlib import Path
from seamline import Module
from shop.desk import Desk
module = Module("desk", provides=Desk)
@module.service
class DeskService(Desk):
    _folder = Path(__file__).parents[2]
    async def wait(self) -> None:
        try:
            (self._folder / "waiting").touch()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            (self._folder / "cancelled").touch()
            raise
"""
POLICY = """
permit (principal == Module::"gateway", action == Action::"http", resource == Module::"front");
permit (principal == Module::"front", action in Action::"Desk", resource == Module::"desk");
"""
TOML = """
[app]
name = "shop"
modules = ["shop.front", "shop.desk"]
[gateway]
listen = "127.0.0.1:0"
[auth]
api_keys = true
[telemetry]
log = "json"
"""


def write(folder: Path) -> None:
    """The application."""
    for name, text in {
        "seamline.toml": TOML, "shop/__init__.py": "", "shop/front/__init__.py": "", "shop/front/module.py": FRONT,
        "shop/desk/__init__.py": DESK, "shop/desk/module.py": DESK_MODULE, "policy/shop.cedar": POLICY,
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(params=["monolith", "services"])
def shop(request: pytest.FixtureRequest, start: Starter) -> Running:
    write(start.folder)
    return start(topology=request.param, host_factory="").until_ready()


@pytest.fixture
def connect_to() -> Iterator[Callable[[Running], Client]]:
    """Opens connections that are closed with the test."""
    with ExitStack() as stack:

        def make(running: Running) -> Client:
            client = Client(running)
            stack.callback(client.socket.close)
            return client

        yield make


@pytest.fixture
def connect(shop: Running, connect_to: Callable[[Running], Client]) -> Callable[[], Client]:
    return lambda: connect_to(shop)


class Client:
    """One connection, with a key of its own."""

    def __init__(self, running: Running) -> None:
        self.keys = Keys(running.folder)
        self.id, self.text = self.keys.make()
        address = urlsplit(running.url)
        self.host = address.netloc
        self.socket = socket.create_connection((address.hostname, address.port or 80), 20)

    def send(self, target: str, *lines: str) -> None:
        head = [f"GET {target} HTTP/1.1", f"host: {self.host}", f"x-api-key: {self.text}", *lines, "", ""]
        self.socket.sendall("\r\n".join(head).encode())

    def until(self, mark: bytes) -> bytes:
        """What comes up to the mark, or to the end."""
        found = b""
        while mark not in found and (piece := self.socket.recv(65536)):
            found += piece
        return found


class Keys:
    """What `seamline keys` does, in this process."""

    def __init__(self, folder: Path) -> None:
        self._settings = Settings.load(folder)

    def make(self) -> tuple[str, str]:
        async def work(keys: ApiKeys) -> tuple[str, str]:
            key, text = await keys.create("test", valid_s=600)
            return key.id, text

        return asyncio.run(self._with(work))

    def revoke(self, identity: str) -> None:
        async def work(keys: ApiKeys) -> tuple[str, str]:
            return (await keys.revoke(identity)).id, ""

        asyncio.run(self._with(work))

    async def _with(self, work: Callable[[ApiKeys], Awaitable[tuple[str, str]]]) -> tuple[str, str]:
        records = gateway_records(self._settings, self._settings.data_folder, SystemClock())
        await records.open()
        try:
            return await work(ApiKeys(records))
        finally:
            await records.close()


@pytest.mark.parametrize("how", ["key", "admin"])
def test_a_streamed_answer_and_the_handler_behind_it_end(shop: Running, connect: Callable[[], Client], how: str):
    """The connection breaks off in the middle, the handler two hops on is cancelled, others are not touched."""
    client, other = connect(), connect()
    client.send("/endless")
    assert b"begun" in client.until(b"begun")
    until((shop.folder / "waiting").exists, "the handler")
    if how == "key":
        client.keys.revoke(client.id)
    else:
        shop.ask("revoke", entries=[{"kind": "client", "id": client.id}])
    rest = client.until(b"never")
    assert not rest.endswith(b"0\r\n\r\n")
    until((shop.folder / "cancelled").exists, "its end")
    again = connect()
    again.text = client.text
    again.send("/")
    assert b" 401 " in again.until(b"\r\n\r\n")
    other.send("/")
    assert b" 200 " in other.until(b"begun")


def test_a_web_socket_is_closed_with_a_reason(shop: Running, connect: Callable[[], Client]):
    """1008, and what to do; on a connection that others keep nothing happens."""
    clients = connect(), connect()
    key = base64.b64encode(b"0123456789abcdef").decode()
    for client in clients:
        client.send(
            "/", "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", f"sec-websocket-key: {key}"
        )
        assert b" 101 " in client.until(b"\r\n\r\n")
        client.socket.sendall(b"\x81\x82\0\0\0\0hi")
        assert client.until(b"hi").endswith(b"\x81\x02hi")
    shop.ask("revoke", entries=[{"kind": "client", "id": clients[0].id, "reason": "stolen"}])
    frame = clients[0].until(b"sign in again")
    assert frame[:1] == b"\x88"
    assert int.from_bytes(frame[2:4], "big") == 1008
    assert frame[4:] == b"the sign-in is no longer good: sign in again"
    clients[1].socket.sendall(b"\x81\x82\0\0\0\0yo")
    assert clients[1].until(b"yo") == b"\x81\x02yo"


def test_a_kept_connection_is_good_for_others_only(shop: Running, connect: Callable[[], Client]):
    """The same connection, next request: refused with the key that was revoked, answered with another."""
    client, other = connect(), connect()
    client.send("/")
    assert b" 200 " in client.until(b"begun")
    shop.ask("revoke", entries=[{"kind": "client", "id": client.id}])
    client.send("/")
    assert b" 401 " in client.until(b"not valid any more")
    client.text = other.text
    client.send("/")
    assert b" 200 " in client.until(b"begun")


@pytest.fixture
def apart(start: Starter) -> Running:
    """One process for each module, and certificates for the test."""
    write(start.folder)
    return start(topology="services", host_factory="", testing=True).until_ready()


def test_a_quarantined_certificate_is_worth_nothing(apart: Running, connect_to: Callable[[Running], Client]):
    """It is in force and of the right authority, and refused: in new handshakes, and for whoever calls the module."""
    key, request = new_key_and_csr()
    issued = apart.ask("issue", csr=request.decode(), module="front")
    identity = WorkloadIdentity("shop.local", "shop")
    identity.set_bundle(issued["bundle"].encode())
    identity.install("front", key, issued["chain"].encode())
    host, _, port = apart.replicas()["desk"]["mesh"].rpartition(":")

    def shake_hands() -> bytes:
        context = identity.client_context("front")
        with (
            socket.create_connection((host, int(port)), 20) as raw,
            context.wrap_socket(raw, server_hostname=identity.server_name("desk")) as connection,
        ):
            connection.settimeout(1.0)
            with suppress(TimeoutError):
                return connection.recv(4096)
            return b"it waits for what we say"

    assert b"quarantined" not in shake_hands()
    apart.ask("revoke", entries=[{"kind": "module", "id": "front", "reason": "strange calls"}])
    assert b"quarantined: strange calls" in shake_hands()
    apart.ask("revoke", entries=[{"kind": "module", "id": "front", "lifted": True}])
    assert b"quarantined" not in shake_hands()
    client = connect_to(apart)
    client.send("/endless")
    assert b"begun" in client.until(b"begun")
    until((apart.folder / "waiting").exists, "the handler")
    apart.ask("revoke", entries=[{"kind": "module", "id": "desk", "reason": "broken into"}])
    assert not client.until(b"never").endswith(b"0\r\n\r\n")
    assert "was closed" in (apart.folder / "error").read_text()
    client = connect_to(apart)
    client.send("/endless")
    client.until(b"never")
    assert "broken into" in (apart.folder / "error").read_text()
