"""What was ordered together, what was learned of it, and which suggestions were followed."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

baskets = Table(
    "baskets",
    metadata,
    Column("order_id", String(36), primary_key=True),
    Column("shopper", String(64), nullable=False),
    Column("products", Text, nullable=False),  # ids, with blanks between them
    Column("placed_at", DateTime(timezone=True), nullable=False, index=True),
)

# What has the highest number is in force.
learned = Table(
    "learned",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("orders", Integer, nullable=False),
    Column("learned_at", DateTime(timezone=True), nullable=False),
    Column("said", LargeBinary, nullable=False),  # learning.Learned as JSON
)

# Neighbours by what is written, of shelves that alike.json does not know.
shelves = Table(
    "shelves",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("said", LargeBinary, nullable=False),  # alike.Computed as JSON
)

clicks = Table(
    "clicks",
    metadata,
    Column("shopper", String(64), primary_key=True),
    Column("product_id", String(64), primary_key=True),
    Column("version", String(64), nullable=False),
    Column("clicked_at", DateTime(timezone=True), nullable=False),
    Column("bought", Boolean, nullable=False),
    Index("clicks_by_time", "clicked_at"),
)
