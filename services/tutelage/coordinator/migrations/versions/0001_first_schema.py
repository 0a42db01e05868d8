"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_runs()
    _create_history()
    _create_rollouts()
    _create_store()


def downgrade() -> None:
    for table in ("teachers", "files", "pushed_rollouts", "rollouts", "checkpoints", "metrics", "events", "runs"):
        op.drop_table(table)


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("status_reason", sa.String()),
        sa.Column("desired", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("crashes", sa.BigInteger(), nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("teacher_tokens", sa.BigInteger(), nullable=False),
        sa.Column("student_tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("lease_owner", sa.String()),
        sa.Column("lease_expires_at", sa.Double()),
        sa.Column("outcome_epoch", sa.BigInteger()),
        sa.Column("model_path", sa.String()),
        sa.Column("last_event", sa.BigInteger(), nullable=False),
        sa.Column("last_pushed", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.String()),
        sa.Column("request_sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("idempotency_key", name="uq_runs_idempotency_key"),
    )
    op.create_index("ix_runs_created_at_id", "runs", ["created_at", "id"])
    op.create_index("ix_runs_status_created_at_id", "runs", ["status", "created_at", "id"])
    op.create_index("ix_runs_lease_expires_at", "runs", ["lease_expires_at"])


def _create_history() -> None:
    _create_of_run(
        "events",
        "id",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    _create_of_run(
        "metrics",
        "step",
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("student_tokens", sa.BigInteger(), nullable=False),
        sa.Column("teacher_tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    _create_of_run(
        "checkpoints",
        "step",
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("weights_sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )


def _create_rollouts() -> None:
    _create_of_run(
        "rollouts",
        "rollout_id",
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("rollout", sa.JSON(), nullable=False),
    )
    _create_of_run(
        "pushed_rollouts",
        "seq",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("rollout", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.UniqueConstraint("run_id", "rollout_id", name="uq_pushed_rollouts_run_id_rollout_id"),
    )


def _create_store() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("sha256", name="uq_files_sha256"),
    )
    op.create_index("ix_files_created_at_id", "files", ["created_at", "id"])
    op.create_table(
        "teachers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("info", sa.JSON(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_teachers"),
    )


def _create_of_run(table: str, key: str, *columns: sa.Column | sa.Constraint) -> None:
    """A table whose rows belong to a run and go with it."""
    op.create_table(
        table,
        sa.Column("run_id", sa.String(), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=f"fk_{table}_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", key, name=f"pk_{table}"),
    )
