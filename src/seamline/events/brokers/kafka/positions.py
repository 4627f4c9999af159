"""What of a partition is done. Acknowledgements come in any order; what is committed is the oldest open record."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto

_NOTE_CHARACTERS_MAX = 3800
"""Kafka keeps up to 4,096 bytes beside a committed offset (``offset.metadata.max.bytes``)."""


class Seen(Enum):
    """What members before us had to do with a record, as far as they noted."""

    NEW = auto()
    OPEN = auto()
    DONE = auto()


class Positions:
    """The open records of one partition, in the order in which they were read.

    Beside the committed offset stands a note of which records after it are open still, so that one event that is due
    tomorrow does not make a successor hand out again everything that was handled since. Records are told by offset;
    offsets have holes (compaction, transactions), so that nothing is inferred from their being consecutive.
    """

    def __init__(self, start: int, note: str = "") -> None:
        self.position = start
        """The next record to be read."""
        self._open: OrderedDict[int, int] = OrderedDict()
        self._until, self._left = _read_note(note)

    def read(self, offset: int, time_ms: int) -> Seen:
        """A record was read, and is open unless a member before us has handled it."""
        self.position = offset + 1
        if offset >= self._until:
            seen = Seen.NEW
        elif offset in self._left:
            self._left.remove(offset)
            seen = Seen.OPEN
        else:
            return Seen.DONE
        self._open[offset] = time_ms
        return seen

    def done(self, offset: int) -> bool:
        """Whether the record was open."""
        return self._open.pop(offset, None) is not None

    @property
    def committable(self) -> int:
        """Where a successor begins."""
        return next(iter(self._open), self.position)

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def oldest_ms(self) -> int:
        """When the oldest open record was published; 0 when none is open."""
        return next(iter(self._open.values()), 0)

    def note(self) -> str:
        """``<until> <offset> +<step> ...``: of the records before ``until``, only the named ones are open."""
        ahead = self._left if self._until > self.position else set[int]()
        left = [*self._open, *sorted(offset for offset in ahead if offset >= self.position)]
        until = max(self.position, self._until)
        if until == self.committable:
            return ""
        words: list[str] = []
        length, before = len(str(until)), 0
        for offset in left:
            word = str(offset - before)
            length += len(word) + 1
            if length > _NOTE_CHARACTERS_MAX:
                until = offset
                break
            words.append(word)
            before = offset
        return " ".join([str(until), *words])


def _read_note(note: str) -> tuple[int, set[int]]:
    """What was noted; nothing for a note that another client wrote."""
    try:
        until, *steps = [int(word) for word in note.split()]
    except ValueError:
        return 0, set()
    left: set[int] = set()
    offset = 0
    for step in steps:
        offset += step
        left.add(offset)
    return until, left
