"""AES-GCM under keys that every gateway of the application has, renewed daily and kept as long as what they sealed.

The keys are in a file of the identity folder, or come from ``[auth] session_secret`` where gateways share no folder.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from seamline.gateway.auth.errors import SealError
from seamline.kernel.clock import Clock, now_ms

_ID_BYTES = 4
_NONCE_BYTES = 12
_RENEW_S = 86_400
_SETTLE_S = 60
"""A new key seals only after every process has had the time to read it."""
_LOOK_MS = 1000


class Sealer:
    """Seals and opens small values. ``purpose`` keeps a value from being opened as something else.

    Args:
        path: the file of the keys.
        keep_s: how long something sealed may be opened.
        secret: one or two secrets with a space between; the first seals, both open. The file is not used then.
    """

    def __init__(self, path: Path, clock: Clock, *, keep_s: int, secret: str = "") -> None:
        self._path = path
        self._clock = clock
        self._keep_s = keep_s
        self._keys: dict[bytes, AESGCM] = {}
        self._raw: dict[bytes, bytes] = {}
        self._order: list[tuple[int, bytes]] = []
        self._fixed = bool(secret)
        self._seen: tuple[int, int] = (0, 0)
        self._looked_ms = 0
        if secret:
            for position, each in enumerate(reversed(secret.split())):
                if len(each) < 32:
                    raise SealError(
                        "session_secret is shorter than 32 characters", "Make it with `openssl rand -hex 32`."
                    )
                self._add(hashlib.sha256(b"id" + each.encode()).digest()[:_ID_BYTES], _derived(each), position)

    def prepare(self) -> None:
        """Have a key to seal with: renew it if it is time, and forget those that nothing needs. Raises SealError."""
        if self._fixed:
            return
        now = now_ms(self._clock) // 1000
        self._read()
        if self._order and self._order[-1][0] + _RENEW_S > now:
            return
        with locked(self._path):
            self._read()
            if self._order and self._order[-1][0] + _RENEW_S > now:
                return
            begin = now + _SETTLE_S if self._order else now
            key = AESGCM.generate_key(256)
            stored = [each for each in self._stored() if each["from"] + _RENEW_S + _SETTLE_S + self._keep_s > now]
            identity = os.urandom(_ID_BYTES).hex()
            stored.append({"id": identity, "from": begin, "key": base64.b64encode(key).decode()})
            self._write(stored)
            self._read()

    def seal(self, purpose: bytes, plain: bytes) -> str:
        identity = self._sealing()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = identity + nonce + self._keys[identity].encrypt(nonce, plain, purpose)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, purpose: bytes, sealed: str) -> bytes | None:
        """What was sealed for this purpose; None for anything else."""
        try:
            raw = base64.b64decode(sealed + "=" * (-len(sealed) % 4), b"-_", validate=True)
        except ValueError:
            return None
        key = self._keys.get(raw[:_ID_BYTES]) or self._newly_made(raw[:_ID_BYTES])
        if key is None or len(raw) < _ID_BYTES + _NONCE_BYTES + 16:
            return None
        try:
            return key.decrypt(raw[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], raw[_ID_BYTES + _NONCE_BYTES :], purpose)
        except InvalidTag:
            return None

    def derived(self, purpose: bytes) -> list[bytes]:
        """Keys for other uses, first that of the key that seals now; they change as those do."""
        first = self._sealing()
        others = [identity for _, identity in reversed(self._order) if identity != first]
        return [hmac.digest(self._raw[identity], purpose, "sha256") for identity in (first, *others)]

    def _sealing(self) -> bytes:
        now = now_ms(self._clock) // 1000
        for begin, identity in reversed(self._order):
            if begin <= now:
                return identity
        return self._order[0][1]  # the clock went back

    def _newly_made(self, identity: bytes) -> AESGCM | None:
        """Another process may have renewed; looked at no more than once a second, whoever asks."""
        now = now_ms(self._clock)
        if self._fixed or abs(now - self._looked_ms) < _LOOK_MS:
            return None
        self._looked_ms = now
        self._read()
        return self._keys.get(identity)

    def _read(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._seen:
            return
        stored = self._stored()
        self._keys, self._raw, self._order, self._seen = {}, {}, [], stamp
        for each in stored:
            self._add(bytes.fromhex(each["id"]), base64.b64decode(each["key"]), each["from"])

    def _add(self, identity: bytes, key: bytes, begin: int) -> None:
        self._keys[identity] = AESGCM(key)
        self._raw[identity] = key
        self._order.append((begin, identity))
        self._order.sort()

    def _stored(self) -> list[dict[str, Any]]:
        try:
            return cast("list[dict[str, Any]]", json.loads(self._path.read_text(encoding="utf-8"))["keys"])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SealError(
                f"{str(self._path)!r} cannot be read ({type(error).__name__})",
                "Delete it: a new one is made, and everybody signs in again.",
            ) from None

    def _write(self, keys: list[dict[str, Any]]) -> None:
        replace_file(self._path, json.dumps({"keys": keys}).encode())


def _derived(secret: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"seamline session").derive(secret.encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, for its owner only."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One process at a time; ``path`` is what is made inside."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
