"""Parcels: booked, and some of them called off."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table

metadata = MetaData()

parcels = Table(
    "parcels",
    metadata,
    Column("order_id", String(36), primary_key=True),
    Column("tracking_id", String(16), nullable=False),
    Column("country", String(2), nullable=False),  # empty if it was called off before it was booked
    Column("pieces", Integer, nullable=False),
    Column("booked_at", DateTime(timezone=True), nullable=False),
    Column("cancelled_at", DateTime(timezone=True)),
)
