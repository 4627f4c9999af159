"""Stock and what is put aside. The database itself refuses a row that does not balance."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Integer, MetaData, String, Table

metadata = MetaData()

BALANCE = "free + reserved + sold = opening + restocked"

stock = Table(
    "stock",
    metadata,
    Column("product_id", String(64), primary_key=True),
    Column("opening", Integer, nullable=False),  # what there was on the first day
    Column("restocked", Integer, nullable=False),  # delivered since, less what was written off
    Column("free", Integer, CheckConstraint("free >= 0"), nullable=False),
    Column("reserved", Integer, CheckConstraint("reserved >= 0"), nullable=False),
    Column("sold", Integer, CheckConstraint("sold >= 0"), nullable=False),
    CheckConstraint(BALANCE, name="balance"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("order_id", String(36), primary_key=True),
    Column("status", String(16), nullable=False),  # "held", then "sold" or "released"
    Column("changed_at", DateTime(timezone=True), nullable=False),
)

reserved_lines = Table(
    "reserved_lines",
    metadata,
    Column("order_id", String(36), ForeignKey("reservations.order_id"), primary_key=True),
    Column("product_id", String(64), ForeignKey("stock.product_id"), primary_key=True),
    Column("quantity", Integer, CheckConstraint("quantity > 0"), nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("product_id", String(64), ForeignKey("stock.product_id"), nullable=False),
    Column("pieces", Integer, nullable=False),
    Column("booked_at", DateTime(timezone=True), nullable=False),
)
