"""Learning from a step while it is still being written and scored: when it begins, and that it is the same step."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recording_worker import RecordingWorker
from toy_teacher import answering, honest, working
from whole_runs import SAMPLED, Build, finish

from tutelage.core.objective import Objective
from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import loop
from tutelage.trainer.crashes import pass_by
from tutelage.trainer.exits import StopRun
from tutelage.trainer.follower import Follower
from tutelage.trainer.learning import Arriving, Learning, as_scored
from tutelage.trainer.marking import Scored
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.run import Run
from tutelage.trainer.student import Student
from tutelage_client.spec import RunSpec
from tutelage_client.wire import ScoreRequest

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
DEADLINE_S = 20.0
A_STEP = 8
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def scored(random_rollouts: Any, random_scores: Any) -> list[Scored]:
    """Of twelve rollouts, of which a teacher gave up on one."""
    known = [Scored(rollout, random_scores(rollout, i), teacher="toy") for i, rollout in enumerate(random_rollouts(12))]
    return [Scored(known[0].rollout, None, teacher="toy", left_out="dead_lettered"), *known[1:]]


async def stepped(student: Student, spec: RunSpec, arriving: list[Scored]) -> dict[str, float | None]:
    """The metrics of a step whose rollouts are scored in this order."""
    async with asyncio.timeout(DEADLINE_S), Learning(student, spec, objective_of(spec, student), pass_by) as learning:
        for each in arriving:
            learning.take(each)
        return await learning.step(sorted(arriving, key=lambda each: each.rollout.id))


@few
@given(order=st.permutations(range(12)), max_tokens=st.integers(8, 80))
def test_a_step_in_any_order_of_scores_is_the_step_of_all_at_once(
    make_spec: Any, make_student: Any, gradient_of: Any, scored: list[Scored], order: list[int], max_tokens: int
) -> None:
    spec = make_spec(SAMPLED, optim={"micro_batch_tokens": max_tokens})
    one, other = make_student(spec), make_student(spec)
    for student in (one, other):
        student.model.double()
    wanted = gradient_of(one, scored)
    told = asyncio.run(stepped(other, spec, [scored[i] for i in order]))
    for name, p in other.trained.items():
        found = other.optimizer.adamw.state[p]["exp_avg"] * 10
        torch.testing.assert_close(found, wanted[name], rtol=1e-9, atol=1e-12)
    assert told["learned_tokens"] == sum(len(each.rollout.completion_ids) for each in scored[1:])


def test_a_batch_leaves_once_it_is_full_and_the_rest_once_all_are_there(scored: list[Scored]) -> None:
    arriving, longest = Arriving(), max(len(s.rollout.prompt_ids) + len(s.rollout.completion_ids) for s in scored)
    batches = arriving.batches(max_tokens=3 * longest)
    for each in scored:
        arriving.add(each)
    early = next(batches)  # without `end`: this would wait for ever if it took all of them
    assert 3 <= len(early) < len(scored)
    arriving.end()
    everything = early + [each for batch in batches for each in batch]
    assert sorted(each.rollout.id for each in everything) == [each.rollout.id for each in scored[1:]]


async def test_a_step_is_learned_from_before_the_last_of_it_is_scored(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    """The teacher keeps its last answer of each step until there is a gradient: else no step would ever end."""
    queue, asked = MemoryQueue(), 0
    run = await building(small_batches(spec_of(2, rollout=ROLLOUT)), worker, queue)

    async def answered(engine: FakeEngine, request: ScoreRequest) -> bytes:
        nonlocal asked
        asked += 1
        while asked % A_STEP == 0 and not any(p.grad is not None for p in run.student.trained.values()):
            await asyncio.sleep(0.001)
        return await honest(engine, request)

    async with answering(queue, answered, engine):
        await finish(run)
    assert [row.metrics["rollouts/trained"] for row in worker.steps[1:]] == [A_STEP, 2 * A_STEP]
    assert [row.metrics["learned_tokens"] == row.metrics["tokens"] for row in worker.steps[1:]] == [True, True]


async def test_a_step_that_is_cut_off_halfway_leaves_no_gradient_and_moves_no_weight(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, asked = MemoryQueue(), 0
    run = await building(small_batches(spec_of(2, rollout=ROLLOUT)), worker, queue)
    before = weights(run)

    async def answered(engine: FakeEngine, request: ScoreRequest) -> bytes:
        nonlocal asked
        asked += 1
        if asked == A_STEP:
            await asyncio.Event().wait()
        return await honest(engine, request)

    assert run.pipeline is not None
    async with answering(queue, answered, engine), asyncio.timeout(DEADLINE_S), run.pipeline:
        cut_off = asyncio.create_task(loop.step(run))
        while not any(p.grad is not None for p in run.student.trained.values()):
            await asyncio.sleep(0.001)
        run.session.request("pause")
        with pytest.raises(StopRun):
            await cut_off
    assert run.student.step == 0
    assert all(p.grad is None for p in run.student.trained.values())
    assert all(torch.equal(p, before[name]) for name, p in run.student.trained.items())


async def test_small_batches_as_they_fill_teach_what_one_large_one_teaches(
    spec_of: Any, building: Build, engine: FakeEngine
) -> None:
    whole, cut = RecordingWorker(), RecordingWorker()
    for name, worker, spec in (("a", whole, spec_of(2, rollout=ROLLOUT)), ("b", cut, spec_of(2, rollout=ROLLOUT))):
        queue = MemoryQueue()
        run = await building(small_batches(spec) if name == "b" else spec, worker, queue, name)
        async with working(queue, engine):
            await finish(run)
    for one, other in zip(whole.steps[1:], cut.steps[1:], strict=True):
        assert other.metrics["learned_tokens"] == one.metrics["learned_tokens"]
        assert other.metrics["grad_norm"] == pytest.approx(one.metrics["grad_norm"], rel=1e-3)
        assert other.metrics["loss"] == pytest.approx(one.metrics["loss"], rel=1e-3)


def test_what_compares_rollouts_or_repeats_bits_learns_only_once_all_are_scored(
    make_spec: Any, make_student: Any
) -> None:
    student = make_student(make_spec(SAMPLED))
    rewarded = {"reward": {"by": {"kind": "contains"}}, "rollout": {"samples_per_prompt": 2}}
    for own, wanted in (({}, True), ({"deterministic": True}, False), (rewarded, False)):
        spec = make_spec(SAMPLED, **own)
        assert as_scored(spec, objective_of(spec, student)) == wanted
    assert not as_scored(make_spec(SAMPLED), Objective("preference"))


def test_a_writer_beside_its_learner_has_its_weights_and_modules_of_its_own(
    make_student: Any, make_spec: Any, make_rollout: Any
) -> None:
    student = make_student(make_spec(SAMPLED, student={"lora": {"rank": 2, "alpha": 4}}))
    writer, rollout = Follower(student, sharing=True), make_rollout(0, [2, 3], [4, 5])
    theirs = dict(student.model.named_parameters())
    assert all(p is theirs[name] for name, p in writer.model.named_parameters())
    assert all(p.requires_grad for p in student.trained.values())
    with torch.no_grad():
        for p in student.trained.values():
            p += 0.3
    student.step = 4
    writer.follow()
    own = writer.logprobs(rollout)
    assert own.tolist() == student.logprobs(rollout).tolist()
    assert writer.step == 4
    student.model.train()
    with student.model.disable_adapter():
        assert writer.logprobs(rollout).tolist() == own.tolist()
        assert not any(module.training for module in writer.model.modules())


ROLLOUT = {"prompts_per_step": 4, "samples_per_prompt": 2, "max_new_tokens": 8}


def small_batches(spec: RunSpec) -> RunSpec:
    """Of two or three rollouts each."""
    return spec.model_copy(update={"optim": spec.optim.model_copy(update={"micro_batch_tokens": 24})})


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.student.trained.items()}
