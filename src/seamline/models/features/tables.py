"""The tables of features, in the module's own database: what events said, and what is known of each set."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, String, Table, Text

metadata = MetaData()

# SQLite gives numbers by itself to an INTEGER only, and twice to nobody only with AUTOINCREMENT.
_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")

sets = Table(
    "seamline_feature_sets",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("shape", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),  # what happened before counts as known when it happened
    Column("kept_ms", BigInteger, nullable=False),  # events before this time are gone
    Column("newest_ms", BigInteger, nullable=False),  # in event time
    Column("known_ms", BigInteger, nullable=False),  # when the last event became known, by the clock
    Column("events", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),  # too old to be kept
    Column("failed", BigInteger, nullable=False),  # a function of a feature failed on them
    Index("seamline_feature_sets_name", "name", "version", unique=True),
)

rows = Table(
    "seamline_feature_rows",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("set", Integer, nullable=False),
    Column("entity", String(256), nullable=False),
    Column("stream", SmallInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("known_ms", BigInteger, nullable=False),
    Column("content", Text, nullable=False),  # JSON list, one value for each feature of the stream
    Index("seamline_feature_rows_entity", "set", "entity", "at_ms"),
    Index("seamline_feature_rows_age", "set", "at_ms"),
    sqlite_autoincrement=True,
)
