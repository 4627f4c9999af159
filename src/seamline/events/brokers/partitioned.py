"""What the brokers of this room have in common: a topic is some partitions, each a log that is read in order, and a
group's place in a partition is one small value that only the partition's holder may write.

Why not the brokers' own groups (durable consumers of NATS, XREADGROUP of Redis, SKIP LOCKED): they hand a dead reader's
events to another one when a timeout says so, behind newer ones of the same key, and know no fence. Here a lease says
who holds a partition, its next holder goes on from the written place at once and in order, and an event that is
delayed or slow is noted in that place while the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from seamline.events import cloudevents
from seamline.events.errors import EventsError
from seamline.events.record import Record
from seamline.events.transport import Promises
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

ORDER = "per key; a delayed event takes its place when it is due"
REDELIVERY = "what was not acknowledged, at once and in order, to whoever holds the partition next"
REPLAY = "earliest, latest, offset or time, for as long as events are retained"


class Entry(NamedTuple):
    """A record where it stands. Offsets are the broker's own words; numbers in them grow."""

    offset: str
    record: Record


class Position(msgspec.Struct):
    """A group's place in a partition."""

    after: str
    """All up to here is done with, but for what follows."""
    open: list[str] = []
    """Handed out and not acknowledged."""
    later: list[tuple[int, str]] = []
    """Not due before so many milliseconds since the epoch."""

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


class Behind(NamedTuple):
    """How many entries there are after an offset, and when the first of them was published."""

    events: int
    oldest_ms: int


class Reader(Protocol):
    """Reads the partitions of one topic for one subscription. Its ``read`` may be cancelled at any time."""

    async def read(self, after: Mapping[int, str], limit: int, *, wait: bool) -> Sequence[tuple[int, Entry]]:
        """Entries after an offset of each partition, in order within it, about ``limit`` of each at most.

        With ``wait`` it returns when there are any, however long that takes.
        """
        ...

    async def close(self) -> None: ...


class PartitionedLog(Protocol):
    """What a broker has to be able to do. Every method raises BrokerError when the broker does not answer."""

    async def connect(self) -> Promises: ...

    async def close(self) -> None: ...

    async def append(self, topic: str, records: Sequence[tuple[int, Record]]) -> None:
        """Write records, each to its partition, in order: those of a partition all, or the first of them."""
        ...

    async def resolve(self, topic: str, start: Start) -> Mapping[int, str]:
        """The offset, in each partition, after which a group begins that starts so."""
        ...

    async def begin(self, topic: str, group: str, places: Mapping[int, bytes], *, over: bool) -> None:
        """Write a group's places; those that exist are left alone unless ``over`` (which ends any claim to them)."""
        ...

    async def places(self, topic: str, group: str) -> Mapping[int, bytes]:
        """A group's places; empty if there is no such group."""
        ...

    async def claim(self, topic: str, group: str, partitions: Iterable[int], holder: str) -> Mapping[int, bytes]:
        """Take over partitions: give their places, and let nobody write them but ``holder``."""
        ...

    async def save(self, topic: str, group: str, holder: str, places: Mapping[int, bytes]) -> Iterable[int]:
        """Write places; give those partitions that somebody else has claimed."""
        ...

    async def pick(self, topic: str, partition: int, offsets: Sequence[str], /) -> Sequence[Entry]:
        """Single entries, in the order asked for; those that are no longer kept are left out."""
        ...

    async def behind(self, topic: str, after: Mapping[int, str]) -> Mapping[int, Behind]: ...

    def reader(self, topic: str) -> Reader: ...


def place_of(offset: str) -> tuple[int, ...]:
    """An offset as something that can be compared."""
    return tuple(int(number) for number in offset.split("-"))


def decoded(topic: str, offset: str, headers: Mapping[str, str], data: bytes) -> Entry:
    """An entry as it was read. What is not an event of ours becomes one of no type, which no group takes, and a line
    in the log."""
    try:
        return Entry(offset, cloudevents.from_headers(headers, data))
    except EventsError as error:
        _log.error("topic %s: the entry at %s is not an event and is passed over: %s", topic, offset, error)
        return Entry(offset, Record(id=offset, source=topic, type="", data=b"", time_ms=0))
