"""A run whose three stages take a time that is set: a writer and a learner that wait, a teacher that waits.

Everything between them is the real thing: the trainer's loop and pipeline, a Valkey, a teacher's process and queue.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch

from tutelage.core.objective import Objective
from tutelage.engines.sampling import Sampled
from tutelage.queue import Queue
from tutelage.trainer.ahead import Ahead
from tutelage.trainer.answers import Answers
from tutelage.trainer.asking import Asker
from tutelage.trainer.collate import MicroBatch
from tutelage.trainer.crashes import Passing, pass_by
from tutelage.trainer.data import Example
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.run import Run
from tutelage.trainer.session import Session
from tutelage.trainer.sourcing import Sources
from tutelage.trainer.student import Before, Student, Told, unwatched
from tutelage.trainer.teachers import Teacher, Teachers
from tutelage_client.spec import RolloutSpec, RunSpec, parse_spec
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import EventReport, Lease, StepReport, TeacherInfo, TeacherView

PROMPT, COMPLETION, VOCABULARY = 16, 16, 32


@dataclass(frozen=True)
class Stages:
    """Seconds of one step: writing its rollouts, marking them, learning from them; and in how many pieces.

    A piece is a micro-batch of the trainer, and as much as the teacher takes into one engine call.
    """

    write_s: float
    mark_s: float
    learn_s: float
    rollouts: int = 32
    batches: int = 8

    @property
    def tokens(self) -> int:
        """What a step learns from."""
        return self.rollouts * COMPLETION

    @property
    def piece_tokens(self) -> int:
        """Of a piece, prompts included."""
        return self.rollouts // self.batches * (PROMPT + COMPLETION)

    @property
    def token_latency_s(self) -> float:
        """Of the teacher, through which all tokens of a rollout go but the last."""
        return self.mark_s / (self.rollouts * (PROMPT + COMPLETION - 1))

    def ideal_s(self, max_lag: int) -> float:
        """The least time of a step whose stages run beside each other.

        With text of the newest student alone the stages pass a step on in `batches` pieces, and the first piece of the
        next one waits for the last of this: (R + S + U + (M - 1) max) / M.
        """
        stages = (self.write_s, self.mark_s, self.learn_s)
        longest = max(stages)
        return longest if max_lag else (sum(stages) + (self.batches - 1) * longest) / self.batches


class TimedStudent(Student):
    """It has no model: writing and learning wait. The rollouts of a step end evenly over the time of its writing."""

    def __init__(self, stages: Stages, spec: RunSpec) -> None:
        self.stages = stages
        self.spec = spec
        self.step = 0
        self.device = torch.device("cpu")
        self.teacher_heads = {}

    @property
    def pad_id(self) -> int:
        return 0

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: RolloutSpec,
        generator: torch.Generator,
        places: Container[int] | None = None,
    ) -> Iterator[Sampled]:
        assert places is None
        begun_s = time.monotonic()
        for index in range(len(prompts)):
            until(begun_s + (index + 1) * self.stages.write_s / len(prompts))
            ids = torch.randint(1, VOCABULARY, (COMPLETION,), generator=generator).tolist()
            yield Sampled(index, ids, [-1.0] * COMPLETION, "length")

    def learn(
        self,
        batches: Iterable[MicroBatch],
        objective: Objective,
        passing: Passing = pass_by,
        before: Before = unwatched,
    ) -> Told:
        tokens, pieces = 0, 0
        for batch in batches:
            pieces += 1
            tokens += len(batch.token_ids_R)
            time.sleep(self.stages.learn_s * len(batch.token_ids_R) / self.stages.tokens)
        self.step += 1
        return {"learned_tokens": tokens, "micro_batches": pieces}


def until(at_s: float) -> None:
    """The stages are what is calibrated: they take their time and no processor's."""
    time.sleep(max(0.0, at_s - time.monotonic()))


class Silent:
    """A coordinator that takes what it is told and wants nothing."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.rows: list[dict[str, float | None]] = []

    async def report_step(self, run_id: str, report: StepReport) -> None:
        self.ends_s.append(time.monotonic())
        self.rows.append(report.metrics)

    async def report_event(self, run_id: str, report: EventReport) -> None:
        raise RuntimeError(f"something went wrong: {report.message}")


def spec_of(stages: Stages, max_lag: int, steps: int) -> RunSpec:
    return parse_spec(
        {
            "name": "overlap",
            "student": {"model": "none"},
            "teachers": [{"name": "toy"}],
            "data": {"train": "none"},
            "rollout": {"prompts_per_step": stages.rollouts, "max_new_tokens": COMPLETION, "max_lag": max_lag},
            "objective": {"kind": "divergence", "support": {"kind": "sampled"}},
            "optim": {
                "steps": steps,
                "micro_batch_tokens": stages.piece_tokens,
            },
            "checkpoint": {"every": steps + 1},
            "eval": {"every": steps + 1},
        }
    )


def wired(stages: Stages, spec: RunSpec, queue: Queue, told: Silent, url: str, info: TeacherInfo, folder: Path) -> Run:
    """The run; its student is writer and learner at once, as there are no weights to copy."""
    run_id = folder.name
    session = Session(
        cast("Any", told),
        Lease(run_id=run_id, epoch=1, token="", expires_in_s=3600.0, spec={}, artefacts=str(folder), teachers={}),
    )
    view = TeacherView(name="toy", url=url, info=info, seen_at=datetime.now(UTC), available=True)
    teachers = Teachers((Teacher(spec.teachers[0], view, TeacherClient(url)),))
    student, ledger = TimedStudent(stages, spec), Ledger()
    prompt = [1 + i % (VOCABULARY - 1) for i in range(PROMPT)]
    examples = [Example("p", prompt, None, None, None, line) for line in range(1, stages.rollouts + 1)]
    sources = Sources(spec.seed, spec.rollout, examples, student, teachers, ledger)
    pipeline = Pipeline(Answers(Asker(queue, run_id, spec), session, teachers.provenances, ledger))
    objective = Objective("divergence", support="sampled")
    ahead = Ahead(spec, sources, pipeline, {})
    return Run(spec, session, student, sources, teachers, pipeline, ahead, objective, ledger, None, folder)
