"""Keys; runs, files and teachers belong to a project; a lease has a token."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("sha256", name="uq_keys_sha256"),
    )
    op.create_index("ix_keys_created_at_id", "keys", ["created_at", "id"])
    for table in ("runs", "teachers"):
        op.add_column(table, _project())
    op.add_column("runs", sa.Column("lease_token_sha256", sa.String(), nullable=True))
    op.execute("UPDATE runs SET idempotency_key = 'default/' || idempotency_key")
    _index_runs("created_at", "project")
    _remake_files(("project", "id"), ("project", "sha256"))


def downgrade() -> None:
    """Of a file that several projects have, one stays."""
    op.execute("DELETE FROM files WHERE project <> (SELECT min(f.project) FROM files AS f WHERE f.id = files.id)")
    _remake_files(("id",), ("sha256",))
    _index_runs("project", "created_at")
    op.execute("UPDATE runs SET idempotency_key = substr(idempotency_key, length(project) + 2)")
    op.drop_column("runs", "lease_token_sha256")
    for table in ("runs", "teachers"):
        op.drop_column(table, "project")
    op.drop_table("keys")


def _project() -> sa.Column:
    return sa.Column("project", sa.String(), nullable=False, server_default=sa.text("'default'"))


def _index_runs(before: str, now: str) -> None:
    """Indices of the lists of runs, with or without the project in front."""
    kinds = {"created_at": ([], ["status"]), "project": (["project"], ["project", "status"])}
    for first in kinds[before]:
        op.drop_index(f"ix_runs_{'_'.join([*first, 'created_at', 'id'])}", "runs")
    for first in kinds[now]:
        columns = [*first, "created_at", "id"]
        op.create_index(f"ix_runs_{'_'.join(columns)}", "runs", columns)


def _remake_files(key: tuple[str, ...], unique: tuple[str, ...]) -> None:
    """With another primary key, which SQLite cannot alter."""
    owned = "project" in key
    op.drop_index("ix_files_created_at_id" if owned else "ix_files_project_created_at_id", "files")
    op.execute("CREATE TABLE files_before AS SELECT * FROM files")
    op.drop_table("files")
    op.create_table(
        "files",
        *([_project()] if owned else []),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name="pk_files"),
        sa.UniqueConstraint(*unique, name=f"uq_files_{'_'.join(unique)}"),
    )
    op.execute(
        "INSERT INTO files (id, sha256, bytes, filename, created_at) "
        "SELECT id, sha256, bytes, filename, created_at FROM files_before"
    )
    op.drop_table("files_before")
    first = ["project"] if owned else []
    op.create_index(f"ix_files_{'_'.join([*first, 'created_at', 'id'])}", "files", [*first, "created_at", "id"])
