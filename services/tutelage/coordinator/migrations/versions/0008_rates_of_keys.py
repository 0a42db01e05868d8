"""A key may have a rate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("requests_per_s", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("keys", "requests_per_s")
