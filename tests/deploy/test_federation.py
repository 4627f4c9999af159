"""Two applications in two trust domains on the loopback: each trusts the other's authority for its own names only."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from supervised_app import Up, audited, until

from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.errors import FederationError
from seamline.mesh.identity import CertificateAuthority, SpiffeId, WorkloadIdentity, new_key_and_csr
from seamline.mesh.identity import authority as authorities
from seamline.mesh.identity.federation import read_bundle, write_bundle

OURS, THEIRS = "other.local", "b.example"
ECHO = SpiffeId(OURS, "other", "echo")
POLICY = """
@id("names of b may have something said")
permit (principal == Module::"b.example/other/names", action == Action::"Echo.say", resource == Module::"echo");
"""


class Neighbours:
    """Ours, which is up, and the authority of theirs."""

    ours: Up
    authority: CertificateAuthority

    def kept(self) -> int:
        """How many roots ours knows of theirs, as its endpoint has told."""
        path = self.ours.data / "identity" / "federation" / f"{THEIRS}.json"
        return len(json.loads(path.read_bytes())["keys"]) if path.exists() else 0

    def client(self, module: str) -> WorkloadIdentity:
        """A module of theirs, which trusts ours."""
        identity = WorkloadIdentity(THEIRS, "other")
        key, request = new_key_and_csr()
        identity.set_bundle(self.authority.bundle_pem)
        identity.set_foreign({OURS: (self.ours.data / "identity" / "bundle.pem").read_bytes()})
        # The leaf alone: what links it to older roots would be accepted without the newest.
        leaf = x509.load_pem_x509_certificates(self.authority.issue(request, module))[0]
        identity.install(module, key, leaf.public_bytes(serialization.Encoding.PEM))
        return identity

    def say(self, identity: WorkloadIdentity, module: str, callee: SpiffeId = ECHO) -> tuple[int, Any]:
        """What our echo answers."""

        host, port = self.ours.address(callee.module)

        async def call() -> tuple[int, Any]:
            context = identity.client_context(module, "http/1.1", foreign=callee)
            pool = HttpPool(host, port, context, callee.server_name, 1)
            headers = [(b"content-type", b"application/json")]
            try:
                response = await pool.request("POST", "/other.Echo/say", headers, b'{"text": "hello"}', timeout_s=10)
                return response.status, json.loads(await response.read_all(100_000))
            finally:
                await pool.close()

        return asyncio.run(call())

    def lets_in(self, module: str) -> bool:
        """Whether a module of theirs is answered by our echo."""
        try:
            return self.say(self.client(module), module) == (200, "hello")
        except (OSError, ssl.SSLError):
            return False


class Pair(Neighbours):
    """Ours, which lets ``names`` of theirs in, and theirs, which gives out its bundle."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.theirs = Up(
            folder, "monolith", f'[identity]\nbundle_listen = "127.0.0.1:{port}"\nbundle_refresh_s = 1\n', app="theirs"
        )
        toml = self.theirs.folder / "seamline.toml"
        toml.write_text(toml.read_text().replace('name = "other"', f'name = "other"\ntrust_domain = "{THEIRS}"', 1))
        self.authority = CertificateAuthority.load_or_create(self.theirs.data / "identity", THEIRS, "other")
        first = folder / "b.json"
        first.write_bytes(write_bundle(self.authority.bundle_pem, 1))
        self.ours = Up(
            folder, "python",
            f"""
[identity.federation."{THEIRS}"]
url = "https://127.0.0.1:{port}/"
profile = "https_spiffe"
endpoint_id = "spiffe://{THEIRS}/other/bundle-endpoint"
bundle = "{first}"
modules = ["other/names"]
""",
            app="ours", policy=POLICY,
        )  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("federation"))
    with pair.theirs, pair.ours:
        yield pair


def test_a_module_that_policy_names_is_let_in(pair: Pair):
    """By the name of its trust domain, application and module."""
    assert pair.say(pair.client("names"), "names") == (200, "hello")


def test_another_of_theirs_is_not(pair: Pair):
    """What policy does not name is refused, and a module of ours of the same name is somebody else."""
    status, answer = pair.say(pair.client("front"), "front")
    assert (status, answer["code"]) == (403, "permission_denied")
    assert audited(pair.ours, "b.example/other/front")


def test_their_new_root_is_followed(pair: Pair):
    """A certificate that only the new root vouches for is accepted once their endpoint has told of it."""

    pair.theirs.ask("rotate")
    pair.authority = CertificateAuthority.load_or_create(pair.theirs.data / "identity", THEIRS, "other")
    until(lambda: pair.kept() == 2)
    assert until(lambda: pair.lets_in("names"))


def forged(pair: Pair) -> WorkloadIdentity:
    """A certificate for our own front, signed by their authority."""
    key, request = new_key_and_csr()
    public = x509.load_pem_x509_csr(request).public_key()
    authority: Any = pair.authority
    now = authority._clock.now()
    leaf = authorities._leaf(  # pyright: ignore[reportPrivateUsage]
        authority._key, authority._root, public, SpiffeId(OURS, "other", "front"), now, now + timedelta(hours=1)
    )
    identity = WorkloadIdentity(OURS, "other")
    identity.set_bundle((pair.ours.data / "identity" / "bundle.pem").read_bytes())
    identity.install("front", key, leaf.public_bytes(serialization.Encoding.PEM))
    return identity


def test_their_authority_has_no_say_in_our_names(pair: Pair):
    """The certificate verifies for OpenSSL, which knows both roots, and is refused all the same, with an audit line."""
    identity = forged(pair)
    host, port = pair.ours.address("echo")

    async def call() -> int:
        context = identity.client_context("front", "http/1.1")
        pool = HttpPool(host, port, context, identity.server_name("echo"), 1)
        headers = [(b"content-type", b"application/json")]
        try:
            response = await pool.request("POST", "/other.Echo/say", headers, b'{"text": "hello"}', timeout_s=10)
            await response.read_all(100_000)
            return response.status
        finally:
            await pool.close()

    try:
        status = asyncio.run(call())
    except OSError:
        status = 0
    assert status in {0, 403}
    assert until(lambda: audited(pair.ours, "another trust domain's authority"))


def test_a_server_that_is_another_module_is_refused(pair: Pair):
    """A client asks for our echo and meets another of ours: refused, though it trusts both domains."""
    names = pair.client("names")
    with pytest.raises(OSError, match="was asked for"):
        _meets(pair, names)


def _meets(pair: Pair, identity: WorkloadIdentity) -> None:
    host, port = pair.ours.address("names")

    async def call() -> None:
        context = identity.client_context("names", "http/1.1", foreign=ECHO)
        pool = HttpPool(host, port, context, "names.other.seamline", 1)
        try:
            await pool.request("POST", "/other.Echo/say", [], b"{}", timeout_s=10)
        finally:
            await pool.close()

    asyncio.run(call())


def _root(folder: Path, domain: str) -> bytes:
    return CertificateAuthority.load_or_create(folder / domain, domain, "a").bundle_pem


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path):
    """Roots, number and refresh hint; the hint within bounds."""
    pem = _root(tmp_path, THEIRS)
    found = read_bundle(write_bundle(pem, 7, 99), THEIRS)
    assert (found.roots, found.sequence, found.refresh_s) == (pem, 7, 99)
    assert read_bundle(write_bundle(pem, 7, 10**9), THEIRS).refresh_s == 3600


def test_a_bundle_with_the_root_of_another_domain_is_refused(tmp_path: Path):
    """Such as ours."""
    with pytest.raises(FederationError, match="that of"):
        read_bundle(write_bundle(_root(tmp_path, OURS), 1), THEIRS)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"keys": [{"use": "x509-svid", "x5c": ["!"]}]}', b'{"keys": []}']
)
def test_what_is_no_bundle_is_refused(data: bytes):
    """Nothing of it is used."""
    with pytest.raises(FederationError):
        read_bundle(data, THEIRS)


def test_a_leaf_is_no_root(tmp_path: Path):
    """A certificate that is no authority's is not trusted as one."""
    authority = CertificateAuthority.load_or_create(tmp_path, THEIRS, "a")
    _, request = new_key_and_csr()
    leaf = x509.load_pem_x509_certificates(authority.issue(request, "x"))[0]
    with pytest.raises(FederationError, match="no authority"):
        read_bundle(write_bundle(leaf.public_bytes(serialization.Encoding.PEM), 1), THEIRS)
