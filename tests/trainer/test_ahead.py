"""Steps that are under way while earlier ones are learned from: how far, by which weights, and what is kept of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
import torch
from recording_worker import RecordingWorker
from torch import Tensor
from toy_teacher import working
from whole_runs import SAMPLED, Build, finish

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import keeping, loop
from tutelage.trainer.crashes import CrashPoint
from tutelage.trainer.exits import StopRun
from tutelage.trainer.follower import Follower
from tutelage.trainer.run import Run
from tutelage_client import history
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Rollout, StepReport

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
DEADLINE_S = 20.0
A_STEP = 8
RATIO = [{"kind": "ratio_clip"}]
FATES = ("trained", "stale", "dead_lettered", "dropped", "queued")


@pytest.fixture
def ahead_by(spec_of: Any) -> Any:
    """A short run with text of at most so many versions ago."""

    def make(max_lag: int, steps: int = 6, **others: Any) -> RunSpec:
        rollout = {"prompts_per_step": 4, "samples_per_prompt": 2, "max_lag": max_lag, "max_new_tokens": 8}
        return spec_of(steps, **({"rollout": rollout, "stabilizers": RATIO} | others))

    return make


def conserved(row: Mapping[str, Any]) -> bool:
    return row["rollouts/submitted"] == sum(row[f"rollouts/{fate}"] for fate in FATES)


async def test_the_next_step_is_written_and_marked_while_one_is_learned_from(
    ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    """Learning waits in its thread until the next step has all its marks: without that the test would never end."""
    queue = MemoryQueue()
    run = await building(ahead_by(1, steps=3), worker, queue)

    def wait(point: CrashPoint) -> None:
        if point != CrashPoint.AFTER_BACKWARD or run.student.step == 2:
            return
        until_s = time.monotonic() + DEADLINE_S
        while run.ahead.at_rest().keys() != {run.student.step + 1}:
            assert time.monotonic() < until_s
            time.sleep(0.001)

    run.passing = wait
    async with working(queue, engine):
        await finish(run)
    rows = [report.metrics for report in worker.steps[1:]]
    assert [row["lag_max"] for row in rows] == [0, 1, 1]
    assert [cast(float, row["rollouts/queued"]) >= A_STEP for row in rows] == [True, True, False]
    assert all(map(conserved, rows))


@pytest.mark.parametrize("max_lag", [0, 1, 2, 3])
async def test_no_rollout_is_older_than_the_bound_and_each_has_the_log_probs_of_its_version(
    max_lag: int, ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(ahead_by(max_lag, eval={"every": 1}), worker, queue)
    versions = {0: weights(run)}

    def keep(point: CrashPoint) -> None:
        if point == CrashPoint.AFTER_OPTIMIZER_STEP:
            versions[run.student.step + 1] = weights(run)

    run.passing = keep
    async with working(queue, engine):
        await finish(run)
    shown = [(report.step - 1, rollout) for report in worker.steps for rollout in report.rollouts]
    assert {step - rollout.policy_version for step, rollout in shown} <= set(range(max_lag + 1))
    assert max(step - rollout.policy_version for step, rollout in shown) == max_lag
    for _, rollout in shown:
        run.student.model.load_state_dict(versions[rollout.policy_version], strict=False)
        assert rollout.behaviour_logprob is not None
        np.testing.assert_allclose(run.student.logprobs(rollout), rollout.behaviour_logprob, atol=1e-5)
    for report in worker.steps[1:]:
        assert conserved(report.metrics)
        assert 0 < cast(float, report.metrics["ratio_ess"]) <= 1
        assert cast(float, report.metrics["lag"]) <= max_lag
    last = worker.steps[-1].metrics
    assert last["rollouts/trained"] == last["rollouts/submitted"] == 6 * A_STEP
    assert (max_lag == 0) == all(report.metrics["ratio"] == pytest.approx(1) for report in worker.steps[1:])


def weights(run: Run) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in run.student.trained.items()}


async def test_a_follower_shares_what_does_not_learn_and_moves_only_when_it_follows(
    make_student: Any, make_spec: Any, make_rollout: Any
) -> None:
    student = make_student(make_spec(SAMPLED, student={"lora": {"rank": 2, "alpha": 4}}))
    follower, rollout = Follower(student), make_rollout(0, [2, 3], [4, 5])
    own = dict(follower.model.named_parameters())
    for name, theirs in student.model.named_parameters():
        assert (own[name] is theirs) == (not theirs.requires_grad)
    before = follower.logprobs(rollout)
    np.testing.assert_array_equal(before, student.logprobs(rollout))
    with torch.no_grad():
        for p in student.trained.values():
            p += 0.3
    student.step = 4
    np.testing.assert_array_equal(before, follower.logprobs(rollout))
    follower.follow()
    np.testing.assert_array_equal(student.logprobs(rollout), follower.logprobs(rollout))
    assert not np.array_equal(before, follower.logprobs(rollout))
    assert follower.step == 4


class PowerCut(Exception):
    """The process is gone."""


class CutWorker(RecordingWorker):
    """The power goes when this step is reported."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    async def report_step(self, run_id: str, report: StepReport) -> None:
        if report.step == self.step:
            raise PowerCut
        await super().report_step(run_id, report)


@pytest.mark.parametrize("max_lag", [1, 2])
async def test_what_was_under_way_when_a_run_died_is_asked_about_again_and_learned_from_once(
    max_lag: int, ahead_by: Any, building: Build, engine: FakeEngine
) -> None:
    """Cut after step 3: the checkpoint of step 2 has the text of the steps after it, and the queue their scores."""
    spec, queue = ahead_by(max_lag), MemoryQueue()
    cut, resumed = CutWorker(3), RecordingWorker()
    async with working(queue, engine):
        first = await building(spec, cut, queue)
        with pytest.raises(PowerCut):
            await finish(first)
        second = await building(spec, resumed, queue, epoch=2, checkpoint=cut.newest)
        kept = {rollout.id: rollout for rollouts in second.ahead.kept.values() for rollout in rollouts}
        assert second.student.step == 2
        assert second.ledger.rollouts.queued == second.ahead.queued == len(kept)
        assert second.ledger.rollouts.trained == 2 * A_STEP
        await finish(second)
    rows = [*cut.steps[1:], *resumed.steps]
    assert [row.step for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(conserved(row.metrics) and cast(float, row.metrics["lag_max"]) <= max_lag for row in rows)
    assert rows[-1].metrics["rollouts/trained"] == rows[-1].metrics["rollouts/submitted"] == 6 * A_STEP
    notes = history.read_notes(b"".join(history.noted(second.artefacts / "learned")))
    learned = [note for note in notes if (note.epoch, note.step) != (1, 3)]
    trained = [key for note in learned for key in note.trained]
    assert len(trained) == len(set(trained)) == 6 * A_STEP
    assert {f"{name}@toy" for name in kept} <= set(trained)
    assert second.ahead.queued == second.ledger.rollouts.queued == 0


async def test_a_run_that_is_paused_keeps_what_is_under_way(
    ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(ahead_by(2), worker, queue)

    def pause(point: CrashPoint) -> None:
        if point == CrashPoint.AFTER_OPTIMIZER_STEP and run.student.step == 2:
            run.session.request("pause")

    run.passing = pause
    async with working(queue, engine):
        with pytest.raises(StopRun):
            await finish(run)
        assert await keeping.commit(run)
        again = await building(run.spec, RecordingWorker(), queue, epoch=2, checkpoint=worker.newest)
        assert again.student.step == 3
        assert again.ahead.queued == again.ledger.rollouts.queued
        assert set(again.ahead.kept) <= {3, 4}
        await finish(again)
    assert again.ledger.rollouts.trained == again.ledger.rollouts.submitted == 6 * A_STEP


async def test_a_run_that_ends_early_drops_what_is_under_way_and_takes_its_questions_back(
    ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    spec = ahead_by(2, steps=50, budget={"teacher_tokens": 60})
    async with working(queue, engine):
        run = await building(spec, worker, queue)
        await finish(run)
    row = worker.steps[-1].metrics
    assert conserved(row)
    assert row["rollouts/queued"] == run.ahead.queued == run.ledger.rollouts.queued == 0
    assert row["rollouts/trained"] == worker.steps[-1].step * A_STEP
    depth = await queue.depth("toy")
    assert depth.waiting == depth.leased == 0


async def test_text_for_fresh_that_is_older_is_said_aloud(
    ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, other = MemoryQueue(), RecordingWorker()
    async with working(queue, engine):
        await finish(await building(ahead_by(1, steps=1, stabilizers=[]), worker, queue, "without"))
        await finish(await building(ahead_by(1, steps=1), other, queue, "with"))
    assert worker.events == [loop.UNCORRECTED]
    assert other.events == []


@pytest.mark.parametrize("source", ["teacher", "data", "mix", "paired"])
def test_the_other_sources_may_run_ahead_too(source: str, make_spec: Any) -> None:
    own: dict[str, Any] = {"on_policy_fraction": 0.5} if source == "mix" else {}
    spec = make_spec({"kind": "divergence"}, rollout={"source": source, "max_lag": 2} | own)
    assert spec.rollout.max_lag == 2


async def test_old_text_weighs_less(
    ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, make_rollout: Any
) -> None:
    queue = MemoryQueue()
    stabilizers = [*RATIO, {"kind": "freshness", "decay": 0.5}]
    run = await building(ahead_by(1, steps=2, stabilizers=stabilizers), worker, queue)
    assert run.objective.freshness == 0.5
    async with working(queue, engine):
        await finish(run)
    assert [report.metrics["lag"] for report in worker.steps[1:]] == [0, 1]


async def test_text_older_than_the_bound_is_left_out_and_counted(
    ahead_by: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, make_rollout: Any
) -> None:
    """A step that was written when the student was at 0 and at 1, and whose turn comes at 2."""
    queue = MemoryQueue()
    run = await building(ahead_by(1, steps=3), worker, queue)
    found = [make_rollout(index, [2, 3], [4, 5, 6], policy_version=index % 2) for index in range(A_STEP)]
    run.ahead.kept[2] = found
    run.ledger.submit(found)
    async with working(queue, engine):
        await finish(run)
    row = worker.steps[-1].metrics
    assert (row["rollouts/stale"], row["rollouts/trained"], row["lag_max"]) == (A_STEP / 2, 2.5 * A_STEP, 1)
    assert row["learned_tokens"] == 3 * A_STEP / 2
    assert conserved(row)
    *_, last = history.read_notes(b"".join(history.noted(run.artefacts / "learned")))
    assert last.trained == ("r001@toy", "r003@toy", "r005@toy", "r007@toy")


def test_the_age_of_a_rollout_is_that_of_its_students_text(make_rollout: Any) -> None:
    from tutelage.trainer.fates import by_age
    from tutelage.trainer.marking import Scored

    def scored(index: int, version: int, source: str = "student") -> Scored:
        rollout: Rollout = make_rollout(index, [2], [3], policy_version=version, source=source)
        return Scored(rollout, None)

    all_of = [scored(0, 7), scored(1, 5), scored(2, 4), scored(3, 0, "data")]
    fresh, stale = by_age(all_of, version=7, oldest=2)
    assert ([s.rollout.id for s in fresh], [s.rollout.id for s in stale]) == (["r000", "r001", "r003"], ["r002"])
    assert by_age(all_of, version=7, oldest=None) == (all_of, [])
