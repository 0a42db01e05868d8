"""`RunSpec`: the sections of a run together, and what they ask of a teacher."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from tutelage_client.spec.models import Reference, Student, TeacherRef
from tutelage_client.spec.needs import signals_by_field
from tutelage_client.spec.preset import resolved
from tutelage_client.spec.rewards import RewardSpec, check_reward
from tutelage_client.spec.routing import check_routes
from tutelage_client.spec.rules import (
    check_data,
    check_deterministic,
    check_lag,
    check_losses,
    check_reference,
    check_sampler,
    check_source,
    check_stabilizers,
    check_teachers,
)
from tutelage_client.spec.sections import Budget, CheckpointSpec, Data, Diagnostics, EvalSpec, Optim, RolloutSpec
from tutelage_client.spec.stabilizers import Stabilizer
from tutelage_client.spec.sums import Objective, extrapolates
from tutelage_client.wire.forms import NAME
from tutelage_client.wire.message import Message
from tutelage_client.wire.rewarding import needs_model
from tutelage_client.wire.teachers import Capabilities, Signal


class RunSpec(Message):
    """One run, whole. Every key that is left out has its default; an unknown key is refused; a preset is resolved."""

    name: str = Field(pattern=NAME, description="for people; it need not be unique")
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="decides the order of prompts, the sampling, LoRA's first weights and dropout",
    )
    deterministic: bool = Field(
        default=False,
        description="the same spec and seed give bit-identical weights, whatever died in between; slower, as every "
        "question is a batch of its own at the teacher",
    )
    student: Student = Field(description="the model that learns")
    reference: Reference | None = Field(
        default=None,
        description="what an extrapolation goes away from and `reference_kl` pulls to; the student as it was at the "
        "start if absent",
    )
    teachers: list[TeacherRef] = Field(default=[], description="who is asked, where anyone is; several share the lines")
    data: Data = Field(default=Data(), description="prompts, and how answers are graded")
    rollout: RolloutSpec = Field(default=RolloutSpec(), description="whose text is learned from")
    objective: Objective = Field(description="what is minimised")
    reward: RewardSpec | None = Field(default=None, description="a reward of each rollout, where one is learned from")
    stabilizers: list[Stabilizer] = Field(default=[], description="clips, masks and anchors, each kind once")
    optim: Optim = Field(default=Optim(), description="the optimiser")
    checkpoint: CheckpointSpec = Field(default=CheckpointSpec(), description="what survives a crash")
    eval: EvalSpec = Field(default=EvalSpec(), description="measuring on held-out prompts")
    diagnostics: Diagnostics = Field(default=Diagnostics(), description="measurements beside the loss")
    budget: Budget = Field(default=Budget(), description="limits that end the run early")

    @model_validator(mode="before")
    @classmethod
    def _resolve_preset(cls, data: Any) -> Any:
        return resolved(data)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_source(self.rollout, self.objective)
        check_lag(self.rollout)
        check_sampler(self.rollout)
        check_reward(self.reward, self.rollout, self.objective)
        check_teachers(self.teachers, self.rollout, self.objective, self.reward)
        check_routes(self.teachers)
        check_losses(self.teachers, self.rollout)
        check_data(self.data, self.rollout)
        check_reference(self.reference, self.objective, self.stabilizers)
        check_stabilizers(self.stabilizers, self.rollout, self.objective, self.reward)
        if self.deterministic:
            check_deterministic(self.rollout, self.reward, self.budget, self.teachers)
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether a reference is needed all the time."""
        return extrapolates(self.objective) or any(stabilizer.kind == "reference_kl" for stabilizer in self.stabilizers)

    @property
    def asks_teacher_rewards(self) -> bool:
        return self.reward is not None and needs_model(self.reward.by)

    @property
    def asks_teacher_scores(self) -> bool:
        return bool(required_signals(self))


def required_signals(spec: RunSpec) -> frozenset[Signal]:
    """The signals without which the loss cannot be computed; empty where it asks for no scores."""
    return frozenset().union(*signals_by_field(spec).values())


def signals_watched(spec: RunSpec) -> frozenset[Signal]:
    """The signals that are asked for diagnostics alone, of a teacher that returns them."""
    required = required_signals(spec)
    if not required or Signal.HIDDEN in required or spec.diagnostics.top_k == 0:
        return frozenset()
    return frozenset({Signal.TOP_K, Signal.ENTROPY}) - required


def unrepeatable(spec: RunSpec, teacher: str, able: Capabilities) -> str | None:
    """Why a deterministic run cannot learn what this teacher writes, in a sentence; None where it can."""
    written = spec.rollout.source in ("teacher", "teacher_mixed")
    if not spec.deterministic or not written or able.writes_by_seed:
        return None
    return (
        f"teacher {teacher!r} does not write the same text twice, whatever the seed; take one that does, such as a "
        'model that the teacher runs itself, keep its text in a file (rollout.source = "data"), or set '
        "deterministic = false"
    )
