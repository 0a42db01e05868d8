"""What the sources of rollouts share: prompts and draws of a step, sampling beside the event loop, the rollout itself.

Which prompts a step uses and how they are sampled follow from (seed, step) alone, so that a resumed run goes on exactly
where the lost one was.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Container, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import torch

from tutelage.engines.sampling import Sampled
from tutelage.engines.streaming import streamed
from tutelage.trainer.data import Example
from tutelage.trainer.exits import TeacherFailed, asking_teacher
from tutelage.trainer.inbox import Inbox
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.questions import TeacherChanged, check_unchanged
from tutelage.trainer.replay import Replay
from tutelage.trainer.teachers import Teacher, Teachers
from tutelage.trainer.writer import Writer
from tutelage_client.spec import RolloutSpec
from tutelage_client.wire import GenerateRequest, Generation, Rollout

Rows = list[tuple[int, tuple[int, Example]]]
# Texts that ended at one moment, each with the policy version of the student that wrote it.
Texts = list[tuple[int, Sampled]]
Write = Callable[[Writer, Sequence[Sequence[int]], RolloutSpec, int], AsyncGenerator[Texts]]


def seed_for(seed: int, step: int, purpose: str) -> int:
    """An independent 63-bit seed for each (run seed, step, purpose)."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def prompts_of_step(seed: int, step: int, count: int, size: int) -> list[int]:
    """Indices of a step's prompts: consecutive stretches of one shuffled pass over the data after another."""
    positions = range(step * count, (step + 1) * count)
    passes = {
        p: np.random.default_rng(seed_for(seed, p, "order")).permutation(size) for p in {i // size for i in positions}
    }
    return [int(passes[i // size][i % size]) for i in positions]


async def written_here(
    writer: Writer,
    prompts: Sequence[Sequence[int]],
    settings: RolloutSpec,
    seed: int,
    places: Container[int] | None = None,
) -> AsyncGenerator[Texts]:
    """Sampled in a thread of this process. places: see `Writer.sample`"""
    generator = torch.Generator().manual_seed(seed)
    async with aclosing(streamed(lambda: writer.sample(prompts, settings, generator, places))) as ended:
        async for texts in ended:
            yield [(writer.step, sampled) for sampled in texts]


@dataclass
class Sources:
    """What the sources draw on.

    student: as it writes; replay: with source `adaptive`; inbox: with source `pushed`
    write: who writes the student's text, this process or samplers
    """

    seed: int
    spec: RolloutSpec
    examples: list[Example]
    student: Writer
    teachers: Teachers
    ledger: Ledger
    replay: Replay | None = None
    inbox: Inbox | None = None
    write: Write = written_here

    def chosen(self, step: int) -> list[tuple[int, Example]]:
        indices = prompts_of_step(self.seed, step, self.spec.prompts_per_step, len(self.examples))
        return [(i, self.examples[i]) for i in indices]

    def rollout_id(self, step: int, row: int, sample: int) -> str:
        """Unique in the run, and the same in every run of this spec and seed, because a step is ordered by it."""
        return hashlib.sha256(f"{self.seed}/{step}/{row}/{sample}".encode()).hexdigest()[:24]


async def generated(sources: Sources, teacher: Teacher, request: GenerateRequest) -> list[list[Generation]]:
    """What a teacher writes to each prompt; its tokens are counted.

    Raises:
        TeacherFailed: it refuses, is not the one that this run began with, or answers with another number of texts.
    """
    with asking_teacher():
        reply = await teacher.client.generate(request)
    sources.ledger.charge(teacher.name, reply.usage)
    try:
        check_unchanged(reply.provenance, teacher.provenance)
    except TeacherChanged as error:
        raise TeacherFailed("teacher_changed", f"teacher {teacher.name!r} is not the one it was: {error}") from error
    if [len(texts) for texts in reply.generations] != [request.n] * len(request.prompts):
        asked = f"{request.n} texts to each of {len(request.prompts)} prompts"
        raise TeacherFailed("bad_text", f"teacher {teacher.name!r} was asked for {asked} and wrote another number")
    return reply.generations


def from_data(sources: Sources, step: int, rows: Rows, sample: int = 0) -> list[Rollout]:
    """The completions of these lines; sample: their number among the rollouts of their prompt."""
    rollouts: list[Rollout] = []
    for row, (_, example) in rows:
        assert example.completion_ids is not None
        rollouts.append(rollout(sources, step, row, sample, example, example.completion_ids, "data", "stop"))
    return rollouts


async def sampled(sources: Sources, step: int, rows: Rows) -> AsyncGenerator[list[Rollout]]:
    """The student's own text to these lines; those that ended at one moment together."""
    per_prompt = sources.spec.samples_per_prompt
    wanted = [(row, k, example) for row, (_, example) in rows for k in range(per_prompt)]
    if not wanted:
        return
    prompts, seed = [example.prompt_ids for _, _, example in wanted], seed_for(sources.seed, step, "student")
    async with aclosing(sources.write(sources.student, prompts, sources.spec, seed)) as written:
        async for texts in written:
            yield [
                rollout(sources, step, *wanted[s.index], s.token_ids, "student", s.finish_reason, s.logprobs, version)
                for version, s in texts
            ]


def rollout(
    sources: Sources,
    step: int,
    row: int,
    sample: int,
    example: Example,
    token_ids: list[int],
    source: str,
    finish_reason: str,
    logprobs: list[float] | None = None,
    version: int | None = None,
) -> Rollout:
    """What was written to the prompt of a row in this step. version: of the student that wrote it; None: as it is"""
    return Rollout.model_validate(
        {
            "id": sources.rollout_id(step, row, sample),
            "source": source,
            "policy_version": sources.student.step if version is None else version,
            "prompt_ids": example.prompt_ids,
            "completion_ids": token_ids,
            "mask": np.ones(len(token_ids), dtype=np.bool_),
            "behaviour_logprob": logprobs,
            "finish_reason": finish_reason,
            "prompt": example.prompt,
            "answer": example.answer,
            "tag": example.tag,
        }
    )
