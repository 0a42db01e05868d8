"""Metrics are kept in buckets of 4, 16, 64, ... steps too, from now on; what is there is read as it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metric_buckets",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_metric_buckets_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "width", "first_step", name="pk_metric_buckets"),
    )


def downgrade() -> None:
    op.drop_table("metric_buckets")
