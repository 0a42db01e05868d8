"""A run has labels and a note, and counts their changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("labels", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    op.add_column("runs", sa.Column("note", sa.String(), nullable=True))
    op.add_column("runs", sa.Column("revision", sa.BigInteger(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    for column in ("revision", "note", "labels"):
        op.drop_column("runs", column)
