"""What models were asked and said, captured for evaluation: of those who agreed, for as long as was said.

One file of JSON lines for each day. Whose a line is stands there as a keyed hash, so that a person's lines can be
found and deleted, and nobody's name is in them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from seamline.kernel.clock import Clock
from seamline.models.errors import ExtraMissingError
from seamline.models.watch.errors import CaptureError

BYTES_MAX: Final = 64 * 1024 * 1024
KEEP_S: Final = 30 * 86_400.0
_LINE_MAX: Final = 64 * 1024
_SUFFIX: Final = ".jsonl"
_COLUMNS: Final = (
    "{'at': 'TIMESTAMP', 'subject': 'VARCHAR', 'model': 'VARCHAR', 'version': 'VARCHAR', 'asked': 'JSON', "
    "'answered': 'JSON', 'notes': 'JSON'}"
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    at: datetime
    subject: str
    """A hash of whose it is."""
    model: str
    version: str
    asked: Any
    answered: Any
    notes: dict[str, Any] = {}


class Dataset:
    """Captures into a folder. Of one process; several have folders of their own.

    Args:
        folder: made where it is absent, for this user's eyes only.
        consents: whether a subject agreed; asked at each capture.
        mask: takes out of texts what is nobody's business.
        bytes_max: when all is larger, the oldest day goes.
        keep_s: a day goes when it is so old.
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
        self._key = _key(folder / "key")

    def capture(
        self, subject: str, model: str, version: str, asked: Any, answered: Any, notes: dict[str, Any] | None = None
    ) -> bool:
        """Keep a question and its answer, as JSON has them, if ``subject`` agreed. Whether it was kept."""
        if not subject or not self._consents(subject):
            self.refused += 1
            return False
        now = self._clock.now()
        line = Line(
            at=now, subject=self._hash(subject), model=model, version=version, asked=self._masked(asked),
            answered=self._masked(answered), notes=notes or {},
        )  # fmt: skip
        data = msgspec.json.encode(line) + b"\n"
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
        decoder = msgspec.json.Decoder(Line)
        for path in self._days():
            with path.open("rb") as file:
                for data in file:
                    try:
                        line = decoder.decode(data)
                    except msgspec.DecodeError:
                        continue
                    if not model or line.model == model:
                        yield line

    def forget(self, subject: str) -> int:
        """Delete all lines of a subject; how many there were."""
        mine = self._hash(subject)
        gone = 0
        for path in self._days():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if mine.encode() not in line]
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

    def _hash(self, subject: str) -> str:
        return hashlib.blake2b(subject.encode(), key=self._key, digest_size=16).hexdigest()

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


def _private(path: Path, mode: str, flags: int) -> IO[bytes]:
    """A file for this user's eyes only."""
    return os.fdopen(os.open(path, os.O_WRONLY | flags, 0o600), mode)


def _key(path: Path) -> bytes:
    try:
        with _private(path, "wb", os.O_CREAT | os.O_EXCL) as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    return path.read_bytes()
