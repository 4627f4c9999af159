"""Orders are worked on by sagas, and one attempt may have begun several."""

# ruff: noqa: INP001  # Alembic runs the file by its path

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("orders") as orders:
        orders.add_column(sa.Column("attempt", sa.String(200), nullable=False, server_default=""))
        orders.add_column(sa.Column("number", sa.Integer, nullable=False, server_default="1"))
        orders.add_column(sa.Column("shopper", sa.String(64), nullable=False, server_default=""))
        orders.add_column(sa.Column("worth", sa.String(32), nullable=False, server_default="0"))
        orders.add_column(sa.Column("saga", sa.String(200), nullable=False, server_default=""))
        orders.add_column(sa.Column("reason", sa.String(200), nullable=False, server_default=""))
        orders.add_column(sa.Column("reviewed", sa.Integer, nullable=False, server_default="0"))
    # An order from before had no name for its attempt but its own; what was only priced was never charged for good.
    op.execute("UPDATE orders SET attempt = id")
    op.execute("UPDATE orders SET status = 'undone' WHERE status = 'priced'")
    with op.batch_alter_table("orders") as orders:
        orders.create_unique_constraint("orders_by_attempt", ["attempt", "number"])
    op.create_index("orders_by_status", "orders", ["status", "created_at"])


def downgrade() -> None:
    op.drop_index("orders_by_status", "orders")
    with op.batch_alter_table("orders") as orders:
        orders.drop_constraint("orders_by_attempt", type_="unique")
        for column in ("reviewed", "reason", "saga", "worth", "shopper", "number", "attempt"):
            orders.drop_column(column)
