"""Events that are not a step's have an index of their own: pages list them alone, and steps are most of a run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    told = sa.text("type != 'metrics'")
    op.create_index("ix_events_told", "events", ["run_id", "id"], sqlite_where=told, postgresql_where=told)


def downgrade() -> None:
    op.drop_index("ix_events_told", "events")
