"""An event as it is stored and travels: who said what, about what, and when."""

from __future__ import annotations

import zlib

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One event, in the words of CloudEvents 1.0 where they fit.

    Times are milliseconds since the epoch; 0 means none.
    """

    id: str
    """Unique within its source."""
    source: str
    """The module that published it, which is also its topic."""
    type: str
    """The event's class name."""
    data: bytes
    """Its fields as JSON."""
    time_ms: int
    """When it was published."""
    key: str = ""
    """Events with one key keep their order; those without have none."""
    version: int = 1
    """Of the event's fields."""
    trace: str = ""
    """``traceparent`` of who published it."""
    due_ms: int = 0
    """Not to be handed out before."""
    expires_ms: int = 0
    """Not to be handed out after."""
    headers: dict[str, str] = {}
    """CloudEvents extension attributes."""


SUBJECT = "seamlinesubject"
"""The header with the proof of on whose behalf the event was published. Handlers and strangers do not see it."""

LOG_OFFSET = "seamlineoffset"
"""The header with a record's offset in its module's own log, on its way through a broker."""


def partition_of(record: Record, partitions: int) -> int:
    """Which of so many partitions a record belongs to: by its key, or by its id where it has none."""
    return zlib.crc32((record.key or record.id).encode()) % partitions
