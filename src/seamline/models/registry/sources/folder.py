"""Files of this machine. Links and anything that is no file are refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from seamline.models.registry.blobs import CHUNK
from seamline.models.registry.errors import SourceError
from seamline.models.registry.sources import Fetched, Intake


def fetch_folder(address: str, intake: Intake) -> Fetched:
    """A folder, or one file."""
    folder = Path(address).expanduser()
    if folder.is_file():
        intake.take(folder.name, partial(_read, folder))
        return Fetched(f"file:{folder.resolve()}", intake.files)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {address!r}", "Look at the path.")
    for path in sorted(_files(folder)):
        intake.take(path.relative_to(folder).as_posix(), partial(_read, path))
    return Fetched(f"file:{folder.resolve()}", intake.files)


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_symlink():
            raise SourceError(f"{entry.path!r} is a link", "Put the file itself there.")
        if entry.is_dir():
            if entry.name != ".git":
                yield from _files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
        else:
            raise SourceError(f"{entry.path!r} is no file", "Take it out.")


def _read(path: Path, offset: int) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror}", "Look at its rights.") from None
    with open(descriptor, "rb") as file:  # noqa: PTH123  # that and no other file
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(f"{str(path)!r} is no file", "Take it out.")
        file.seek(offset)
        while chunk := file.read(CHUNK):
            yield chunk
