"""A key may have a budget; a run knows which key it was submitted with, and what it is charged with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("budget_tokens", sa.BigInteger(), nullable=True))
    op.add_column("keys", sa.Column("budget_usd", sa.Double(), nullable=True))
    op.add_column("runs", sa.Column("submitted_by", sa.String(), nullable=True))
    op.add_column("runs", sa.Column("charged_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("runs", sa.Column("charged_usd", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.create_index("ix_runs_submitted_by", "runs", ["submitted_by"])


def downgrade() -> None:
    op.drop_index("ix_runs_submitted_by", "runs")
    for column in ("charged_usd", "charged_tokens", "submitted_by"):
        op.drop_column("runs", column)
    for column in ("budget_usd", "budget_tokens"):
        op.drop_column("keys", column)
