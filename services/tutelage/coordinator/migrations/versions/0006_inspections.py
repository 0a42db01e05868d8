"""Shown rollouts have what was held of their tokens, and are found by their prompt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("prompt_sha256", sa.String(), nullable=True))
    op.add_column("rollouts", sa.Column("inspection", sa.LargeBinary(), nullable=True))
    op.create_index("ix_rollouts_run_id_prompt_sha256", "rollouts", ["run_id", "prompt_sha256"])


def downgrade() -> None:
    op.drop_index("ix_rollouts_run_id_prompt_sha256", table_name="rollouts")
    for column in ("inspection", "prompt_sha256"):
        op.drop_column("rollouts", column)
