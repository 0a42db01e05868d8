"""What a trainer reports of the tokens of the rollouts that it shows: the numbers of the step itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from recording_worker import RecordingWorker
from toy_teacher import working
from whole_runs import SAMPLED, Build, finish

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import inspecting
from tutelage.trainer.inspecting import chosen, inspect, short_enough
from tutelage.trainer.marking import Scored
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.rewarding import prompt_key
from tutelage_client.wire import Rollout, ScoreGroup, Signal

FOUR = {"prompts_per_step": 2, "samples_per_prompt": 2, "max_new_tokens": 8}
# The sum of rounded float32 terms, taken in another order.
REL = 1e-4


@pytest.mark.parametrize("own", [{}, {"deterministic": True}], ids=["as_scored", "at_once"])
async def test_the_tokens_that_are_shown_are_those_that_the_step_learned_from(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, own: dict[str, Any]
) -> None:
    """All four rollouts of a step are shown, so that their contributions are all of its loss."""
    queue = MemoryQueue()
    run = await building(spec_of(4, rollout=FOUR, diagnostics={"held_out": 0}, **own), worker, queue)
    async with working(queue, engine):
        await finish(run)
    reports = [row for row in worker.steps if row.rollouts]
    assert [row.step for row in reports] == [2, 4]
    for row in reports:
        assert row.inspections.keys() == {rollout.id for rollout in row.rollouts}
        inspections = [row.inspections[rollout.id] for rollout in row.rollouts]
        assert {each.learned_tokens for each in inspections} == {row.metrics["learned_tokens"]}
        total = sum(float(np.nansum(each.contribution)) for each in inspections)
        assert total / inspections[0].learned_tokens == pytest.approx(row.metrics["loss"], rel=REL)
        entropies = np.concatenate([each.student_entropy for each in inspections])
        assert float(entropies.mean()) == pytest.approx(row.metrics["student_entropy"], rel=REL)
        for rollout, each in zip(row.rollouts, inspections, strict=True):
            await check(rollout, each, engine)
            named = list(each.texts)
            assert list(each.texts.values()) == run.student.tokenizer.convert_ids_to_tokens(named)
            assert set(rollout.completion_ids.tolist()) <= set(named)


async def check(rollout: Rollout, inspection: Any, engine: FakeEngine) -> None:
    """The student's numbers are those that it wrote by, the teacher's are what it says when it is asked again."""
    assert rollout.behaviour_logprob is not None
    np.testing.assert_allclose(inspection.student_logprob, rollout.behaviour_logprob, rtol=1e-4, atol=1e-5)
    group = ScoreGroup.model_validate(
        {"prompt_ids": rollout.prompt_ids, "completions": [{"token_ids": rollout.completion_ids}]}
    )
    signals = frozenset({Signal.SAMPLED, Signal.TOP_K, Signal.ENTROPY})
    [block], _ = await engine.score([group], signals, inspecting.TOP)
    told = block.arrays()
    np.testing.assert_allclose(inspection.teacher_logprob, told["sampled_logprob"], rtol=1e-5)
    np.testing.assert_allclose(inspection.teacher_entropy, told["entropy"], rtol=1e-5)
    assert inspection.teacher_topk_ids.tolist() == told["topk_ids"].tolist()
    assert (inspection.start, inspection.teacher) == (block.start, "toy")


def test_masked_unscored_and_refused_tokens_are_unknown_and_not_zero(
    make_spec: Any, make_student: Any, random_rollouts: Any, random_scores: Any
) -> None:
    spec = make_spec(SAMPLED)
    student = make_student(spec)
    rollout = next(each for each in random_rollouts(12) if len(each.completion_ids) > 3)
    rollout = rollout.model_copy(update={"mask": np.arange(len(rollout.mask)) != 0})
    item = Scored(rollout, random_scores(rollout, 1, unscored=[1]), teacher="toy")
    gone = Scored(random_rollouts(12)[1], None, teacher="toy", left_out="dead_lettered")
    made = inspect(student, spec, objective_of(spec, student), [(item,)], [item, gone], 7)
    assert made.keys() == {rollout.id}
    [found] = made.values()
    assert found.teacher_logprob is not None
    assert np.isnan(found.contribution).tolist() == [True, True] + [False] * (len(rollout.mask) - 2)
    assert np.isnan(found.teacher_logprob).tolist() == (~found.valid).tolist()
    assert found.teacher_entropy is None and found.teacher_topk_ids is None
    assert np.isfinite(found.student_logprob).all() and np.isfinite(found.student_entropy).all()


def test_looking_moves_nothing(make_spec: Any, make_student: Any, random_rollouts: Any, random_scores: Any) -> None:
    spec = make_spec(SAMPLED)
    student = make_student(spec)
    items = [Scored(rollout, random_scores(rollout, i), teacher="toy") for i, rollout in enumerate(random_rollouts(6))]
    before, drawn = {name: p.clone() for name, p in student.trained.items()}, torch.get_rng_state()
    assert len(inspect(student, spec, objective_of(spec, student), [(i,) for i in items], items, 7)) == len(items)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in student.trained.items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_different_prompts_are_shown_and_the_same_ones_of_every_step_that_has_them(make_rollout: Any) -> None:
    scored = [Scored(make_rollout(i, [i % 5 + 2], [3]), None) for i in range(10)]
    first = chosen(scored)
    assert len({prompt_key(each.rollout) for each in first}) == inspecting.SHOWN
    kept = {prompt_key(each.rollout) for each in first[:2]}
    others = [Scored(make_rollout(i, [i + 20], [3]), None) for i in range(10, 13)]
    of_kept = [each for each in scored[::-1] if prompt_key(each.rollout) in kept]
    again = chosen([*others, *of_kept])
    assert [each.rollout.id for each in chosen([*of_kept, *others])] == [each.rollout.id for each in again]
    assert len({prompt_key(each.rollout) for each in again}) == inspecting.SHOWN
    assert [each.rollout.id for each in chosen(of_kept)[:2]] == [each.rollout.id for each in first[:2]]


def test_no_more_tokens_are_inspected_than_are_kept(make_rollout: Any) -> None:
    sizes = [10_000, 8_000, 6_000, 1_000]
    scored = [Scored(make_rollout(i, [2], np.full(size, 3)), None) for i, size in enumerate(sizes)]
    assert [len(each.rollout.completion_ids) for each in short_enough(scored)] == [10_000, 6_000]


def test_a_sentencepiece_token_keeps_the_space_before_it() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    from tutelage.engines.tokenizer import piece

    made = Tokenizer(models.WordLevel(vocab={"▁walk": 0, "ed": 1}, unk_token="ed"))
    made.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    assert [piece(tokenizer, token_id) for token_id in (0, 1)] == [" walk", "ed"]
