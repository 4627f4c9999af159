"""Clients of mutual TLS on the public port. That a certificate is the client CA's and in force, TLS has checked."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache

from cryptography import x509

from seamline.kernel.settings import CertificateClientSettings
from seamline.module.principal import User


class CertificateClients:
    """Who the holder of a certificate is."""

    def __init__(self, known: Iterable[CertificateClientSettings]) -> None:
        self._known = {each.identity: each for each in known}
        self.user = lru_cache(maxsize=1000)(self._user)

    def _user(self, der: bytes) -> User | None:
        """The user of a certificate; None if it names nobody."""
        identity = identity_of(der)
        if not identity:
            return None
        known = self._known.get(identity)
        certificate = x509.load_der_x509_certificate(der)
        return User(
            id=identity,
            issuer=certificate.issuer.rfc4514_string(),
            roles=frozenset(known.roles) if known is not None else frozenset(),
            tenant=known.tenant if known is not None else "",
            client=identity,
            scopes=frozenset(known.scopes) if known is not None and known.scopes else None,
            authenticated_at=int(certificate.not_valid_before_utc.timestamp()),
        )


def identity_of(der: bytes) -> str:
    """The first URI, else DNS name, else e-mail address of the subject alternative names. A common name is no name."""
    try:
        names = (
            x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except (x509.ExtensionNotFound, ValueError):
        return ""
    for kind in (x509.UniformResourceIdentifier, x509.DNSName, x509.RFC822Name):
        if found := names.get_values_for_type(kind):
            return found[0][:200]
    return ""


def thumbprint(der: bytes) -> str:
    """``x5t#S256`` (RFC 8705)."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
