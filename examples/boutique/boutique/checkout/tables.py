"""Orders: what was agreed, and how far it came."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, MetaData, String, Table, Text

metadata = MetaData()

orders = Table(
    "orders",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("status", String(16), nullable=False),  # "priced" until it is paid and shipped, then "placed"
    Column("content", Text, nullable=False),  # the order as JSON
    Column("created_at", DateTime(timezone=True), nullable=False),
)
