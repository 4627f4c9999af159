"""Trust between trust domains: bundles as their endpoints give them, and the proof that an answer is the endpoint's.

Source: github.com/spiffe/spiffe, SPIFFE_Trust_Domain_and_Bundle.md and SPIFFE_Federation.md.
"""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seamline.mesh.errors import FederationError, UnexpectedModuleError
from seamline.mesh.identity.handshake import client_object

_REFRESH_S = 300
_REFRESH_LEAST_S, _REFRESH_MOST_S = 1, 3600
BUNDLE_BYTES_MAX = 1024 * 1024
_USE = "x509-svid"


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots of a trust domain (PEM)."""

    roots: bytes
    sequence: int
    refresh_s: int


def write_bundle(roots: bytes, sequence: int, refresh_s: int = _REFRESH_S) -> bytes:
    """Roots (PEM) as a bundle endpoint gives them."""
    keys = [_key(root) for root in x509.load_pem_x509_certificates(roots)]
    return json.dumps({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": refresh_s}).encode()


def read_bundle(data: bytes, domain: str) -> TrustBundle:
    """The bundle of ``domain``. Raises FederationError."""
    try:
        found: Any = json.loads(data)
        keys = [key for key in found["keys"] if key.get("use") == _USE]
        roots = [x509.load_der_x509_certificate(base64.b64decode(key["x5c"][0], validate=True)) for key in keys]
        sequence, hint = int(found.get("spiffe_sequence", 0)), int(found.get("spiffe_refresh_hint", _REFRESH_S))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _unusable(domain, f"it cannot be read ({error})") from None
    if not roots:
        raise _unusable(domain, "it holds no root for X.509 certificates")
    for root in roots:
        _check_root(root, domain)
    pem = b"".join(root.public_bytes(serialization.Encoding.PEM) for root in roots)
    return TrustBundle(pem, sequence, min(max(hint, _REFRESH_LEAST_S), _REFRESH_MOST_S))


def web_context(authority: str | None) -> ssl.SSLContext:
    """For an endpoint with a certificate of the web: its host name is checked."""
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def spiffe_context(known: bytes, endpoint_id: str) -> ssl.SSLContext:
    """For an endpoint with an SVID of its own trust domain, whose roots are ``known``; its SPIFFE ID is checked."""

    def check(connection: ssl.SSLObject) -> None:
        certificate = cast("dict[str, Any]", connection.getpeercert() or {})
        uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
        if uris != [endpoint_id]:
            raise UnexpectedModuleError(
                f"the bundle endpoint is {uris}, not {endpoint_id!r}", "Compare `endpoint_id` with the other side's."
            )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = client_object(check)
    context.load_verify_locations(cadata=known.decode())
    return context


def _check_root(root: x509.Certificate, domain: str) -> None:
    """An authority, and if it names a trust domain then this one."""
    try:
        if not root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise _unusable(domain, "one of its roots is no authority")
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as missing:
        if missing.oid == x509.BasicConstraints.oid:
            raise _unusable(domain, "one of its roots is no authority") from None
        return
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris and uris != [f"spiffe://{domain}"]:
        raise _unusable(domain, f"one of its roots is that of {uris}")


def _key(root: x509.Certificate) -> dict[str, Any]:
    public = root.public_key()
    entry: dict[str, Any] = {
        "use": _USE, "x5c": [base64.b64encode(root.public_bytes(serialization.Encoding.DER)).decode()]
    }  # fmt: skip
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers = public.public_numbers()
        entry |= {"kty": "EC", "crv": "P-256", "x": _base64url(numbers.x), "y": _base64url(numbers.y)}
    return entry


def _base64url(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")


def _unusable(domain: str, why: str) -> FederationError:
    return FederationError(f"the bundle of trust domain {domain!r} cannot be used: {why}", "The known one stays.")
