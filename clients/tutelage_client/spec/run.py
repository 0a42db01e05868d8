"""`RunSpec`: the sections of a run together, and what they ask of a teacher."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.spec.objectives import Objective, signals_asked
from tutelage_client.spec.rules import check_data, check_source, check_stabilizers, check_teachers
from tutelage_client.spec.sections import (
    Budget,
    CheckpointSpec,
    Data,
    EvalSpec,
    Optim,
    RolloutSpec,
    Student,
    TeacherRef,
)
from tutelage_client.spec.stabilizers import Stabilizer
from tutelage_client.wire.message import Message
from tutelage_client.wire.teachers import Signal


class RunSpec(Message):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    deterministic: Literal[False] = False
    student: Student
    teachers: Annotated[list[TeacherRef], Field(max_length=1)] = []
    data: Data = Data()
    rollout: RolloutSpec = RolloutSpec()
    objective: Objective
    stabilizers: list[Stabilizer] = []
    optim: Optim = Optim()
    checkpoint: CheckpointSpec = CheckpointSpec()
    eval: EvalSpec = EvalSpec()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_source(self.rollout, self.objective)
        check_teachers(self.teachers, self.rollout, self.objective)
        check_data(self.data, self.rollout)
        check_stabilizers(self.stabilizers, self.rollout, self.objective)
        return self

    @property
    def asks_teacher_scores(self) -> bool:
        return bool(required_signals(self))


def required_signals(spec: RunSpec) -> frozenset[Signal]:
    """The signals without which the objective cannot be computed; empty where it asks for no scores."""
    return signals_asked(spec.objective)
