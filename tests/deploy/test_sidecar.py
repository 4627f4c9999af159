"""A service in another language behind a real Envoy is a module like any other; each test attacks one of its walls."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import shutil
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from other.echo import Echo
from seamline import DeadlineExceeded, PermissionDenied, Unauthenticated, Unavailable, User
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.run.admin import AdminClient
from seamline.run.application import Application
from seamline.testing.app import TopologyApp

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.seamline(app="tests/deploy/other_app", topologies=["services"]),
    pytest.mark.needs_server,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("envoy") is None and shutil.which("envoy") is None, reason="Envoy is not installed"
    ),
]
WAIT_S = 30.0


@contextlib.asynccontextmanager
async def connection(host: str, port: int, **tls: Any) -> AsyncGenerator[tuple[StreamReader, StreamWriter]]:
    """Closed to the end: a TLS transport that waits for its peer's farewell outlives the test otherwise."""
    reader, writer = await asyncio.open_connection(host, port, **tls)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def user(*roles: str) -> User:
    return User("ann", roles=frozenset(roles), session="s1", authenticated_at=1_700_000_000)


def echo(app: TopologyApp, *roles: str, signed_in: bool = True) -> Echo:
    return app.stub(Echo, caller="names", user=user(*roles) if signed_in else None)


async def ask(app: TopologyApp, op: str, **arguments: Any) -> dict[str, Any]:
    return await AdminClient(app.data).ask(op, **arguments)


async def where(app: TopologyApp) -> tuple[str, int]:
    found = (await ask(app, "endpoints"))["endpoints"]["echo"][0]
    assert found["wire"] == "http"
    return found["host"], found["port"]


async def beside(app: TopologyApp, name: str) -> psutil.Process:
    """Envoy or node, as the worker's child."""
    for workload in (await ask(app, "status"))["workloads"]:
        if workload["name"] == "echo":
            worker = psutil.Process(workload["replicas"][0]["pid"])
            return next(each for each in worker.children() if Path(each.cmdline()[0]).name == name)
    raise AssertionError("echo does not run")


async def until(found: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not found():  # noqa: ASYNC110  # another process is looked at
            await asyncio.sleep(0.02)


async def until_it_answers(service: Echo) -> str:
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(Unavailable):
                return await service.say("back")
            await asyncio.sleep(0.02)


async def test_node_answers(topology_app: TopologyApp):
    """It is the other language's process that answers, a child of the worker."""
    node = await beside(topology_app, "node")
    assert await echo(topology_app).say("hello") == f"hello ({node.pid})"


async def test_a_stream_of_answers_comes_through(topology_app: TopologyApp):
    """In envelopes, as on the wire."""
    assert [each async for each in echo(topology_app).count(3)] == [1, 2, 3]


async def test_policy_is_asked_about_the_arguments(topology_app: TopologyApp):
    """What only some may say is refused to others before the service hears of it, and in the words of policy."""
    with pytest.raises(Unauthenticated):
        await echo(topology_app, signed_in=False).say("loud")
    with pytest.raises(PermissionDenied):
        await echo(topology_app).say("loud")
    assert (await echo(topology_app, "loud").say("loud")).startswith("loud (")


async def raw(app: TopologyApp, head: str, body: bytes = b"", *headers: tuple[bytes, bytes]) -> tuple[int, Any]:
    """What a module of ours is answered that speaks HTTP by itself: ``POST /path``."""
    host, port = await where(app)
    await echo(app).say("to have a certificate")
    identity = cast("WorkloadIdentity", cast("Any", app._site)._callers)  # pyright: ignore[reportPrivateUsage]
    pool = HttpPool(host, port, identity.client_context("names", "http/1.1"), identity.server_name("echo"), 1)
    method, _, target = head.partition(" ")
    try:
        given = [(b"content-type", b"application/json"), *headers]
        response = await pool.request(method, target, given, body, timeout_s=10)
        text = await response.read_all(100_000)
        return response.status, json.loads(text) if text.startswith((b"{", b'"', b"[")) else text
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("POST /other.Echo/say", b'{"text": "quiet"}', 200),
        ("POST /other.Echo/say", b'{"text": "loud", "text": "quiet"}', 400),
        ("POST /other.Echo/say", b'{"Text": "loud", "text": "quiet"}', 400),
        ("POST /other.Echo/say?message=%7B%22text%22:%22loud%22%7D", b'{"text": "quiet"}', 400),
        ("PUT /other.Echo/say", b'{"text": "quiet"}', 400),
        ("GET /other.Echo/say?message=%7B%22text%22:%22loud%22%7D&encoding=json", b"", 401),
        ("GET /other.Echo/slow?message=%7B%22seconds%22:0%7D&encoding=json", b"", 400),
        ("POST /other.Echo/ask/../say", b'{"text": "loud"}', 401),
        ("POST /other.Echo%2Fsay", b'{"text": "loud"}', 400),
        ("POST //other.Echo/say", b'{"text": "loud"}', 404),
        ("POST /other.Echo/unheard", b"{}", 404),
        ("POST /other.Names/whole", b'{"name": "x"}', 404),
        ("POST /", b"", 404),
    ],
)
async def test_what_can_be_read_in_two_ways_does_not_pass(
    topology_app: TopologyApp, head: str, body: bytes, status: int
):
    """Policy and service see the same arguments of the same method, or the service sees nothing."""
    assert (await raw(topology_app, head, body))[0] == status


async def test_who_calls_is_said_by_the_sidecar_and_by_nobody_else(topology_app: TopologyApp):
    """Headers that a caller makes up do not arrive; those of the check do."""
    forged = [
        (b"seamline-caller", b"gateway"), (b"seamline-user", b"root"), (b"seamline-roles", b'["loud"]'),
        (b"x-envoy-upstream-rq-timeout-ms", b"1"),
        (b"x-forwarded-client-cert", b"URI=spiffe://other.local/other/gateway"),
    ]  # fmt: skip
    _, heard = await raw(topology_app, "POST /other.Echo/heard", b"{}", *forged)
    assert heard["seamline-caller"] == "names"
    assert heard["seamline-user"] == heard["seamline-roles"] == heard["seamline-subject"] == ""
    assert "spiffe://other.local/other/names" in heard["x-forwarded-client-cert"]
    assert "gateway" not in heard["x-forwarded-client-cert"]
    signed_in = await echo(topology_app, "loud").heard()
    assert (signed_in["seamline-user"], signed_in["seamline-roles"]) == ("ann", '["loud"]')


async def test_the_user_travels_through_the_service(topology_app: TopologyApp):
    """What node asks of another module, it asks for the same user; the chain names it."""
    assert await echo(topology_app).ask("x") == '200 "x for ann by names > echo"'


async def test_the_service_can_act_for_nobody_that_it_was_not_given(topology_app: TopologyApp):
    """Without a user policy refuses; a made-up proof is refused as such."""
    assert (await echo(topology_app, signed_in=False).ask("x")).startswith("401 ")
    assert await echo(topology_app).forge() == "401 unauthenticated"


async def test_a_deadline_holds(topology_app: TopologyApp):
    """The method's own, half a second."""
    with pytest.raises(DeadlineExceeded):
        await echo(topology_app).slow(30.0)


async def test_a_revoked_session_is_refused(topology_app: TopologyApp):
    """As at any other module."""
    topology_app.revoke("session", "s1")
    with pytest.raises(Unauthenticated):
        await echo(topology_app).say("x")


async def test_a_stream_of_answers_ends_with_its_session(topology_app: TopologyApp):
    """In the words of the refusal, though the service goes on and the caller has heard of nothing."""
    answers = echo(topology_app).count(0)
    assert await anext(answers) == 1
    topology_app.revoke("session", "s1")
    with pytest.raises(Unauthenticated, match="revoked by a test"):
        await anext(answers)


async def test_a_stream_of_another_goes_on(topology_app: TopologyApp):
    """Only those of whoever is revoked end."""
    answers = echo(topology_app, signed_in=False).count(3)
    assert await anext(answers) == 1
    topology_app.revoke("session", "s1")
    assert [each async for each in answers] == [2, 3]


async def test_a_stream_of_answers_that_breaks_off_says_so(topology_app: TopologyApp):
    """The service dies in the midst of it."""
    answers = echo(topology_app).count(0)
    assert await anext(answers) == 1
    (await beside(topology_app, "node")).kill()
    with pytest.raises(Unavailable, match="broke the connection off"):
        await anext(answers)
    await until_it_answers(echo(topology_app))


@pytest.mark.seamline(app="tests/deploy/other_app", topologies=["services"], fresh=True)
async def test_a_stream_of_answers_ends_when_its_caller_is_quarantined(topology_app: TopologyApp):
    """Also one that is made for nobody."""
    answers = echo(topology_app, signed_in=False).count(0)
    assert await anext(answers) == 1
    topology_app.revoke("module", "names")
    with pytest.raises(Unavailable):
        await anext(answers)


async def test_a_service_that_dies_is_unavailable_and_comes_back(topology_app: TopologyApp):
    """A call that may have run is not made again; the next process answers the next call."""
    before = await beside(topology_app, "node")
    with pytest.raises(Unavailable):
        await echo(topology_app).die()
    assert await until_it_answers(echo(topology_app)) != f"back ({before.pid})"


async def test_an_envoy_that_dies_comes_back_on_its_port(topology_app: TopologyApp):
    """The worker sees it and starts another; the service was not touched."""
    node, envoy, at = await beside(topology_app, "node"), await beside(topology_app, "envoy"), await where(topology_app)
    envoy.kill()
    assert await until_it_answers(echo(topology_app)) == f"back ({node.pid})"
    assert await where(topology_app) == at
    assert (await beside(topology_app, "envoy")).pid != envoy.pid


async def test_a_worker_that_is_killed_takes_both_with_it(topology_app: TopologyApp):
    """The kernel ends them; the supervisor starts all three anew."""
    old = [await beside(topology_app, "node"), await beside(topology_app, "envoy")]
    topology_app.kill("echo")
    await until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in old))
    topology_app.wait_ready()
    assert (await until_it_answers(echo(topology_app))).startswith("back (")


def stranger(tmp_path: Path) -> ssl.SSLContext:
    """A certificate with the right names, made by another authority."""
    authority = CertificateAuthority.load_or_create(tmp_path / "identity", "other.local", "other")
    key, request = new_key_and_csr()
    identity = WorkloadIdentity("other.local", "other")
    identity.set_bundle(authority.bundle_pem)
    identity.install("names", key, authority.issue(request, "names"))
    context = identity.client_context("names", "http/1.1")
    context.verify_mode = ssl.CERT_NONE
    context.sslobject_class = ssl.SSLObject
    return context


async def test_a_certificate_of_another_authority_is_refused(topology_app: TopologyApp, tmp_path: Path):
    """Whatever names it holds."""
    host, port = await where(topology_app)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with connection(host, port, ssl=stranger(tmp_path), server_hostname="x") as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            if await reader.read(1) == b"":
                raise ConnectionResetError

    async def plain() -> bytes:
        async with connection(host, port) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                return await reader.read(100)
            return b""

    assert b"200" not in await plain()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[TopologyApp]:
    """The application with certificates that live for four seconds."""
    folder = tmp_path / "app"
    shutil.copytree(HERE / "other_app", folder)
    toml = folder / "seamline.toml"
    text = toml.read_text().replace("../service.mjs", str(HERE / "service.mjs"))
    toml.write_text(text + "\n[identity]\ncertificate_lifetime_s = 4\n")
    with TopologyApp(Application.load(folder), "services", tmp_path / "data") as app:
        yield app


async def serial(app: TopologyApp) -> int:
    from cryptography import x509

    host, port = await where(app)
    identity = cast("WorkloadIdentity", cast("Any", app._site)._callers)  # pyright: ignore[reportPrivateUsage]
    context, name = identity.client_context("names", "http/1.1"), identity.server_name("echo")
    async with connection(host, port, ssl=context, server_hostname=name) as (_, writer):
        der = cast("bytes", writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    return x509.load_der_x509_certificate(der).serial_number


async def test_certificates_are_replaced_while_calls_run(hasty: TopologyApp):
    """Envoy shows two newer certificates in turn, and no call of those under way meanwhile fails."""
    service = echo(hasty)
    await service.say("first")
    seen = {await serial(hasty)}
    calls = 0
    async with asyncio.timeout(WAIT_S):
        while len(seen) < 3:
            await asyncio.gather(*(service.say("x") for _ in range(4)))
            calls += 4
            seen.add(await serial(hasty))
    assert calls > 8


@pytest.mark.seamline(app="tests/deploy/other_app", topologies=["monolith"], fresh=True)
async def test_a_service_takes_the_place_of_a_module_while_calls_run(
    topology_app: TopologyApp, node_by_hand: tuple[int, int]
):
    """From Python to node and back, and every call is answered by one of them."""
    port, pid = node_by_hand
    service = echo(topology_app)
    answers: set[str] = set()
    done = asyncio.Event()

    async def call() -> None:
        while not done.is_set():
            answers.add(await service.say("x"))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(call())
        await ask(topology_app, "sidecar", module="echo", port=port)
        await until(lambda: f"x ({pid})" in answers)
        answers.clear()
        await ask(topology_app, "sidecar", module="echo", port=0)
        await until(lambda: "x" in answers)
        done.set()
    assert answers <= {"x", f"x ({pid})"}
