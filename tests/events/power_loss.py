"""A disk that loses what was not synced: the real code on the real SQLite, over files that remember.

``kill -9`` keeps what the operating system has cached, and would pass a log that never syncs. Here SQLite (through
apsw, which can replace SQLite's own file layer) works on real files while a :class:`Disk` notes every write, truncation
and sync. Afterwards every moment can be looked at as the disk would be found if the power had failed then: what was
synced is there; of what was not, anything may be: nothing, all, some sectors, the last one torn or full of noise.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import pytest

SECTOR: Final = 512
_SHARED_MEMORY: Final = "-shm"  # not on disk in any way that matters: SQLite makes it anew


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a file. A truncation has a length as its offset. A sync puts on disk what was done to the file
    before, a sync of the folder the deletions."""

    file: str
    kind: Literal["write", "truncate", "sync", "delete", "sync folder"]
    offset: int = 0
    data: bytes = b""


@dataclass
class Disk:
    """Everything that was done to the files of one folder, in order."""

    changes: list[Change] = field(default_factory=list[Change])

    def note(self, change: Change) -> None:
        if not change.file.endswith(_SHARED_MEMORY):
            self.changes.append(change)

    @property
    def now(self) -> int:
        """The moment after the last change."""
        return len(self.changes)

    def lost_at(self, moment: int, keep: Keep) -> dict[str, bytes]:
        """The files as they are found after the power failed at ``moment``; ``keep`` says what is left of a change
        that was not synced."""
        unsynced = set(self.unsynced_at(moment))
        files: dict[str, bytearray] = {}
        for at, change in enumerate(self.changes[:moment]):
            _apply(files, change, keep(at, change) if at in unsynced else None)
        return {name: bytes(content) for name, content in files.items()}

    def unsynced_at(self, moment: int) -> list[int]:
        """The changes that may be lost."""
        pending: dict[str, list[int]] = {}
        deletions: dict[str, int] = {}
        for at, change in enumerate(self.changes[:moment]):
            if change.kind == "sync folder":
                for file, deleted_at in deletions.items():
                    pending[file] = [each for each in pending.get(file, ()) if each > deleted_at]
                deletions.clear()
            elif change.kind == "sync":
                pending.pop(change.file, None)
            else:
                pending.setdefault(change.file, []).append(at)
                if change.kind == "delete":
                    deletions[change.file] = at
        return sorted(at for changes in pending.values() for at in changes)


Keep = Callable[[int, Change], Sequence[tuple[int, bytes]] | None]
"""What of a change reached the disk: pieces of it with their offsets; None for all of it."""


def nothing(_at: int, _change: Change) -> Sequence[tuple[int, bytes]] | None:
    """Only what was synced is left."""
    return ()


def all_of_it(_at: int, _change: Change) -> Sequence[tuple[int, bytes]] | None:
    """Everything is left, as after ``kill -9``."""
    return None


def some_sectors(seed: int) -> Keep:
    """Any sectors of any changes, in no order."""

    def keep(at: int, change: Change) -> Sequence[tuple[int, bytes]] | None:
        lots = random.Random(f"{seed}-{at}")
        if change.kind != "write":
            return None if lots.random() < 0.5 else ()
        return [piece for piece in _sectors(change) if lots.random() < 0.5]

    return keep


def torn(last: int, length: int, *, noise: bool) -> Keep:
    """All changes before ``last``, and of that one so many bytes; then noise, if there is any."""

    def keep(at: int, change: Change) -> Sequence[tuple[int, bytes]] | None:
        if at < last:
            return None
        if at > last or change.kind != "write":
            return ()
        rest = random.Random(last).randbytes(min(SECTOR, len(change.data) - length)) if noise else b""
        return [(change.offset, change.data[:length] + rest)]

    return keep


def _sectors(change: Change) -> Iterator[tuple[int, bytes]]:
    at, end = change.offset, change.offset + len(change.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        yield at, change.data[at - change.offset : until - change.offset]
        at = until


def _apply(files: dict[str, bytearray], change: Change, pieces: Sequence[tuple[int, bytes]] | None) -> None:
    """Do what was done, or only some pieces of it."""
    if pieces is not None:
        for offset, data in pieces:
            _put(files.setdefault(change.file, bytearray()), offset, data)
    elif change.kind == "delete":
        files.pop(change.file, None)
    elif change.kind == "truncate":
        del files.setdefault(change.file, bytearray())[change.offset :]
    elif change.kind == "write":
        _put(files.setdefault(change.file, bytearray()), change.offset, change.data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class _Files(apsw.VFS):
    """SQLite's way to files, with a note of everything."""

    def __init__(self, name: str, disk: Disk) -> None:
        self._disk = disk
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.note(Change(Path(filename).name, "delete"))
        super().xDelete(filename, syncdir)
        if syncdir:
            self._disk.note(Change("", "sync folder"))


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], disk: Disk) -> None:
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary-shm").name
        self._disk = disk
        self._was_synced = False
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.note(Change(self._name, "write", offset, bytes(data)))
        super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType]  # its Buffer is of Python 3.12

    def xTruncate(self, newsize: int) -> None:
        self._disk.note(Change(self._name, "truncate", newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._disk.note(Change(self._name, "sync"))
        if self._name.endswith(("-wal", "-journal")) and not self._was_synced:
            self._disk.note(Change("", "sync folder"))  # SQLite does that once for each such file
        self._was_synced = True


_names = count()


@contextmanager
def noted_disk(monkeypatch: pytest.MonkeyPatch) -> Generator[Disk]:
    """Every database that the kernel opens inside works on a disk that remembers."""
    disk = Disk()
    name = f"noted-{os.getpid()}-{next(_names)}"
    files = _Files(name, disk)

    def connect(path: Path, **_: Any) -> Any:
        return Connection(apsw.Connection(str(path), vfs=name))

    with monkeypatch.context() as patch:
        patch.setattr("seamline.kernel.store.sqlite_file.sqlite3.connect", connect)
        yield disk
    files.unregister()


class Connection:
    """An apsw connection that answers as one of the standard library does, as far as the kernel asks."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        return Cursor(self._connection).run(lambda cursor: cursor.execute(sql, tuple(parameters)))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> Cursor:
        return Cursor(self._connection).run(lambda cursor: cursor.executemany(sql, [tuple(row) for row in rows]))

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def set_progress_handler(self, handler: Callable[[], bool] | None, instructions: int) -> None:
        self._connection.set_progress_handler(handler, instructions or 1_000)

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


class Cursor:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid = 0

    def run(self, what: Callable[[Any], Any]) -> Cursor:
        cursor = self._connection.cursor()

        def describe(cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
            self.description = tuple((*column, None, None, None, None, None) for column in cursor.get_description())
            return True

        cursor.exec_trace = describe
        before = self._connection.total_changes()
        try:
            self._rows = list(what(cursor))
        except apsw.Error as error:
            raise _translated(error) from error
        self.description = self.description or None
        self.rowcount = self._connection.total_changes() - before
        self.lastrowid = self._connection.last_insert_rowid()
        return self

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None


def _translated(error: apsw.Error) -> sqlite3.Error:
    code = getattr(error, "extendedresult", 0)
    kinds: dict[int, type[sqlite3.Error]] = {
        sqlite3.SQLITE_CONSTRAINT: sqlite3.IntegrityError,
        sqlite3.SQLITE_CORRUPT: sqlite3.DatabaseError,
        sqlite3.SQLITE_NOTADB: sqlite3.DatabaseError,
    }
    translated = kinds.get(code & 0xFF, sqlite3.OperationalError)(str(error))
    translated.sqlite_errorcode = code
    return translated


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Make the files as they were found."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
