"""Decisions."""

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
        "decisions",
        sa.Column("order_id", sa.String(36), primary_key=True),
        sa.Column("shopper", sa.String(64), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("rules", sa.String(16), nullable=False),
        sa.Column("rule", sa.String(400), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("approved", sa.SmallInteger),
        sa.Column("said_by", sa.String(200), nullable=False),
        sa.Column("comment", sa.String(200), nullable=False),
        sa.Column("said_ms", sa.BigInteger),
    )
    op.create_index("decisions_by_time", "decisions", ["at_ms"])


def downgrade() -> None:
    op.drop_table("decisions")
