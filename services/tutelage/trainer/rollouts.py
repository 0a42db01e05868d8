"""Whose text the student learns on: one async source for each `rollout.source`, of the rollouts that ended together.

Which prompts a step uses and how they are sampled follow from (seed, step) alone, so that a resumed run goes on exactly
where the lost one was. Only pushed rollouts have a cursor of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np
import torch

from tutelage.engines.sampling import Sampled
from tutelage.trainer.data import Example, completion_ids
from tutelage.trainer.exits import TeacherFailed, asking_teacher
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.student import Student
from tutelage.trainer.teachers import Teacher, Teachers
from tutelage_client.spec import RolloutSpec
from tutelage_client.wire import GenerateRequest, Generation, Rollout
from tutelage_client.worker import WorkerClient

PUSHED_POLL_S = 0.5


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


@dataclass
class Sources:
    """What the sources draw on."""

    run_id: str
    seed: int
    spec: RolloutSpec
    examples: list[Example]
    student: Student
    worker: WorkerClient
    teachers: Teachers
    ledger: Ledger

    def chosen(self, step: int) -> list[tuple[int, Example]]:
        indices = prompts_of_step(self.seed, step, self.spec.prompts_per_step, len(self.examples))
        return [(i, self.examples[i]) for i in indices]

    def rollout_id(self, step: int, row: int, sample: int) -> str:
        return hashlib.sha256(f"{self.run_id}/{step}/{row}/{sample}".encode()).hexdigest()[:24]


async def student_rollouts(sources: Sources, step: int) -> AsyncIterator[list[Rollout]]:
    """Text of the student as it is now; a rollout comes as soon as its last token is drawn."""
    async for ended in _sampled(sources, step, list(enumerate(sources.chosen(step)))):
        yield ended


async def teacher_rollouts(sources: Sources, step: int) -> AsyncIterator[list[Rollout]]:
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
    with asking_teacher():
        reply = await teacher.client.generate(request)
    sources.ledger.charge(teacher.name, reply.usage)
    written = [
        (row, k, example, _written_ids(sources.student, teacher, example, generation), generation.finish_reason)
        for (row, (_, example)), generations in zip(rows, reply.generations, strict=True)
        for k, generation in enumerate(generations)
    ]
    kept = [(row, k, example, ids, reason) for row, k, example, ids, reason in written if ids]
    sources.ledger.dropped_rollouts += len(written) - len(kept)
    return [_rollout(sources, step, row, k, example, ids, "teacher", reason) for row, k, example, ids, reason in kept]


def _written_ids(student: Student, teacher: Teacher, example: Example, generation: Generation) -> list[int] | None:
    """The teacher's text as the student's tokens; None where empty, refused, cut, or too long for it."""
    if teacher.writes_tokens:
        return generation.token_ids
    if generation.finish_reason != "stop" or not generation.text:
        return None
    ids = completion_ids(student.tokenizer, generation.text)
    return ids if len(example.prompt_ids) + len(ids) <= student.max_length else None


async def data_rollouts(sources: Sources, step: int) -> AsyncIterator[list[Rollout]]:
    """The completions that the data file holds."""
    yield _from_data(sources, step, list(enumerate(sources.chosen(step))))


async def mixed_rollouts(sources: Sources, step: int) -> AsyncIterator[list[Rollout]]:
    """`on_policy_fraction` of the step's prompts from the student, the rest from data (GKD's lambda)."""
    rows = list(enumerate(sources.chosen(step)))
    coin = np.random.default_rng(seed_for(sources.seed, step, "mix")).random(len(rows))
    assert sources.spec.on_policy_fraction is not None
    on_policy = [row for row, u in zip(rows, coin, strict=True) if u < sources.spec.on_policy_fraction]
    off_policy = [row for row, u in zip(rows, coin, strict=True) if u >= sources.spec.on_policy_fraction]
    yield _from_data(sources, step, off_policy)
    async for ended in _sampled(sources, step, on_policy):
        yield ended


async def paired_rollouts(sources: Sources, step: int) -> AsyncIterator[list[Rollout]]:
    """Of every prompt the completion that the data file holds, beside the student's own."""
    rows = list(enumerate(sources.chosen(step)))
    yield _from_data(sources, step, rows, sample=sources.spec.samples_per_prompt)
    async for ended in _sampled(sources, step, rows):
        yield ended


async def pushed_rollouts(sources: Sources, _step: int) -> AsyncIterator[list[Rollout]]:
    """Trajectories that others pushed, in the order of their arrival; waits until there are enough for a step."""
    missing = sources.spec.prompts_per_step * sources.spec.samples_per_prompt
    while missing:
        page = await sources.worker.pushed(sources.run_id, after=sources.ledger.pushed_after, limit=missing)
        if not page.data:
            await asyncio.sleep(PUSHED_POLL_S)
        missing -= len(page.data)
        yield list(page.data)
        if page.next is not None:
            sources.ledger.pushed_after = int(page.next)


SOURCES: dict[str, Callable[[Sources, int], AsyncIterator[list[Rollout]]]] = {
    "student": student_rollouts,
    "teacher": teacher_rollouts,
    "data": data_rollouts,
    "mix": mixed_rollouts,
    "paired": paired_rollouts,
    "pushed": pushed_rollouts,
}

Rows = list[tuple[int, tuple[int, Example]]]


def _from_data(sources: Sources, step: int, rows: Rows, sample: int = 0) -> list[Rollout]:
    """sample: their number among the rollouts of their prompt."""
    rollouts: list[Rollout] = []
    for row, (_, example) in rows:
        assert example.completion_ids is not None
        rollouts.append(_rollout(sources, step, row, sample, example, example.completion_ids, "data", "stop"))
    return rollouts


async def _sampled(sources: Sources, step: int, rows: Rows) -> AsyncIterator[list[Rollout]]:
    """Sample in a thread and hand finished rows over at once: those of one moment together."""
    per_prompt = sources.spec.samples_per_prompt
    wanted = [(row, k, example) for row, (_, example) in rows for k in range(per_prompt)]
    if not wanted:
        return
    finished: asyncio.Queue[Sampled | BaseException | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stop = False

    def work() -> None:
        try:
            generator = torch.Generator().manual_seed(seed_for(sources.seed, step, "student"))
            prompts = [example.prompt_ids for _, _, example in wanted]
            for sampled in sources.student.sample(prompts, sources.spec, generator):
                if stop:
                    return
                loop.call_soon_threadsafe(finished.put_nowait, sampled)
            loop.call_soon_threadsafe(finished.put_nowait, None)
        except BaseException as error:  # noqa: BLE001 - handed to the awaiting side, which raises it
            loop.call_soon_threadsafe(finished.put_nowait, error)

    thread = asyncio.create_task(asyncio.to_thread(work))
    try:
        async for items in _taken(finished):
            yield [
                _rollout(sources, step, *wanted[s.index], s.token_ids, "student", s.finish_reason, s.logprobs)
                for s in items
            ]
    finally:
        stop = True
        await thread


async def _taken(finished: asyncio.Queue[Sampled | BaseException | None]) -> AsyncIterator[list[Sampled]]:
    """Whatever is there each time one looks, until None; an exception is raised after what came before it."""
    while True:
        items = [await finished.get()]
        while not finished.empty():
            items.append(finished.get_nowait())
        if sampled := [item for item in items if isinstance(item, Sampled)]:
            yield sampled
        match items[-1]:
            case None:
                return
            case BaseException() as error:
                raise error


def _rollout(
    sources: Sources,
    step: int,
    row: int,
    sample: int,
    example: Example,
    token_ids: list[int],
    source: str,
    finish_reason: str,
    logprobs: list[float] | None = None,
) -> Rollout:
    return Rollout.model_validate(
        {
            "id": sources.rollout_id(step, row, sample),
            "source": source,
            "policy_version": step,
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
