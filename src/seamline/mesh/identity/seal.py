"""The root key at rest: as it is, or sealed with a passphrase (scrypt, AES-256-GCM)."""

from __future__ import annotations

import base64
import os
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from seamline.mesh.errors import AuthorityError

# About 60 ms and 32 MB: paid once at a start, and by an attacker for each guess.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1


def seal(pem: bytes, passphrase: str | None) -> Any:
    """What goes into the file: the PEM text, or salt, nonce and ciphertext."""
    if passphrase is None:
        return pem.decode()
    salt, nonce = os.urandom(16), os.urandom(12)
    ciphertext = AESGCM(_derive(passphrase, salt)).encrypt(nonce, pem, None)
    parts = {"salt": salt, "nonce": nonce, "ciphertext": ciphertext}
    return {name: base64.b64encode(value).decode() for name, value in parts.items()}


def unseal(stored: Any, passphrase: str | None) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """The key, and whether it was sealed. Raises AuthorityError."""
    sealed = isinstance(stored, dict)
    try:
        pem = _open(cast("dict[str, str]", stored), passphrase) if sealed else cast("str", stored).encode()
        key = serialization.load_pem_private_key(pem, None)
    except (KeyError, ValueError, AttributeError, TypeError):
        raise AuthorityError("the root key is damaged", "Restore it, or delete it to make a new root.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError("the root key is not ECDSA", "Restore it, or delete it to make a new root.")
    return key, sealed


def _open(stored: dict[str, str], passphrase: str | None) -> bytes:
    if passphrase is None:
        raise AuthorityError("the root key is sealed and no passphrase is given", "Give the passphrase.")
    salt, nonce, ciphertext = (base64.b64decode(stored[name]) for name in ("salt", "nonce", "ciphertext"))
    try:
        return AESGCM(_derive(passphrase, salt)).decrypt(nonce, ciphertext, None)
    except InvalidTag:
        raise AuthorityError("the passphrase does not open the root key", "Give the one it was sealed with.") from None


def _derive(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase.encode())
