"""Stock, with what there is on the first day, and what is put aside of it."""

# ruff: noqa: INP001  # Alembic runs the file by its path

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The cellar is deep: a load test must not sell the shop out.
_OPENING = 1_000_000
_SHELF = (
    "harbour-lamp", "enamel-kettle", "stoneware-mug", "pour-over-stand", "walnut-board", "linen-apron", "wool-throw",
    "quiet-clock", "beeswax-candle", "terracotta-pot", "watering-can", "field-notebook", "brass-pen", "canvas-tote",
    "round-sunglasses", "bicycle-bell",
)  # fmt: skip


def upgrade() -> None:
    stock = op.create_table(
        "stock",
        sa.Column("product_id", sa.String(64), primary_key=True),
        sa.Column("opening", sa.Integer, nullable=False),
        sa.Column("restocked", sa.Integer, nullable=False),
        sa.Column("free", sa.Integer, sa.CheckConstraint("free >= 0"), nullable=False),
        sa.Column("reserved", sa.Integer, sa.CheckConstraint("reserved >= 0"), nullable=False),
        sa.Column("sold", sa.Integer, sa.CheckConstraint("sold >= 0"), nullable=False),
        sa.CheckConstraint("free + reserved + sold = opening + restocked", name="balance"),
    )
    op.bulk_insert(
        stock,
        [
            {"product_id": product, "opening": _OPENING, "restocked": 0, "free": _OPENING, "reserved": 0, "sold": 0}
            for product in _SHELF
        ],
    )
    op.create_table(
        "reservations",
        sa.Column("order_id", sa.String(36), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "reserved_lines",
        sa.Column("order_id", sa.String(36), sa.ForeignKey("reservations.order_id"), primary_key=True),
        sa.Column("product_id", sa.String(64), sa.ForeignKey("stock.product_id"), primary_key=True),
        sa.Column("quantity", sa.Integer, sa.CheckConstraint("quantity > 0"), nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("product_id", sa.String(64), sa.ForeignKey("stock.product_id"), nullable=False),
        sa.Column("pieces", sa.Integer, nullable=False),
        sa.Column("booked_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("deliveries")
    op.drop_table("reserved_lines")
    op.drop_table("reservations")
    op.drop_table("stock")
