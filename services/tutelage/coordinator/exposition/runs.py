"""Runs that have not ended, as samples: one statement over their rows, their last steps and newest checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, func, select
from sqlalchemy.orm import Session, aliased

from tutelage.coordinator.exposition.families import Sample
from tutelage.coordinator.tables import CheckpointRow, MetricRow, RunRow
from tutelage.coordinator.totals import AT_LAG, PHASES, ROLLOUTS
from tutelage_client.wire import RunStatus

RunNow = Row[*tuple[Any, ...]]
_NOT_FINAL = [status for status in RunStatus if not status.final]
_QUANTILE = "log_ratio_"

# Of each family with its labels the name in a row.
_LAST_ROW: dict[tuple[str, *tuple[str, ...]], str] = {
    ("tutelage_run_rollouts_queued",): "rollouts/queued",
    ("tutelage_train_loss",): "loss",
    ("tutelage_train_reverse_kl_nats", "mean"): "reverse_kl",
    **{("tutelage_train_reverse_kl_nats", stat): f"reverse_kl_{stat}" for stat in ("p10", "p90", "max")},
    ("tutelage_train_log_ratio_nats", "mean", "all"): "log_ratio",
    ("tutelage_train_entropy_nats", "student"): "student_entropy",
    ("tutelage_train_entropy_nats", "teacher"): "teacher_entropy",
    ("tutelage_train_grad_norm",): "grad_norm",
    ("tutelage_train_reward",): "reward",
    ("tutelage_train_top_k_overlap_ratio",): "top_k_overlap",
    ("tutelage_train_support_mass_ratio", "student"): "student_support_mass",
    ("tutelage_train_support_mass_ratio", "teacher"): "teacher_support_mass",
    ("tutelage_train_lag_versions", "mean"): "lag",
    ("tutelage_train_lag_versions", "max"): "lag_max",
    ("tutelage_train_length_tokens",): "length",
    ("tutelage_train_truncated_ratio",): "truncated",
    ("tutelage_train_learned_ratio",): "learned_fraction",
}

# Of each family the column about the newest checkpoint.
_CHECKPOINT = {
    "tutelage_run_checkpoint_step": "checkpoint_step",
    "tutelage_run_checkpoint_timestamp_seconds": "checkpoint_at",
    "tutelage_run_checkpoint_size_bytes": "checkpoint_bytes",
    "tutelage_run_checkpoint_duration_seconds": "checkpoint_s",
}

# Of each counter with its labels the name in a run's totals.
_TOTALS: dict[tuple[str, *tuple[str, ...]], str] = {
    ("tutelage_run_crashes_total",): "crashes",
    ("tutelage_run_teacher_tokens_total",): "teacher_tokens",
    ("tutelage_run_student_tokens_total",): "student_tokens",
    ("tutelage_run_rollouts_submitted_total",): "rollouts/submitted",
    **{("tutelage_run_rollouts_total", fate): f"rollouts/{fate}" for fate in ROLLOUTS if fate != "submitted"},
    **{("tutelage_run_phase_seconds_total", phase): f"seconds/{phase}" for phase in PHASES},
    **{("tutelage_run_tokens_total", kind): f"tokens/{kind}" for kind in ("prompt", "response", "trained")},
    ("tutelage_run_nonfinite_steps_total",): "nonfinite_steps",
    ("tutelage_run_checkpoint_failures_total",): "checkpoint_failures",
}


def going_on(session: Session) -> Sequence[RunNow]:
    return session.execute(_going_on()).all()


def _going_on() -> Select[*tuple[Any, ...]]:
    committed = aliased(CheckpointRow)
    steps = select(func.max(committed.step)).where(committed.run_id == RunRow.id)
    newest = steps.correlate(RunRow).scalar_subquery()
    told = (
        RunRow.id,
        RunRow.project,
        RunRow.spec,
        RunRow.status,
        RunRow.step,
        RunRow.steps,
        RunRow.epoch,
        RunRow.conditions,
        RunRow.lease_expires_at,
        RunRow.metrics,
        RunRow.totals,
        MetricRow.metrics.label("last_row"),
        MetricRow.created_at.label("reported_at"),
        CheckpointRow.step.label("checkpoint_step"),
        CheckpointRow.created_at.label("checkpoint_at"),
        CheckpointRow.bytes.label("checkpoint_bytes"),
        CheckpointRow.seconds.label("checkpoint_s"),
    )
    return (
        select(*told)
        .outerjoin(MetricRow, and_(MetricRow.run_id == RunRow.id, MetricRow.step == RunRow.step))
        .outerjoin(CheckpointRow, and_(CheckpointRow.run_id == RunRow.id, CheckpointRow.step == newest))
        .where(RunRow.ended_at.is_(None))
    )


def told_of(runs: Sequence[RunNow], lease_s: float) -> Iterator[Sample]:
    """lease_s: how long a lease lasts from its last heartbeat"""
    for run in runs:
        yield from _progress(run)
        yield from _holding(run, lease_s)
        yield from _totals(run)
        yield from _last_row(run)


def _progress(run: RunNow) -> Iterator[Sample]:
    about = run.project, run.spec["student"]["model"], run.spec["objective"]["kind"]
    yield Sample("tutelage_run_info", (run.id, *about), 1)
    for status in _NOT_FINAL:
        yield Sample("tutelage_run_status", (run.id, status), status is run.status)
    for name in ("step", "steps", "epoch"):
        yield Sample(f"tutelage_run_{name}", (run.id,), getattr(run, name))
    for family, column in _CHECKPOINT.items():
        if (value := getattr(run, column)) is not None:
            yield Sample(family, (run.id,), value)


def _holding(run: RunNow, lease_s: float) -> Iterator[Sample]:
    """What a trainer said last, while it has the run."""
    if run.lease_expires_at is None:
        return
    yield Sample("tutelage_run_heartbeat_timestamp_seconds", (run.id,), run.lease_expires_at - lease_s)
    for condition, holds in run.conditions.items():
        yield Sample("tutelage_run_condition", (run.id, condition), holds)


def _totals(run: RunNow) -> Iterator[Sample]:
    for (family, *labels), name in _TOTALS.items():
        yield Sample(family, (run.id, *labels), run.totals.get(name, 0))
    for name, count in run.totals.items():
        if name.startswith(AT_LAG):
            yield Sample("tutelage_run_rollouts_at_lag_total", (run.id, name.removeprefix(AT_LAG)), count)
    if "teacher_usd" in run.totals:
        yield Sample("tutelage_run_teacher_cost_usd_total", (run.id,), run.totals["teacher_usd"])


def _last_row(run: RunNow) -> Iterator[Sample]:
    if (accuracy := run.metrics.get("accuracy")) is not None:
        yield Sample("tutelage_train_accuracy", (run.id,), accuracy)
    if run.last_row is None:
        return
    yield Sample("tutelage_run_reported_timestamp_seconds", (run.id,), run.reported_at)
    for (family, *labels), name in _LAST_ROW.items():
        if (value := run.last_row.get(name)) is not None:
            yield Sample(family, (run.id, *labels), value)
    yield from _quantiles(run.id, run.last_row)


def _quantiles(run_id: str, row: Mapping[str, float | None]) -> Iterator[Sample]:
    for name, value in row.items():
        stat, _, place = name.removeprefix(_QUANTILE).partition("/")
        if name.startswith(_QUANTILE) and value is not None:
            yield Sample("tutelage_train_log_ratio_nats", (run_id, stat, place), value)
