"""The master key: it seals the key of each value, and never a value itself.

Each value has a data key of its own. The master key, wherever it is, only wraps and unwraps data keys, so that it
can be replaced without reading a value, and can live in a key service that never gives it out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seamline.secrets.errors import MasterKeyError, SealBrokenError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_EXAMPLE: Final = "openssl rand -base64 32"


class MasterKey(Protocol):
    """Wraps data keys. Called in a thread; a key service takes its time."""

    @property
    def newest(self) -> str:
        """The id of the key that wraps now."""
        ...

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """(id of the key that wrapped, the wrapped key). ``context`` must be given again to unwrap."""
        ...

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Raises MasterKeyError where the key is not there, SealBrokenError where it does not fit."""
        ...

    def begin_rotation(self) -> None:
        """Wrap with a new key from now on, and go on unwrapping with those before."""
        ...

    def finish_rotation(self) -> None:
        """Nothing is wrapped with the older keys any more."""
        ...


class LocalKeys:
    """AES-256-GCM with keys at hand, newest first; what a key file or the environment holds.

    Args:
        read: the keys as they are written now; asked again when a key id is unknown, since another process may have
            begun a rotation.
        write: keeps other keys in their place; None where they are kept elsewhere.
    """

    def __init__(self, read: Callable[[], list[bytes]], write: Callable[[list[bytes]], None] | None = None) -> None:
        self._read = read
        self._write = write
        self._keys = read()

    @property
    def newest(self) -> str:
        return id_of(self._keys[0])

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        self._keys = self._read()  # another process may have begun a rotation, and be about to forget the older keys
        master = self._keys[0]
        return id_of(master), seal(master, key, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        found = self._of(key_id)
        if found is None:
            self._keys = self._read()
            found = self._of(key_id)
        if found is None:
            raise MasterKeyError(
                f"the secrets are sealed with the master key {key_id}, and that is not the one given "
                f"({', '.join(map(id_of, self._keys))})",
                "Give the key that they were sealed with.",
            )
        return unseal(found, wrapped, context)

    def _of(self, wanted: str) -> bytes | None:
        return next((key for key in self._keys if hmac.compare_digest(id_of(key), wanted)), None)

    def begin_rotation(self) -> None:
        if self._write is None:
            self._keys = self._read()
            if len(self._keys) < 2:
                raise MasterKeyError(
                    "the master key comes from the environment and holds one key",
                    f"Set the variable to the new key and the old one with a space between (`{_EXAMPLE}` makes one), "
                    "start anew, rotate, and take the old one away.",
                )
            return
        if len(self._read()) > 1:
            self._keys = self._read()  # a rotation that was broken off: the new key is there already
            return
        self._keep([os.urandom(KEY_BYTES), *self._keys])

    def finish_rotation(self) -> None:
        if self._write is not None:
            self._keep(self._keys[:1])

    def _keep(self, keys: list[bytes]) -> None:
        assert self._write is not None
        self._write(keys)
        self._keys = keys


def id_of(key: bytes) -> str:
    """A name for a key that tells nothing about it."""
    return hmac.new(key, b"seamline master key id", hashlib.sha256).hexdigest()[:16]


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Nonce and AES-256-GCM ciphertext; ``context`` is bound, not kept."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """What :func:`seal` was given. Raises SealBrokenError."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise SealBrokenError(
            "a stored secret does not open: it is damaged, or stands where another was stored",
            "Restore the last copy, or set the secret again.",
        ) from None


def keys_from_text(text: str, place: str) -> list[bytes]:
    """One or more keys in base64, newest first, with white space between. Raises MasterKeyError."""
    keys: list[bytes] = []
    for word in text.split():
        try:
            key = base64.b64decode(word, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise MasterKeyError(
                f"the master key is not {KEY_BYTES} bytes in base64", f"Make one with `{_EXAMPLE}`.", place=place
            )
        keys.append(key)
    if not keys:
        raise MasterKeyError("there is no master key", f"Make one with `{_EXAMPLE}`.", place=place)
    return keys


def key_file(path: Path, *, make: bool) -> LocalKeys:
    """The keys in a file of mode 0600, which is made where ``make`` allows it and there is none."""
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, _as_text([os.urandom(KEY_BYTES)]), fresh=True)

    def read() -> list[bytes]:
        try:
            check_mode(path)
            return keys_from_text(path.read_text(encoding="ascii"), str(path))
        except FileNotFoundError:
            raise MasterKeyError(
                "the master key is missing, and secrets are sealed with it",
                "Put the key file back; without it they cannot be read.",
                place=str(path),
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise MasterKeyError(f"the master key cannot be read: {error}", "Mend the file.", place=str(path)) from None

    return LocalKeys(read, lambda keys: write_whole(path, _as_text(keys)))


def _as_text(keys: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(key) + b"\n" for key in keys)


def check_mode(path: Path) -> None:
    """Raise MasterKeyError unless the file is its owner's alone, and the owner is who asks."""
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise MasterKeyError(
            f"others may open it (mode {stat.S_IMODE(found.st_mode):04o})", f"Run `chmod 600 {path}`.", place=str(path)
        )
    if found.st_uid != os.getuid():
        raise MasterKeyError(
            f"it belongs to user {found.st_uid}, not to who runs this ({os.getuid()})",
            "Run as its owner, or change the owner.",
            place=str(path),
        )


def write_whole(path: Path, content: bytes, *, fresh: bool = False) -> None:
    """Have the file hold ``content`` or, whenever this is broken off, what it held before; of mode 0600, on disk.

    ``fresh``: keep what another process has put there meanwhile.
    """
    for left in path.parent.glob(f"{path.name}.*.new"):
        left.unlink(missing_ok=True)  # of one that died in the middle
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    else:
        draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
