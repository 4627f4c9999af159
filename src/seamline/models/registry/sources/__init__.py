"""Where models come from: each source streams files into the blobs, and says which revision it was.

::

  <folder>, file:<folder>     files of this machine
  s3://<bucket>/<prefix>      anything that speaks S3, by boto3
  oci://<host>/<name>:<tag>   any registry of containers
  mlflow:<model>/<version>    the model registry of an MLflow server
  hf:<owner>/<model>@<rev>    the Hugging Face hub, or a mirror

A source is asked only by ``seamline models add``; what is kept is never asked for again.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry.blobs import Blobs
from seamline.models.registry.errors import ArtefactDamagedError, ArtefactTooLargeError, SourceError
from seamline.models.registry.manifest import FILE_TYPE, Card, Descriptor
from seamline.models.registry.names import checked_path

Say = Callable[[str], None]
Open = Callable[[int], Iterable[bytes]]
"""A file's bytes from an offset on."""
_FILES_MAX: Final = 10_000
_SAY_EVERY: Final = 16 << 20


class Fetched(msgspec.Struct, frozen=True):
    """What a source gave."""

    source: str
    """The address with the revision that it meant."""
    files: dict[str, Descriptor]
    card: Card = Card()


class Intake:
    """Takes in the files of one model, all together not larger than they may be."""

    def __init__(self, blobs: Blobs, size_max: int, say: Say | None = None) -> None:
        self._blobs = blobs
        self._left = size_max
        self._say = say or _nobody
        self.files: dict[str, Descriptor] = {}

    def take(
        self, path: str, open_at: Open, *, size: int = -1, digest: str = "", sha1: str = "", etag: str = ""
    ) -> None:
        """Keep a file.

        Args:
            path: inside the model.
            open_at: its bytes from an offset on; from above zero only with a ``digest`` or ``etag``.
            size: in bytes, if it is known before.
            digest: its SHA-256, if it is known before.
            sha1: that of git's blob, if it is known before.
            etag: what changes when the file does.

        Raises ArtefactTooLargeError, ArtefactDamagedError, BadReferenceError.
        """
        checked_path(path)
        if len(self.files) >= _FILES_MAX:
            raise ArtefactTooLargeError(f"the model has more than {_FILES_MAX} files")
        if size > self._left:
            raise self._too_large(path)
        if digest and digest in self._blobs:
            found = self._blobs.verified(digest)
            self._left -= found.stat().st_size
            self.files[path] = Descriptor(FILE_TYPE, digest, found.stat().st_size)
            return
        key = digest or etag
        incoming = self._blobs.incoming(hashlib.sha256(f"{path}\n{key}".encode()).hexdigest() if key else "")
        kept = self._receive(path, incoming, open_at, size)
        if sha1 and _git_sha1(kept) != sha1:
            kept.unlink()
            raise ArtefactDamagedError(f"{path!r} came with another content than its source says", "Fetch it again.")
        try:
            found, length = self._blobs.take(kept, digest)
        except ArtefactDamagedError:
            kept.unlink()  # a beginning that does not fit must not be gone on with
            raise
        self._left -= length
        self.files[path] = Descriptor(FILE_TYPE, found, length)

    def _receive(self, path: str, incoming: Path, open_at: Open, size: int) -> Path:
        with incoming.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process fetches the same
                return self._receive(path, self._blobs.incoming(), open_at, size)
            if size >= 0 and file.tell() > size:
                file.truncate(0)
            begun = file.tell()
            if begun != size or size <= 0:
                self._write(path, file, open_at(begun), size)
            if size >= 0 and file.tell() != size:
                raise ArtefactDamagedError(
                    f"{path!r} ended after {file.tell()} of {size} bytes", "Run the same again: it goes on from there."
                )
        return incoming

    def _write(self, path: str, file: BinaryIO, chunks: Iterable[bytes], size: int) -> None:
        told = file.tell()
        for chunk in chunks:
            file.write(chunk)
            if file.tell() > (size if size >= 0 else self._left):
                raise self._too_large(path)
            if file.tell() - told >= _SAY_EVERY:
                told = file.tell()
                self._say(f"{path}: {told >> 20} MB" + (f" of {size >> 20} MB" if size > 0 else ""))

    def _too_large(self, path: str) -> ArtefactTooLargeError:
        return ArtefactTooLargeError(
            f"{path!r} is larger than its source said, or than a model may be", "See size_max_mb under [models]."
        )


def fetch(address: str, intake: Intake, settings: ModelsSettings) -> Fetched:
    """All files of the model at ``address``. Raises SourceError and what :meth:`Intake.take` raises."""
    scheme, colon, _ = address.partition(":")
    if settings.sources and not any(_under(address, each) for each in settings.sources):
        raise SourceError(
            f"{address!r} is none of the sources that [models] lets models come from",
            f"They begin with {', '.join(settings.sources)}.",
        )
    if not colon or scheme == "file":
        from seamline.models.registry.sources.folder import fetch_folder

        return fetch_folder(address.removeprefix("file://").removeprefix("file:"), intake)
    if scheme == "s3":
        from seamline.models.registry.sources.s3 import fetch_s3

        return fetch_s3(address, intake, settings)
    if scheme == "oci":
        from seamline.models.registry.sources.oci import fetch_oci

        return fetch_oci(address, intake, settings)
    if scheme == "mlflow":
        from seamline.models.registry.sources.mlflow import fetch_mlflow

        return fetch_mlflow(address, intake, settings)
    if scheme == "hf":
        from seamline.models.registry.sources.hub import fetch_hub

        return fetch_hub(address, intake, settings)
    raise SourceError(f"{address!r} begins with {scheme!r}", "A folder, s3://, oci://, mlflow: or hf:.")


def _nobody(_: str) -> None:
    """Nobody wants to know."""


def _under(address: str, allowed: str) -> bool:
    """Whether an address is one that ``allowed`` begins: at a border, so that ``a/b`` does not allow ``a/bc``."""
    plain = allowed == "file:" and ":" not in address
    rest = address.removeprefix(allowed)
    return plain or (rest != address and (allowed[-1] in ":/@" or rest[:1] in {"", "/", ":", "@"}))


def _git_sha1(path: Path) -> str:
    """As git calls a file: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects"""
    made = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            made.update(chunk)
    return made.hexdigest()


def in_chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(1 << 20):
        yield chunk
