"""What consumers and relays keep in the module's own database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint

METADATA = MetaData()

groups = Table(
    "seamline_groups",
    METADATA,
    Column("consumer_group", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("generation", Integer, nullable=False, default=0),
    Column("replayed_ms", BigInteger, nullable=False, default=0),
)
"""A consumer group that has begun. What is older than ``replayed_ms`` and comes after it, comes again by request;
``generation`` counts such requests."""

offsets = Table(
    "seamline_offsets",
    METADATA,
    Column("consumer_group", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""Everything up to ``position`` was handled. With the embedded transport only."""

inbox = Table(
    "seamline_inbox",
    METADATA,
    Column("consumer_group", String, primary_key=True),
    Column("source", String, primary_key=True),
    Column("event_id", String, primary_key=True),
    Column("handled_ms", BigInteger, nullable=False),
    Index("seamline_inbox_by_time", "handled_ms"),
    sqlite_with_rowid=False,
)
"""Which events were handled, written in the transaction of what the handler wrote."""

dead_letters = Table(
    "seamline_dead_letters",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("consumer_group", String, nullable=False),
    Column("topic", String, nullable=False),
    Column("source", String, nullable=False),
    Column("event_id", String, nullable=False),
    Column("type", String, nullable=False),
    Column("event_key", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("position", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("claimed_ms", BigInteger, nullable=False, default=0),
    Column("record", LargeBinary, nullable=False),
    UniqueConstraint("consumer_group", "source", "event_id"),
)
"""Events that could not be handled. ``record`` is the whole of it, as msgpack."""

marks = Table(
    "seamline_marks",
    METADATA,
    Column("consumer_group", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("owner", String, primary_key=True),
    Column("begun_ms", BigInteger, nullable=False),
)
"""Processes that consume, or died while they did."""

deaths = Table(
    "seamline_deaths",
    METADATA,
    Column("consumer_group", String, primary_key=True),
    Column("source", String, primary_key=True),
    Column("event_id", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
)
"""Events that were at work when their process died, and how often; the ``number`` has the attempt that goes on."""

relays = Table(
    "seamline_relays",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""Everything of the module's log up to ``position`` is with the broker."""
