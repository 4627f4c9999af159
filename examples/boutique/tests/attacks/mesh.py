"""Attacks on a module's own port: every wrong certificate, stolen and widened proofs, frames of a stranger."""

# ruff: noqa: INP001  # a folder of tests, not a package
# pyright: reportPrivateUsage=false
# A forger has the root key, which the authority rightly keeps to itself.

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from examples.boutique.tests.attacks.target import Target, attack

from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import CallHead, ErrorBody
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.identity.delegation import Delegation
from seamline.mesh.identity.keys import key_pem, new_key, secret_file
from seamline.module.principal import User

DOMAIN, APP = "boutique.local", "boutique"
PAYMENTS = f"payments.{APP}.seamline"
CLEO = User("cleo", roles=frozenset({"supervisor"}))
_REFUND = b'{"charge_id":"c-1"}'


def stranger(bundle: bytes, pem: bytes = b"", alpn: str = frames.ALPN) -> ssl.SSLContext:
    """A client's context that shows whatever it likes and checks nothing but the root."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=bundle.decode())
    context.set_alpn_protocols([alpn])
    if pem:
        with secret_file(pem) as path:
            context.load_cert_chain(path)
    return context


def forged(
    t: Target, *uris: str, own_root: bool = True, begins_h: float = -1, ends_h: float = 1, authority: bool = False
) -> bytes:
    """Key and certificate that say ``uris``, signed by the stolen root key, or by the certificate's own."""
    key = new_key()
    root: x509.Certificate = t.authority._root  # noqa: SLF001
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "forged")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.subject if own_root else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(hours=begins_h))
        .not_valid_after(now + timedelta(hours=ends_h))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    signer: ec.EllipticCurvePrivateKey = t.authority._key if own_root else key  # noqa: SLF001
    certificate = builder.sign(signer, hashes.SHA256())
    return key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)


class Line:
    """A connection to a module's port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, t: Target, context: ssl.SSLContext, module: str = "payments") -> Line:
        host, port = await t.endpoint(module)
        name = f"{module}.{APP}.seamline"
        return cls(*await asyncio.open_connection(host, port, ssl=context, server_hostname=name))

    async def call(self, method: str, body: bytes, subject: str | None = None) -> tuple[int, bytes]:
        """The kind of frame that answers, and what it holds."""
        self.writer.write(frames.call_frame(1, CallHead(method, 5000, subject=subject), body))
        async with asyncio.timeout(10):
            while True:
                length, kind, _ = frames.HEADER.unpack(await self.reader.readexactly(frames.HEADER_BYTES))
                payload = await self.reader.readexactly(length)
                if kind in (frames.FAULT, frames.RESULT):
                    return kind, payload

    def close(self) -> None:
        self.writer.transport.abort()


async def kept_out(t: Target, context: ssl.SSLContext) -> None:
    """The handshake fails, or the connection ends without a call having been answered."""
    try:
        line = await Line.open(t, context)
    except (ssl.SSLError, OSError):
        return
    try:
        kind, payload = await line.call("Payments.refund", _REFUND)
    except (ssl.SSLError, OSError, EOFError):
        return
    finally:
        line.close()
    assert kind == frames.FAULT
    assert frames.read_error(payload).code == "unauthenticated", payload


async def refused(
    t: Target, module: str, callee: str, method: str, body: bytes, subject: str | None = None
) -> ErrorBody:
    """What a module in good standing hears that was taken over and calls what it may not."""
    key, chain, bundle = await t.identity(module)
    line = await Line.open(t, stranger(bundle, key + chain), callee)
    try:
        kind, payload = await line.call(method, body, subject)
    finally:
        line.close()
    assert kind == frames.FAULT, payload
    return frames.read_error(payload)


# Certificates.


@attack("it showed no certificate")
async def no_client_certificate(t: Target) -> None:
    await kept_out(t, stranger(t.authority.bundle_pem))


@attack("its certificate has expired")
async def a_certificate_that_has_expired(t: Target) -> None:
    await kept_out(t, stranger(t.authority.bundle_pem, forged(t, f"spiffe://{DOMAIN}/{APP}/checkout", ends_h=-0.5)))


@attack("not valid yet")
async def a_certificate_that_is_not_yet_valid(t: Target) -> None:
    pem = forged(t, f"spiffe://{DOMAIN}/{APP}/checkout", begins_h=0.5)
    await kept_out(t, stranger(t.authority.bundle_pem, pem))


@attack("self-signed")
async def a_certificate_that_signed_itself(t: Target) -> None:
    pem = forged(t, f"spiffe://{DOMAIN}/{APP}/checkout", own_root=False)
    await kept_out(t, stranger(t.authority.bundle_pem, pem))


@attack("certificate")
async def a_certificate_of_another_authority(t: Target) -> None:
    """One with the same names: an application of the same name on another machine."""
    with TemporaryDirectory() as folder:
        other = CertificateAuthority.load_or_create(Path(folder) / "ca", DOMAIN, APP)
        key, request = new_key_and_csr()
        await kept_out(t, stranger(t.authority.bundle_pem, key + other.issue(request, "checkout")))


@attack("belongs to trust domain 'evil.example'")
async def a_certificate_of_another_trust_domain(t: Target) -> None:
    await kept_out(t, stranger(t.authority.bundle_pem, forged(t, f"spiffe://evil.example/{APP}/checkout")))


@attack("belongs to application 'other'")
async def a_certificate_of_another_application(t: Target) -> None:
    await kept_out(t, stranger(t.authority.bundle_pem, forged(t, f"spiffe://{DOMAIN}/other/checkout")))


@attack("0 URIs")
async def a_certificate_without_a_spiffe_id(t: Target) -> None:
    await kept_out(t, stranger(t.authority.bundle_pem, forged(t)))


@attack("2 URIs")
async def a_certificate_with_two_spiffe_ids(t: Target) -> None:
    pem = forged(t, f"spiffe://{DOMAIN}/{APP}/ads", f"spiffe://{DOMAIN}/{APP}/checkout")
    await kept_out(t, stranger(t.authority.bundle_pem, pem))


@attack("refused")
async def a_modules_certificate_as_an_authority(t: Target) -> None:
    """A module's own key signs a certificate for another module."""
    key, chain, bundle = await t.identity("ads")
    signer = serialization.load_pem_private_key(key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificates(chain)[0]
    own, now = new_key(), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(issuer.subject)
        .issuer_name(issuer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(minutes=5))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/{APP}/checkout")]),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    await kept_out(t, stranger(bundle, key_pem(own) + certificate.public_bytes(serialization.Encoding.PEM) + chain))


@attack("does not speak TLS 1.3")
async def tls_1_2(t: Target) -> None:
    key, chain, bundle = await t.identity("checkout")
    context = stranger(bundle, key + chain)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    await kept_out(t, context)


@attack("may not call 'Payments.refund'")
async def another_module(t: Target) -> None:
    """Ads is in good standing, and money is not its business."""
    assert (await refused(t, "ads", "payments", "Payments.refund", _REFUND)).code == "permission_denied"


@attack("may not call 'Payments.refund'")
async def another_module_over_the_other_wire(t: Target) -> None:
    """The same in HTTP and JSON, as curl would."""
    key, chain, bundle = await t.identity("ads")
    line = await Line.open(t, stranger(bundle, key + chain, "http/1.1"))
    head = f"POST /boutique.Payments/refund HTTP/1.1\r\nhost: {PAYMENTS}\r\ncontent-type: application/json\r\n"
    line.writer.write(f"{head}content-length: {len(_REFUND)}\r\nconnection: close\r\n\r\n".encode() + _REFUND)
    answer = await line.reader.read()
    line.close()
    assert b" 403 " in answer.partition(b"\r\n")[0], answer


@attack("it spoke plain HTTP to a TLS port")
async def bytes_without_tls(t: Target) -> None:
    """A process of this machine without any certificate speaks plain HTTP to the port."""
    host, port = await t.endpoint("payments")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /Payments/refund HTTP/1.1\r\nhost: payments\r\ncontent-length: 2\r\n\r\n{}")
    async with asyncio.timeout(5):
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
    writer.transport.abort()
    assert not answer.startswith(b"HTTP/1.1 2")


# On whose behalf.


async def prover(t: Target, *modules: str) -> Delegation:
    """What a workload makes proofs with that hosts these modules, the gateway among them or not."""
    identity = WorkloadIdentity(DOMAIN, APP)
    identity.set_bundle(t.authority.bundle_pem)
    for module in modules:
        key, chain, _ = await t.identity(module)
        identity.install(module, key, chain)
    return Delegation(identity, "gateway")


def order(cents: str = "1.00") -> bytes:
    return json.dumps({"order_id": "o-1", "total": {"currency": "EUR", "amount": cents}}).encode()


async def shows(t: Target, proof: str, module: str = "desk") -> None:
    error = await refused(t, module, "checkout", "Refunds.refund", order(), proof)
    assert error.code == "unauthenticated", error


@attack("while nobody is signed in")
async def a_refund_on_nobodys_behalf(t: Target) -> None:
    error = await refused(t, "desk", "checkout", "Refunds.refund", order())
    assert error.code == "unauthenticated"


@attack("SL4101")
async def a_proof_that_is_none(t: Target) -> None:
    await shows(t, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjbGVvIn0.")


@attack("SL4102")
async def a_proof_that_the_module_made_up_itself(t: Target) -> None:
    """The first link must be the gateway's: a module cannot say who the user is."""
    made = Delegation(await _identity(t, "desk"), "desk")
    await shows(t, made.token(made.introduce(CLEO).acting("desk"), "checkout"))


@attack("SL410")
async def a_proof_without_the_gateways_link(t: Target) -> None:
    made = await prover(t, "gateway", "desk")
    await shows(t, made.token(made.introduce(CLEO).acting("desk"), "checkout").partition("~")[2])


@attack("SL4104")
async def a_proof_for_another_module(t: Target) -> None:
    made = await prover(t, "gateway", "desk")
    await shows(t, made.token(made.introduce(CLEO).acting("desk"), "payments"))


@attack("SL4104")
async def a_proof_that_was_overheard(t: Target) -> None:
    """Made by the desk for checkout; shown by the frontend, which is in good standing too."""
    made = await prover(t, "gateway", "desk")
    await shows(t, made.token(made.introduce(CLEO).acting("desk"), "checkout"), "frontend")


@attack("SL410")
async def a_widened_proof(t: Target) -> None:
    """Ada's proof with Cleo's first link in its place."""
    made = await prover(t, "gateway", "desk")
    ada = made.token(made.introduce(User("ada")).acting("desk"), "checkout")
    cleo = made.token(made.introduce(CLEO).acting("desk"), "checkout")
    await shows(t, f"{cleo.partition('~')[0]}~{ada.partition('~')[2]}")


@attack("SL410")
async def a_proof_whose_signature_is_stripped(t: Target) -> None:
    made = await prover(t, "gateway", "desk")
    good = made.token(made.introduce(CLEO).acting("desk"), "checkout")
    await shows(t, good.rpartition(".")[0] + ".")


@attack("SL4106")
async def a_proof_of_a_key_that_nobody_knows(t: Target) -> None:
    """Signed under a certificate made with the stolen root key, which the supervisor never saw."""
    identity = WorkloadIdentity(DOMAIN, APP)
    identity.set_bundle(t.authority.bundle_pem)
    for module in ("gateway", "desk"):
        key, request = new_key_and_csr()
        identity.install(module, key, t.authority.issue(request, module))
    made = Delegation(identity, "gateway")
    proof = made.token(made.introduce(CLEO).acting("desk"), "checkout")
    error = await refused(t, "desk", "checkout", "Refunds.refund", order(), proof)
    assert error.code in ("unavailable", "unauthenticated"), error


async def _identity(t: Target, *modules: str) -> WorkloadIdentity:
    identity = WorkloadIdentity(DOMAIN, APP)
    identity.set_bundle(t.authority.bundle_pem)
    for module in modules:
        key, chain, _ = await t.identity(module)
        identity.install(module, key, chain)
    return identity


@attack("may not call 'Refunds.refund'")
async def a_good_proof_of_somebody_who_may_not(t: Target) -> None:
    """Ada shops; she refunds nothing."""
    made = await prover(t, "gateway", "desk")
    proof = made.token(made.introduce(User("ada")).acting("desk"), "checkout")
    error = await refused(t, "desk", "checkout", "Refunds.refund", order(), proof)
    assert error.code == "permission_denied"


@attack("may not call 'Refunds.refund'")
async def support_gives_back_too_much(t: Target) -> None:
    """The sum is judged where the call arrives, whatever the caller's side said of it."""
    made = await prover(t, "gateway", "desk")
    bo = User("bo", roles=frozenset({"support"}))
    proof = made.token(made.introduce(bo).acting("desk"), "checkout")
    error = await refused(t, "desk", "checkout", "Refunds.refund", order("50.01"), proof)
    assert error.code == "permission_denied"


@attack("may not")
async def the_public_face_of_the_desk_from_a_module(t: Target) -> None:
    """A tunnel to a mounted app is the gateway's alone."""
    error = await refused(t, "frontend", "desk", "http:desk", b"{}")
    assert error.code == "permission_denied", error


@attack("may not")
async def anothers_events(t: Target) -> None:
    """Ads asks for the events of payments."""
    error = await refused(t, "ads", "payments", "payments_events.position", b'{"start":"earliest"}')
    assert error.code == "permission_denied", error
