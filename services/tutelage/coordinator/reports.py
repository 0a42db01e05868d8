"""What a trainer reports while it holds the lease, and the lists that people read of it."""

from __future__ import annotations

from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import RootModel
from sqlalchemy import Delete, bindparam, delete, func, select
from sqlalchemy.orm import Session

from tutelage.coordinator import buckets, rollouts, totals
from tutelage.coordinator.db import now, put
from tutelage.coordinator.events import record
from tutelage.coordinator.leases import checkpoint_view, owned
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import CheckpointRow, MetricRow, RolloutRow
from tutelage.serving import ServiceProblem
from tutelage_client.wire import (
    CheckpointCommit,
    EventReport,
    ListedCheckpoint,
    Page,
    StepReport,
)

LONGEST_METRICS = 10_000
MetricsOfStep = RootModel[dict[str, Any]]
_Row = MetricRow | RolloutRow | CheckpointRow


def step(session: Session, run_id: str, report: StepReport) -> None:
    """Enter a step's row, or replace it by that of the newer epoch, whose lineage ends with it."""
    run = owned(session, run_id, report.epoch)
    known = session.get(MetricRow, (run_id, report.step))
    is_new = known is None or known.epoch != report.epoch
    metrics = {name: value if value is not None and isfinite(value) else None for name, value in report.metrics.items()}
    tokens = {"student_tokens": report.student_tokens, "teacher_tokens": report.teacher_tokens}
    row = {"run_id": run_id, "step": report.step, "epoch": report.epoch, "metrics": metrics, **tokens}
    put(session, MetricRow, ("run_id", "step"), **row, created_at=now())
    rollouts.keep(session, run_id, report)
    if is_new:
        _forget_beyond(session, run_id, report.step, report.epoch, MetricRow, RolloutRow)
        buckets.go_on(session, run_id, report.step, report.epoch)
        totals.count(session, run, report.step, totals.Counts(metrics, **tokens))
    if is_new or report.step >= run.step:  # a repeat of an older report says nothing new of the run
        run.step, run.student_tokens, run.teacher_tokens = report.step, report.student_tokens, report.teacher_tokens
        run.metrics = run.metrics | {name: value for name, value in metrics.items() if value is not None}
    run.updated_at = now()
    if is_new:
        told = {"step": report.step, "epoch": report.epoch, **metrics}
        record(session, run, "metrics", f"step {report.step}", told)


def event(session: Session, run_id: str, report: EventReport) -> None:
    run = owned(session, run_id, report.epoch)
    record(session, run, report.type, report.message, report.data, report.level)


def commit(session: Session, run_id: str, checkpoint: CheckpointCommit) -> None:
    """Make a checkpoint the one to resume from; progress beyond the last one forgives earlier crashes.

    Raises:
        ServiceProblem: 409 `stale_epoch`, 409 `stale_step`.
    """
    run = owned(session, run_id, checkpoint.epoch)
    steps = select(func.max(CheckpointRow.step)).where(CheckpointRow.run_id == run_id)
    newest, own = session.scalar(steps), session.scalar(steps.where(CheckpointRow.epoch == checkpoint.epoch))
    if own is not None and checkpoint.step < own:
        detail = f"step: {checkpoint.step} is older than the committed checkpoint at step {own}"
        raise ServiceProblem(409, "stale_step", detail, field="step")
    if newest is None or checkpoint.step > newest:
        run.crashes = 0
    _forget_beyond(session, run_id, checkpoint.step, checkpoint.epoch, CheckpointRow)
    row = checkpoint.model_dump(exclude={"final"})
    known = session.get(CheckpointRow, (run_id, checkpoint.step))
    if known is not None and all(getattr(known, name) == value for name, value in row.items()):
        return  # sent again because its answer was lost
    put(session, CheckpointRow, ("run_id", "step"), run_id=run_id, **row, created_at=now())
    record(session, run, "checkpoint", f"checkpoint at step {checkpoint.step}", checkpoint.model_dump(mode="json"))


def _forget_beyond(session: Session, run_id: str, step: int, epoch: int, *tables: type[_Row]) -> None:
    """What older attempts did beyond this step never counted: this one went on from a checkpoint before it."""
    for table in tables:
        session.execute(_beyond(table), {"run": run_id, "last": step, "newest": epoch})


@cache
def _beyond(table: type[_Row]) -> Delete:
    """Made once. No session holds a row that it takes away."""
    where = table.run_id == bindparam("run"), table.step > bindparam("last"), table.epoch < bindparam("newest")
    return delete(table).where(*where).execution_options(synchronize_session=False)


def metrics(session: Session, run_id: str, after: str | None, limit: int) -> Page[MetricsOfStep]:
    """One row a step, in order."""
    query = select(MetricRow).where(MetricRow.run_id == run_id)
    return page(session, query, (MetricRow.step,), _metrics_view, after=after, limit=limit, longest=LONGEST_METRICS)


def _metrics_view(row: MetricRow) -> MetricsOfStep:
    counted = {name: getattr(row, name) for name in ("step", "epoch", "student_tokens", "teacher_tokens")}
    return MetricsOfStep(row.metrics | counted)


def checkpoints(session: Session, run_id: str, after: str | None, limit: int) -> Page[ListedCheckpoint]:
    query = select(CheckpointRow).where(CheckpointRow.run_id == run_id)
    return page(session, query, (CheckpointRow.step,), _listed, after=after, limit=limit)


def _listed(row: CheckpointRow) -> ListedCheckpoint:
    return ListedCheckpoint(**checkpoint_view(row).model_dump(), kept=Path(row.path).is_dir())
