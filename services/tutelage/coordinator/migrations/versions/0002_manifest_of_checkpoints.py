"""Checkpoints are committed with the hash of their manifest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("manifest_sha256", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("checkpoints", "manifest_sha256")
