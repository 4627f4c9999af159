"""Handshakes under attack, and certificates rotated under open connections, on both event loops."""

# pyright: reportPrivateUsage=false
# A forger needs the root key, which the authority rightly keeps to itself.
from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seamline.kernel.clock import ManualClock
from seamline.mesh.errors import (
    ForeignApplicationError,
    ForeignTrustDomainError,
    IdentityError,
    NoPeerCertificateError,
    NoSvidError,
    NotSpiffeError,
    UnexpectedModuleError,
)
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, explain_tls_failure, new_key_and_csr
from seamline.mesh.identity.keys import key_pem, new_key, secret_file

DOMAIN, APP = "boutique.local", "boutique"
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def on_loop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 20))

    return on_loop


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path / "ca", DOMAIN, APP)


def identity_of(
    authority: CertificateAuthority,
    *modules: str,
    bundle: bytes | None = None,
    lifetime_s: float = 3600,
) -> WorkloadIdentity:
    identity = WorkloadIdentity(DOMAIN, APP)
    for module in modules:
        renew(authority, identity, module, lifetime_s)
    identity.set_bundle(authority.bundle_pem if bundle is None else bundle)
    return identity


def renew(authority: CertificateAuthority, identity: WorkloadIdentity, module: str, lifetime_s: float = 3600) -> None:
    key, csr = new_key_and_csr()
    identity.install(module, key, authority.issue(csr, module, lifetime_s))


@dataclass
class Server:
    """An echo server that proves who calls. ``refused`` is what its audit hears; ``strangers`` passed TLS only."""

    port: int = 0
    callers: list[str] = field(default_factory=list[str])
    protocols: list[str | None] = field(default_factory=list[str | None])
    refused: list[str] = field(default_factory=list[str])
    strangers: list[IdentityError] = field(default_factory=list[IdentityError])


@asynccontextmanager
async def serving(identity: WorkloadIdentity, context: ssl.SSLContext | None = None):
    server = Server()
    identity.on_refused = server.refused.append

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ssl_object = writer.get_extra_info("ssl_object")
        try:
            server.callers.append(identity.authenticate(ssl_object))
            server.protocols.append(ssl_object.selected_alpn_protocol())
            while line := await reader.readline():
                writer.write(line)
        except IdentityError as error:
            server.strangers.append(error)
            writer.write(f"{error}\n".encode())
        except (ssl.SSLError, OSError):
            pass  # the client broke off, which is the point of some tests
        finally:
            writer.close()

    listener = await asyncio.start_server(
        serve, "127.0.0.1", 0, ssl=context or identity.server_context(), ssl_handshake_timeout=10
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def connected(server: Server, context: ssl.SSLContext, name: str = "payments.boutique.seamline"):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes = b"ping\n") -> bytes:
    writer.write(line)
    return await reader.readline()


async def attempt(server: Server, context: ssl.SSLContext, name: str = "payments.boutique.seamline") -> str:
    """What the client is told: the echo, or why it failed, at connecting or at the first read."""
    try:
        async with connected(server, context, name) as (reader, writer):
            return (await echo(reader, writer)).decode()
    except (ssl.SSLError, OSError) as error:
        return explain_tls_failure(error)


def peer_serial(writer: asyncio.StreamWriter) -> str:
    return writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]


def forged(
    signer: ec.EllipticCurvePrivateKey | None,
    issuer: x509.Name | None,
    *uris: str,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A certificate that says ``uris``, signed by ``signer``, or by itself. No extension but the names."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "forged")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return key, builder.sign(signer or key, hashes.SHA256())


def raw_context(
    bundle: bytes, key: ec.EllipticCurvePrivateKey | None = None, *chain: x509.Certificate, server: bool = False
) -> ssl.SSLContext:
    """A context that a stranger would make: trusts the bundle, shows any chain, checks no SPIFFE ID."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname = False
    context.load_verify_locations(cadata=bundle.decode())
    if key is not None:
        pem = key_pem(key) + b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
        with secret_file(pem) as path:
            context.load_cert_chain(path)
    return context


def reopened(folder: Path, minutes: float) -> CertificateAuthority:
    """The authority in ``folder`` with its clock off by so many minutes."""
    clock = ManualClock(datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes))
    return CertificateAuthority.load_or_create(folder, DOMAIN, APP, clock=clock)


def test_both_sides_know_each_other(run: Run, authority: CertificateAuthority):
    async def main() -> None:
        async with serving(identity_of(authority, "payments", "orders")) as server:
            client = identity_of(authority, "checkout")
            for module in ("orders", "payments"):
                async with connected(server, client.client_context("checkout"), client.server_name(module)) as streams:
                    assert await echo(*streams) == b"ping\n"
                    ssl_object = streams[1].get_extra_info("ssl_object")
                    assert client.authenticate(ssl_object, expect=module) == module
                    assert ssl_object.version() == "TLSv1.3"
                    with pytest.raises(UnexpectedModuleError, match=f"is module '{module}', but 'ads'"):
                        client.authenticate(ssl_object, expect="ads")
            assert server.callers == ["checkout", "checkout"]
            assert server.protocols == ["seamline/1", "seamline/1"]

    run(main())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["http/1.1"], "http/1.1"),
        (["istio-http/1.1", "istio"], None),
        (["h2", "http/1.1"], "http/1.1"),
        (["h2"], None),
        (["http/1.1", "seamline/1"], "seamline/1"),
    ],
)
def test_an_unknown_protocol_falls_to_http(
    run: Run, authority: CertificateAuthority, offered: list[str], chosen: str | None
):
    """Nothing in common is no reason to refuse: no protocol is chosen, and HTTP is spoken."""

    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            client = identity_of(authority, "checkout")
            assert await attempt(server, client.client_context("checkout", offered)) == "ping\n"
            assert server.protocols == [chosen]

    run(main())


def test_a_client_that_names_no_server_meets_the_first_module(run: Run, authority: CertificateAuthority):
    async def main() -> None:
        async with serving(identity_of(authority, "payments", "orders")) as server:
            client = identity_of(authority, "checkout")
            async with connected(server, client.client_context("checkout"), "") as (reader, writer):
                assert await echo(reader, writer) == b"ping\n"
                assert client.authenticate(writer.get_extra_info("ssl_object")) == "payments"

    run(main())


def test_an_ordinary_strict_client_is_content(run: Run, authority: CertificateAuthority):
    """Clients in other languages check host names and RFC 5280 to the letter; they need no special setting."""

    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            context = ssl.create_default_context(cadata=authority.bundle_pem.decode())
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            key, csr = new_key_and_csr()
            with secret_file(key + authority.issue(csr, "checkout")) as path:
                context.load_cert_chain(path)
            assert context.check_hostname
            assert await attempt(server, context) == "ping\n"
            assert server.callers == ["checkout"]

    run(main())


def test_a_module_that_is_not_hosted_is_refused_by_name(run: Run, authority: CertificateAuthority):
    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            client = identity_of(authority, "checkout").client_context("checkout")
            for name in ("orders.boutique.seamline", "payments.other.seamline", "payments"):
                assert await attempt(server, client, name) == (
                    "the peer refused: the peer does not host the module asked for"
                )
            assert server.refused == ["the peer was refused: it asked for a module that is not hosted here"] * 3
            assert server.callers == []

    run(main())


def refused_client(
    run: Run, authority: CertificateAuthority, context: ssl.SSLContext, *, server_hears: str, client_hears: str
) -> None:
    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            told = await attempt(server, context)
            assert client_hears in told
            assert [server_hears in reason for reason in server.refused] == [True], server.refused
            assert server.callers == []
            assert server.strangers == []

    run(main())


def test_no_certificate(run: Run, authority: CertificateAuthority):
    refused_client(
        run,
        authority,
        raw_context(authority.bundle_pem),
        server_hears="it showed no certificate",
        client_hears="this side showed no certificate",
    )


def test_a_self_signed_certificate(run: Run, authority: CertificateAuthority):
    refused_client(
        run,
        authority,
        raw_context(authority.bundle_pem, *forged(None, None, "spiffe://boutique.local/boutique/checkout")),
        server_hears="self-signed",
        client_hears="an authority the peer does not know",
    )


def test_a_foreign_authority_of_the_same_name(run: Run, authority: CertificateAuthority, tmp_path: Path):
    """The names are all right, the root is not: names in certificates of others prove nothing."""
    foreign = CertificateAuthority.load_or_create(tmp_path / "foreign", DOMAIN, APP)
    refused_client(
        run,
        authority,
        identity_of(foreign, "checkout", bundle=authority.bundle_pem).client_context("checkout"),
        server_hears="unknown authority",
        client_hears="an authority the peer does not know",
    )


def test_a_foreign_root_sent_along_is_not_believed(run: Run, authority: CertificateAuthority, tmp_path: Path):
    foreign = CertificateAuthority.load_or_create(tmp_path / "foreign", DOMAIN, APP)
    key, leaf = forged(foreign._key, foreign._root.subject, "spiffe://boutique.local/boutique/checkout")
    refused_client(
        run,
        authority,
        raw_context(authority.bundle_pem, key, leaf, foreign._root),
        server_hears="unknown authority",
        client_hears="an authority the peer does not know",
    )


def test_an_expired_certificate(run: Run, authority: CertificateAuthority):
    before = reopened(authority.folder, -70)
    refused_client(
        run,
        authority,
        identity_of(before, "checkout").client_context("checkout"),
        server_hears="has expired",
        client_hears="this side's certificate has expired",
    )


def test_a_certificate_of_the_future(run: Run, authority: CertificateAuthority):
    """Beyond the skew that is survived, a certificate that is not valid yet is refused."""
    ahead = reopened(authority.folder, 20)
    refused_client(
        run,
        authority,
        identity_of(ahead, "checkout").client_context("checkout"),
        server_hears="not valid yet",
        client_hears="this side's certificate is not valid for the peer",
    )


@pytest.mark.parametrize("minutes", [-5, 5])
def test_clocks_that_differ_by_five_minutes_are_survived(run: Run, tmp_path: Path, minutes: float):
    """The authority's clock is ahead or behind, and everything it makes is new, its root included."""

    async def main() -> None:
        authority = reopened(tmp_path / "ca", minutes)
        async with serving(identity_of(authority, "payments")) as server:
            assert await attempt(server, identity_of(authority, "checkout").client_context("checkout")) == "ping\n"

    run(main())


def test_a_module_that_signs_as_if_it_were_the_authority(run: Run, authority: CertificateAuthority):
    """An SVID's key cannot make SVIDs, even if the whole chain is sent."""
    key_text, csr = new_key_and_csr()
    ads = x509.load_pem_x509_certificates(authority.issue(csr, "ads"))
    ads_key = serialization.load_pem_private_key(key_text, None)
    assert isinstance(ads_key, ec.EllipticCurvePrivateKey)
    key, leaf = forged(ads_key, ads[0].subject, "spiffe://boutique.local/boutique/payments")
    refused_client(
        run,
        authority,
        raw_context(authority.bundle_pem, key, leaf, *ads),
        server_hears="signed by a certificate that is no authority",
        client_hears="the peer refused: ",
    )


def test_an_older_tls(run: Run, authority: CertificateAuthority):
    context = raw_context(authority.bundle_pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    refused_client(
        run,
        authority,
        context,
        server_hears="does not speak TLS 1.3",
        client_hears="this side does not speak TLS 1.3",
    )


@pytest.mark.parametrize(
    ("plaintext", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "spoke plain HTTP to a TLS port"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "does not speak TLS"),
        (b"\x00" * 64, "does not speak TLS"),
        (b"\xff" * 64, "does not speak TLS"),
        (b"\x16\x03\x01\xff\xff" + b"\x01" * 64, "does not speak TLS"),
    ],
    ids=["http1", "http2", "zeros", "ones", "oversized"],
)
def test_plaintext_is_closed_at_once(run: Run, authority: CertificateAuthority, plaintext: bytes, reason: str):
    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(plaintext)
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
            assert b"HTTP" not in answer
            assert [reason in heard for heard in server.refused] == [True], server.refused
            assert server.callers == []
            writer.close()

    run(main())


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["spiffe://other.local/boutique/checkout"], ForeignTrustDomainError),
        (["spiffe://boutique.local.evil/boutique/checkout"], ForeignTrustDomainError),
        (["spiffe://boutique.local/other/checkout"], ForeignApplicationError),
        (["spiffe://boutique.local/boutique/checkout", "spiffe://boutique.local/boutique/ads"], NotSpiffeError),
        (["spiffe://boutique.local/boutique/checkout", "https://example.org"], NotSpiffeError),
        (["spiffe://boutique.local"], NotSpiffeError),
        (["spiffe://boutique.local/boutique/checkout/admin"], NotSpiffeError),
        (["https://boutique.local/boutique/checkout"], NotSpiffeError),
        ([], NotSpiffeError),
    ],
    ids=[
        "other domain",
        "domain with a tail",
        "other application",
        "two ids",
        "an id and a url",
        "the domain itself",
        "too long",
        "not spiffe",
        "none",
    ],
)
def test_a_certificate_of_the_right_root_with_the_wrong_name(
    run: Run, authority: CertificateAuthority, uris: list[str], expected: type[IdentityError]
):
    """TLS alone lets these in; the check of the peer does not, and says so to the client."""

    async def main() -> None:
        key, leaf = forged(authority._key, authority._root.subject, *uris)
        async with serving(identity_of(authority, "payments")) as server:
            told = await attempt(server, raw_context(authority.bundle_pem, key, leaf))
            assert told.startswith(f"{expected.code}: ")
            assert [type(error) for error in server.strangers] == [expected]
            assert server.callers == []

    run(main())


def test_the_root_itself_is_no_module(run: Run, authority: CertificateAuthority):
    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            told = await attempt(server, raw_context(authority.bundle_pem, authority._key, authority._root))
            assert server.callers == []
            assert "SL4011" in told or "the peer refused" in told

    run(main())


def test_a_connection_without_tls_proves_nothing(authority: CertificateAuthority):
    with pytest.raises(NoPeerCertificateError, match="not encrypted"):
        identity_of(authority, "payments").authenticate(None)


def test_a_server_that_is_another_module_fails_the_clients_handshake(run: Run, authority: CertificateAuthority):
    """Module ads took over the address of payments: its certificate is genuine, and it gets not one byte."""

    async def main() -> None:
        impostor = identity_of(authority, "ads")
        key_text, csr = new_key_and_csr()
        chain = x509.load_pem_x509_certificates(authority.issue(csr, "ads"))
        key = serialization.load_pem_private_key(key_text, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        async with serving(impostor, raw_context(authority.bundle_pem, key, *chain, server=True)) as server:
            told = await attempt(server, identity_of(authority, "checkout").client_context("checkout"))
            assert told == "the peer was refused: the peer is module 'ads', but 'payments' was asked for"

    run(main())


def test_a_server_of_a_foreign_authority_fails_the_clients_handshake(
    run: Run, authority: CertificateAuthority, tmp_path: Path
):
    async def main() -> None:
        foreign = CertificateAuthority.load_or_create(tmp_path / "foreign", DOMAIN, APP)
        async with serving(identity_of(foreign, "payments")) as server:
            told = await attempt(server, identity_of(authority, "checkout").client_context("checkout"))
            assert told == "the peer was refused: its certificate comes from an unknown authority"
            assert server.callers == []

    run(main())


def test_a_module_without_a_certificate_cannot_connect(authority: CertificateAuthority):
    with pytest.raises(NoSvidError, match="'ads' has no certificate"):
        identity_of(authority, "checkout").client_context("ads")


def test_a_certificate_is_rotated_under_open_connections(run: Run, authority: CertificateAuthority):
    """The same contexts show the new certificates to new connections; the old connection goes on."""

    async def main() -> None:
        server_side = identity_of(authority, "payments")
        client_side = identity_of(authority, "checkout")
        front, context = server_side.server_context(), client_side.client_context("checkout")
        async with serving(server_side) as server, connected(server, context) as old:
            assert await echo(*old) == b"ping\n"
            for _ in range(5):
                renew(authority, server_side, "payments")
                renew(authority, client_side, "checkout")
                assert server_side.server_context() is front
                assert client_side.client_context("checkout") is context
                async with connected(server, context) as new:
                    assert await echo(*new) == b"ping\n"
                    assert peer_serial(new[1]) != peer_serial(old[1])
                assert await echo(*old, b"still here\n") == b"still here\n"
            assert server.callers == ["checkout"] * 6
            assert server.refused == []

    run(main())


def test_an_expired_certificate_is_healed_by_rotation(run: Run, authority: CertificateAuthority):
    """A workload that slept through its rotation recovers with the next certificate, on the same contexts."""

    async def main() -> None:
        client = identity_of(reopened(authority.folder, -70), "checkout")
        context = client.client_context("checkout")
        async with serving(identity_of(authority, "payments")) as server:
            assert "has expired" in await attempt(server, context)
            renew(authority, client, "checkout")
            assert await attempt(server, context) == "ping\n"

    run(main())


def test_a_new_root_is_accepted_by_peers_that_know_only_the_old_one(run: Run, authority: CertificateAuthority):
    """The order in which processes hear of a rotation does not matter."""

    async def main() -> None:
        old_bundle = authority.bundle_pem
        early = identity_of(authority, "checkout")
        server_side = identity_of(authority, "payments")
        async with serving(server_side) as server, connected(server, early.client_context("checkout")) as old:
            assert await echo(*old) == b"ping\n"
            new_bundle = authority.rotate_root()

            # A client certified by the new root; the server has the old bundle.
            late = identity_of(authority, "ads", bundle=new_bundle)
            assert await attempt(server, late.client_context("ads")) == "ping\n"
            # The server certified by the new root; the early client has the old bundle.
            renew(authority, server_side, "payments")
            assert await attempt(server, early.client_context("checkout")) == "ping\n"
            # The server learns the new bundle; the early client still shows its old certificate.
            server_side.set_bundle(new_bundle)
            assert await attempt(server, early.client_context("checkout")) == "ping\n"
            # Two rotations in a row, and a peer that slept through both.
            authority.rotate_root()
            renew(authority, server_side, "payments")
            assert identity_of(authority, "email", bundle=old_bundle).modules == ("email",)
            sleeper = identity_of(authority, "email", bundle=old_bundle)
            assert await attempt(server, sleeper.client_context("email")) == "ping\n"
            assert await echo(*old, b"still here\n") == b"still here\n"
            assert server.refused == []

    run(main())


def test_a_dropped_root_is_no_longer_trusted_but_open_connections_live(run: Run, authority: CertificateAuthority):
    async def main() -> None:
        server_side = identity_of(authority, "payments")
        stale = identity_of(authority, "checkout").client_context("checkout")
        front = server_side.server_context()
        async with serving(server_side) as server, connected(server, stale) as old:
            assert await echo(*old) == b"ping\n"
            authority.rotate_root()
            renew(authority, server_side, "payments")
            server_side.set_bundle(authority.bundle_pem)
            assert await attempt(server, stale) == "ping\n"
            newest_only = authority._root.public_bytes(serialization.Encoding.PEM)
            server_side.set_bundle(newest_only)
            assert "an authority the peer does not know" in await attempt(server, stale)
            assert ["unknown authority" in reason for reason in server.refused] == [True]
            fresh = identity_of(authority, "ads")
            assert await attempt(server, fresh.client_context("ads")) == "ping\n"
            assert await echo(*old, b"still here\n") == b"still here\n"
            assert server_side.server_context() is front

    run(main())


def test_no_session_outlives_its_certificate(run: Run, authority: CertificateAuthority):
    """A resumed session would not be verified again, so the server hands out no tickets."""

    async def main() -> None:
        async with (
            serving(identity_of(authority, "payments")) as server,
            connected(server, identity_of(authority, "checkout").client_context("checkout")) as (reader, writer),
        ):
            assert await echo(reader, writer) == b"ping\n"
            assert not writer.get_extra_info("ssl_object").session.has_ticket

    run(main())


def test_a_refused_client_that_stays_is_closed_by_the_handshake_timeout(run: Run, authority: CertificateAuthority):
    """A refusal waits for the alert to go out, not for the goodwill of the client."""

    async def refused_within(limit_s: float) -> tuple[bytes, int]:
        """The alert, and how many refusals were heard of; no alert where the handshake itself took longer."""
        identity = identity_of(authority, "payments")
        heard: list[str] = []
        identity.on_refused = heard.append
        listener = await asyncio.start_server(
            lambda _reader, _writer: None, "127.0.0.1", 0, ssl=identity.server_context(), ssl_handshake_timeout=limit_s
        )
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        stubborn = raw_context(authority.bundle_pem).wrap_bio(
            incoming, outgoing, server_hostname="payments.boutique.seamline"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.sockets[0].getsockname()[1])
        while True:
            try:
                stubborn.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                if not (data := await reader.read(65536)):
                    break
                incoming.write(data)
        writer.write(outgoing.read())  # finished, without a certificate, and no thought of closing
        alert = await reader.read()
        writer.close()
        listener.close()
        return alert, len(heard)

    async def main() -> None:
        for limit_s in (0.2, 1.0, 5.0):  # however busy the machine is
            alert, heard = await refused_within(limit_s)
            if alert:
                break
        assert alert
        assert heard == 1

    with warnings.catch_warnings():
        run(main())


def test_the_hook_is_called_once_for_each_refusal(run: Run, authority: CertificateAuthority):
    async def main() -> None:
        async with serving(identity_of(authority, "payments")) as server:
            for _ in range(3):
                await attempt(server, raw_context(authority.bundle_pem))
            assert len(server.refused) == 3

    run(main())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(), "nothing listens"),
        (ConnectionResetError(), "without a word"),
        (ssl.SSLEOFError(8, "eof"), "closed the connection during the handshake"),
        (ConnectionAbortedError("took longer"), "took too long"),
        (TimeoutError(), "took too long"),
        (ssl.SSLError(1, "weird"), "weird"),
        (OSError("disk"), "OSError: disk"),
    ],
)
def test_every_failure_has_words(error: Exception, words: str):
    assert words in explain_tls_failure(error)
