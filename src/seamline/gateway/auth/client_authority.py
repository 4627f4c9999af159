"""Certificates for clients of the public port: an authority of its own, which the mesh does not trust.

``<data>/identity/clients/ca.pem`` is what ``[auth] client_ca`` names; its key beside it is readable by its owner only.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from seamline.gateway.auth.sealing import locked, replace_file
from seamline.kernel.clock import Clock
from seamline.mesh.identity.keys import key_pem, new_key

_BACKDATE = timedelta(minutes=5)
_ROOT_LIFETIME = timedelta(days=3650)


class ClientAuthority:
    """The authority in ``folder``, made when it is first needed."""

    def __init__(self, folder: Path, app: str, clock: Clock) -> None:
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._app = app
        self._clock = clock

    def issue(self, name: str, lifetime: timedelta) -> tuple[bytes, bytes]:
        """Key and certificate chain (PEM) of the client that the gateway will know as ``name``."""
        key, root = self._load()
        own = new_key()
        now = self._clock.now()
        names: list[x509.GeneralName] = [x509.RFC822Name(name) if "@" in name else x509.UniformResourceIdentifier(name)]
        certificate = (
            _builder(f"client of {self._app}", root.subject, own.public_key())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(min(now + lifetime, root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return key_pem(own), certificate.public_bytes(Encoding.PEM)

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        with locked(self._key):
            if not self.certificate.exists():
                key = new_key()
                replace_file(self._key, key_pem(key))
                replace_file(self.certificate, self._root(key).public_bytes(Encoding.PEM))
        key = cast("ec.EllipticCurvePrivateKey", load_pem_private_key(self._key.read_bytes(), None))
        return key, x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def _root(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        now = self._clock.now()
        name = f"clients of {self._app}"
        usage = x509.KeyUsage(
            digital_signature=False, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        return (
            _builder(name, _name(name), key.public_key())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + _ROOT_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])
