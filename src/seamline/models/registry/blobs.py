"""Files by their content: ``blobs/sha256/ab/<digest>``, verified when they are written and when they are used."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from seamline.models.registry.errors import ArtefactDamagedError, ArtefactTooLargeError, UnknownArtefactError
from seamline.models.registry.names import checked_digest

CHUNK: Final = 1 << 20
_Fingerprint = tuple[int, int, int, int, int]


class Blobs:
    """A folder of blobs. Several processes may write at the same time: a blob appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"
        self._incoming = folder / "incoming"
        self._verified: dict[str, _Fingerprint] = {}

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be. Raises BadReferenceError."""
        hexadecimal = checked_digest(digest).removeprefix("sha256:")
        return self._folder / hexadecimal[:2] / hexadecimal

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def add(self, chunks: Iterable[bytes], expected: str = "", size_max: int = 1 << 62) -> tuple[str, int]:
        """Keep what comes; its digest and size, once it is on disk.

        Raises:
            ArtefactDamagedError: it is not what was ``expected``.
            ArtefactTooLargeError: it is more than ``size_max`` bytes.
        """
        incoming = self.incoming()
        try:
            with incoming.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                for chunk in chunks:
                    file.write(chunk)
                    if file.tell() > size_max:
                        raise ArtefactTooLargeError(f"a file is larger than {size_max} bytes", "See size_max_mb.")
            return self.take(incoming, expected)
        finally:
            incoming.unlink(missing_ok=True)

    def incoming(self, name: str = "") -> Path:
        """A place to write to before :meth:`take`; one with a ``name`` outlives a broken download."""
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._incoming / (name or secrets.token_hex(16))

    def take(self, incoming: Path, expected: str = "") -> tuple[str, int]:
        """Make a file of ours a blob. Raises ArtefactDamagedError if it is not what was ``expected``."""
        digest, size = digest_of(incoming), incoming.stat().st_size
        if expected and digest != expected:
            raise ArtefactDamagedError(f"{digest} came where {expected} was to come", "Fetch it again.")
        path = self.path(digest)
        if path.is_file() and digest_of(path) == digest:  # one that is damaged is replaced
            incoming.unlink()
            return digest, size
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with incoming.open("rb") as file:
            os.fchmod(file.fileno(), 0o400)
            os.fsync(file.fileno())
        incoming.replace(path)
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
        return digest, size

    def verified(self, digest: str) -> Path:
        """A blob's file, whose content was compared with its digest since it was changed last.

        Raises:
            UnknownArtefactError: there is none.
            ArtefactDamagedError: it is not what it was.
        """
        path = self.path(digest)
        try:
            fingerprint = _fingerprint(path)
            if self._verified.get(digest) != fingerprint:
                if digest_of(path) != digest:
                    raise ArtefactDamagedError(f"{digest} is damaged: its content is another", "Add the model again.")
                self._verified[digest] = fingerprint
        except FileNotFoundError:
            raise UnknownArtefactError(f"{digest} is not in the registry", "Add the model again.") from None
        return path

    def read(self, digest: str, size_max: int = 16 << 20) -> bytes:
        """A small blob. Raises as :meth:`verified` and ArtefactTooLargeError."""
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                content = file.read(size_max + 1)
        except FileNotFoundError:
            raise UnknownArtefactError(f"{digest} is not in the registry", "Add the model again.") from None
        if len(content) > size_max:
            raise ArtefactTooLargeError(f"{digest} is larger than {size_max} bytes")
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise ArtefactDamagedError(f"{digest} is damaged: its content is another", "Add the model again.")
        return content

    def __iter__(self) -> Iterator[str]:
        for path in self._folder.glob("??/*"):
            yield f"sha256:{path.name}"

    def remove(self, digest: str) -> int:
        """How many bytes are free again."""
        path = self.path(digest)
        size = path.stat().st_size
        path.unlink()
        self._verified.pop(digest, None)
        return size

    def remove_incoming(self) -> None:
        """What was begun and never ended."""
        for path in self._incoming.glob("*"):
            with suppress(FileNotFoundError):
                path.unlink()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fingerprint(path: Path) -> _Fingerprint:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
