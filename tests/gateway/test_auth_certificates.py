"""Clients of mutual TLS on the public port, and tokens bound to their certificates (RFC 8705)."""

from __future__ import annotations

import datetime as dt
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.gateway.auth_rig import Place, place
from tests.gateway.test_auth_tokens import ISSUER, Api, World

from seamline.gateway.auth.certificates import thumbprint
from seamline.kernel.settings import CertificateClientSettings, IssuerSettings
from seamline.kernel.wire.http1_client import HttpPool

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Maker:
    """Makes certificates, and writes them where TLS reads them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        built = self._builder(self.name, self.key, DAY * 2).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = built.sign(self.key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: Any, lasts: dt.timedelta) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY * 3)
            .not_valid_after(NOW + lasts)
        )

    def issue(
        self,
        name: str,
        *names: x509.GeneralName,
        lasts: dt.timedelta = DAY,
        use: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> tuple[Path, bytes]:
        """The file of a certificate and its key, and the certificate itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._builder(subject, key, lasts).add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = built.sign(self.key, hashes.SHA256())
        file = self.folder / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        return file, certificate.public_bytes(serialization.Encoding.DER)


class Ground:
    def __init__(self, folder: Path) -> None:
        self.clients = Maker(folder, "clients-ca")
        self.others = Maker(folder, "others-ca")
        self.server, _ = Maker(folder, "server-ca").issue(
            "server", x509.DNSName("localhost"), use=ExtendedKeyUsageOID.SERVER_AUTH
        )

    def settings(self) -> dict[str, Any]:
        return {
            "gateway": {"tls_certificate": str(self.server), "tls_key": str(self.server)},
            "client_ca": str(self.clients.file),
        }


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


async def ask(site: Place, certificate: Path | None, **headers: str) -> tuple[int, Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    pool = HttpPool("127.0.0.1", site.port, context)
    try:
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        response = await pool.request("GET", "/who", lines)
        return response.status, json.loads(await response.read_all())
    finally:
        await pool.close()


@pytest.fixture
def known() -> tuple[CertificateClientSettings, ...]:
    return (CertificateClientSettings(identity="spiffe://partner.example/feed", roles=("partner",), scopes=("read",)),)


async def test_a_certificate_says_who_its_holder_is(
    ground: Ground, tmp_path: Path, known: tuple[CertificateClientSettings, ...]
):
    """By its URI before its DNS name; what the settings say of it are its roles. Without one there is nobody."""
    uri = x509.UniformResourceIdentifier("spiffe://partner.example/feed")
    good, _ = ground.clients.issue("feed", x509.DNSName("feed.example"), uri)
    plain, _ = ground.clients.issue("plain", x509.DNSName("plain.example"))
    async with _door(ground, tmp_path, known) as site:
        status, told = await ask(site, good)
        assert (status, told["user"]["id"]) == (200, "spiffe://partner.example/feed")
        assert (told["user"]["roles"], told["user"]["scopes"]) == (["partner"], ["read"])
        assert (await ask(site, plain))[1]["user"]["id"] == "plain.example"
        assert (await ask(site, plain))[1]["user"]["roles"] == []
        assert (await ask(site, None))[1]["user"] is None


def _door(ground: Ground, tmp_path: Path, known: tuple[CertificateClientSettings, ...] = (), **more: Any) -> Any:
    settings = ground.settings()
    return place(
        tmp_path,
        gateway=settings["gateway"],
        tls_client_ca=settings["client_ca"],
        client_ca=settings["client_ca"],
        certificates=known,
        **more,
    )


@pytest.mark.parametrize("wrong", ["expired", "of another CA", "self-signed", "a server's"])
async def test_wrong_certificates_end_the_handshake(ground: Ground, tmp_path: Path, wrong: str):
    """No request of theirs is read."""
    name = x509.DNSName("feed.example")
    file = {
        "expired": lambda: ground.clients.issue("feed", name, lasts=-DAY),
        "of another CA": lambda: ground.others.issue("feed", name),
        "self-signed": lambda: Maker(tmp_path, "clients-ca-twin").issue("feed", name),
        "a server's": lambda: ground.clients.issue("feed", name, use=ExtendedKeyUsageOID.SERVER_AUTH),
    }[wrong]()[0]
    async with _door(ground, tmp_path) as site:
        with pytest.raises(OSError):
            await ask(site, file)


async def test_a_common_name_is_no_name(ground: Ground, tmp_path: Path):
    """A certificate that names its holder only there is refused."""
    nameless, _ = ground.clients.issue("admin")
    async with _door(ground, tmp_path) as site:
        assert (await ask(site, nameless))[0] == 403


async def test_a_token_bound_to_a_certificate(ground: Ground, tmp_path: Path):
    """It opens with that certificate; a stolen one opens nothing without it, or with another."""
    mine, der = ground.clients.issue("mine", x509.DNSName("mine.example"))
    thiefs, _ = ground.clients.issue("thief", x509.DNSName("thief.example"))
    world = World()
    issuers = (IssuerSettings(issuer=ISSUER, audience=("shop",)),)
    async with _door(ground, tmp_path, ask=world.fetch, issuers=issuers, dpop="required") as site:
        token = Api(site, world).token(cnf={"x5t#S256": thumbprint(der)})
        assert (await ask(site, mine, authorization=f"Bearer {token}"))[1]["user"]["id"] == "robot"
        for certificate in (thiefs, None):
            status, _ = await ask(site, certificate, authorization=f"Bearer {token}")
            assert status == 401
        assert sum("another client certificate" in reason for reason in site.audit.reasons()) == 2
