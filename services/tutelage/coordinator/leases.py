"""The right to execute a run: claimed once, held by heartbeats, fenced by the epoch, taken away by the clock."""

from __future__ import annotations

import secrets

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from tutelage.coordinator import totals
from tutelage.coordinator.callers import digest
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.events import move
from tutelage.coordinator.overloads import within_limits
from tutelage.coordinator.runs import find
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.states import TRANSITIONS, path
from tutelage.coordinator.tables import BucketRow, CheckpointRow, MetricRow, RolloutRow, RunRow
from tutelage.coordinator.teachers import asked_by, named
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    PROJECT,
    CheckpointView,
    ForkPoint,
    Heartbeat,
    HeartbeatReply,
    Lease,
    Outcome,
    RunError,
    RunStatus,
)

MAX_RESTARTS = 3
_OWN_QUEUED = (RunRow.project == bindparam("project"), RunRow.status == RunStatus.QUEUED)
_ANY_QUEUED = select(RunRow.id).where(*_OWN_QUEUED).limit(1)
_OLDEST_QUEUED = select(RunRow).where(*_OWN_QUEUED).order_by(RunRow.created_at, RunRow.id).limit(1)
_OVER = select(RunRow.id).where(RunRow.lease_expires_at < now())

# How an attempt ends the run; "crashed" is not here because it may not end it.
ENDS = {
    "succeeded": RunStatus.SUCCEEDED,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "paused": RunStatus.PAUSED,
}


def is_work_waiting(session: Session, project: str = PROJECT) -> bool:
    """Whether a run is queued; cheap, so that waiting workers need not lock anything."""
    return session.scalar(_ANY_QUEUED, {"project": project}) is not None


def claim(session: Session, settings: Settings, worker: str, project: str = PROJECT) -> Lease | None:
    """The oldest queued run. Two that claim at once never get one run: its row is locked, locked rows are skipped."""
    run = session.scalar(_OLDEST_QUEUED.with_for_update(skip_locked=True), {"project": project})
    return None if run is None else _grant(session, settings, run, worker)


def claim_run(session: Session, settings: Settings, run_id: str, worker: str) -> Lease:
    """The lease of one given queued run.

    Raises:
        ServiceProblem: 409 `run_not_queued`.
    """
    run = find(session, run_id, lock=True)
    if run.status is not RunStatus.QUEUED:
        raise ServiceProblem(409, "run_not_queued", f"{run_id} is {run.status}; only a queued run can be claimed")
    return _grant(session, settings, run, worker)


def adopt(session: Session, settings: Settings, run_id: str, worker: str, epoch: int) -> Lease:
    """The current lease for another process of the same attempt, which then renews it in the first one's place."""
    run = owned(session, run_id, epoch)
    run.lease_owner = worker
    return _renew(session, settings, run)


def _grant(session: Session, settings: Settings, run: RunRow, worker: str) -> Lease:
    """Begin a new attempt from the newest checkpoint; what an older one reported beyond it never counted."""
    run.epoch += 1
    run.lease_owner = worker
    newest = next(iter(_checkpoints(session, run)), None)
    run.step = 0 if newest is None else newest.step
    for table, step in ((MetricRow, MetricRow.step), (BucketRow, BucketRow.last_step), (RolloutRow, RolloutRow.step)):
        beyond = table.run_id == run.id if newest is None else (table.run_id == run.id) & (step > newest.step)
        session.execute(delete(table).where(beyond))
    move(session, run, RunStatus.STARTING)
    return _renew(session, settings, run)


def _renew(session: Session, settings: Settings, run: RunRow) -> Lease:
    """The lease with a token of its own: whoever held the one before holds nothing any more."""
    run.lease_expires_at = now() + settings.lease_s
    token = secrets.token_urlsafe(32)
    run.lease_token_sha256 = digest(token)
    committed = _checkpoints(session, run)
    return Lease(
        run_id=run.id,
        epoch=run.epoch,
        expires_in_s=settings.lease_s,
        spec=run.spec,
        forked_from=None if run.forked_from is None else ForkPoint.model_validate(run.forked_from),
        checkpoint=next(iter(committed), None),
        older_checkpoints=committed[1:],
        artefacts=str(settings.artefacts(run.id)),
        places=settings.places,
        token=token,
        teachers={teacher.name: teacher for teacher in named(session, asked_by(run), run.project)},
    )


def _checkpoints(session: Session, run: RunRow) -> list[CheckpointView]:
    """The committed ones that a trainer keeps on disk, newest first."""
    query = select(CheckpointRow).where(CheckpointRow.run_id == run.id).order_by(CheckpointRow.step.desc())
    return [checkpoint_view(row) for row in session.scalars(query.limit(run.spec["checkpoint"]["keep"]))]


def checkpoint_view(row: CheckpointRow) -> CheckpointView:
    return CheckpointView.model_validate({name: getattr(row, name) for name in CheckpointView.model_fields})


def owned(session: Session, run_id: str, epoch: int) -> RunRow:
    """The locked row of a run whose lease is held with `epoch`. Every write of a worker goes through here.

    Raises:
        ServiceProblem: 409 `stale_epoch`: a newer attempt owns the run, or nobody does.
    """
    run = find(session, run_id, lock=True)
    if run.epoch != epoch or run.lease_expires_at is None:
        detail = f"epoch {epoch} no longer holds {run_id}, which is {run.status} in epoch {run.epoch}; stop writing"
        raise ServiceProblem(409, "stale_epoch", detail, field="epoch")
    return run


def heartbeat(session: Session, settings: Settings, run_id: str, beat: Heartbeat) -> HeartbeatReply:
    """Extend the lease and take over what the trainer says of itself, unless its owner wants something else."""
    run = owned(session, run_id, beat.epoch)
    run.lease_expires_at = now() + settings.lease_s
    run.updated_at = now()
    run.conditions = beat.conditions | within_limits(session, run)
    if beat.limits is not None:
        run.limits = beat.limits.model_dump()
    if beat.teachers is not None:
        run.teachers = {name: who.model_dump() for name, who in beat.teachers.items()}
    if run.started_at is None:
        run.started_at = now()
    status = RunStatus(beat.status)
    if run.desired == "run" and status in TRANSITIONS[run.status]:
        move(session, run, status)
    return HeartbeatReply.model_validate({"desired": run.desired, "expires_in_s": settings.lease_s})


def finish(session: Session, settings: Settings, run_id: str, outcome: Outcome) -> bool:
    """End an attempt; says whether it went on. The same outcome again (its answer was lost) changes nothing."""
    run = find(session, run_id, lock=True)
    if run.outcome_epoch == outcome.epoch:
        return False
    run = owned(session, run_id, outcome.epoch)
    run.outcome_epoch = outcome.epoch
    if outcome.model_path is not None:
        run.model_path = _inside(settings, run_id, outcome.model_path)
    if run.status is RunStatus.CANCELLING and outcome.result != "failed":
        move(session, run, RunStatus.CANCELLED)
    elif outcome.result == "crashed":
        _recover(session, run, outcome.error or _lost("crashed", "the trainer's process died"))
    else:
        _end(session, run, outcome)
    return True


def _end(session: Session, run: RunRow, outcome: Outcome) -> None:
    error = outcome.error
    if outcome.result == "failed":
        error = error or RunError(code="internal", message="the trainer gave no reason", category="internal")
        run.error = error.model_dump(mode="json")
    move(session, run, *path(run.status, ENDS[outcome.result]), reason=error.code if error else None)
    if run.status is RunStatus.PAUSED and run.desired == "run":
        move(session, run, RunStatus.QUEUED, reason="drained")  # the trainer stopped for reasons of its own


def _inside(settings: Settings, run_id: str, given: str) -> str:
    """The model's directory, which must be one of the run's artefacts: it will be served to anyone who may read it."""
    root = settings.artefacts(run_id)
    model = (root / given).resolve()
    if not model.is_relative_to(root.resolve()):
        raise InvalidInput(f"model_path: {given!r} is outside {str(root)!r}, the run's artefacts", "model_path")
    return str(model)


def _recover(session: Session, run: RunRow, error: RunError) -> None:
    """Queue the run again, unless it crashed too often since its last checkpoint."""
    totals.crashed(run)
    move(session, run, RunStatus.RECOVERING, reason=error.code)
    if run.crashes > MAX_RESTARTS:
        message = f"crashed {run.crashes} times without a new checkpoint; the last time: {error.message}"
        failure = error.model_copy(update={"message": message, "attempt": run.epoch, "step": run.step})
        run.error = failure.model_dump(mode="json")
        move(session, run, RunStatus.FAILED, reason=error.code)
    else:
        move(session, run, RunStatus.PAUSED if run.desired == "pause" else RunStatus.QUEUED, reason=error.code)


def _lost(code: str, message: str) -> RunError:
    return RunError(code=code, message=message, category="infra", retryable=True)


def keep_all(database: Database, lease_s: float) -> None:
    """Give every lease its full length from now: the clock was moved, so none can be judged by it."""
    held = update(RunRow).where(RunRow.lease_expires_at.is_not(None))
    with database.write() as session:
        session.execute(held.values(lease_expires_at=now() + lease_s))


def sweep(database: Database) -> int:
    """Take back every lease that ran out by the database's clock; returns how many."""
    with database.read() as session:
        candidates = session.scalars(_OVER).all()
    return sum(_take_back(database, run_id) for run_id in candidates)


def _take_back(database: Database, run_id: str) -> bool:
    over = select(RunRow).where(RunRow.id == run_id, RunRow.lease_expires_at < now())
    with database.write() as session:
        run = session.scalar(over.with_for_update(skip_locked=True))
        if run is None:
            return False
        if run.status is RunStatus.CANCELLING:
            move(session, run, RunStatus.CANCELLED, reason="lease_expired")
        else:
            _recover(session, run, _lost("lease_expired", "the trainer was silent for longer than its lease"))
        return True
