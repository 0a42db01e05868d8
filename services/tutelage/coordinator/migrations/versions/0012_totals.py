"""A run has totals that never fall, and runs that have not ended an index of their own: a scrape reads those alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    going_on = sa.text("ended_at IS NULL")
    op.add_column("runs", sa.Column("totals", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    op.create_index("ix_runs_going_on", "runs", ["id"], sqlite_where=going_on, postgresql_where=going_on)


def downgrade() -> None:
    op.drop_index("ix_runs_going_on", "runs")
    op.drop_column("runs", "totals")
