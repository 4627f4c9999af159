"""The tables of streams: state that is the same for all views, and a table of rows for each view.

Rows lie in ``seamline_view_<view>_<version>``; what is queried is the SQL view ``<view>`` over it, which is
made anew, in one transaction, when a newer version has caught up.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
)

from seamline.events.streams.aggregates import Aggregate
from seamline.events.streams.stream import Definition

STATUS: Final = "stream_status"
"""The SQL view that tells of each view how far it is and what was put aside."""
PUT_ASIDE_KEPT: Final = 1_000
"""Of each view, the newest. The counts count all."""

metadata = MetaData()

_KINDS: Final = {int: BigInteger, float: Double, str: Text}
# SQLite gives numbers by itself to an INTEGER only.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

views = Table(
    "seamline_stream_views",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(8), nullable=False),  # building, live, retired
    Column("shape", Text, nullable=False),  # what its rows hold, to notice that the code has changed
    Column("watermark_ms", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),
    Column("ahead", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Index("seamline_stream_views_name", "name", "version", unique=True),
)

sources = Table(
    "seamline_stream_sources",
    metadata,
    Column("view", BigInteger, nullable=False),
    Column("event", String(128), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("newest_ms", BigInteger, nullable=False),  # in event time
    Column("seen_ms", BigInteger, nullable=False),  # by the clock
    PrimaryKeyConstraint("view", "event", "partition"),
)

windows = Table(
    "seamline_stream_windows",
    metadata,
    Column("view", BigInteger, nullable=False),
    Column("key", Text, nullable=False),  # JSON list of the keys' values
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),  # JSON list, one state for each aggregate
    Column("closed", SmallInteger, nullable=False),
    Column("revision", Integer, nullable=False),  # how often it was closed
    PrimaryKeyConstraint("view", "key", "start_ms"),
    Index("seamline_stream_windows_end", "view", "closed", "end_ms"),
)

members = Table(
    "seamline_stream_members",
    metadata,
    Column("view", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("aggregate", SmallInteger, nullable=False),
    Column("member", Text, nullable=False),
    Column("weight", BigInteger, nullable=False),
    PrimaryKeyConstraint("view", "key", "start_ms", "aggregate", "member"),
)

joins = Table(
    "seamline_stream_joins",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("view", BigInteger, nullable=False),
    Column("phase", SmallInteger, nullable=False),  # 0 before the watermark, 1 a left and 2 a right that waits
    Column("at_ms", BigInteger, nullable=False),
    Column("side", SmallInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("event", String(128), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("matched", SmallInteger, nullable=False),
    Index("seamline_stream_joins_time", "view", "phase", "at_ms", "side", "id"),
    Index("seamline_stream_joins_key", "view", "key", "phase"),
)

aside = Table(
    "seamline_stream_aside",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("view", BigInteger, nullable=False),
    Column("reason", String(8), nullable=False),  # late, ahead, failed
    Column("event", String(128), nullable=False),
    Column("at_ms", BigInteger, nullable=True),
    Column("watermark_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("seamline_stream_aside_view", "view", "id"),
)

STATUS_COLUMNS: Final = ("name", "version", "state", "watermark_ms", "events", "late", "ahead", "failed")


def row_table(name: str, version: int, definition: Definition[object]) -> Table:
    """The rows of one version of a view."""
    keys = [Column(key, Text, nullable=False) for key in definition.key_names]
    values = [Column(name, _kind(each)) for name, each in definition.aggregates.items()]
    full = f"seamline_view_{name}_{version}"
    return Table(
        full,
        MetaData(),
        *keys,
        Column("start_ms", BigInteger, nullable=False),
        Column("end_ms", BigInteger, nullable=False),
        *values,
        Column("closed", SmallInteger, nullable=False),
        PrimaryKeyConstraint("start_ms", *definition.key_names),
        Index(f"{full}_end", "end_ms"),
    )


def _kind(aggregate: Aggregate[object]) -> type[BigInteger | Double[float] | Text]:
    return _KINDS[aggregate.kind]
