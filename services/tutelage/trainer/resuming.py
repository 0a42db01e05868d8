"""Where an attempt goes on: at the newest whole checkpoint that was committed, with everything as it was there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tutelage.trainer import ahead, checkpoint, forked, saving
from tutelage.trainer.checkpoint import Found
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.origin import Origin
from tutelage.trainer.replay import Replay
from tutelage.trainer.run import Kept
from tutelage.trainer.session import Session
from tutelage.trainer.student import Student
from tutelage.trainer.teachers import Teachers
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import ForkPoint, Provenance, Rollout


@dataclass
class Standing:
    """Where a run stands. underway: by step, what was written and not learned from; begins: nothing was learned yet"""

    ledger: Ledger = field(default_factory=Ledger)
    underway: dict[int, list[Rollout]] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    begins: bool = True


async def resume(
    session: Session, student: Student, replay: Replay | None, teachers: Teachers, origin: Origin
) -> Standing:
    """Student, older text, totals and what was under way, as at the newest whole checkpoint, or as at the start.

    Raises:
        InvalidInput: the model, the data or the spec is not what it was then, or no checkpoint of a fork is left.
        TeacherFailed: a teacher is not.
    """
    lease = session.lease
    committed = [lease.checkpoint, *lease.older_checkpoints] if lease.checkpoint is not None else []
    found, wrong = await asyncio.to_thread(checkpoint.newest_whole, committed)
    instead = "no checkpoint is left, the run starts again" if found is None else f"{found.path.name} is used"
    if found is None and lease.forked_from is not None:
        raise InvalidInput(
            f"{'; '.join(wrong)}; no checkpoint of this fork is left: fork {lease.forked_from.run_id} again"
        )
    for sentence in wrong:
        await session.event("checkpoint", f"{sentence}; {instead}", "error")
    if found is None:
        return Standing()
    if found.view.epoch == 0 and lease.forked_from is not None:
        return await _begin(session, student, replay, teachers, origin, found, lease.forked_from)
    _check_teachers(found.state, teachers)
    if "origin" in found.state:  # a checkpoint of an older release has none
        await _check_origin(session, origin, Origin(**found.state["origin"]))
    step = found.state["step"]
    await asyncio.to_thread(saving.read, student, found.path, step)
    if replay is not None:
        await asyncio.to_thread(replay.read, found.path)
    underway = await asyncio.to_thread(ahead.read, found.path)
    await session.event("checkpoint", f"resumed at step {step}", step=step)
    return Standing(Ledger.restored(found.state["ledger"]), underway, Kept(step), begins=step == 0)


async def _begin(
    session: Session,
    student: Student,
    replay: Replay | None,
    teachers: Teachers,
    origin: Origin,
    found: Found,
    point: ForkPoint,
) -> Standing:
    """The first step of a fork, at the checkpoint of the other run.

    Raises:
        InvalidInput: the student is not the one of that run, or lines or a reference that should be the same are not.
    """
    if "origin" in found.state:
        await _check_origin(session, forked.held(origin, point), Origin(**found.state["origin"]))
    began = {name: Provenance.model_validate(who) for name, who in found.state["provenances"].items()}
    for name in forked.replaced(began, teachers.provenances):
        said = f"teacher {name!r} is not the one that {point.run_id} asked; this run learns from the one that is there"
        await session.event("teacher", said, "warning")
    await asyncio.to_thread(saving.read, student, found.path, point.step)
    if replay is not None and forked.keeps_older_text(point):
        await asyncio.to_thread(replay.read, found.path)
    await session.event(
        "checkpoint", f"begins with the weights of {point.run_id} at step {point.step}", step=point.step
    )
    return Standing(forked.carried(Ledger.restored(found.state["ledger"]), point), kept=Kept(point.step))


async def _check_origin(session: Session, origin: Origin, began: Origin) -> None:
    origin.hold_to(began)
    if (sentence := origin.changed_since(began)) is not None:
        await session.event("checkpoint", sentence, "warning")


def _check_teachers(state: dict[str, Any], teachers: Teachers) -> None:
    for name, began_with in state["provenances"].items():
        if Provenance.model_validate(began_with) != teachers.named(name).provenance:
            sentence = f"teacher {name!r} is not the one that this run began with; start a new run"
            raise TeacherFailed("teacher_changed", sentence)
