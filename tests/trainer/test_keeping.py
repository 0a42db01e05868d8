"""A disk that refuses, as a file is where a folder should be: the run goes on, then waits, and says so once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recording_worker import RecordingWorker
from toy_teacher import working
from whole_runs import Build, finish

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import keeping
from tutelage.trainer.crashes import CrashPoint
from tutelage.trainer.exits import StopRun
from tutelage.trainer.run import Run
from tutelage_client import history


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """In the place of the run's checkpoints."""
    file = tmp_path / "run" / "checkpoints"
    file.parent.mkdir()
    file.touch()
    return file


def told(worker: RecordingWorker) -> list[str]:
    return [event for event in worker.events if "checkpoint" in event or "disk" in event]


def notes(run: Run) -> list[int]:
    lines = b"".join(history.noted(run.artefacts / "learned"))
    return [each.step for each in history.read_notes(lines)]


async def until(wanted: Callable[[], bool], running: asyncio.Task[Any]) -> None:
    while not wanted():
        assert not running.done(), running.exception()
        await asyncio.sleep(0.01)


async def test_a_refused_checkpoint_is_written_at_a_later_step(
    blocked: Path, spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, seen = MemoryQueue(), list[bool]()
    run = await building(spec_of(5), worker, queue)

    def mend(point: CrashPoint) -> None:
        if point == CrashPoint.AFTER_BACKWARD and run.student.step == 2:
            seen.append(run.session.conditions[keeping.CONDITION])
            blocked.unlink()

    run.passing = mend
    async with working(queue, engine):
        await finish(run)
    assert seen == [False]
    assert run.session.conditions[keeping.CONDITION]
    assert [commit.step for commit in worker.commits] == [3, 4, 5], "the one of step 2 was refused"
    refusal, again = told(worker)
    assert refusal.startswith("the checkpoint of step 2 cannot be written: [Errno 20] Not a directory")
    assert "; no checkpoint is there yet; it is tried again after every step" in refusal
    assert refusal.endswith("at step 6 the run waits for it")
    assert again == "the disk takes what is saved again, at step 3"
    assert [row.metrics["checkpoint_failures"] for row in worker.steps[1:]] == [0, 0, 1, 0, 0], "told with the next row"


async def test_at_its_limit_the_run_waits_and_goes_on_when_the_disk_does(
    blocked: Path, spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(8, checkpoint={"every": 2, "may_fail": 1}), worker, queue)
    async with working(queue, engine):
        running = asyncio.create_task(finish(run))
        await until(lambda: bool(worker.steps) and worker.steps[-1].step == 4, running)
        waiting, _ = await asyncio.wait([running], timeout=keeping.RETRY_S * 1.5)
        assert not waiting
        assert worker.steps[-1].step == 4
        assert worker.commits == []
        blocked.unlink()
        await running
    assert [commit.step for commit in worker.commits] == [4, 6, 8]
    assert len(told(worker)) == 2
    assert notes(run) == list(range(1, 9))
    waited = worker.steps[5].metrics
    assert (waited["checkpoint_s"] or 0) >= keeping.RETRY_S * 1.5, "also that it waited for the disk"
    assert (waited["checkpoint_failures"] or 0) >= 2


async def test_a_run_that_waits_for_the_disk_can_be_paused(
    blocked: Path, spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(4, checkpoint={"every": 1, "may_fail": 0}), worker, queue)
    async with working(queue, engine):
        running = asyncio.create_task(finish(run))
        await until(lambda: run.kept.refused is not None, running)
        run.session.request("pause")
        with pytest.raises(StopRun):
            await running
    assert not await keeping.commit(run)
    assert worker.commits == []


async def test_what_could_not_be_noted_is_noted_before_a_checkpoint_counts(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, tmp_path: Path
) -> None:
    queue, learned = MemoryQueue(), tmp_path / "run" / "learned"
    learned.parent.mkdir()
    learned.touch()
    run = await building(spec_of(5), worker, queue)

    def mend(point: CrashPoint) -> None:
        if point == CrashPoint.AFTER_BACKWARD and run.student.step == 3:
            assert worker.commits == []
            assert [each.step for each in run.kept.notes] == [1, 2, 3]
            learned.unlink()

    run.passing = mend
    async with working(queue, engine):
        await finish(run)
    assert notes(run) == [1, 2, 3, 4, 5]
    assert [commit.step for commit in worker.commits] == [4, 5]
    assert told(worker)[0].startswith("the record of what was learned cannot be written")


async def test_the_model_waits_for_the_disk(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, tmp_path: Path
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(1), worker, queue)
    async with working(queue, engine):
        await finish(run)
    blocked = run.artefacts / "model-e1"
    blocked.symlink_to(run.artefacts / "nowhere" / "at all")
    exporting = asyncio.create_task(keeping.export(run))
    await until(lambda: run.kept.refused is not None, exporting)
    assert run.kept.refused is not None
    assert run.kept.refused.startswith("the model cannot be written")
    blocked.unlink()
    assert await asyncio.wait_for(exporting, 30) == blocked
    assert (blocked / "model.safetensors").exists()
