"""What was ordered together, what was learned of it, and which suggestions were followed."""

# ruff: noqa: INP001  # Alembic runs the file by its path

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "baskets",
        sa.Column("order_id", sa.String(36), primary_key=True),
        sa.Column("shopper", sa.String(64), nullable=False),
        sa.Column("products", sa.Text, nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_baskets_placed_at", "baskets", ["placed_at"])
    op.create_table(
        "learned",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("orders", sa.Integer, nullable=False),
        sa.Column("learned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("said", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "shelves",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("said", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "clicks",
        sa.Column("shopper", sa.String(64), primary_key=True),
        sa.Column("product_id", sa.String(64), primary_key=True),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("clicked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bought", sa.Boolean, nullable=False),
    )
    op.create_index("clicks_by_time", "clicks", ["clicked_at"])


def downgrade() -> None:
    for table in ("clicks", "shelves", "learned", "baskets"):
        op.drop_table(table)
