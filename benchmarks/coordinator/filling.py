"""A database with many runs: one is reported step by step, as a trainer does it; the others are copies of its rows."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.orm import Session

from benchmarks.coordinator.rollout import NAME, long_rollout
from tutelage.coordinator import leases, reports, runs
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import Base, BucketRow, CheckpointRow, EventRow, MetricRow, RunRow
from tutelage_client.wire import CheckpointCommit, Outcome, StepReport

METRICS = (
    "reverse_kl", "reverse_kl_p10", "reverse_kl_p90", "student_entropy", "teacher_entropy", "length",
    "truncated", "grad_norm", "tokens", "seconds", "learn_s", "wait_s",
    "eval_s", "checkpoint_s",
)  # fmt: skip
SPEC = {
    "name": "bench",
    "student": {"model": "/models/student"},
    "data": {},
    "rollout": {"source": "pushed"},
    "objective": {"kind": "constant_penalty"},
}


@dataclass(frozen=True)
class Size:
    """steps: of each run, a multiple of the widest bucket that is read; long_run_steps: of one more, of `steps`."""

    runs: int
    steps: int
    long_run_steps: int


@dataclass(frozen=True)
class Filled:
    """points: rows of metrics of all runs together; reverse_kl: the least and the largest value of it, in each run

    rollout_path: the page of a rollout of ten thousand tokens
    """

    size: Size
    run_ids: list[str]
    long_run_id: str
    points: int
    reverse_kl: tuple[float, float]
    rollout_path: str


def fill(path: Path, size: Size) -> Filled:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    settings = Settings(data_dir=path.parent)
    with database.write() as session:
        first = _reported(session, settings, size.steps)
        copies = [_copy(session, first, f"run-{number:016x}", number) for number in range(1, size.runs)]
        long = _copy(session, first, "run-long", size.runs, below=size.steps)
        for start in range(size.steps, size.long_run_steps, size.steps):
            for table, step in ((MetricRow, "step"), (BucketRow, "first_step")):
                _copy_rows(session, table, first, long, {step: start, "last_step": start}, size.steps)
        session.execute(update(RunRow).where(RunRow.id == long).values(step=size.long_run_steps))
        points = session.scalars(select(func.count()).select_from(MetricRow)).one()
        rows = session.scalars(select(MetricRow.metrics).where(MetricRow.run_id == first)).all()
    database.close()
    kl = [row["reverse_kl"] for row in rows]
    return Filled(size, [first, *copies], long, points, (min(kl), max(kl)), f"/runs/{first}/rollouts/{NAME}")


def _reported(session: Session, settings: Settings, steps: int) -> str:
    """A run that was done in an hour: steps from 0 to `steps`, a checkpoint each hundred, a rollout at the last."""
    draw = random.Random(0)
    run, _ = runs.submit(session, SPEC | {"optim": {"steps": steps}}, None)
    lease = leases.claim_run(session, settings, run.id, "bench")
    for step in range(steps + 1):
        metrics: dict[str, float | None] = {name: draw.lognormvariate(0, 0.2) for name in METRICS}
        if step % 50 == 0:
            metrics["accuracy"] = 0.5
        report = StepReport(epoch=lease.epoch, step=step, metrics=metrics, student_tokens=step, teacher_tokens=step)
        if step == steps:
            rollout, inspection = long_rollout()
            report = report.model_copy(update={"rollouts": [rollout], "inspections": {NAME: inspection}})
        reports.step(session, run.id, report)
        if step % 100 == 99:
            commit = CheckpointCommit(epoch=lease.epoch, step=step, path=f"/artefacts/{step}", weights_sha256="a" * 64)
            reports.commit(session, run.id, commit)
    leases.finish(session, settings, run.id, Outcome(epoch=lease.epoch, result="cancelled"))
    return run.id


def _copy(session: Session, source: str, run_id: str, number: int, below: int | None = None) -> str:
    """The same run under another id, submitted a second later than the one before."""
    changed = {"id": literal(run_id), "name": literal(f"bench {number}"), "created_at": RunRow.created_at + number}
    _insert(session, RunRow, dict(_columns(RunRow)) | changed, RunRow.id == source)
    for table in (MetricRow, BucketRow):
        _copy_rows(session, table, source, run_id, {}, below)
    for table in (EventRow, CheckpointRow):
        _copy_rows(session, table, source, run_id, {})
    return run_id


def _copy_rows(
    session: Session, table: type[Base], source: str, run_id: str, moved: dict[str, int], below: int | None = None
) -> None:
    """moved: how far the named columns go on; below: rows of steps from there on are left out"""
    columns = dict(_columns(table))
    values = {name: column + moved.get(name, 0) if name in moved else column for name, column in columns.items()}
    where = [columns["run_id"] == source]
    if below is not None:
        step = columns["first_step"] if "first_step" in columns else columns["step"]
        where.append(step < below)
    _insert(session, table, values | {"run_id": literal(run_id)}, *where)


def _insert(session: Session, table: type[Base], values: dict[str, Any], *where: Any) -> None:
    chosen = select(*values.values()).where(*where)
    session.execute(insert(table).from_select(list(values), chosen, include_defaults=False))


def _columns(table: type[Base]) -> list[tuple[str, Any]]:
    return [(column.name, getattr(table, column.key)) for column in table.__table__.columns]
