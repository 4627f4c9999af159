"""A record as a row of the log's table, and back."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import msgspec

from seamline.events.record import Record, partition_of

_encode = msgspec.msgpack.Encoder().encode
_fields = msgspec.structs.astuple
_Fields = tuple[str, str, str, bytes, int, str, int, str, int, int, dict[str, str]]
_decode = msgspec.msgpack.Decoder(_Fields).decode


Row = tuple[int, int, int, bytes]
"""What is stored of a record: its partition; in milliseconds when it took its place, which is when it was published or
due; the checksum of body and partition; and the body, which has the times as well."""


class Kept(NamedTuple):
    """A row as it came from the store."""

    position: int
    partition: int
    time_ms: int
    checksum: int
    body: bytes


class Outline(NamedTuple):
    """What trimming needs to know of a row."""

    position: int
    time_ms: int
    size: int


def to_row(record: Record, partitions: int) -> Row:
    body = _encode(_fields(record))
    partition = partition_of(record, partitions)
    time_ms, due_ms = record.time_ms, record.due_ms
    return partition, time_ms if time_ms > due_ms else due_ms, zlib.crc32(body, partition), body  # noqa: FURB136


def record_of(row: Kept) -> Record | None:
    """None if the row is not as it was written."""
    try:
        if zlib.crc32(row.body, row.partition) != row.checksum:
            return None
        id_, source, type_, data, time_ms, key, version, trace, due_ms, expires_ms, headers = _decode(row.body)
    except (msgspec.MsgspecError, TypeError, OverflowError):  # damage may be a NULL, too
        return None
    if max(time_ms, due_ms) != row.time_ms:
        return None
    return Record(
        id=id_, source=source, type=type_, data=data, time_ms=time_ms, key=key, version=version, trace=trace,
        due_ms=due_ms, expires_ms=expires_ms, headers=headers,
    )  # fmt: skip
