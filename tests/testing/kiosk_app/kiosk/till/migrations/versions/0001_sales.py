"""The book of sales."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sales", sa.Column("id", sa.Integer, primary_key=True), sa.Column("sku", sa.String(40), nullable=False)
    )


def downgrade() -> None:
    op.drop_table("sales")
