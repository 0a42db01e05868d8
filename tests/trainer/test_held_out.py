"""A few held-out lines are answered at each evaluation, and seen with what student and teacher hold of the tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_worker import RecordingWorker
from toy_teacher import working
from whole_runs import Build, finish, sections

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import held_out
from tutelage.trainer.evaluate import spread
from tutelage.trainer.loop import evaluated, taken_back
from tutelage_client.wire import ScoreGroup, Signal, StepReport


def with_answers(worker: RecordingWorker) -> list[StepReport]:
    return [row for row in worker.steps if row.held_out]


async def test_the_same_lines_are_answered_and_marked_at_every_evaluation(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(4, eval={"every": 2, "samples": 3}), worker, queue)
    async with working(queue, engine):
        await finish(run)
    reports = with_answers(worker)
    assert [row.step for row in reports] == [0, 2, 4]
    for row in reports:
        assert [answer.id for answer in row.held_out] == [f"held-out-{line}-at-{row.step}" for line in (1, 4)]
        assert [answer.prompt for answer in row.held_out] == ["a g", "d j"]
        for answer in row.held_out:
            await check(answer, row.inspections[answer.id], engine)


async def check(answer: Any, seen: Any, engine: FakeEngine) -> None:
    """The student's numbers are those that it wrote by, the teacher's what it says when asked; no one learns."""
    np.testing.assert_allclose(seen.student_logprob, answer.behaviour_logprob, rtol=1e-4, atol=1e-5)
    group = {"prompt_ids": answer.prompt_ids, "completions": [{"token_ids": answer.completion_ids}]}
    [block], _ = await engine.score([ScoreGroup.model_validate(group)], frozenset({Signal.SAMPLED}), None)
    np.testing.assert_allclose(seen.teacher_logprob, block.arrays()["sampled_logprob"], rtol=1e-5)
    assert (seen.teacher, seen.learned_tokens) == ("toy", 0)
    assert np.isnan(seen.contribution).all()
    assert answer.mask.all()


async def test_what_is_learned_does_not_change_by_it_and_the_teachers_work_is_counted(
    spec_of: Any, building: Build, engine: FakeEngine
) -> None:
    rows, tokens, seen = {}, {}, {}
    for many in (0, 2):
        worker, queue = RecordingWorker(), MemoryQueue()
        spec = spec_of(4, deterministic=True, diagnostics={"held_out": many})
        run = await building(spec, worker, queue, name=f"shows-{many}")
        async with working(queue, engine):
            await finish(run)
        rows[many] = [(row.step, row.metrics.get("loss"), row.metrics.get("accuracy")) for row in worker.steps]
        tokens[many] = worker.steps[-1].teacher_tokens
        seen[many] = [answer for row in with_answers(worker) for answer in row.held_out]
        fates = worker.steps[-1].metrics
        assert fates["rollouts/trained"] == fates["rollouts/submitted"] == 4 * 8
    assert rows[0] == rows[2]
    assert (seen[0], len(seen[2])) == ([], 6)
    answered = sum(len(answer.prompt_ids) + len(answer.completion_ids) - 1 for answer in seen[2])
    assert tokens[2] - tokens[0] == answered


async def test_a_run_that_asks_nobody_shows_what_the_student_holds(
    make_spec: Any, tmp_path: Path, building: Build, worker: RecordingWorker
) -> None:
    from_data = sections(tmp_path, 2) | {"rollout": {"source": "data", "prompts_per_step": 4}}
    run = await building(make_spec({"kind": "supervised"}, **from_data), worker, MemoryQueue())
    await finish(run)
    for row in with_answers(worker):
        for seen in row.inspections.values():
            assert seen.teacher_logprob is None
    assert [row.step for row in with_answers(worker)] == [0, 2]


async def test_a_run_does_not_stand_still_for_marks_that_nothing_is_learned_from(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher comes after the first evaluation, which is told without it; the steps wait for it."""
    monkeypatch.setattr(held_out, "WAIT_S", 0.2)
    queue = MemoryQueue()
    run = await building(spec_of(2), worker, queue)
    finishing = asyncio.create_task(finish(run))
    while not worker.steps:
        await asyncio.sleep(0)
    async with working(queue, engine):
        await finishing
    first, last = with_answers(worker)
    assert all(first.inspections[answer.id].teacher_logprob is None for answer in first.held_out)
    assert all(last.inspections[answer.id].teacher_logprob is not None for answer in last.held_out)
    assert "the held-out answers of this evaluation have no marks: no teacher answered within 0.2 s" in worker.events


async def test_a_spent_budget_pays_for_no_more_marks(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(4, budget={"teacher_tokens": 60}), worker, queue)
    async with working(queue, engine):
        await finish(run)
    first, last = with_answers(worker)
    assert (first.step, last.step) == (0, 1)
    assert first.inspections["held-out-1-at-0"].teacher_logprob is not None
    assert last.inspections["held-out-1-at-1"].teacher_logprob is None
    assert last.teacher_tokens == run.ledger.teacher_tokens > 60


async def test_a_run_that_ends_takes_back_what_no_teacher_answered(
    spec_of: Any, building: Build, worker: RecordingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "WAIT_S", 0.2)
    queue = MemoryQueue()
    run = await building(spec_of(1), worker, queue)
    assert run.pipeline is not None
    async with run.pipeline:
        await evaluated(run)
        assert (await queue.depth("toy")).waiting == 2
        await taken_back(run)
    assert (await queue.depth("toy")).waiting == 0


def test_lines_are_spread_over_the_data() -> None:
    assert spread(6, 2) == [0, 3]
    assert spread(3, 2) == [0, 1]
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(2, 5) == [0, 1]
    assert spread(5, 0) == []
