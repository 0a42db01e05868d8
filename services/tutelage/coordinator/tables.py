"""The tables. Times are seconds since 1970 by the database's clock; column names are the wire's names.

What the API promises to keep unique is unique here: one row a (run, event id), (run, step), (run, pushed rollout id),
(project, file content) and (project, idempotency key) of runs and of keys, the last two in one column.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tutelage_client.wire import RunStatus

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


TOLD = text("type != 'metrics'")  # of events; a query that says so in these words finds them by their index
_GOING_ON = text("ended_at IS NULL")  # of runs; the same


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {dict[str, Any]: JSON(none_as_null=True), float: Double(), int: BigInteger(), str: String()}


def _status() -> Enum:
    return Enum(RunStatus, native_enum=False, length=16, values_callable=lambda kind: [each.value for each in kind])


def _run_key() -> Mapped[str]:
    return mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)


def _project(**kind: Any) -> Mapped[str]:
    return mapped_column(server_default=text("'default'"), **kind)


class RunRow(Base):
    """A run. `desired` is what its owner wants, `status` what is observed; they are written by different hands.

    submitted_by: the caller; charged: to its account, the most that the run may spend, once it has ended what it did
    totals: by `totals`, over all attempts; limits: of pushed rollouts, once a trainer has loaded the student
    teachers: who each is, by name, once a trainer has verified them
    """

    __tablename__ = "runs"
    __table_args__ = (
        Index(None, "project", "created_at", "id"),
        Index(None, "project", "status", "created_at", "id"),
        Index("ix_runs_going_on", "id", sqlite_where=_GOING_ON, postgresql_where=_GOING_ON),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = _project()
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    status: Mapped[RunStatus] = mapped_column(_status())
    status_reason: Mapped[str | None]
    desired: Mapped[str]
    step: Mapped[int]
    steps: Mapped[int]
    epoch: Mapped[int]
    crashes: Mapped[int]
    conditions: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any]]
    teacher_tokens: Mapped[int]
    student_tokens: Mapped[int]
    created_at: Mapped[float]
    updated_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[float | None] = mapped_column(index=True)
    lease_token_sha256: Mapped[str | None]
    outcome_epoch: Mapped[int | None]
    model_path: Mapped[str | None]
    last_event: Mapped[int]
    last_pushed: Mapped[int]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_sha256: Mapped[str]
    forked_from: Mapped[dict[str, Any] | None]
    labels: Mapped[dict[str, Any]]
    note: Mapped[str | None]
    revision: Mapped[int]
    submitted_by: Mapped[str | None] = mapped_column(index=True)
    charged_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    charged_usd: Mapped[float] = mapped_column(server_default=text("0"))
    totals: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    limits: Mapped[dict[str, Any] | None]
    teachers: Mapped[dict[str, Any] | None]


class EventRow(Base):
    """A line of a run's history. A step is one too; people are shown the others, which have an index of their own."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_told", "run_id", "id", sqlite_where=TOLD, postgresql_where=TOLD),)

    run_id: Mapped[str] = _run_key()
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    level: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class MetricRow(Base):
    __tablename__ = "metrics"

    run_id: Mapped[str] = _run_key()
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    student_tokens: Mapped[int]
    teacher_tokens: Mapped[int]
    created_at: Mapped[float]


class BucketRow(Base):
    """Steps of a run taken together: each metric as [count, least, mean, largest]. epoch: the attempt that ended it."""

    __tablename__ = "metric_buckets"

    run_id: Mapped[str] = _run_key()
    width: Mapped[int] = mapped_column(primary_key=True)
    first_step: Mapped[int] = mapped_column(primary_key=True)
    last_step: Mapped[int]
    steps: Mapped[int]
    epoch: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class CheckpointRow(Base):
    __tablename__ = "checkpoints"

    run_id: Mapped[str] = _run_key()
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    path: Mapped[str]
    weights_sha256: Mapped[str]
    manifest_sha256: Mapped[str | None]
    bytes: Mapped[int | None]
    seconds: Mapped[float | None]
    created_at: Mapped[float]


class RolloutRow(Base):
    """A rollout that the trainer chose to show. inspection: as `rollouts.packed` makes it, read only when asked for"""

    __tablename__ = "rollouts"
    __table_args__ = (Index(None, "run_id", "prompt_sha256"),)

    run_id: Mapped[str] = _run_key()
    rollout_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int]
    epoch: Mapped[int]
    held_out: Mapped[bool] = mapped_column(server_default=false())
    rollout: Mapped[dict[str, Any]]
    prompt_sha256: Mapped[str | None]
    inspection: Mapped[bytes | None] = mapped_column(deferred=True)


class PushedRow(Base):
    """A rollout that was written elsewhere and waits here for the trainer, in the order of arrival."""

    __tablename__ = "pushed_rollouts"
    __table_args__ = (UniqueConstraint("run_id", "rollout_id"),)

    run_id: Mapped[str] = _run_key()
    seq: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[str]
    rollout: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class FileRow(Base):
    __tablename__ = "files"
    __table_args__ = (UniqueConstraint("project", "sha256"), Index(None, "project", "created_at", "id"))

    project: Mapped[str] = _project(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    bytes: Mapped[int]
    filename: Mapped[str]
    created_at: Mapped[float]


class TeacherRow(Base):
    """Its name is the queue's too, so no two projects have the same."""

    __tablename__ = "teachers"

    name: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = _project()
    url: Mapped[str]
    info: Mapped[dict[str, Any]]
    seen_at: Mapped[float]


class AuditRow(Base):
    """What somebody did, or was refused. Its number is never given twice, whatever was taken away."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "project", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    created_at: Mapped[float]
    actor: Mapped[str]
    owner: Mapped[str | None]
    project: Mapped[str | None]
    action: Mapped[str]
    route: Mapped[str]
    target: Mapped[str | None]
    status: Mapped[int]
    trace: Mapped[str | None]


class KeyRow(Base):
    __tablename__ = "keys"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "idempotency_key", unique=True))

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    project: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    requests_per_s: Mapped[float | None]
    budget_tokens: Mapped[int | None]
    budget_usd: Mapped[float | None]
    created_by: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str | None]
