"""The other plain tables of a spec: data, rollout, optimiser, checkpoints, evaluation, diagnostics, budget."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.spec.ranges import Count, Decay, NonNegative, Positive, Unit
from tutelage_client.wire.forms import SHORT_NAME
from tutelage_client.wire.grading import ExactMatch, Grader
from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import refused


class Data(Message):
    """JSON lines of {"prompt": .., "completion"?: .., "answer"?: .., "tag"?: ..}, by path or `file:ID`."""

    train: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="the prompts to learn on; with source `data`, `mix`, `paired` or `adaptive` each line needs a "
        "completion",
    )
    eval: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="held-out prompts with answers; without them nothing is evaluated. With source `adaptive` each "
        "line needs a completion, too",
    )
    grader: Grader = Field(default=ExactMatch(), description="how an evaluation decides that an answer is right")


class Adaptive(Message):
    """DistiLLM's schedule: one draw a step decides whether it learns from data or from the student's own text.

    The share of the student's text rises while the held-out loss worsens. Its text is written anew until the buffer is
    full; from then on ever more of it is taken from the buffer again.
    """

    initial_share: Unit = Field(default=0.0, description="of steps that learn from the student's text, to begin with")
    rise: Annotated[float, Field(gt=0, le=1)] = Field(default=0.1, description="how much the share rises at a time")
    tolerance: NonNegative = Field(
        default=0.1, description="nats by which eval_loss must worsen since the last rise for the next one"
    )
    capacity: Count = Field(default=1000, description="rollouts that the buffer holds; the oldest go first")


class RolloutSpec(Message):
    """Whose text the student learns on, and how much of it a step takes."""

    source: Literal["student", "teacher", "data", "mix", "paired", "teacher_mixed", "adaptive", "pushed"] = Field(
        default="student",
        description="student: its own samples; teacher: the teacher's samples; data: the completions in `data.train`; "
        "mix: each prompt by student or data; paired: each prompt by both, one completion from data beside the "
        "student's samples; teacher_mixed: each token by teacher or student; adaptive: each step by data, by the "
        "student or by its older text, as `adaptive` has it; pushed: trajectories that others send to the run",
    )
    on_policy_fraction: Unit | None = Field(
        default=None, description="with `mix`: the share of prompts that the student answers itself (GKD's lambda)"
    )
    teacher_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="with `teacher_mixed`: alpha, where each token is drawn from alpha q + (1 - alpha) p"
    )
    adaptive: Adaptive | None = Field(default=None, description="with `adaptive`: when a step learns from which text")
    prompts_per_step: int = Field(default=32, ge=1, le=65536, description="prompts of one optimiser step")
    samples_per_prompt: int = Field(default=1, ge=1, le=1024, description="rollouts of each prompt")
    max_new_tokens: int = Field(default=256, ge=1, le=1_000_000, description="longest completion, in evaluations too")
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="of the sampling; the loss is always at temperature 1",
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="nucleus of the sampling; 1 samples from the whole vocabulary"
    )
    max_lag: int = Field(
        default=0,
        ge=0,
        le=64,
        description="policy versions between writing and learning of a step's text, at most; above 0 a copy of the "
        "student writes the next steps, and teachers mark them, while one is learned from",
    )
    sampler: Annotated[str, Field(pattern=SHORT_NAME)] | None = Field(
        default=None,
        description="name of the samplers that write the student's text, on other machines, from published snapshots; "
        "without it the trainer writes the text itself",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.source == "mix") != (self.on_policy_fraction is not None):
            raise refused("on_policy_fraction", 'goes with rollout.source = "mix"; give both or neither')
        if (self.source == "teacher_mixed") != (self.teacher_share is not None):
            raise refused("teacher_share", 'goes with rollout.source = "teacher_mixed"; give both or neither')
        if self.teacher_share is not None and (self.temperature, self.top_p) != (1, 1):
            field = "temperature" if self.temperature != 1 else "top_p"
            raise refused(field, "is 1 where tokens are drawn from a mixture of both models; remove it")
        if (self.source == "adaptive") != (self.adaptive is not None):
            raise refused("adaptive", 'goes with rollout.source = "adaptive"; give both or neither, {} for defaults')
        size = self.prompts_per_step * self.samples_per_prompt
        if self.adaptive is not None and self.adaptive.capacity < size:
            sentence = f"{self.adaptive.capacity} is less than the {size} rollouts of a step, which it must hold"
            raise refused("adaptive.capacity", f"{sentence}; raise it, or lower prompts_per_step or samples_per_prompt")
        return self

    @property
    def reads_completions(self) -> bool:
        """Whether each line of the training data needs a completion."""
        return self.source in ("data", "mix", "paired", "adaptive")

    @property
    def oldest(self) -> int | None:
        """Policy versions that a text may be behind; None: whose text it is decides that."""
        return self.max_lag if self.max_lag or self.sampler else None

    @property
    def texts_per_prompt(self) -> int:
        """Rollouts of one prompt in a step, whoever wrote them."""
        return self.samples_per_prompt + (self.source == "paired")


class Optim(Message):
    """AdamW on the mean loss over all learned tokens of a step."""

    lr: float = Field(default=1e-4, gt=0, le=10, allow_inf_nan=False, description="learning rate after the warm-up")
    steps: Count = Field(default=100, description="optimiser steps of the whole run")
    micro_batch_tokens: Count = Field(
        default=8192,
        description="tokens of one forward, prompts and padding included; changes memory and speed, not the loss",
    )
    weight_decay: NonNegative = Field(default=0.0, description="AdamW's, on every trained weight")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="AdamW's")
    warmup_steps: int = Field(default=0, ge=0, description="steps over which the learning rate rises from near 0")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="of the learning rate after the warm-up; linear and cosine end at 0"
    )
    max_grad_norm: Positive = Field(default=1.0, description="a longer gradient is scaled down to this norm")


class CheckpointSpec(Message):
    """What a crash costs at most. The last step is always saved."""

    every: Count = Field(default=50, description="steps between two checkpoints")
    keep: Count = Field(default=2, description="checkpoints that stay on disk")
    may_fail: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="checkpoints in a row that a full or broken disk may refuse before the run waits for it",
    )


class EvalSpec(Message):
    """Sampling and grading `data.eval`, before the first step, on the way, and after the last step."""

    every: Count = Field(default=50, description="steps between two evaluations")
    samples: int = Field(default=1, ge=1, le=256, description="answers to each prompt")
    temperature: float = Field(
        default=1.0, ge=0, le=10, allow_inf_nan=False, description="of the sampling; 0 is greedy"
    )


class Diagnostics(Message):
    """What a teacher is asked for measurements alone. The loss does not change by it."""

    top_k: Annotated[int, Field(ge=0, le=4096)] = Field(
        default=8,
        description="where the loss needs no top k and no hidden states: the teacher's so many most probable tokens "
        "and its entropy, as far as it returns them; 0 asks for neither",
    )
    held_out: Annotated[int, Field(ge=0, le=16)] = Field(
        default=2,
        description="answers to lines of `data.eval`, the same lines at each evaluation, that are shown with what "
        "student and teacher hold of their tokens; where the loss needs scores, teachers are asked for them; 0: none",
    )


class Budget(Message):
    """The run ends well, with its model, at the first limit that it meets."""

    teacher_tokens: Annotated[int, Field(ge=1, le=10**15)] | None = Field(
        default=None, description="tokens that all teachers computed or wrote for this run"
    )
    teacher_usd: Positive | None = Field(
        default=None, description="dollars that this costs by the prices of the teachers; one without costs nothing"
    )
    wall_clock_s: Positive | None = Field(
        default=None, description="seconds of one attempt; a resumed run begins again"
    )
