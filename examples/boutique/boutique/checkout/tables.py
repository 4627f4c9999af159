"""Orders: what was agreed, and how far it came."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

orders = Table(
    "orders",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("attempt", String(200), nullable=False),  # the key that the shopper's attempt came with
    Column("number", Integer, nullable=False),  # of the orders that were begun with it; only the last may be alive
    Column("shopper", String(64), nullable=False),
    Column("worth", String(32), nullable=False),  # the total in euros, exactly
    Column("saga", String(200), nullable=False),  # that works on it now
    Column("status", String(16), nullable=False),  # OrderStatus
    Column("reason", String(200), nullable=False),  # why it was undone
    Column("reviewed", Integer, nullable=False),  # 1 once it was handed to a human
    Column("content", Text, nullable=False),  # the order as JSON
    Column("created_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("attempt", "number"),
    Index("orders_by_status", "status", "created_at"),
)
