"""The plain tables of a spec: student, teachers, data, rollout, optimiser, checkpoints, evaluation, budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutelage_client.spec.ranges import Count, Decay, NonNegative, Positive, Unit
from tutelage_client.wire.grading import ExactMatch, Grader
from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import refused


class Lora(Message):
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"

    @field_validator("target_modules", mode="before")
    @classmethod
    def _are_names(cls, value: Any) -> Any:
        if value != "all-linear" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise ValueError('give "all-linear" or a list of names of modules')
        return value


class Student(Message):
    """`model` is a directory, `file:ID` of an uploaded tar archive, or a hub id with a pinned `revision`."""

    model: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: Lora | None = None


class TeacherRef(Message):
    """`name` is a name in the coordinator's registry, never a URL."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    on_loss: Literal["pause", "fail"] = "pause"


class Data(Message):
    """JSON lines of {"prompt": .., "completion"?: .., "answer"?: .., "tag"?: ..}, by path or `file:ID`."""

    train: Annotated[str, Field(min_length=1)] | None = None
    eval: Annotated[str, Field(min_length=1)] | None = None
    grader: Grader = ExactMatch()


class RolloutSpec(Message):
    """Whose text the student learns on. `mix` takes `on_policy_fraction` from the student and the rest from data."""

    source: Literal["student", "teacher", "data", "mix", "pushed"] = "student"
    on_policy_fraction: Unit | None = None
    prompts_per_step: Annotated[int, Field(ge=1, le=65536)] = 32
    samples_per_prompt: Annotated[int, Field(ge=1, le=1024)] = 1
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_lag: Annotated[int, Field(ge=0, le=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.source == "mix") != (self.on_policy_fraction is not None):
            raise refused("on_policy_fraction", 'goes with rollout.source = "mix"; give both or neither')
        return self


class Optim(Message):
    """AdamW. micro_batch_tokens bounds prompt plus completion tokens (padding included) of one forward."""

    lr: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1e-4
    steps: Count = 100
    micro_batch_tokens: Count = 8192
    weight_decay: NonNegative = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: Positive = 1.0


class CheckpointSpec(Message):
    every: Count = 50
    keep: Count = 2


class EvalSpec(Message):
    every: Count = 50
    samples: Annotated[int, Field(ge=1, le=256)] = 1
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0


class Budget(Message):
    """The run ends well at the first limit that it meets. teacher_tokens counts forward plus generated tokens."""

    teacher_tokens: Count | None = None
    wall_clock_s: Positive | None = None
