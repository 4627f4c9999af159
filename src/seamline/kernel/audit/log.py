"""AuditLog: one chained log, in files that cannot fill the disk.

A line is written straight to the file, so it survives the death of the process. What a dying process has half written
is not cut away: the next line names it by its hash, so that a crash can be told from tampering.

A log has one writer, which holds a lock as long as it lives. A second process with the same log (an old and a new
generation of a workload) writes ``<name>~1`` beside it, and so on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from seamline.kernel.audit import chain
from seamline.kernel.audit.flood import Flood, Key
from seamline.kernel.clock import Clock, SystemClock

Kind = Literal[
    "call",
    "authentication",
    "identity",
    "revocation",
    "secret",
    "policy",
    "topology",
    "admin",
    "limit",
    "audit",
]
"""What a line is about; ``audit`` is about the log itself."""

FIELD_CHARACTERS_MAX = 500
_WRITERS_MAX = 64
_TAIL_BYTES = 256 * 1024
_RESERVE_BYTES = 1024
"""Room in a file for the line that says what the next rotation drops."""


class Written(NamedTuple):
    """How far a log has come: its name, the number of its last line, and that line's hash."""

    log: str
    number: int
    head: str


class AuditLog:
    """Append-only JSON lines at ``path``, rotated to ``path.1`` … ``path.<files_max - 1>`` by size.

    At most ``per_window`` lines for the same decision, principal, action and reason in ``window_s`` seconds, and
    ``total_per_window`` altogether. Nothing raises: an audit that cannot be written must not stop the service, but
    ``lost`` counts the lines, and the next line that can be written tells.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        bytes_max: int = 8 << 20,
        files_max: int = 4,
        per_window: int = 10,
        total_per_window: int = 3000,
        window_s: float = 60.0,
    ) -> None:
        assert files_max > 1
        self.path = path
        self.lost = 0
        self.rotations = 0
        self._clock = clock or SystemClock()
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._flood = Flood(self._clock.monotonic(), per_window=per_window, total=total_per_window, window_s=window_s)
        self._descriptor = -1
        self._lock = -1
        self._size = 0
        self._number = 0
        self._head = ""

    def write(
        self,
        kind: Kind,
        decision: str,
        *,
        principal: str,
        action: str,
        resource: str = "",
        reason: str = "",
        peer: str = "",
        always: bool = False,
        **more: Any,
    ) -> bool:
        """Write one line; False if it was left out or lost.

        ``decision`` is what came of it: ``allow``, ``deny`` (policy says no), ``refuse`` (not even asked), ``revoke``,
        ``fail``. ``always`` is for lines of which no stranger can make a flood: the bounds do not count them.
        """
        key = (kind, decision, principal[:FIELD_CHARACTERS_MAX], action[:FIELD_CHARACTERS_MAX], reason)
        admitted = always or self._flood.admits(key, self._clock.monotonic())
        self._tell()
        if not admitted:
            return False
        who = {"principal": principal, "action": action, "resource": resource, "reason": reason, "peer": peer}
        return self._write({**self._begin(kind, decision), **who, **more})

    def flush(self) -> None:
        """Write what has been left out so far. Call it now and then, so that the end of a flood is told."""
        self._flood.end()
        self._tell()

    def close(self) -> None:
        self.flush()
        self._close_file()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def written(self) -> Written | None:
        """How far it has come; None while this process has written nothing."""
        return Written(self.path.name.removesuffix(".jsonl"), self._number, self._head) if self._head else None

    def sync(self) -> None:
        """Have the disk hold what was written, so that a checkpoint of it survives no longer than its lines do."""
        descriptor = self._descriptor
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # closed or rotated meanwhile; what is left is synced with the next
                os.fdatasync(descriptor)

    def _tell(self) -> None:
        for key, count in self._flood.ended():
            if not self._write(self._suppressed(key, count)):
                self._flood.keep(key, count)

    def _suppressed(self, key: Key | None, count: int) -> dict[str, Any]:
        if key is None:
            return {**self._begin("audit", ""), "reason": "too many lines", "suppressed": count}
        kind, decision, principal, action, reason = key
        return {
            **self._begin(kind, decision),
            "principal": principal,
            "action": action,
            "reason": reason,
            "suppressed": count,
        }

    def _begin(self, kind: str, decision: str) -> dict[str, Any]:
        return {"time": iso(self._clock.now()), "kind": kind, "decision": decision}

    def _write(self, content: dict[str, Any]) -> bool:
        if self.lost:
            content["lost_before"] = self.lost
        cut = {name: _cut(value) for name, value in content.items()}
        try:
            if self._descriptor < 0:
                self._open()
            line, head = chain.write(self._number + 1, self._head, cut)
            if self._size and self._size + len(line) + _RESERVE_BYTES > self._bytes_max:
                self._rotate()
                line, head = chain.write(self._number + 1, self._head, cut)
            self._put(line, head)
        except OSError:
            self._close_file()  # the next line finds out what became of this one
            self.lost += 1
            return False
        self.lost = 0
        return True

    def _append(self, content: dict[str, Any], before: bytes = b"") -> None:
        line, head = chain.write(self._number + 1, self._head, content)
        self._put(before + line, head)

    def _put(self, line: bytes, head: str) -> None:
        if os.write(self._descriptor, line) < len(line):
            raise OSError("the disk is full")
        self._size += len(line)
        self._number += 1
        self._head = head

    # Files.

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lock < 0:
            self._take()
        self._open_file()
        found = _last(self._files())
        self._number, self._head = found.number, found.head or chain.first(self.path.name.removesuffix(".jsonl"))
        if found.torn:
            told = {
                **self._begin("audit", ""),
                "action": "recover",
                "torn": [chain.digest(each) for each in found.torn],
            }
            self._append(told, b"" if found.terminated else b"\n")

    def _open_file(self) -> None:
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self) -> None:
        """Become the writer of the log, or of the next one beside it that has none."""
        stem = self.path.name.removesuffix(".jsonl")
        for count in range(_WRITERS_MAX):
            name = f"{stem}~{count}" if count else stem
            lock = os.open(self.path.parent / f".{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                if not isinstance(error, BlockingIOError):
                    raise
                continue
            self._lock = lock
            self.path = self.path.with_name(f"{name}.jsonl")
            return
        raise OSError(f"{self.path} has too many writers")

    def _rotate(self) -> None:
        oldest = self._numbered(self._files_max - 1)
        if oldest.exists():
            # Told before it is done: a log that begins later than it says has lost lines to somebody else.
            dropped = _last([oldest])
            self._append({**self._begin("audit", ""), "action": "drop", "dropped_to": dropped.number})
        self._close_file()
        for number in range(self._files_max - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._open_file()
        self.rotations += 1

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _files(self) -> list[Path]:
        return [path for number in range(self._files_max) if (path := self._numbered(number)).exists()]


class _Last(NamedTuple):
    number: int = 0
    head: str = ""
    torn: list[bytes] = []  # noqa: RUF012  # never changed
    terminated: bool = True


def _last(files: list[Path]) -> _Last:
    """The last good line of ``files``, newest first, and what stands behind it."""
    torn: list[bytes] = []
    terminated = True
    for path in files:
        for whole in (False, True):
            raw = _tail(path, whole=whole)
            if raw and path is files[0]:
                terminated = raw.endswith(b"\n")
            lines = raw.split(b"\n")
            if lines[-1] == b"":
                lines.pop()
            behind: list[bytes] = []
            for each in reversed(lines):
                line = chain.read(each)
                if line is not None and line.true:
                    return _Last(line.number, line.hash, [*reversed(behind), *torn], terminated)
                behind.append(each)
            if len(raw) < _TAIL_BYTES:
                break
        torn = [*reversed(behind), *torn]
    return _Last(torn=torn, terminated=terminated)


def _tail(path: Path, *, whole: bool) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0 if whole else max(0, size - _TAIL_BYTES))
        return file.read()


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > FIELD_CHARACTERS_MAX:
        return value[:FIELD_CHARACTERS_MAX] + "…"
    return value


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
