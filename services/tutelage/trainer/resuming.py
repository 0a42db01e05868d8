"""Where an attempt goes on: at the newest whole checkpoint that was committed, with everything as it was there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tutelage.trainer import ahead, checkpoint, saving
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.origin import Origin
from tutelage.trainer.replay import Replay
from tutelage.trainer.run import Kept
from tutelage.trainer.session import Session
from tutelage.trainer.student import Student
from tutelage.trainer.teachers import Teachers
from tutelage_client.wire import Provenance, Rollout


@dataclass
class Standing:
    """Where a run stands. underway: by step, what was written and not learned from"""

    ledger: Ledger = field(default_factory=Ledger)
    underway: dict[int, list[Rollout]] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)


async def resume(
    session: Session, student: Student, replay: Replay | None, teachers: Teachers, origin: Origin
) -> Standing:
    """Student, older text, totals and what was under way, as at the newest whole checkpoint, or as at the start.

    Raises:
        InvalidInput: the model, the data or the spec is not what it was then.
        TeacherFailed: a teacher is not.
    """
    lease = session.lease
    committed = [lease.checkpoint, *lease.older_checkpoints] if lease.checkpoint is not None else []
    found, wrong = await asyncio.to_thread(checkpoint.newest_whole, committed)
    instead = "no checkpoint is left, the run starts again" if found is None else f"{found.path.name} is used"
    for sentence in wrong:
        await session.event("checkpoint", f"{sentence}; {instead}", "error")
    if found is None:
        return Standing()
    _check_teachers(found.state, teachers)
    if "origin" in found.state:  # a checkpoint of an older release has none
        await _check_origin(session, origin, Origin(**found.state["origin"]))
    step = found.state["step"]
    await asyncio.to_thread(saving.read, student, found.path, step)
    if replay is not None:
        await asyncio.to_thread(replay.read, found.path)
    underway = await asyncio.to_thread(ahead.read, found.path)
    await session.event("checkpoint", f"resumed at step {step}", step=step)
    return Standing(Ledger.restored(found.state["ledger"]), underway, Kept(step))


async def _check_origin(session: Session, origin: Origin, began: Origin) -> None:
    origin.hold_to(began)
    if (sentence := origin.changed_since(began)) is not None:
        await session.event("checkpoint", sentence, "warning")


def _check_teachers(state: dict[str, Any], teachers: Teachers) -> None:
    for name, began_with in state["provenances"].items():
        if Provenance.model_validate(began_with) != teachers.named(name).provenance:
            sentence = f"teacher {name!r} is not the one that this run began with; start a new run"
            raise TeacherFailed("teacher_changed", sentence)
