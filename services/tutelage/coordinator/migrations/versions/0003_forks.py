"""A run may have begun at a checkpoint of another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("forked_from", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "forked_from")
