"""Carts: one row for each shopper with the version, one row for each line."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, String, Table

metadata = MetaData()

carts = Table(
    "carts",
    metadata,
    Column("shopper", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

cart_lines = Table(
    "cart_lines",
    metadata,
    Column("shopper", String(64), ForeignKey("carts.shopper"), primary_key=True),
    Column("product_id", String(64), primary_key=True),
    Column("quantity", Integer, CheckConstraint("quantity > 0"), nullable=False),
    Column("position", Integer, nullable=False),  # the version at which the line came in: the order shown
)
