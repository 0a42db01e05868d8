"""From the rollouts of a step to its optimiser step, beside their scoring where nothing must be known of all first.

Then a thread takes micro-batches as they fill and gathers gradients, while the rest is written and scored. The weights
move once, when all are in: the gradient is that of the mean over all learned tokens, however they were cut.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Self

from tutelage.core.objective import Objective
from tutelage.trainer.collate import Unit, by_length, cut, learnable, pop_full
from tutelage.trainer.crashes import Passing
from tutelage.trainer.fates import by_age
from tutelage.trainer.inspecting import inspect
from tutelage.trainer.marking import Scored
from tutelage.trainer.student import Student
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Inspection

Metrics = dict[str, float | None]


def as_scored(spec: RunSpec, objective: Objective) -> bool:
    """Whether a rollout can be learned from before the last of its step is scored.

    Rewards and pairs compare rollouts, a share of the teacher is weighed over all, and a deterministic run adds up in
    the order of the rollouts, not of their answers.
    """
    compared = spec.reward is not None or objective.in_pairs or spec.rollout.teacher_share is not None
    return spec.asks_teacher_scores and not compared and not spec.deterministic


class Learning:
    """One step of the student. Leaving it early gives up what was gathered, and the student is as it was.

    objective: of this step; inspections: after it, of the rollouts that `step` was told to inspect, by their ids
    """

    def __init__(self, student: Student, spec: RunSpec, objective: Objective, passing: Passing) -> None:
        self._student = student
        self._spec = spec
        self._objective = objective
        self._passing = passing
        self._version = student.step
        self._arriving = Arriving()
        self._scored: Sequence[Scored] = ()
        self._shown: Sequence[Scored] = ()
        self.inspections: dict[str, Inspection] = {}
        self._beside: asyncio.Task[Metrics] | None = None

    async def __aenter__(self) -> Self:
        if self._student.processes == 1 and as_scored(self._spec, self._objective):
            batches = self._arriving.batches(self._spec.optim.micro_batch_tokens)
            given = (batches, self._objective, self._passing, self._inspect)
            self._beside = asyncio.create_task(asyncio.to_thread(self._student.learn_from, *given))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._beside is not None:
            self._arriving.give_up()
            await asyncio.gather(self._beside, return_exceptions=True)  # its error, if any, has reached `step`

    def take(self, scored: Scored) -> None:
        """A rollout that is scored, unless it is too old."""
        if self._beside is not None and by_age([scored], self._version, self._spec.rollout.oldest)[0]:
            self._arriving.add(scored)

    async def step(self, scored: list[Scored], shown: Sequence[Scored] = ()) -> Metrics:
        """The optimiser step. scored: all that may be learned from, of which `take` has had what it was given; shown:
        those of them to inspect

        Raises:
            ArithmeticError: the gradient is not finite.
        """
        self._scored, self._shown = scored, shown
        if self._beside is not None:
            self._arriving.end()
            return await self._beside
        given = (self._units(), self._objective, self._passing, self._inspect)
        return await asyncio.to_thread(self._student.learn_units, *given)

    def _units(self) -> list[Unit]:
        return learnable(self._scored, asks_teacher=self._spec.asks_teacher_scores, in_pairs=self._objective.in_pairs)

    def _inspect(self, learned: int) -> None:
        """While the weights are those that the step learned from."""
        if self._shown:
            own = (self._student, self._spec, self._objective)
            self.inspections = inspect(*own, self._units(), self._shown, learned)


class GivenUp(Exception):
    """The step is not learned from after all."""


class Arriving:
    """Scored rollouts on their way from the event loop to the thread that learns from them."""

    def __init__(self) -> None:
        self._there: SimpleQueue[Scored | None] = SimpleQueue()
        self._given_up = False

    def add(self, scored: Scored) -> None:
        """One that has its scores, or that a teacher gave up on."""
        self._there.put(scored)

    def end(self) -> None:
        """All of the step were added."""
        self._there.put(None)

    def give_up(self) -> None:
        """Let no thread wait for more."""
        self._given_up = True
        self._there.put(None)

    def batches(self, max_tokens: int) -> Iterator[list[Scored]]:
        """Each as soon as it is full, of the shortest that are there, and the rest at the end.

        Raises:
            GivenUp: in the midst of it.
        """
        waiting: list[Unit] = []
        while self._gather(waiting):
            while (full := pop_full(waiting, max_tokens)) is not None:
                yield full
                if self._given_up:
                    raise GivenUp
        yield from cut(waiting, max_tokens)

    def _gather(self, waiting: list[Unit]) -> bool:
        """Wait for one, then add all that are there, in the order of `cut`. False: no more will come."""
        item = self._there.get()
        while item is not None:
            for unit in learnable([item], asks_teacher=True, in_pairs=False):
                insort(waiting, unit, key=by_length)
            try:
                item = self._there.get_nowait()
            except Empty:
                return True
        if self._given_up:
            raise GivenUp
        return False
