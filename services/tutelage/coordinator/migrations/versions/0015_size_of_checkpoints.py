"""A checkpoint has its size, and how long it took to write."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("bytes", sa.BigInteger(), nullable=True))
    op.add_column("checkpoints", sa.Column("seconds", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("checkpoints", "seconds")
    op.drop_column("checkpoints", "bytes")
