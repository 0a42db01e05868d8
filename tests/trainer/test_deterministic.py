"""With `deterministic = true` a spec and seed give the same bits, whoever dies and in whatever order scores come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recording_worker import RecordingWorker
from toy_teacher import working
from whole_runs import Build, attempts, finish

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue, Queue
from tutelage.trainer.crashes import CrashPoint, Passing
from tutelage_client.spec import RunSpec
from tutelage_client.wire import CheckpointView, ForkPoint

STEPS = 5
# Passed once a step, so that the third passing lies after the checkpoint of step 2; the others once a checkpoint.
OF_A_STEP = (CrashPoint.AFTER_SCORE_FETCH, CrashPoint.AFTER_BACKWARD, CrashPoint.AFTER_OPTIMIZER_STEP)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """torch's setting is the process's, and other tests share it."""
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture
def spec(spec_of: Any) -> RunSpec:
    return spec_of(STEPS, deterministic=True)


def hashes(checkpoint: CheckpointView | None) -> dict[str, str]:
    """sha256 of weights and optimizer."""
    assert checkpoint is not None
    files = json.loads((Path(checkpoint.path) / "manifest.json").read_text())["files"]
    found = {name: told["sha256"] for name, told in files.items() if name.endswith(".safetensors")}
    assert set(found) == {"model/model.safetensors", "optimizer.safetensors"}
    return found


class PowerCut(BaseException):
    """The process is gone: nothing handles this."""


def cut(at: CrashPoint, passing_by: int) -> Passing:
    seen: list[CrashPoint] = []

    def passing(point: CrashPoint) -> None:
        seen.append(point)
        if point == at and seen.count(at) == passing_by:
            raise PowerCut

    return passing


async def undisturbed(building: Build, spec: RunSpec, engine: FakeEngine, queue: Queue, name: str) -> dict[str, str]:
    worker = RecordingWorker()
    async with working(queue, engine):
        await finish(await building(spec, worker, queue, name))
    assert worker.steps[-1].step == STEPS
    return hashes(worker.newest)


class ReversingQueue(MemoryQueue):
    """It hands out the newest jobs first and tells the newest answers first."""

    async def lease(self, queue: str, worker: str, *, count: int, wait_s: float) -> Any:
        return (await super().lease(queue, worker, count=count, wait_s=wait_s))[::-1]

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> Any:
        answers, cursor = await super().answers(reply_to, after=after, wait_s=wait_s)
        return answers[::-1], cursor


async def test_two_runs_end_with_the_same_bits_in_whatever_order_scores_come(
    building: Build, spec: RunSpec, engine: FakeEngine
) -> None:
    one = await undisturbed(building, spec, engine, MemoryQueue(), "one")
    other = await undisturbed(building, spec, engine, ReversingQueue(), "other")
    assert one == other
    again = spec.model_copy(update={"seed": spec.seed + 1})
    assert one != await undisturbed(building, again, engine, MemoryQueue(), "another seed")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("point", CrashPoint)
async def test_a_run_that_died_anywhere_ends_with_the_bits_of_one_that_did_not(
    point: CrashPoint, building: Build, spec: RunSpec, engine: FakeEngine
) -> None:
    first, second, queue = RecordingWorker(), RecordingWorker(), MemoryQueue()
    whole = await undisturbed(building, spec, engine, MemoryQueue(), "whole")
    async with working(queue, engine):
        attempt = await building(spec, first, queue, "cut")
        attempt.passing = cut(point, 3 if point in OF_A_STEP else 2)
        with pytest.raises(PowerCut):
            await finish(attempt)
        assert first.newest is not None
        assert first.newest.step < STEPS
        resumed = await building(spec, second, queue, "cut", epoch=2, checkpoint=first.newest)
        assert resumed.student.step == first.newest.step
        await finish(resumed)
    assert hashes(second.newest) == whole


class CountingEngine(FakeEngine):
    """It keeps how many groups each of its calls had."""

    calls: list[int]

    async def score(self, groups: Any, signals: Any, top_k: int | None) -> Any:
        self.calls.append(len(groups))
        return await super().score(groups, signals, top_k)


async def test_every_question_is_a_batch_of_its_own(engine: FakeEngine, spec: RunSpec, tmp_path: Path) -> None:
    counting = CountingEngine(FakeOptions(), "toy")
    counting.provenance, counting.calls = engine.provenance, []
    await undisturbed(attempts(counting, tmp_path), spec, counting, MemoryQueue(), "run")
    asked = STEPS * spec.rollout.prompts_per_step * spec.rollout.samples_per_prompt
    assert counting.calls[-asked:] == [1] * asked


@pytest.mark.parametrize(("epoch", "code"), [(1, -signal.SIGKILL), (2, 0)])
def test_a_process_that_is_told_to_die_dies_there_in_the_first_attempt_alone(epoch: int, code: int) -> None:
    told = f"""
from tutelage.trainer.crashes import CrashPoint, crashing
passing = crashing("mid_save:2", {epoch})
passing(CrashPoint.MID_SAVE)
passing(CrashPoint.AFTER_RENAME)
print("lives", flush=True)
passing(CrashPoint.MID_SAVE)
"""
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (code, "lives\n")


async def test_a_fork_without_a_change_ends_with_the_bits_of_the_run_that_went_on(
    building: Build, spec: RunSpec, engine: FakeEngine
) -> None:
    """The other run writes and learns step 3, too: none of it is learned from in the fork, or missing there."""
    whole = await undisturbed(building, spec, engine, MemoryQueue(), "whole")
    first, second, queue = RecordingWorker(), RecordingWorker(), MemoryQueue()
    point = ForkPoint(run_id="run-0", step=2)
    async with working(queue, engine):
        attempt = await building(spec, first, queue, "cut")
        attempt.passing = cut(CrashPoint.AFTER_BACKWARD, 4)
        with pytest.raises(PowerCut):
            await finish(attempt)
        assert first.newest is not None and first.newest.step == point.step
        theirs = first.newest.model_copy(update={"epoch": 0})
        forked = await building(spec, second, queue, "fork", checkpoint=theirs, forked_from=point)
        assert (forked.student.step, forked.ledger.rollouts.submitted, forked.ledger.teacher_tokens) == (2, 0, 0)
        await finish(forked)
    assert hashes(second.newest) == whole
    assert [report.step for report in second.steps] == [3, 4, 5]
    size = spec.rollout.prompts_per_step * spec.rollout.samples_per_prompt
    assert second.steps[-1].metrics["rollouts/submitted"] == second.steps[-1].metrics["rollouts/trained"] == 3 * size
