"""Rollouts written elsewhere: each id is taken once, and the trainer reads them in the order of arrival."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import now, put_new
from tutelage.coordinator.runs import find
from tutelage.coordinator.tables import PushedRow
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, teacher_for
from tutelage_client.wire import Page, PushResult, Rollout

LONGEST = 1024


def push(session: Session, run_id: str, rollouts: Sequence[Rollout]) -> PushResult:
    """Keep what is new. The run's row is locked, so that a reader never sees a number before a smaller one.

    Raises:
        ServiceProblem: 409 `not_pushed` where the run writes its own rollouts, 409 `run_is_final`.
        InvalidInput: no teacher of the run takes the tag of a rollout.
    """
    run = find(session, run_id, lock=True)
    source = run.spec["rollout"]["source"]
    if source != "pushed":
        raise ServiceProblem(
            409, "not_pushed", f'{run_id} has rollout.source = "{source}"; only "pushed" takes rollouts'
        )
    if run.status.final:
        raise ServiceProblem(409, "run_is_final", f"{run_id} has {run.status} already; submit a new run")
    _check_routes(RunSpec.model_validate(run.spec), rollouts)
    accepted = 0
    for rollout in rollouts:
        row = {"rollout_id": rollout.id, "rollout": rollout.model_dump(mode="json"), "created_at": now()}
        if put_new(session, PushedRow, run_id=run_id, seq=run.last_pushed + 1, **row):
            run.last_pushed += 1
            accepted += 1
    return PushResult(accepted=accepted, duplicates=len(rollouts) - accepted)


def _check_routes(spec: RunSpec, rollouts: Sequence[Rollout]) -> None:
    for index, rollout in enumerate(rollouts) if spec.teachers else ():
        try:
            teacher_for(spec.teachers, rollout.tag)
        except InvalidInput as error:
            field = f"rollouts.{index}.tag"
            raise InvalidInput(f"{field}: {error.message}", field) from error


def pushed(session: Session, run_id: str, after: int, limit: int) -> Page[Rollout]:
    """Rollouts behind the cursor; `next` is the cursor of the last one, also where none is waiting."""
    query = select(PushedRow).where(PushedRow.run_id == run_id, PushedRow.seq > after).order_by(PushedRow.seq)
    rows = session.scalars(query.limit(min(limit, LONGEST))).all()
    last = rows[-1].seq if rows else after
    return Page(data=[Rollout.model_validate(row.rollout) for row in rows], next=str(last))
