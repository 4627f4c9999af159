"""With ``source = "spire"`` each process has its identities from the Workload API; the built-in one has no say."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("spiffe", reason="the extra `spire` is not installed")
from fake_spire import FakeSpire
from supervised_app import Up, until

from seamline.mesh.errors import WorkloadApiError
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.identity import spire as room
from seamline.mesh.identity.spire import WorkloadApi

MODULES = ["gateway", "front", "echo", "names"]
DOMAIN = "other.local"


@pytest.fixture
def spire(tmp_path: Path) -> Iterator[FakeSpire]:
    fake = FakeSpire(tmp_path, DOMAIN, "other", list(MODULES))
    fake.start()
    yield fake
    fake.stop()


def settings_for(fake: FakeSpire) -> str:
    return f'[identity]\nsource = "spire"\nsocket = "{fake.address}"\n'


def shown(at: tuple[str, int], identity: WorkloadIdentity, callee: str = "echo") -> bytes:
    """The certificate that a module shows (DER). Raises ssl.SSLError when either side refuses the other."""
    import socket

    context = identity.client_context("front", "http/1.1")
    with (
        socket.create_connection(at, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=identity.server_name(callee)) as secure,
    ):
        secure.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")
        return cast("bytes", secure.getpeercert(binary_form=True))


def client(authority: CertificateAuthority, bundle: bytes | None = None) -> WorkloadIdentity:
    identity = WorkloadIdentity(DOMAIN, "other")
    key, request = new_key_and_csr()
    identity.set_bundle(bundle or authority.bundle_pem)
    identity.install("front", key, authority.issue(request, "front"))
    # A blocking socket in place of the loops' objects, on which the identity's own check of servers runs.
    context = identity.client_context("front", "http/1.1")
    context.sslobject_class = ssl.SSLObject
    return identity


@pytest.mark.parametrize("topology", ["python"])
def test_modules_call_each_other_with_identities_of_spire(spire: FakeSpire, tmp_path: Path, topology: str):
    """A public request goes through three processes; each shows what SPIRE's CA has signed, and follows its updates."""
    with Up(tmp_path, topology, settings_for(spire)) as up:
        assert up.get("/hello") == "/hello"
        at, identity = up.address("echo"), client(spire.authority)
        first = shown(at, identity)
        spire.renew()
        until(lambda: shown(at, identity) != first)
        assert up.get("/again") == "/again"


def test_the_built_in_authority_is_believed_by_nobody(spire: FakeSpire, tmp_path: Path):
    """Whoever has its key, or asks the supervisor, is a stranger."""
    with Up(tmp_path, "python", settings_for(spire)) as up:
        built_in = CertificateAuthority.load_or_create(up.data / "identity", DOMAIN, "other")
        stranger = client(built_in, spire.authority.bundle_pem)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shown(up.address("echo"), stranger)
        assert up.get("/x") == "/x"


def test_an_agent_that_restarts_is_found_again(spire: FakeSpire, tmp_path: Path):
    """Calls go on meanwhile, and its new certificates are taken up."""
    with Up(tmp_path, "python", settings_for(spire)) as up:
        at, identity = up.address("echo"), client(spire.authority)
        first = shown(at, identity)
        spire.stop()
        assert up.get("/alone") == "/alone"
        spire.start()
        until(lambda: shown(at, identity) != first)
        assert up.get("/together") == "/together"


def test_a_new_root_of_spire_is_followed(spire: FakeSpire, tmp_path: Path):
    """Everybody trusts it with the update that brings it."""
    with Up(tmp_path, "python", settings_for(spire)) as up:
        old = client(spire.authority)
        first = shown(up.address("echo"), old)
        spire.authority.rotate_root()
        spire.renew()
        fresh = client(spire.authority)
        until(lambda: _or_none(lambda: shown(up.address("echo"), fresh)) not in (None, first))
        assert up.get("/x") == "/x"


async def test_what_is_not_registered_is_named(spire: FakeSpire, monkeypatch: pytest.MonkeyPatch):
    """The error says which identity, and what the agent gives instead."""
    monkeypatch.setattr(room, "FIRST_S", 0.5)
    spire.modules = ["echo"]
    api = _api(spire, ["echo", "names"])
    with pytest.raises(WorkloadApiError) as caught:
        await api.open()
    api.close()
    assert "spiffe://other.local/other/names" in caught.value.fact
    assert "gives spiffe://other.local/other/echo" in caught.value.fact


async def test_an_agent_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Within the time that an agent may take."""
    monkeypatch.setattr(room, "FIRST_S", 0.5)
    fake = FakeSpire(tmp_path, DOMAIN, "other", ["echo"])
    api = _api(fake, ["echo"])
    with pytest.raises(WorkloadApiError, match="gave no identity"):
        await api.open()
    api.close()


async def test_identities_of_others_are_not_taken(spire: FakeSpire):
    """What the agent gives beyond the modules hosted here is left; other trust domains are told of by their names."""
    other = CertificateAuthority.load_or_create(
        Path(spire.address.removeprefix("unix://")).parent / "b", "b.example", "b"
    )
    spire.federated = {"b.example": other.bundle_pem}
    told: list[Any] = []
    identity = WorkloadIdentity(DOMAIN, "other")
    api = WorkloadApi(identity, ["echo"], spire.address, lambda chains: told.append(sorted(chains)), told.append)
    await api.open()
    api.close()
    assert identity.modules == ("echo",)
    assert told == [{"b.example": other.bundle_pem}, ["echo"]]


def _api(fake: FakeSpire, modules: list[str]) -> WorkloadApi:
    return WorkloadApi(WorkloadIdentity(DOMAIN, "other"), modules, fake.address, lambda _: None, lambda _: None)


def _or_none(look: Any) -> bytes | None:
    try:
        return look()
    except (ssl.SSLError, OSError):
        return None
