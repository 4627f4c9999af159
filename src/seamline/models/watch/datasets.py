"""What models were asked and said, captured for evaluation: of those who agreed, for as long as was said.

A dataset is a folder with one file of JSON lines for each day, which all processes of a machine write. Whose a line is
stands there as a keyed hash, so that a person's lines can be found and deleted, and nobody's name is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from seamline.kernel.clock import Clock
from seamline.models.errors import ExtraMissingError
from seamline.models.watch.errors import CaptureError

FOLDER: Final = "datasets"
"""In the data directory."""
BYTES_MAX: Final = 64 * 1024 * 1024
KEEP_S: Final = 30 * 86_400.0
_LINE_MAX: Final = 64 * 1024
_SUFFIX: Final = ".jsonl"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_AGREED: Final = "agreed"
_COLUMNS: Final = (
    "{'at': 'TIMESTAMP', 'subject': 'VARCHAR', 'model': 'VARCHAR', 'version': 'VARCHAR', 'method': 'VARCHAR', "
    "'asked': 'JSON', 'answered': 'JSON', 'notes': 'JSON'}"
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    at: datetime
    subject: str
    """A hash of whose it is."""
    model: str
    version: str
    method: str = ""
    """Of the model's contract; then ``asked`` has its arguments by name."""
    asked: Any
    answered: Any
    notes: dict[str, Any] = {}
    """``expected``, where it is known what was right."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset, as it is listed."""

    name: str
    lines: int
    subjects: int
    size: int
    since: datetime | None
    until: datetime | None
    models: dict[str, int]
    """``Fraud@logistic-1`` to how many lines."""


class Datasets:
    """The datasets of an application on this machine, and who agreed to be in them. Asked for by type.

    Args:
        folder: made where it is needed, for this user's eyes only.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._key = b""

    def agree(self, subject: str) -> None:
        """``subject`` agrees: from now on their calls are captured, where a model captures."""
        if not subject:
            raise CaptureError("nobody agreed", "Say who: a user's id, or what else tells one from another.")
        path = self._agreed(subject)
        path.parent.parent.mkdir(exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.touch(mode=0o600)

    def agreed(self, subject: str) -> bool:
        return bool(subject) and self._agreed(subject).exists()

    def withdraw(self, subject: str) -> int:
        """They agree no more: what was captured of them is deleted from all datasets; how many lines there were."""
        self._agreed(subject).unlink(missing_ok=True)
        return sum(self.open(name).forget(subject) for name in self.names())

    def open(self, name: str, *, mask: Callable[[str], str] | None = None) -> Dataset:
        """One of them, or a new one. Raises CaptureError for a name that cannot be."""
        if not _NAME.fullmatch(name) or name == _AGREED:
            raise CaptureError(f"{name!r} cannot be a dataset's name", "Use small letters, digits, - and _.")
        return Dataset(self._folder / name, self._clock, self.agreed, mask=mask, key=self._read_key())

    def names(self) -> list[str]:
        try:
            found = sorted(each.name for each in self._folder.iterdir() if each.is_dir())
        except FileNotFoundError:
            return []
        return [name for name in found if _NAME.fullmatch(name) and name != _AGREED]

    def known(self, name: str) -> Dataset:
        """One that is there. Raises CaptureError."""
        if name not in self.names():
            there = ", ".join(self.names())
            remedy = f"There are {there}." if there else "A model captures with `Watch(capture=Capture(dataset=...))`."
            raise CaptureError(f"there is no dataset {name!r}", remedy)
        return self.open(name)

    def remove(self, name: str) -> None:
        """Delete a whole dataset. Raises CaptureError where there is none."""
        self.known(name)
        shutil.rmtree(self._folder / name)

    def told(self) -> list[Told]:
        return [self.open(name).told() for name in self.names()]

    def _agreed(self, subject: str) -> Path:
        hashed = _hash(self._read_key(), subject)
        return self._folder / _AGREED / hashed[:2] / hashed

    def _read_key(self) -> bytes:
        if not self._key:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._key = _key(self._folder / "key")
        return self._key


class Dataset:
    """Captures into a folder; any number of processes may.

    Args:
        folder: made where it is absent, for this user's eyes only.
        consents: whether a subject agreed; asked at each capture.
        mask: takes out of texts what is nobody's business.
        bytes_max: when all is larger, the oldest day goes.
        keep_s: a day goes when it is so old.
        key: by which subjects are hashed; one of its own when it is empty.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        consents: Callable[[str], bool],
        *,
        mask: Callable[[str], str] | None = None,
        bytes_max: int = BYTES_MAX,
        keep_s: float = KEEP_S,
        key: bytes = b"",
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._consents = consents
        self._mask = mask
        self._bytes_max = bytes_max
        self._keep_s = keep_s
        self.refused = 0
        """Captures without consent."""
        self.dropped = 0
        """Captures that were too large."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key = key or _key(folder / "key")

    def agreed(self, subject: str) -> bool:
        return bool(subject) and self._consents(subject)

    def capture(
        self, subject: str, model: str, version: str, asked: Any, answered: Any, notes: dict[str, Any] | None = None,
        *, method: str = "",
    ) -> bool:  # fmt: skip
        """Keep a question and its answer, as JSON has them, if ``subject`` agreed. Whether it was kept."""
        now = self._clock.now()
        line = Line(
            at=now, subject=_hash(self._key, subject), model=model, version=version, method=method,
            asked=self._masked(asked), answered=self._masked(answered), notes=notes or {},
        )  # fmt: skip
        data = msgspec.json.encode(line) + b"\n"
        with self._alone():  # whoever agrees no more is asked for here, and deleted from it, by one at a time
            if not self.agreed(subject):
                self.refused += 1
                return False
            if len(data) > _LINE_MAX:
                self.dropped += 1
                return False
            path = self._folder / f"{now.astimezone(UTC):%Y-%m-%d}{_SUFFIX}"
            if not path.exists():
                self.tidy()
            with _private(path, "ab", os.O_CREAT | os.O_APPEND) as file:
                file.write(data)
        return True

    def lines(self, model: str = "") -> Iterator[Line]:
        """The oldest first. A line that a crash cut off is left out."""
        for path in self._days():
            yield from _read(path, model)

    def newest(self, count: int, model: str = "") -> list[Line]:
        """The last so many, the oldest of them first."""
        found: list[Line] = []
        for path in reversed(self._days()):
            found = [*deque(_read(path, model), count - len(found)), *found]
            if len(found) >= count:
                break
        return found

    def told(self) -> Told:
        """What is in it."""
        lines, models, subjects = 0, dict[str, int](), set[str]()
        since = until = None
        for line in self.lines():
            since, until, lines = since or line.at, line.at, lines + 1
            subjects.add(line.subject)
            name = f"{line.model}@{line.version}"
            models[name] = models.get(name, 0) + 1
        size = sum(path.stat().st_size for path in self._days())
        return Told(
            name=self._folder.name, lines=lines, subjects=len(subjects), size=size, since=since, until=until,
            models=models,
        )  # fmt: skip

    def forget(self, subject: str) -> int:
        """Delete all lines of a subject; how many there were."""
        mine = f'"subject":"{_hash(self._key, subject)}"'.encode()
        gone = 0
        with self._alone():
            for path in self._days():
                lines = path.read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if mine not in line]
                if len(kept) == len(lines):
                    continue
                gone += len(lines) - len(kept)
                fresh = path.with_suffix(".new")
                with _private(fresh, "wb", os.O_CREAT | os.O_TRUNC) as file:
                    file.writelines(kept)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(path)
        return gone

    def tidy(self) -> None:
        """Drop the days that are too old, and the oldest while all are too large."""
        oldest = (self._clock.now() - timedelta(seconds=self._keep_s)).astimezone(UTC)
        days = [path for path in self._days() if path.stem >= f"{oldest:%Y-%m-%d}" or path.unlink()]
        size = sum(path.stat().st_size for path in days)
        while days and size > self._bytes_max:
            size -= days[0].stat().st_size
            days.pop(0).unlink()

    def to_parquet(self, path: Path) -> int:
        """Write all lines as Parquet; how many. Needs the extra ``history``.

        Raises:
            ExtraMissingError: it is not installed.
            CaptureError: there is nothing to write.
        """
        try:
            import duckdb
        except ImportError:
            raise ExtraMissingError(
                "Parquet is written by DuckDB, which is not installed", "pip install 'seamline[history]'"
            ) from None
        days = [str(day) for day in self._days()]
        if not days:
            raise CaptureError(f"nothing was captured in {self._folder.name!r}", "Capture something first.")
        with duckdb.connect(config={"threads": 1}) as connection:
            read = f"read_json(?, format = 'newline_delimited', columns = {_COLUMNS}, ignore_errors = true)"
            target = str(path).replace("'", "''")
            copy = f"COPY (SELECT * FROM {read}) TO '{target}' (FORMAT parquet)"  # noqa: S608  # quoted above
            connection.execute(copy, [days])
            counted = connection.execute("SELECT count(*) FROM read_parquet(?)", [str(path)]).fetchone()
        return int(counted[0]) if counted else 0

    def _days(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Nobody else on this machine writes meanwhile."""
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _masked(self, value: Any) -> Any:
        if self._mask is None:
            return value
        if isinstance(value, str):
            return self._mask(value)
        if isinstance(value, dict):
            return {name: self._masked(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, list | tuple):
            return [self._masked(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        return value


def _read(path: Path, model: str) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # it may have become too old meanwhile
        for data in file:
            try:
                line = decoder.decode(data)
            except msgspec.DecodeError:
                continue
            if not model or line.model == model:
                yield line


def _hash(key: bytes, subject: str) -> str:
    return hashlib.blake2b(subject.encode(), key=key, digest_size=16).hexdigest()


def _private(path: Path, mode: str, flags: int) -> IO[bytes]:
    """A file for this user's eyes only."""
    return os.fdopen(os.open(path, os.O_WRONLY | flags, 0o600), mode)


def _key(path: Path) -> bytes:
    """Of all who share the folder: the first that was made whole is everybody's."""
    if not path.exists():
        made = path.with_name(f"key.{secrets.token_hex(4)}")
        with _private(made, "wb", os.O_CREAT | os.O_EXCL) as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(made)
        made.unlink()
    return path.read_bytes()
