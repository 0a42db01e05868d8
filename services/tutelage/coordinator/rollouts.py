"""Rollouts that trainers choose to show: a few a step, and with each what student and teacher held of its tokens."""

from __future__ import annotations

import hashlib
import json
from itertools import chain, groupby, product
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, undefer

from tutelage.coordinator.db import put
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import RolloutRow
from tutelage.serving import ServiceProblem
from tutelage_client.wire import Inspection, Page, Rollout, RolloutSample, RolloutView, StepReport
from tutelage_client.wire.tensors import load, save

MOST_OTHERS = 200
# Of the inspections of one run; its oldest are let go for newer ones, while the text stays.
MOST_BYTES = 256 * 2**20


class Other(NamedTuple):
    """A rollout of the same run and prompt. nth: of those of its step, from 1"""

    step: int
    rollout_id: str
    nth: int


def keep(session: Session, run_id: str, report: StepReport, most_bytes: int = MOST_BYTES) -> None:
    """Those of a step; one that was shown before is shown anew."""
    learned, held_out = product(report.rollouts, [False]), product(report.held_out, [True])
    for rollout, is_held_out in chain(learned, held_out):
        inspection = report.inspections.get(rollout.id)
        shown = {
            "step": report.step,
            "epoch": report.epoch,
            "held_out": is_held_out,
            "rollout": rollout.model_dump(mode="json"),
            "prompt_sha256": _prompt_sha256(rollout),
            "inspection": None if inspection is None else packed(inspection),
        }
        put(session, RolloutRow, ("run_id", "rollout_id"), run_id=run_id, rollout_id=rollout.id, **shown)
    if report.inspections:
        _let_go(session, run_id, most_bytes)


def _let_go(session: Session, run_id: str, most_bytes: int) -> None:
    """The oldest inspections, until the others take no more than so many bytes."""
    inspected = RolloutRow.run_id == run_id, RolloutRow.inspection.is_not(None)
    sizes = select(RolloutRow.rollout_id, func.length(RolloutRow.inspection)).where(*inspected)
    taken, gone = 0, list[str]()
    for rollout_id, size in session.execute(sizes.order_by(RolloutRow.step.desc(), RolloutRow.rollout_id)):
        taken += size
        if taken > most_bytes:
            gone.append(rollout_id)
    if gone:
        where = RolloutRow.run_id == run_id, RolloutRow.rollout_id.in_(gone)
        session.execute(update(RolloutRow).where(*where).values(inspection=None))


def samples(
    session: Session, run_id: str, after: str | None, limit: int, *, newest_first: bool = False
) -> Page[RolloutSample]:
    """By step, without their inspections."""
    query = select(RolloutRow).where(RolloutRow.run_id == run_id)
    keys = RolloutRow.step, RolloutRow.rollout_id
    return page(session, query, keys, _sample_view, after=after, limit=limit, newest_first=newest_first)


def sample(session: Session, run_id: str, rollout_id: str) -> RolloutView:
    """
    Raises:
        ServiceProblem: 404 `rollout_not_found`.
    """
    row = session.get(RolloutRow, (run_id, rollout_id), options=[undefer(RolloutRow.inspection)])
    if row is None:
        raise _not_found(run_id, rollout_id)
    inspected = None if row.inspection is None else _unpacked(row.inspection)
    return RolloutView(**vars(_sample_view(row)), inspection=inspected)


def inspection(session: Session, run_id: str, rollout_id: str) -> Inspection:
    """What was held of its tokens, without the rollout itself.

    Raises:
        ServiceProblem: 404 `rollout_not_found`, also where nothing is kept of its tokens.
    """
    where = RolloutRow.run_id == run_id, RolloutRow.rollout_id == rollout_id, RolloutRow.inspection.is_not(None)
    body = session.scalars(select(RolloutRow.inspection).where(*where)).one_or_none()
    if body is None:
        raise _not_found(run_id, rollout_id)
    return _unpacked(body)


def _not_found(run_id: str, rollout_id: str) -> ServiceProblem:
    detail = f"{run_id} shows no rollout {rollout_id!r}; those of steps that a later attempt did again are gone"
    return ServiceProblem(404, "rollout_not_found", detail)


def others(session: Session, run_id: str, rollout: Rollout) -> list[Other]:
    """The run's other rollouts after the same prompt, by step; the newest MOST_OTHERS."""
    where = RolloutRow.run_id == run_id, RolloutRow.prompt_sha256 == _prompt_sha256(rollout)
    query = select(RolloutRow.step, RolloutRow.rollout_id).where(*where, RolloutRow.rollout_id != rollout.id)
    newest = query.order_by(RolloutRow.step.desc(), RolloutRow.rollout_id.desc()).limit(MOST_OTHERS)
    by_step = groupby(reversed(session.execute(newest).all()), lambda row: row.step)
    return [Other(step, row.rollout_id, nth) for step, rows in by_step for nth, row in enumerate(rows, start=1)]


def packed(inspection: Inspection) -> bytes:
    """Arrays as a safetensors body, the rest as JSON in its metadata: a tenth of what lists in JSON take."""
    rest = inspection.model_dump(mode="json", exclude=set(inspection.arrays()), exclude_none=True)
    return save(inspection.arrays(), {"rest": json.dumps(rest)})


def _unpacked(body: bytes) -> Inspection:
    arrays, metadata = load(body)
    return Inspection(**arrays, **json.loads(metadata["rest"]))


def _prompt_sha256(rollout: Rollout) -> str:
    return hashlib.sha256(rollout.prompt_ids.astype("<i4").tobytes()).hexdigest()


def _sample_view(row: RolloutRow) -> RolloutSample:
    told = {"step": row.step, "epoch": row.epoch, "held_out": row.held_out, "rollout": row.rollout}
    return RolloutSample.model_validate(told)
