"""What a fork takes over from the checkpoint that it begins at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from recording_worker import RecordingWorker
from toy_teacher import working
from whole_runs import Build, attempts, finish

from tutelage.core.clock import Clock
from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import forked
from tutelage.trainer.fates import Fates
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.origin import Origin
from tutelage.trainer.replay import Share
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import CheckpointView, ForkPoint

SPENT = Ledger(
    student_tokens=9,
    teacher_tokens=8,
    tokens_of={"toy": 8},
    dropped_rollouts=1,
    unrewarded_rollouts=1,
    pushed_after=7,
    first_gaps={"gap": 0.5},
    clock=Clock(share=0.5),
    share=Share(rises=2, loss=1.0),
    rollouts=Fates(submitted=16, trained=16),
)


def point(*changed: str) -> ForkPoint:
    return ForkPoint(run_id="run-0", step=2, changed=list(changed))


@pytest.mark.parametrize(
    ("changed", "gaps", "share"),
    [
        ("optim.lr", SPENT.first_gaps, SPENT.share),
        ("objective.support.k", {}, SPENT.share),
        ("rollout.adaptive.rise", SPENT.first_gaps, Share()),
        ("rollout.source", SPENT.first_gaps, Share()),
    ],
)
def test_totals_begin_anew_and_schedules_go_on_where_their_settings_are_the_same(
    changed: str, gaps: dict[str, float], share: Share
) -> None:
    clock = SPENT.clock if gaps else Clock()
    assert forked.carried(SPENT, point(changed)) == Ledger(first_gaps=gaps, share=share, clock=clock)


def test_what_a_changed_setting_names_need_not_be_what_it_was() -> None:
    found = Origin({"spec": "1", "student.model": "2", "data.train": "3", "data.eval": "4", "reference.model": "5"}, {})
    assert set(forked.held(found, point()).parts) == set(found.parts) - {"spec"}
    others = {"student.model", "data.eval", "reference.model"}
    assert set(forked.held(found, point("data.train", "seed")).parts) == others
    assert set(forked.held(found, point("objective.divergence")).parts) == {"data.train", "data.eval"}


async def newest_of(building: Build, spec: Any, engine: FakeEngine, name: str) -> CheckpointView:
    """The last checkpoint of a run from beginning to end, as a fork has it."""
    worker, queue = RecordingWorker(), MemoryQueue()
    async with working(queue, engine):
        await finish(await building(spec, worker, queue, name))
    assert worker.newest is not None
    return worker.newest.model_copy(update={"epoch": 0})


async def test_other_lines_than_the_other_run_had_are_refused(
    building: Build, spec_of: Any, engine: FakeEngine
) -> None:
    spec = spec_of(2)
    newest = await newest_of(building, spec, engine, "parent")
    path = Path(spec.data.train)
    path.write_text(path.read_text().replace("g", "h"))
    begun = {"checkpoint": newest, "forked_from": point("optim.lr")}
    with pytest.raises(InvalidInput, match=r"data\.train: it is not what this run began with"):
        await building(spec, RecordingWorker(), MemoryQueue(), "fork", **begun)


async def test_a_fork_whose_checkpoint_is_gone_does_not_begin_from_nothing(
    building: Build, spec_of: Any, engine: FakeEngine
) -> None:
    spec = spec_of(2)
    newest = await newest_of(building, spec, engine, "parent")
    shutil.rmtree(newest.path)
    with pytest.raises(InvalidInput, match="no checkpoint of this fork is left: fork run-0 again"):
        await building(spec, RecordingWorker(), MemoryQueue(), "fork", checkpoint=newest, forked_from=point())


async def test_a_teacher_that_is_another_one_is_learned_from_and_told(
    building: Build, spec_of: Any, engine: FakeEngine, tmp_path: Path
) -> None:
    newest = await newest_of(building, spec_of(2), engine, "parent")
    other = FakeEngine(FakeOptions(), "toy")
    other.provenance = engine.provenance.model_copy(update={"model_revision": "another"})
    worker, queue = RecordingWorker(), MemoryQueue()
    begun = {"checkpoint": newest, "forked_from": point("optim.steps", "optim.lr")}
    async with working(queue, other):
        run = await attempts(other, tmp_path)(spec_of(4), worker, queue, "fork", **begun)
        await finish(run)
    assert any("teacher 'toy' is not the one that run-0 asked" in message for message in worker.events)
    assert "begins with the weights of run-0 at step 2" in worker.events
    assert worker.newest is not None and worker.newest.step == 4
    again = await attempts(other, tmp_path)(spec_of(4), RecordingWorker(), queue, "fork", 2, worker.newest, point())
    assert again.ledger.rollouts.trained == 2 * 8, "an attempt that resumes goes on with the fork's own totals"
