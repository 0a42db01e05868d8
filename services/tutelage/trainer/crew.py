"""Rank 0 and the other ranks: what it has all of them do together, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from tutelage.core.batch import OutputHead
from tutelage.core.objective import Objective
from tutelage.engines.sampling import Sampled
from tutelage.trainer import member
from tutelage.trainer.collate import Unit
from tutelage.trainer.crashes import Passing, pass_by
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.learning import Metrics
from tutelage.trainer.member import Lesson, Member, Model, Writing
from tutelage.trainer.ranks import Ranks
from tutelage.trainer.student import Before, Student, unwatched
from tutelage.trainer.writer import Writer
from tutelage_client.spec import RolloutSpec, RunSpec


class Crew:
    """Rank 0 and the others."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.member = Member(ranks)
        self._turn = Lock()

    @property
    def restarted(self) -> bool:
        return self.ranks.place.restarts > 0

    def load(self, folder: Path | str, spec: RunSpec, reference: Path | str | None = None) -> Student:
        self.all_do("load", Model(folder, spec, reference))
        return Led(self)

    def writer(self, student: Student, objective: Objective) -> Writer:
        del objective  # a step is divided once all of it is there
        return Beside(self) if student.spec.rollout.max_lag else student

    def confirm(self) -> None:
        self.all_do("answer", None)

    def dismiss(self, code: ExitCode) -> int:
        """What was reported is no failure to torchrun, which would start all ranks again; only a crash is."""
        if code == ExitCode.CRASHED:  # the others may wait for something else; they end with this process
            return code
        with self._turn:
            self.ranks.scattered([(member.END, 0)] * self.ranks.place.size)
        self.ranks.leave()
        return 0

    def all_do(self, duty: str, given: Any) -> Any:
        """The own result. Raises the error of the first rank that has one."""
        return self.each_does(duty, [given] * self.ranks.place.size, member.DUTIES[duty])

    def each_does(self, duty: str, given: Sequence[Any], own: Callable[[Member, Any], Any]) -> Any:
        """The same with something else for each rank. own: how rank 0 does it"""
        with self._turn:
            mine = self.ranks.scattered([(duty, each) for each in given])[1]
            return self._ended(member.outcome_of(lambda: own(self.member, mine)))[0]

    def write(self, writer: Writer, writing: Writing, draw: torch.Generator) -> Iterator[Sampled]:
        """Text to all prompts: rank 0's as it ends, that of the others after it."""
        with self._turn:
            self.ranks.scattered([("write", writing)] * self.ranks.place.size)
            own = member.stretch(len(writing.prompts), 0, self.ranks.place.size)
            with self._awaited() as others:
                yield from writer.sample(writing.prompts, writing.settings, draw, own)
        yield from chain.from_iterable(others)

    @contextmanager
    def _awaited(self) -> Generator[list[list[Sampled]]]:
        """What the other ranks wrote, once the block is left, however it is left."""
        found: list[list[Sampled]] = []
        try:
            yield found
        finally:
            found += self._ended(([], None))

    def _ended(self, own: tuple[Any, Exception | None]) -> list[Any]:
        ended = self.ranks.gathered(own)
        for _, error in ended:
            if error is not None:
                raise error
        return [result for result, _ in ended]


class Beside(Writer):
    """The copies that write while the student learns, one on each rank."""

    def __init__(self, crew: Crew) -> None:
        own = crew.member.writer
        super().__init__(own.model, own.head, own.tokenizer, own.spec)
        self._crew = crew
        self.step = own.step

    def follow(self) -> None:
        self._crew.all_do("follow", None)
        self.step = self._crew.member.writer.step

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: RolloutSpec,
        generator: torch.Generator,
        places: Container[int] | None = None,
    ) -> Iterator[Sampled]:
        assert places is None  # the crew divides
        writing = Writing(beside=True, prompts=prompts, settings=settings, draw=generator.get_state())
        return self._crew.write(self._crew.member.writer, writing, generator)


class Led(Student):
    """The student of all ranks, as rank 0 deals with it: the whole weights are its own, what it does all do."""

    def __init__(self, crew: Crew) -> None:
        own = crew.member.whole
        super().__init__(own.model, own.head, own.tokenizer, own.spec, own.reference)
        self._crew = crew
        self.processes = crew.ranks.place.size

    def hear_through(self, heads: Mapping[str | None, OutputHead]) -> None:
        super().hear_through(heads)
        self._crew.all_do("hear_through", {name: head.on(torch.device("cpu")) for name, head in heads.items()})

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: RolloutSpec,
        generator: torch.Generator,
        places: Container[int] | None = None,
    ) -> Iterator[Sampled]:
        assert places is None  # the crew divides
        writing = Writing(beside=False, prompts=prompts, settings=settings, draw=generator.get_state())
        return self._crew.write(self._crew.member.whole, writing, generator)

    def learn_units(
        self, units: Sequence[Unit], objective: Objective, passing: Passing = pass_by, before: Before = unwatched
    ) -> Metrics:
        shares = member.divided(units, self.processes, self.spec.optim.micro_batch_tokens)
        lessons = [Lesson(self.step, share, objective) for share in shares]
        told = self._crew.each_does("learn", lessons, lambda own, lesson: own.learn(lesson, passing, before))
        self.step = self._crew.member.whole.step
        return told

    def write_moments(self, folder: Path) -> None:
        self._crew.all_do("save", folder)

    def read_moments(self, folder: Path) -> None:
        self._crew.all_do("restore", (folder, self.step))
