"""A key knows the Idempotency-Key that it was made under, and the digest of the request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("idempotency_key", sa.String(), nullable=True))
    op.add_column("keys", sa.Column("request_sha256", sa.String(), nullable=True))
    op.create_index("ix_keys_idempotency_key", "keys", ["idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_keys_idempotency_key", "keys")
    for column in ("request_sha256", "idempotency_key"):
        op.drop_column("keys", column)
