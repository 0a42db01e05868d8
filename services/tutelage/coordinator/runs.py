"""Runs as their owners see them: submit, look at, list."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from tutelage.coordinator import idempotency
from tutelage.coordinator.accounts import reserved, within
from tutelage.coordinator.db import now, put_new
from tutelage.coordinator.events import record
from tutelage.coordinator.pages import page
from tutelage.coordinator.submission import check
from tutelage.coordinator.tables import RunRow
from tutelage.serving import ServiceProblem
from tutelage_client.spec import RunSpec, parse_spec
from tutelage_client.wire import PROJECT, Page, Places, RunStatus, RunView

_BY_ID = select(RunRow).where(RunRow.id == bindparam("id"))
_LOCKED = _BY_ID.with_for_update()
ANY_PLACE = Places()


def submit(
    session: Session,
    body: dict[str, Any],
    idempotency_key: str | None,
    project: str = PROJECT,
    key_id: str | None = None,
    *,
    places: Places = ANY_PLACE,
) -> tuple[RunView, bool]:
    """The queued run and whether it is new: the same key and body give the same run. places: paths that it may name

    Raises:
        InvalidInput, ServiceProblem: what can be refused without a model, the idempotency key belongs to another body,
            or 402 `budget_spent`, by the key of this id that submits it.
    """
    known = by_key(session, idempotency_key, body, project)
    if known is not None:
        return view(known), False
    spec = parse_spec(body)
    check(session, spec, project, places)
    run = add(session, within(session, key_id, spec), body, idempotency_key, project, submitted_by=key_id)
    if run is None:
        return submit(session, body, idempotency_key, project, key_id, places=places)
    return view(run), True


def add(
    session: Session, spec: RunSpec, body: dict[str, Any], idempotency_key: str | None, project: str, **more: Any
) -> RunRow | None:
    """The row of a queued run with its first event; None: another request took the key a moment ago."""
    run_id = f"run-{uuid.uuid4().hex[:16]}"
    kept = {"idempotency_key": idempotency.own(project, idempotency_key), "request_sha256": idempotency.digest(body)}
    asked = {"project": project} | kept
    if not put_new(session, RunRow, id=run_id, **asked, **(_fresh(spec) | more)):
        return None
    run = find(session, run_id, lock=True)
    record(session, run, "state", str(run.status), {"from": None, "to": run.status, "epoch": 0, "reason": None})
    return run


def _fresh(spec: RunSpec) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("step", "epoch", "crashes", "teacher_tokens", "student_tokens", "last_event", "last_pushed", "revision"), 0
    )
    return (
        counts
        | reserved(spec)
        | {
            "name": spec.name,
            "spec": spec.model_dump(mode="json"),
            "status": RunStatus.QUEUED,
            "desired": "run",
            "steps": spec.optim.steps,
            "conditions": {},
            "metrics": {},
            "labels": {},
            "totals": {},
            "created_at": now(),
            "updated_at": now(),
        }
    )


def by_key(session: Session, key: str | None, body: dict[str, Any], project: str) -> RunRow | None:
    """The run that this request has made before.

    Raises:
        ServiceProblem: 422 `idempotency_key_reused`.
    """
    if key is None:
        return None
    run = session.scalar(select(RunRow).where(RunRow.idempotency_key == idempotency.own(project, key)))
    if run is not None:
        idempotency.check_body(body, run.id, run.request_sha256)
    return run


def find(session: Session, run_id: str, *, lock: bool = False) -> RunRow:
    """The run's row, with `lock` kept from other writers until the end of the transaction.

    Raises:
        ServiceProblem: 404 `run_not_found`.
    """
    run = session.scalar(_LOCKED if lock else _BY_ID, {"id": run_id})
    if run is None:
        raise not_found(run_id)
    return run


def not_found(run_id: str) -> ServiceProblem:
    return ServiceProblem(404, "run_not_found", f"there is no run {run_id!r}; GET /v1/runs lists them")


def view(run: RunRow) -> RunView:
    return RunView.model_validate({name: getattr(run, name) for name in RunView.model_fields})


def runs(session: Session, project: str, status: RunStatus | None, after: str | None, limit: int) -> Page[RunView]:
    """A project's runs, the newest first."""
    query = select(RunRow).where(RunRow.project == project)
    if status is not None:
        query = query.where(RunRow.status == status)
    return page(session, query, (RunRow.created_at, RunRow.id), view, after=after, limit=limit, newest_first=True)
