"""Text whose every token is drawn from alpha q + (1 - alpha) p: student and teacher write by turns (MiniLLM).

A draw from a mixture is a draw from one of its parts, chosen by its weight. Who writes which place is drawn beforehand;
then the student writes until the teacher's next place, and the teacher that one token over its HTTP door, for all texts
of a step at once. So a text costs about alpha x length calls, each of which reads the text so far: a teacher that keeps
prefixes does that cheaply, another pays them in full, and the budget counts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.trainer.data import Example
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.marking import Scored
from tutelage.trainer.sourcing import Sources, generated, rollout, seed_for
from tutelage.trainer.teachers import Teacher
from tutelage.trainer.writer import Writer
from tutelage_client.wire import GenerateRequest, Rollout


@dataclass
class Draft:
    """A text that is being written. by_teacher: for each place that it may get, whether the teacher writes there."""

    row: int
    sample: int
    example: Example
    by_teacher: NDArray[np.bool_]
    token_ids: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def done(self) -> bool:
        return self.ended or len(self.token_ids) == len(self.by_teacher)

    @property
    def so_far(self) -> list[int]:
        return [*self.example.prompt_ids, *self.token_ids]

    @property
    def own_places(self) -> int:
        """How many places from here on are the student's, until the teacher's next one."""
        left = self.by_teacher[len(self.token_ids) :]
        return int(left.argmax()) if left.any() else len(left)

    def add(self, token_ids: Sequence[int], eos_ids: frozenset[int]) -> None:
        self.token_ids += token_ids
        self.ended = not eos_ids.isdisjoint(token_ids[-1:])


async def teacher_mixed_rollouts(sources: Sources, step: int) -> AsyncGenerator[list[Rollout]]:
    """Text that both write. Its log mu needs the teacher's scores, so it is `weighed` once these are there.

    Raises:
        TeacherFailed: the teacher refuses, or not one text has a token.
    """
    drafts = waiting = _drafts(sources, step)
    turn = 0
    while waiting:
        own = [draft for draft in waiting if draft.own_places]
        await _student_writes(sources, own, seed_for(sources.seed, step, f"own/{turn}"))
        for teacher in sources.teachers.all:
            asked = [d for d in waiting if not d.done and sources.teachers.of(d.example.tag) is teacher]
            await _teacher_writes(sources, teacher, asked, seed_for(sources.seed, step, f"{teacher.name}/{turn}"))
        ended = [d for d in waiting if d.done and d.token_ids]
        if ended:
            yield [_written(sources, step, draft) for draft in ended]
        waiting = [d for d in waiting if not d.done]
        turn += 1
    empty = sum(not draft.token_ids for draft in drafts)
    sources.ledger.dropped_rollouts += empty
    if empty == len(drafts):
        raise TeacherFailed("no_text", "the teacher ended every text of this step at once; nothing can be learned")


def weighed(scored: Sequence[Scored], student: Writer, share: float) -> list[Scored]:
    """The same with log mu = log(alpha q + (1 - alpha) p); a text with a token that was not scored is left out."""
    return [_weighed(each, student, share) for each in scored]


def _weighed(each: Scored, student: Writer, share: float) -> Scored:
    scores = each.scores
    if scores is None or scores.sampled_logprob is None or not scores.valid.all():
        return replace(each, scores=None)
    own, teachers = student.logprobs(each.rollout).astype(np.float64), scores.sampled_logprob.astype(np.float64)
    mixed = np.logaddexp(np.log(share) + teachers, np.log1p(-share) + own)
    behaviour = np.minimum(mixed, 0.0).astype(np.float32)
    return replace(each, rollout=each.rollout.model_copy(update={"behaviour_logprob": behaviour}))


def _drafts(sources: Sources, step: int) -> list[Draft]:
    assert sources.spec.teacher_share is not None
    chosen, per_prompt = sources.chosen(step), sources.spec.samples_per_prompt
    shape = (len(chosen), per_prompt, sources.spec.max_new_tokens)
    by_teacher = np.random.default_rng(seed_for(sources.seed, step, "mixed")).random(shape) < sources.spec.teacher_share
    return [
        Draft(row, k, example, by_teacher[row, k]) for row, (_, example) in enumerate(chosen) for k in range(per_prompt)
    ]


async def _student_writes(sources: Sources, drafts: Sequence[Draft], seed: int) -> None:
    """Each as far as its own places go; what the longest stretch makes another write beyond them is thrown away."""
    if not drafts:
        return
    student, longest = sources.student, max(draft.own_places for draft in drafts)
    settings = sources.spec.model_copy(update={"max_new_tokens": longest})
    prompts, draw = [draft.so_far for draft in drafts], torch.Generator().manual_seed(seed)
    for sampled in await asyncio.to_thread(lambda: list(student.sample(prompts, settings, draw))):
        draft = drafts[sampled.index]
        draft.add(sampled.token_ids[: draft.own_places], student.eos_ids)


async def _teacher_writes(sources: Sources, teacher: Teacher, drafts: Sequence[Draft], seed: int) -> None:
    """One token each; none is an end token that the teacher's server keeps to itself."""
    if not drafts:
        return
    request = GenerateRequest(prompts=[draft.so_far for draft in drafts], max_tokens=1, temperature=1.0, seed=seed)
    for draft, (generation,) in zip(drafts, await generated(sources, teacher, request), strict=True):
        if generation.token_ids is None:
            sentence = f"teacher {teacher.name!r} wrote text without its token ids, from which the student cannot go on"
            raise TeacherFailed("no_token_ids", f"{sentence}; use engine hf or vllm, or another rollout.source")
        draft.add(generation.token_ids, sources.student.eos_ids)
        draft.ended |= not generation.token_ids


def _written(sources: Sources, step: int, draft: Draft) -> Rollout:
    reason = "stop" if draft.ended else "length"
    return rollout(sources, step, draft.row, draft.sample, draft.example, draft.token_ids, "mixed", reason)
