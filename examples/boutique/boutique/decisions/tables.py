"""Decisions: what was asked, what was known, what was decided by what, and what a human said."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, SmallInteger, String, Table, Text

metadata = MetaData()

decisions = Table(
    "decisions",
    metadata,
    Column("order_id", String(36), primary_key=True),
    Column("shopper", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("question", Text, nullable=False),  # JSON, as it was asked
    Column("seen", BigInteger, nullable=False),  # which events were known: the features can be had again
    Column("inputs", Text, nullable=False),  # JSON, as the model was told
    Column("score", Double, nullable=False),
    Column("reasons", Text, nullable=False),  # JSON
    Column("model", String(64), nullable=False),
    Column("rules", String(16), nullable=False),
    Column("rule", String(400), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("approved", SmallInteger),  # null until a human has said it
    Column("said_by", String(200), nullable=False),
    Column("comment", String(200), nullable=False),
    Column("said_ms", BigInteger),
    Index("decisions_by_time", "at_ms"),
)
