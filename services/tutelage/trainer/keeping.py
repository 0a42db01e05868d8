"""How a run saves itself, and what it does while the disk refuses: go on for a while, then wait, and say so.

Whatever a failed try left is removed, and the next one writes new files: after a failed fsync nobody knows what of the
old ones is on the disk. The run's condition `checkpoint_fresh` is false until one succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.tracing import span
from tutelage.trainer import ahead, checkpoint, saving
from tutelage.trainer.checkpoint import NotSaved, refusing
from tutelage.trainer.crashes import CrashPoint
from tutelage.trainer.learning import Metrics
from tutelage.trainer.run import Run
from tutelage_client.history import LearnedStep, note
from tutelage_client.wire import CheckpointView, Rollout

log = logging.getLogger(__name__)
CONDITION = "checkpoint_fresh"
RETRY_S = 2.0


async def after_step(run: Run) -> None:
    """A checkpoint where one is due, or was and could not be written; waits for it once that is too long ago."""
    if run.student.step % run.spec.checkpoint.every and run.kept.refused is None:
        return
    begun_s = time.monotonic()
    if not await commit(run) and run.student.step >= _waits_at(run):
        await insist(run)
    run.kept.spent_s += time.monotonic() - begun_s


def since_last_row(run: Run) -> Metrics:
    """What the row of a step tells of saving, counted from the row before."""
    told: Metrics = {"checkpoint_s": run.kept.spent_s, "checkpoint_failures": run.kept.failures}
    run.kept.spent_s, run.kept.failures = 0.0, 0
    return told


async def insist(run: Run, *, final: bool = False) -> None:
    """A checkpoint, however long the disk refuses.

    Raises:
        Fenced, StopRun: the run must end while it waits.
    """
    while not await commit(run, final=final):
        await _wait(run, "its checkpoint")


async def commit(run: Run, *, final: bool = False) -> bool:
    """Write a checkpoint, make it the run's newest, then let go of the oldest. False: the disk refused."""
    if run.kept.step == run.student.step:
        return True
    with span("checkpoint", {}) as told:
        if not (saved := await _committed(run, final=final)):
            told.fail("refused")
        return saved


async def _committed(run: Run, *, final: bool) -> bool:
    root = run.artefacts / "checkpoints"
    kept = run.ahead.at_rest()  # at one instant with the ledger, as both go on while the checkpoint is written
    state = _state(run, run.ledger.at_rest(sum(map(len, kept.values()))))
    run.passing(CrashPoint.BEFORE_SAVE)
    try:
        view = await asyncio.to_thread(_saved, run, root, kept, state)
    except NotSaved as error:
        await _refused(run, str(error))
        return False
    run.passing(CrashPoint.BEFORE_COMMIT)
    await run.session.commit(view, final=final)
    run.kept.step = view.step
    run.passing(CrashPoint.AFTER_COMMIT)
    await asyncio.to_thread(checkpoint.retain, root, run.spec.checkpoint.keep, view)
    run.passing(CrashPoint.BEFORE_ACK)
    await _succeeded(run)
    return True


async def export(run: Run) -> Path:
    """The model that the run ends with, however long the disk refuses.

    Raises:
        Fenced, StopRun: as `insist`.
    """
    model = run.artefacts / f"model-e{run.session.epoch}"
    while True:
        try:
            await asyncio.to_thread(_exported, run, model)
        except NotSaved as error:
            await _refused(run, str(error))
        else:
            await _succeeded(run)
            return model
        await _wait(run, "its model")


def note_down(run: Run, *learned: LearnedStep) -> None:
    """Add to the record of what was learned. What a full disk refuses is kept until the next try.

    Raises:
        OSError: it refused.
    """
    run.kept.notes += learned
    note(run.artefacts / "learned", *run.kept.notes)
    run.kept.notes.clear()


def note_if_possible(run: Run, learned: LearnedStep) -> None:
    """As `note_down`; a checkpoint, without which a step does not count for good, waits until everything is noted."""
    try:
        note_down(run, learned)
    except OSError as error:
        log.warning("a step cannot be noted yet", extra={"run_id": run.session.run_id, "reason": str(error)})


def _state(run: Run, ledger: dict[str, Any]) -> dict[str, Any]:
    provenances = {name: each.model_dump(mode="json") for name, each in run.teachers.provenances.items()}
    return {"step": run.student.step, "ledger": ledger, "provenances": provenances, "origin": asdict(run.origin)}


def _saved(run: Run, root: Path, kept: Mapping[int, list[Rollout]], state: dict[str, Any]) -> CheckpointView:
    """Raises NotSaved where the disk refuses the record or the checkpoint."""
    with refusing("the record of what was learned"):
        note_down(run)
        if (notes := run.artefacts / "learned").exists():
            checkpoint.settle(notes)
    write, needed = partial(_write, run, kept), saving.size(run.student)
    return checkpoint.save(root, run.session.epoch, run.student.step, write, state, run.passing, needed=needed)


def _write(run: Run, kept: Mapping[int, list[Rollout]], folder: Path) -> None:
    """What a checkpoint holds beside its state. kept: what is written and not learned from, by step"""
    saving.write(run.student, folder)
    ahead.write(kept, folder)
    if run.sources.replay is not None:
        run.sources.replay.write(folder)


def _exported(run: Run, folder: Path) -> None:
    with refusing("the model", folder):
        saving.export(run.student, folder)
        checkpoint.settle(folder)


def _waits_at(run: Run) -> int:
    """The step that the run does not go beyond without a newer checkpoint."""
    return (run.kept.step or 0) + run.spec.checkpoint.every * (1 + run.spec.checkpoint.may_fail)


async def _refused(run: Run, reason: str) -> None:
    """Say it once, and keep it in the conditions."""
    run.session.conditions[CONDITION] = False
    run.kept.failures += 1
    if run.kept.refused is None:
        step = run.kept.step
        newest = "no checkpoint is there yet" if step is None else f"the checkpoint of step {step} stays the newest"
        waits = f"it is tried again after every step, and at step {_waits_at(run)} the run waits for it"
        await run.session.event("checkpoint", f"{reason}; {newest}; {waits}", "error", step=run.student.step)
    run.kept.refused = reason


async def _succeeded(run: Run) -> None:
    if run.kept.refused is None:
        return
    run.kept.refused = None
    run.session.conditions[CONDITION] = True
    await run.session.event("checkpoint", f"the disk takes what is saved again, at step {run.student.step}")


async def _wait(run: Run, what: str) -> None:
    log.warning("waiting for the disk", extra={"run_id": run.session.run_id, "reason": run.kept.refused, "what": what})
    await run.session.while_wanted(asyncio.sleep(RETRY_S))
