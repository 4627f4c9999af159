"""What one process has spent and not yet written to the ledger, in memory that outlives it.

A file mapped into memory costs no system call to write, and what was written is there after a ``kill -9``. Each word is
written whole, and what it completes counts only once the last one is there: the number of records, or a call's
serial number. Who holds the lock of the file lives; the kernel takes the lock from the dead, whatever the clock says.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

RECORDS: Final = 32_768
"""Settled calls that may wait for the ledger, and calls that may be under way, together."""
CALLS: Final = 16_384
"""Calls under way that an engine was asked for."""
SUFFIX: Final = ".journal"
_TAIL: Final = 1
_CALLS_AT: Final = 512
_RECORDS_AT: Final = _CALLS_AT + 4 * CALLS
_WORDS: Final = _RECORDS_AT + 4 * RECORDS
_MAGIC: Final = 0x5345414D4C454447


class Record(NamedTuple):
    """A call's cost, and the group of meters that it counts for."""

    group: int
    tokens: int
    nano: int


class Journal:
    """Of this process. Not to be used by two threads at once."""

    def __init__(self, folder: Path) -> None:
        self.holder = secrets.token_hex(8)
        self.path = folder / (self.holder + SUFFIX)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        making = self.path.with_suffix(".new")
        self._descriptor = os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._descriptor, 8 * _WORDS)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._map = mmap.mmap(self._descriptor, 8 * _WORDS)
        self._words = memoryview(self._map).cast("q")
        self._words[0] = _MAGIC
        making.rename(self.path)
        self.tail = 0
        """Records written, ever."""
        self._serial = 0
        self._free = list(range(_CALLS_AT + 4 * (CALLS - 1), _CALLS_AT - 4, -4))

    def begin(self, group: int, tokens: int, nano: int) -> int:
        """An engine is asked: from now on the call costs this much. Where it stands, to be told to the next two; zero
        if there is no place."""
        if not self._free:
            return 0
        self._serial += 1
        place, words = self._free.pop(), self._words
        words[place + 1] = group
        words[place + 2] = tokens
        words[place + 3] = nano
        words[place] = self._serial
        return place

    def note(self, place: int, tokens: int, nano: int) -> None:
        words = self._words
        words[place + 2] = tokens
        words[place + 3] = nano

    def settle(self, place: int, group: int, tokens: int, nano: int) -> None:
        """The call is over, and this is what it cost. There is room while :data:`RECORDS` is heeded."""
        words, tail = self._words, self.tail
        at = _RECORDS_AT + 4 * (tail % RECORDS)
        words[at] = words[place] if place else 0
        words[at + 1] = group
        words[at + 2] = tokens
        words[at + 3] = nano
        words[_TAIL] = self.tail = tail + 1
        if place:
            words[place] = 0
            self._free.append(place)

    def close(self) -> None:
        """Let go of it, as death does."""
        if not self._map.closed:
            self._words.release()
            self._map.close()
            os.close(self._descriptor)


def left_by(path: Path, written: int) -> Iterator[Record]:
    """What a dead process spent after its first ``written`` records: what it settled, and what it owed for calls that
    were under way."""
    words = memoryview(path.read_bytes()).cast("q")
    if len(words) != _WORDS or words[0] != _MAGIC:
        return
    tail = words[_TAIL]
    for number in range(max(written, tail - RECORDS), tail):
        at = _RECORDS_AT + 4 * (number % RECORDS)
        yield Record(words[at + 1], words[at + 2], words[at + 3])
    # Settled, and killed before its place was cleared.
    settled = words[_RECORDS_AT + 4 * ((tail - 1) % RECORDS)] if tail else 0
    for place in range(_CALLS_AT, _RECORDS_AT, 4):
        if words[place] and words[place] != settled:
            yield Record(words[place + 1], words[place + 2], words[place + 3])


def is_dead(path: Path) -> bool:
    """Whether nobody holds it any more."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
