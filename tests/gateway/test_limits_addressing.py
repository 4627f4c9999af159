"""One form for what a request is addressed to, whoever attacks it: paths, hosts, and where a request comes from."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.gateway.asgi import Receive, Scope, Send
from seamline.gateway.gateway import Gateway
from seamline.gateway.limits.addresses import TrustedProxies, host_of, network_of
from seamline.gateway.normal import Hosts, path_of
from seamline.gateway.routes import Route
from seamline.kernel.settings import BadValueError, GatewaySettings, Settings
from seamline.kernel.wire.http1 import HttpRefusal


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with what it was given."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    told = {"path": scope["path"], "client": list(scope["client"]), "headers": headers, "module": scope["root_path"]}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


class Place:
    """A gateway, and a socket to it for each question."""

    def __init__(self, port: int, audit: list[dict[str, str]]) -> None:
        self.port = port
        self.audit = audit

    async def ask(self, target: str, *headers: str, host: str = "localhost", method: str = "GET") -> tuple[int, Any]:
        lines = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers, "Connection: close"]
        raw = "\r\n".join([*lines, "", ""]).encode("latin-1")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), json.loads(body) if body else None


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Awaitable[Place]]]:
    """Starts gateways in front of :func:`tell`, "admin" below /admin and "shop" at the root."""
    started: list[Gateway] = []

    async def start(routes: list[Route] | None = None, **settings: Any) -> Place:
        audit: list[dict[str, str]] = []

        def record(decision: str, **more: str) -> None:
            audit.append({"decision": decision, **more})

        gateway = Gateway(
            GatewaySettings(**settings),
            routes or [Route(module="shop"), Route(module="admin", path="/admin")],
            lambda _: tell,
            audit=record,
        )
        sock = socket.create_server(("127.0.0.1", 0))
        await gateway.serve(sock)
        started.append(gateway)
        return Place(sock.getsockname()[1], audit)

    yield start
    for gateway in started:
        await gateway.stop()


# Paths


AMBIGUOUS = (
    "/a/../admin", "/a/%2e%2e/admin", "/a/%2E%2e/admin", "/a/.%2e/admin", "/../admin", "/./admin", "/a/.", "/a/..",
    "/%2e", "/a/..;/admin", "/a/..;x=1/admin", "/a/.;/b", "//admin", "/a//b", "//evil.example/x", "/a/%2fadmin",
    "/a%2Fadmin", "/%2e%2e%2fadmin", "/a\\admin", "/..\\admin", "/a%5cadmin", "/a%5Cadmin", "/a%00", "/a%0d%0aX:1",
    "/a%7f", "/a%1f", "/a%", "/a%2", "/a%zz", "/%c0%ae%c0%ae/admin", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af",
    "/%ed%a0%80", "/%ff", "/%c3", "/a#b", "/%u002e%u002e/admin",
)  # fmt: skip


@pytest.mark.parametrize("target", AMBIGUOUS)
async def test_a_path_that_can_be_read_in_two_ways_reaches_nobody(make: Callable[..., Awaitable[Place]], target: str):
    """It is answered 400 before routing, policy and apps, and written to the audit."""
    place = await make()
    status, told = await place.ask(target)
    assert status == 400
    assert set(told) == {"code", "message", "request_id"}
    assert [line["decision"] for line in place.audit] == ["refuse"]
    assert place.audit[0]["peer"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/%61dmin/x", "/admin/x"),
        ("/caf%C3%A9", "/café"),
        ("/%252e%252e/admin", "/%2e%2e/admin"),
        ("/.well-known/a", "/.well-known/a"),
        ("/...", "/..."),
        ("/a..b/c.", "/a..b/c."),
        ("/a/;v=1/(b)'*!$&+,=:@~", "/a/;v=1/(b)'*!$&+,=:@~"),
        ("/a%20b/[c]|^`", "/a b/[c]|^`"),
        ("/a?x=../..&y=//&z=%2f%00", "/a"),
    ],
)
async def test_a_path_is_decoded_once_and_everybody_sees_the_same(
    make: Callable[..., Awaitable[Place]], target: str, path: str
):
    """An escaped prefix leads to the module that it names, and not around it."""
    status, told = await (await make()).ask(target)
    assert (status, told["path"]) == (200, path)
    assert (told["module"] == "/admin") == path.startswith("/admin/")


@given(st.binary(max_size=40))
def test_no_path_gets_through_that_a_second_reader_would_read_otherwise(sent: bytes):
    """Whatever is let through has no step, no empty segment, no backslash, no control, and one way to split it."""
    try:
        path = path_of(b"/" + sent)
    except HttpRefusal:
        return
    segments = path.split("/")[1:]
    assert not {".", ".."} & {segment.partition(";")[0] for segment in segments if segment}
    assert "" not in segments[:-1]
    assert not any(character == "\\" or ord(character) < 32 or ord(character) == 127 for character in path)
    assert len(segments) == sent.count(b"/") + 1


# Hosts


@pytest.mark.parametrize(
    "host", ["evil.example", "shop.example.evil.example", "evil.example:80", "10.0.0.1", "a", "shop"]
)
async def test_a_name_that_nobody_gave_us_is_not_answered(make: Callable[..., Awaitable[Place]], host: str):
    """The page of a stranger whose name leads here (DNS rebinding) hears 421, and no app runs."""
    place = await make(hosts=("shop.example",))
    status, told = await place.ask("/", host=host)
    assert (status, told["code"]) == (421, "misdirected_request")
    assert len(place.audit) == 1


@pytest.mark.parametrize(
    "host",
    ["shop.example@evil", "a b", "a/b", "a?b", "a,b", "[::1", "::1", "a:b", "a:", "a:999999", "é", "-", "../x", 'a"b'],
)
async def test_what_is_no_host_is_refused(make: Callable[..., Awaitable[Place]], host: str):
    """Whatever the list of hosts says."""
    place = await make(hosts=("*",))
    assert (await place.ask("/", host=host))[0] == 400


@pytest.mark.parametrize(
    "host", ["shop.example", "SHOP.example:8443", "shop.example.", "a.api.example", "localhost:1", "127.0.0.1", "[::1]"]
)
async def test_our_names_and_this_machine_are_answered(make: Callable[..., Awaitable[Place]], host: str):
    """In any case, with any port."""
    place = await make(hosts=("shop.example", "*.api.example"))
    assert (await place.ask("/", host=host))[0] == 200


async def test_the_routes_name_hosts_where_nothing_else_does(make: Callable[..., Awaitable[Place]]):
    """And a wildcard does not hold the name above it."""
    place = await make([Route(module="shop", host="shop.example"), Route(module="shop")])
    assert (await place.ask("/", host="shop.example"))[0] == 200
    assert (await place.ask("/", host="other.example"))[0] == 421
    with pytest.raises(HttpRefusal):
        Hosts(["*.api.example"]).check(b"api.example", "")


def test_the_address_that_a_connection_came_to_is_ours():
    """A check of health comes by address; a name is what DNS rebinding needs."""
    hosts = Hosts([])
    assert hosts.check(b"10.1.2.3:80", "10.1.2.3") == "10.1.2.3:80"
    assert hosts.check(b"[2001:db8::1]", "2001:db8::1") == "[2001:db8::1]"
    with pytest.raises(HttpRefusal):
        hosts.check(b"10.1.2.4", "10.1.2.3")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/x", 200),
        ("http://LOCALHOST/x", 200),
        ("http://localhost?x", 200),
        ("http://evil.example/x", 400),
        ("http://localhost@evil.example/x", 400),
        ("http://evil.example@localhost/x", 400),
        ("http://localhost:81/x", 400),
        ("http:///x", 400),
        ("file:///etc/passwd", 400),
    ],
)
async def test_an_absolute_target_names_the_host_of_the_host_header(
    make: Callable[..., Awaitable[Place]], target: str, status: int
):
    """Else two readers would disagree on whose page it is."""
    assert (await (await make()).ask(target))[0] == status


# Where a request comes from


async def test_nobody_says_where_they_come_from_but_a_trusted_proxy(make: Callable[..., Awaitable[Place]]):
    """Without one, the address of the connection counts, and the app sees no word of the client's own."""
    claim = "X-Forwarded-For: 1.2.3.4"
    _, told = await (await make()).ask("/", claim, "Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4")
    assert told["client"][0] == "127.0.0.1"
    assert told["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert "1.2.3.4" not in json.dumps(told)
    _, told = await (await make(trusted_proxies=("127.0.0.0/8",))).ask("/", "X-Forwarded-For: 6.6.6.6, 1.2.3.4")
    assert told["client"] == ["1.2.3.4", 0]
    assert told["headers"]["x-forwarded-for"] == "1.2.3.4"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], "10.0.0.1"),
        ([b"1.2.3.4"], "1.2.3.4"),
        ([b"6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ([b"6.6.6.6", b"1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ([b"1.2.3.4, 10.0.0.2, 10.0.0.3"], "1.2.3.4"),
        ([b"10.0.0.9"], "10.0.0.9"),
        ([b"6.6.6.6, nonsense"], "10.0.0.1"),
        ([b"6.6.6.6,"], "10.0.0.1"),
        ([b"1.2.3.4:5678"], "1.2.3.4"),
        ([b"[2001:db8::1]:443"], "2001:db8::1"),
        ([b"::ffff:1.2.3.4"], "1.2.3.4"),
        ([b"6.6.6.6," * 5000 + b"1.2.3.4"], "1.2.3.4"),
    ],
)
def test_the_right_most_address_that_is_no_proxy_is_the_client(forwarded: list[bytes], client: str):
    """What is left of it the client may have written itself."""
    assert TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1", forwarded) == client


def test_a_stranger_is_believed_nothing():
    """Only who is on the list is listened to."""
    assert TrustedProxies(["10.0.0.0/8"]).client("9.9.9.9", [b"1.2.3.4"]) == "9.9.9.9"
    assert TrustedProxies([]).client("10.0.0.1", [b"1.2.3.4"]) == "10.0.0.1"


def test_an_address_stands_for_what_one_customer_has():
    """Nobody has a new limit with each of the addresses of their own /64."""
    assert host_of("1.2.3.4") == "1.2.3.4"
    assert host_of("2001:db8::1") == host_of("2001:db8::ffff:2") != host_of("2001:db8:0:1::1")
    assert network_of("1.2.3.4") == network_of("1.2.3.99") != network_of("1.2.4.4")
    assert network_of("2001:db8::1") == "2001:db8::/64"


def test_a_proxy_that_is_no_network_is_an_error_before_the_start(tmp_path: Any):
    """With its line."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "a"\n[gateway]\ntrusted_proxies = ["proxy"]\n')
    with pytest.raises(BadValueError, match="'proxy' is not an address"):
        Settings.load(tmp_path, {})
