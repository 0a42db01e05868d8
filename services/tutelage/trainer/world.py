"""The seam between a run and the processes that execute it: one alone, or rank 0 with the others (`crew`).

Rank 0 holds lease, queue and ledger and executes the run as one process would; data and queue know no ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tutelage.core.objective import Objective
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.follower import Follower
from tutelage.trainer.learning import as_scored
from tutelage.trainer.loading import load_student
from tutelage.trainer.student import Student
from tutelage.trainer.writer import Writer
from tutelage_client.spec import RunSpec


class World(Protocol):
    """restarted: the ranks were here before, so an attempt of theirs may still hold the lease"""

    @property
    def restarted(self) -> bool: ...

    def load(self, folder: Path | str, spec: RunSpec, reference: Path | str | None = None) -> Student:
        """As `load_student`."""
        ...

    def writer(self, student: Student, objective: Objective) -> Writer:
        """Who writes the text of steps."""
        ...

    def confirm(self) -> None:
        """Raises where a rank is gone: then the run did not stop because somebody wants it."""
        ...

    def dismiss(self, code: ExitCode) -> int:
        """Every rank ends. Returns the exit status of this one."""
        ...


class Alone:
    """One process."""

    restarted = False

    def load(self, folder: Path | str, spec: RunSpec, reference: Path | str | None = None) -> Student:
        return load_student(folder, spec, reference)

    def writer(self, student: Student, objective: Objective) -> Writer:
        """The student itself where it learns only once all is written."""
        if student.spec.rollout.max_lag:
            return Follower(student)
        return Follower(student, sharing=True) if as_scored(student.spec, objective) else student

    def confirm(self) -> None:
        pass

    def dismiss(self, code: ExitCode) -> int:
        return code


ALONE = Alone()
