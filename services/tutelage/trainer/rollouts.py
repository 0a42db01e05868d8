"""Whose text the student learns on: one async source for each `rollout.source`, of the rollouts that ended together.

Only pushed rollouts have a cursor of their own, and only replayed ones a memory; both are saved with a checkpoint.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import numpy as np

from tutelage.trainer.data import Example, completion_ids
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.mixing import teacher_mixed_rollouts
from tutelage.trainer.sourcing import Rows, Sources, from_data, generated, rollout, sampled, seed_for
from tutelage.trainer.teachers import Teacher
from tutelage.trainer.writer import Writer
from tutelage_client.wire import GenerateRequest, Generation, Rollout


async def student_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """Text of the student as it is now; a rollout comes as soon as its last token is drawn."""
    async for ended in sampled(sources, step, list(enumerate(sources.chosen(step)))):
        yield ended


async def teacher_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """Text of the teachers (SeqKD, off-policy token KD), asked for over HTTP, each for the prompts of its tags.

    What a hosted model wrote is cut into the student's tokens. A text that it refused, or that was cut on the way, is
    left out and counted.

    Raises:
        TeacherFailed: one refuses, or nothing at all was written.
    """
    by_teacher: dict[str, Rows] = {}
    for row, (index, example) in enumerate(sources.chosen(step)):
        by_teacher.setdefault(sources.teachers.of(example.tag).name, []).append((row, (index, example)))
    any_text = False
    for name, rows in by_teacher.items():
        if kept := await _written(sources, step, sources.teachers.named(name), rows):
            any_text = True
            yield kept
    if not any_text:
        raise TeacherFailed("no_text", "the teacher wrote no tokens to any prompt of this step; nothing can be learned")


async def _written(sources: Sources, step: int, teacher: Teacher, rows: Rows) -> list[Rollout]:
    """What one teacher wrote to its prompts and can be learned from."""
    spec = sources.spec
    request = GenerateRequest(
        prompts=[example.prompt_ids if teacher.writes_tokens else example.prompt for _, (_, example) in rows],
        n=spec.samples_per_prompt,
        max_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        top_p=spec.top_p,
        seed=seed_for(sources.seed, step, "teacher"),
    )
    replies = await generated(sources, teacher, request)
    written = [
        (row, k, example, _written_ids(sources.student, teacher, example, generation), generation.finish_reason)
        for (row, (_, example)), generations in zip(rows, replies, strict=True)
        for k, generation in enumerate(generations)
    ]
    kept = [(row, k, example, ids, reason) for row, k, example, ids, reason in written if ids]
    sources.ledger.dropped_rollouts += len(written) - len(kept)
    return [rollout(sources, step, row, k, example, ids, "teacher", reason) for row, k, example, ids, reason in kept]


def _written_ids(student: Writer, teacher: Teacher, example: Example, generation: Generation) -> list[int] | None:
    """The teacher's text as the student's tokens; None where empty, refused, cut, or too long for it."""
    if teacher.writes_tokens:
        return generation.token_ids
    if generation.finish_reason != "stop" or not generation.text:
        return None
    ids = completion_ids(student.tokenizer, generation.text)
    return ids if len(example.prompt_ids) + len(ids) <= student.max_length else None


async def data_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """The completions that the data file holds."""
    yield from_data(sources, step, list(enumerate(sources.chosen(step))))


async def mixed_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """`on_policy_fraction` of the step's prompts from the student, the rest from data (GKD's lambda)."""
    rows = list(enumerate(sources.chosen(step)))
    coin = np.random.default_rng(seed_for(sources.seed, step, "mix")).random(len(rows))
    assert sources.spec.on_policy_fraction is not None
    on_policy = [row for row, u in zip(rows, coin, strict=True) if u < sources.spec.on_policy_fraction]
    off_policy = [row for row, u in zip(rows, coin, strict=True) if u >= sources.spec.on_policy_fraction]
    yield from_data(sources, step, off_policy)
    async for ended in sampled(sources, step, on_policy):
        yield ended


async def paired_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """Of every prompt the completion that the data file holds, beside the student's own."""
    rows = list(enumerate(sources.chosen(step)))
    yield from_data(sources, step, rows, sample=sources.spec.samples_per_prompt)
    async for ended in sampled(sources, step, rows):
        yield ended


async def adaptive_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """From data, fresh from the student, or from its older text, by one draw a step (DistiLLM)."""
    assert sources.replay is not None
    draw = float(np.random.default_rng(seed_for(sources.seed, step, "adaptive")).random())
    text = sources.replay.text_of(step, draw, sources.ledger.share)
    if text == "data":
        yield from_data(sources, step, list(enumerate(sources.chosen(step))))
    elif text == "replayed":
        count = sources.spec.prompts_per_step * sources.spec.samples_per_prompt
        older = sources.replay.drawn(count, seed_for(sources.seed, step, "replay"))
        # The same text is learned from again, which is another rollout of the run.
        yield [r.model_copy(update={"id": sources.rollout_id(step, row, 0)}) for row, r in enumerate(older)]
    else:
        async for ended in student_rollouts(sources, step):
            yield ended


async def pushed_rollouts(sources: Sources, _step: int) -> AsyncGenerator[list[Rollout]]:
    """Trajectories that others pushed; waits until there are enough for a step."""
    assert sources.inbox is not None
    async for arrived in sources.inbox.arrived(sources.spec.prompts_per_step * sources.spec.samples_per_prompt):
        yield arrived


SOURCES: dict[str, Callable[[Sources, int], AsyncGenerator[list[Rollout]]]] = {
    "student": student_rollouts,
    "teacher": teacher_rollouts,
    "data": data_rollouts,
    "mix": mixed_rollouts,
    "paired": paired_rollouts,
    "teacher_mixed": teacher_mixed_rollouts,
    "adaptive": adaptive_rollouts,
    "pushed": pushed_rollouts,
}
