"""The ledger: every charge, and what became of every attempt. No card number is kept."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, MetaData, String, Table

metadata = MetaData()

charges = Table(
    "charges",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("order_id", String(36), nullable=False, unique=True),
    Column("currency", String(3), nullable=False),
    Column("amount", String(32), nullable=False),  # the exact decimal, which SQLite has no type for
    Column("brand", String(16), nullable=False),
    Column("last_four", String(4), nullable=False),
    Column("charged_at", DateTime(timezone=True), nullable=False),
    Column("refunded_at", DateTime(timezone=True)),
)
