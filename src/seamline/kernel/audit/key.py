"""The key that signs checkpoints: Ed25519, the supervisor's alone, beside the certificate authority's.

Not the workload's own key: who breaks into a workload must not be able to sign a past that suits them. Verifying needs
only the public half, which lies with the logs; its fingerprint should be kept elsewhere, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from seamline.kernel.audit.errors import AuditError
from seamline.kernel.audit.log import Written

PUBLIC_FILE = "key.pem"


class Signer(Protocol):
    """Signs a checkpoint."""

    @property
    def fingerprint(self) -> str: ...
    def sign(self, statement: bytes) -> bytes: ...


def statement(found: Written, at: str) -> bytes:
    """What is signed: that the log had come so far at that time."""
    return json.dumps(["seamline audit checkpoint", found.log, found.number, found.head, at]).encode()


class AuditKey:
    """The private key in ``folder``, made when there is none; ``public`` is where its public half is put."""

    def __init__(self, folder: Path, public: Path, passphrase: str = "") -> None:
        path = folder / "audit.key"
        secret = passphrase.encode() or None
        try:
            loaded = serialization.load_pem_private_key(path.read_bytes(), secret)
            if not isinstance(loaded, Ed25519PrivateKey):
                raise AuditError(f"{str(path)!r} holds another kind of key", "Restore it from a backup.")
            self._key = loaded
        except FileNotFoundError:
            self._key = Ed25519PrivateKey.generate()
            _save(path, _private_pem(self._key, secret), 0o600)
        except (ValueError, TypeError):
            raise AuditError(
                f"{str(path)!r} does not open", "Give the passphrase of [identity], or restore the file."
            ) from None
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.fingerprint = fingerprint(self._key.public_key())
        known = public / PUBLIC_FILE
        if not known.exists() or known.read_bytes() != pem:
            _save(known, pem, 0o600)

    def sign(self, statement: bytes) -> bytes:
        return self._key.sign(statement)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 over the raw public key, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).hexdigest()


def load_public(folder: Path) -> Ed25519PublicKey | None:
    """The public key that lies with the logs; None where nothing was ever signed. Raises AuditError."""
    path = folder / PUBLIC_FILE
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise AuditError(f"{str(path)!r} is no Ed25519 public key", "Restore it from a backup.")
    return key


def holds(key: Ed25519PublicKey, signature: str, found: Written, at: str) -> bool:
    try:
        key.verify(bytes.fromhex(signature), statement(found, at))
    except (InvalidSignature, ValueError):
        return False
    return True


def _private_pem(key: Ed25519PrivateKey, secret: bytes | None) -> bytes:
    sealed = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


def _save(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # with the mode it must have
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
