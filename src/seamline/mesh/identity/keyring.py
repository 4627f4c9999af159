"""Whose signature is whose: the public keys of all modules, by the hash of the key.

The supervisor knows each certificate it signs and tells every worker. A key id says nothing by itself: it is the
key's own thumbprint (RFC 7638), looked up among those that were told, and never a path, an address or a key.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from seamline.mesh.errors import SvidError
from seamline.mesh.identity.keys import key_pem, new_key
from seamline.mesh.identity.spiffe import SpiffeId

ANY = "*"
"""The module of a key that a process made for itself alone."""


class KnownKey(msgspec.Struct, frozen=True, array_like=True):
    """A module's public key. Times are seconds since the epoch: what it signed is good if it did so between them."""

    kid: str
    module: str
    point: str
    """The point on P-256, compressed, in base64url."""
    begins: int
    ends: int

    def to_jwk(self) -> dict[str, Any]:
        """As a JSON Web Key."""
        x, y = _coordinates(_public(self.point))
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y}


class Verifier(NamedTuple):
    """A key, ready to check signatures."""

    module: str
    key: ec.EllipticCurvePublicKey
    begins: int
    ends: int


@dataclass(frozen=True, slots=True)
class Signer:
    """A module's private key and what it is known by."""

    kid: str
    key: ec.EllipticCurvePrivateKey


class Signers(Protocol):
    """Where a process has the keys of its modules, and everybody's public ones."""

    trust_domain: str
    app: str
    keys: PublicKeys

    def signer(self, module: str) -> Signer:
        """Raises IdentityError when the module is not hosted here."""
        ...


class PublicKeys:
    """The public keys that this process has been told."""

    def __init__(self) -> None:
        self._known: dict[str, KnownKey] = {}
        self._ready: dict[str, Verifier] = {}
        self.on_unknown: Callable[[str], object] | None = None
        """Called with an id that nobody has told of; may add the key, or ask for it."""
        self.told = asyncio.Event()
        """Set, and replaced, when keys are told."""

    def add(self, keys: Iterable[KnownKey]) -> None:
        """Take keys; one that is known keeps its module."""
        for key in keys:
            self._known.setdefault(key.kid, key)
        self.told.set()
        self.told = asyncio.Event()

    def forget(self, before: float) -> None:
        """Drop keys whose time was over at ``before``; who needs one again asks again."""
        for kid in [kid for kid, key in self._known.items() if key.ends < before]:
            del self._known[kid]
            self._ready.pop(kid, None)

    def find(self, kid: str) -> Verifier | None:
        """The key, or None when nobody has told of it (yet)."""
        found = self._ready.get(kid)
        if found is not None:
            return found
        if kid not in self._known and self.on_unknown is not None:
            self.on_unknown(kid)
        known = self._known.get(kid)
        if known is None:
            return None
        public = _public(known.point)
        if thumbprint(public) != kid:  # whoever told of it was mistaken
            return None
        found = self._ready[kid] = Verifier(known.module, public, known.begins, known.ends)
        return found

    @property
    def known(self) -> tuple[KnownKey, ...]:
        return tuple(self._known.values())


def known_key(certificate: x509.Certificate, module: str) -> KnownKey:
    """The key of a module's certificate."""
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise SvidError(f"the certificate of {module!r} has no ECDSA key", "Ask for a new one.")
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return _known(public, module, int(begins.timestamp()), int(ends.timestamp()))


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """RFC 7638: the SHA-256 of the key's members in their one order."""
    x, y = _coordinates(key)
    return b64(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class LocalSigners:
    """For a process without certificates, which nothing leaves or enters: one key of its own for all its modules.

    What waits in its databases, as an event or a saga, is good when it comes back, and nowhere else.
    """

    def __init__(self, folder: Path, trust_domain: str, app: str) -> None:
        self.trust_domain = trust_domain
        self.app = app
        self.keys = PublicKeys()
        self.keys.on_unknown = lambda _: self.load()
        self._file = folder / "local.pem"
        self._signer: Signer | None = None

    def signer(self, module: str) -> Signer:
        del module
        return self.load()

    def load(self) -> Signer:
        """The key, made if it is not there."""
        if self._signer is None:
            key = self._read_or_make()
            public = key.public_key()
            self._signer = Signer(thumbprint(public), key)
            self.keys.add([_known(public, ANY, 0, 1 << 40)])
        return self._signer

    def _read_or_make(self) -> ec.EllipticCurvePrivateKey:
        if self._file.exists():
            return cast("ec.EllipticCurvePrivateKey", load_pem_private_key(self._file.read_bytes(), None))
        key = new_key()
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file.touch(mode=0o600)
        self._file.write_bytes(key_pem(key))
        return key


def spiffe(signers: Signers, module: str) -> str:
    return str(SpiffeId(signers.trust_domain, signers.app, module))


def _known(key: ec.EllipticCurvePublicKey, module: str, begins: int, ends: int) -> KnownKey:
    point = b64(key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    return KnownKey(thumbprint(key), module, point, begins, ends)


def _public(point: str) -> ec.EllipticCurvePublicKey:
    try:
        data = base64.urlsafe_b64decode(point + "=" * (-len(point) % 4))
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)
    except ValueError as error:
        raise SvidError(f"a public key cannot be read: {error}", "Send points of P-256.") from None


def _coordinates(key: ec.EllipticCurvePublicKey) -> tuple[str, str]:
    numbers = key.public_numbers()
    return b64(numbers.x.to_bytes(32, "big")), b64(numbers.y.to_bytes(32, "big"))
