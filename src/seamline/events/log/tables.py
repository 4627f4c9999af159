"""The log's tables, in the module's own database.

On SQLite AUTOINCREMENT keeps the offsets of trimmed records from being used again; on PostgreSQL a sequence does.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, SmallInteger, String, Table

metadata: Final = MetaData()

_POSITION: Final = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER is SQLite's own row number

log: Final = Table(
    "seamline_log",
    metadata,
    Column("position", _POSITION, primary_key=True, autoincrement=True),
    Column("partition", SmallInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

delayed: Final = Table(
    "seamline_log_delayed",
    metadata,
    Column("number", _POSITION, primary_key=True, autoincrement=True),
    Column("due_ms", BigInteger, nullable=False, index=True),
    Column("partition", SmallInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""What is not due yet; it moves into the log when it is."""

damaged: Final = Table(
    "seamline_log_damaged",
    metadata,
    Column("position", _POSITION, primary_key=True, autoincrement=False),
    Column("found_ms", BigInteger, nullable=False),
    Column("fact", String, nullable=False),
    Column("partition", SmallInteger),
    Column("time_ms", BigInteger),
    Column("checksum", BigInteger),
    Column("body", LargeBinary),
)
"""What was set aside."""

facts: Final = Table(
    "seamline_log_facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``partitions``, which may not change, and how often the log was compacted (``compactions``)."""
