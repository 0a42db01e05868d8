"""Rollouts written elsewhere: each id is taken once, and the trainer reads them in the order of arrival.

Each is judged by itself. What only the tokenizer can tell is known once the run's trainer has loaded its student; what
came before is judged by the trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import now, put_new
from tutelage.coordinator.runs import find
from tutelage.coordinator.tables import PushedRow, RunRow
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, teacher_for
from tutelage_client.wire import Page, PushResult, RefusedRollout, Rollout, RolloutLimits
from tutelage_client.wire.sentences import reason

LONGEST = 1024


def push(session: Session, run_id: str, given: Sequence[Any]) -> PushResult:
    """Keep what is new of rollouts as they were sent.

    The run's row is locked, so that a reader never sees a number before a smaller one.

    Raises:
        ServiceProblem: 409 `not_pushed` where the run writes its own rollouts, 409 `run_is_final`.
    """
    run = find(session, run_id, lock=True)
    source = run.spec["rollout"]["source"]
    if source != "pushed":
        raise ServiceProblem(
            409, "not_pushed", f'{run_id} has rollout.source = "{source}"; only "pushed" takes rollouts'
        )
    if run.status.final:
        raise ServiceProblem(409, "run_is_final", f"{run_id} has {run.status} already; submit a new run")
    spec = RunSpec.model_validate(run.spec)
    limits = None if run.limits is None else RolloutLimits.model_validate(run.limits)
    accepted, duplicates, refused = 0, 0, list[RefusedRollout]()
    for index, each in enumerate(given):
        rollout = _read(spec, limits, index, each)
        if isinstance(rollout, RefusedRollout):
            refused.append(rollout)
        elif _keep(session, run, rollout):
            accepted += 1
        elif _known(session, run, rollout):
            duplicates += 1
        else:
            refused.append(_refused(index, each, ["id"], f"{rollout.id!r} names another text; give each its own id"))
    return PushResult(accepted=accepted, duplicates=duplicates, refused=refused)


def _keep(session: Session, run: RunRow, rollout: Rollout) -> bool:
    """Whether its id is new."""
    row = {"rollout_id": rollout.id, "rollout": rollout.model_dump(mode="json"), "created_at": now()}
    is_new = put_new(session, PushedRow, run_id=run.id, seq=run.last_pushed + 1, **row)
    run.last_pushed += is_new
    return is_new


def _known(session: Session, run: RunRow, rollout: Rollout) -> bool:
    """Whether this very rollout has the id already."""
    query = select(PushedRow.rollout).where(PushedRow.run_id == run.id, PushedRow.rollout_id == rollout.id)
    return session.scalar(query) == rollout.model_dump(mode="json")


def _read(spec: RunSpec, limits: RolloutLimits | None, index: int, given: Any) -> Rollout | RefusedRollout:
    try:
        rollout = Rollout.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        return _refused(index, given, first["loc"], reason(first))
    for field, sentence in _flaws(spec, limits, rollout):
        return _refused(index, given, [field], sentence)
    return rollout


def _flaws(spec: RunSpec, limits: RolloutLimits | None, rollout: Rollout) -> Iterator[tuple[str, str]]:
    if limits is not None:
        yield from limits.flaws(rollout)
    if spec.teachers:
        try:
            teacher_for(spec.teachers, rollout.tag)
        except InvalidInput as error:
            yield "tag", error.message


def _refused(index: int, given: Any, place: Sequence[str | int], sentence: str) -> RefusedRollout:
    field = ".".join(map(str, ["rollouts", index, *place]))
    name = given.get("id") if isinstance(given, dict) else None
    return RefusedRollout(
        index=index, id=name if isinstance(name, str) else None, field=field, detail=f"{field}: {sentence}"
    )


def pushed(session: Session, run_id: str, after: int, limit: int) -> Page[Rollout]:
    """Rollouts behind the cursor; `next` is the cursor of the last one, also where none is waiting."""
    query = select(PushedRow).where(PushedRow.run_id == run_id, PushedRow.seq > after).order_by(PushedRow.seq)
    rows = session.scalars(query.limit(min(limit, LONGEST))).all()
    last = rows[-1].seq if rows else after
    return Page(data=[Rollout.model_validate(row.rollout) for row in rows], next=str(last))
