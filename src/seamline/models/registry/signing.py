"""Who vouches for a version: Ed25519 over the digest of its manifest, beside the manifest and not inside it.

The manifest names the model and the version and has the digests of all files, so nothing of them can be exchanged.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from seamline.models.registry.errors import RegistryError, UntrustedError

_PREFIX = "ed25519:"


class Signature(msgspec.Struct, frozen=True):
    """One of maybe several."""

    key: str
    """The public key, as in ``trusted_keys``."""
    signature: str
    """Base64."""


def statement(digest: str) -> bytes:
    """What is signed."""
    return b"seamline model\n" + digest.encode()


def new_key(path: Path) -> str:
    """Make a private key in a new file that only its owner may read; its public half. Raises RegistryError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RegistryError(
            f"{str(path)!r} cannot be made: {error.strerror}", "Name a file that does not exist."
        ) from None
    with open(descriptor, "wb") as file:  # noqa: PTH123  # with the mode it must have
        file.write(pem)
    return _public(key.public_key().public_bytes_raw())


def sign(digest: str, path: Path) -> Signature:
    """Sign with the private key of a PEM file. Raises RegistryError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(
            f"{str(path)!r} is no private key: {error}", "seamline models sign --new-key FILE"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RegistryError(f"{str(path)!r} holds another kind of key", "seamline models sign --new-key FILE")
    made = key.sign(statement(digest))
    return Signature(_public(key.public_key().public_bytes_raw()), base64.b64encode(made).decode())


def check(digest: str, signatures: Sequence[Signature], trusted: Sequence[str], what: str) -> str:
    """The trusted key that signed; empty where none is needed. Raises UntrustedError."""
    if not trusted:
        return ""
    for each in signatures:
        if each.key in trusted:
            if not _fits(digest, each):
                raise UntrustedError(f"the signature of {what} is wrong", "Somebody has altered it: add it again.")
            return each.key
    fact = (
        f"{what} is signed by {', '.join(each.key for each in signatures)}" if signatures else f"{what} is not signed"
    )
    raise UntrustedError(
        f"{fact}, and [models] trusts {len(trusted)} other key{'s' if len(trusted) > 1 else ''}",
        "Look at it, then `seamline models sign`.",
    )


def _fits(digest: str, signature: Signature) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b64decode(signature.key.removeprefix(_PREFIX), validate=True)
        made = base64.b64decode(signature.signature, validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(made, statement(digest))
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def _public(raw: bytes) -> str:
    return _PREFIX + base64.b64encode(raw).decode()
