"""A run is a file: `RunSpec`, written as TOML by hand and as JSON over HTTP, stored resolved with the run.

What needs no model is refused here, with the field, the limit and the remedy. What needs the tokenizer or the data is
checked by the trainer before the first rollout.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tutelage_client.errors import InvalidInput
from tutelage_client.wire.grading import ExactMatch, Grader
from tutelage_client.wire.teaching import Signal

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
TopK = Annotated[int, Field(ge=1, le=4096)]


class Section(BaseModel):
    """A table of the spec: frozen, and an unknown key is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _suggest(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(cls.model_fields))}"
                    raise PydanticCustomError("unknown_key", "unknown key '{key}'; {hint}", {"key": key, "hint": hint})
        return data


class Lora(Section):
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


class Student(Section):
    """`model` is a directory, `file:ID` of an uploaded tar archive, or a hub id with a pinned `revision`."""

    model: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: Lora | None = None


class TeacherRef(Section):
    """`name` is a name in the coordinator's registry, never a URL."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    on_loss: Literal["pause", "fail"] = "pause"


class Data(Section):
    """JSON lines of {"prompt": .., "completion"?: .., "answer"?: .., "tag"?: ..}, by path or `file:ID`."""

    train: Annotated[str, Field(min_length=1)] | None = None
    eval: Annotated[str, Field(min_length=1)] | None = None
    grader: Grader = ExactMatch()


class RolloutSpec(Section):
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
            raise ValueError('on_policy_fraction goes with source = "mix"; give both or neither')
        return self


class FullSupport(Section):
    """The whole vocabulary, from the teacher's hidden states and its head: exact."""

    kind: Literal["full"] = "full"


class TeacherTopK(Section):
    kind: Literal["teacher_top_k"] = "teacher_top_k"
    k: TopK = 16
    rest: Literal["tail", "renormalise"] = "tail"


class StudentTopK(Section):
    kind: Literal["student_top_k"] = "student_top_k"
    k: TopK = 16
    rest: Literal["tail", "renormalise"] = "tail"


class SampledSupport(Section):
    """Only the token that was written: unbiased gradients for reverse_kl (k2) and forward_kl (k3) on student text."""

    kind: Literal["sampled"] = "sampled"


Support = Annotated[FullSupport | TeacherTopK | StudentTopK | SampledSupport, Field(discriminator="kind")]


class TeacherTarget(Section):
    kind: Literal["teacher"] = "teacher"


Target = Annotated[TeacherTarget, Field()]


class DivergenceObjective(Section):
    """Minimise a divergence between student and teacher at every token. `beta` is JSD's weight on the teacher."""

    kind: Literal["divergence"] = "divergence"
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "reverse_kl"
    beta: Unit | None = None
    support: Support = FullSupport()
    target: Target = TeacherTarget()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta is not None and self.divergence != "jsd":
            raise ValueError('beta goes with divergence = "jsd"; remove it')
        if self.divergence == "jsd" and self.support.kind == "sampled":
            raise ValueError('jsd has no sampled-token estimator; use support kind "full" or a top_k')
        return self


class PolicyGradientObjective(Section):
    """REINFORCE with the per-token advantage log q - log p (the k1 estimator of reverse KL)."""

    kind: Literal["policy_gradient"] = "policy_gradient"
    target: Target = TeacherTarget()


class SupervisedObjective(Section):
    """Cross-entropy of the tokens that are there: SFT on data, SeqKD on teacher text."""

    kind: Literal["supervised"] = "supervised"


class ConstantPenaltyObjective(Section):
    """The teacher-free control: advantage -penalty on tokens that the student gave at most `max_probability`."""

    kind: Literal["constant_penalty"] = "constant_penalty"
    penalty: Positive = 1.0
    max_probability: Unit = 1.0


Objective = Annotated[
    DivergenceObjective | PolicyGradientObjective | SupervisedObjective | ConstantPenaltyObjective,
    Field(discriminator="kind"),
]


class SignalClip(Section):
    """Keep the teacher's log-prob within `max` nats of the student's (type II: q/p)."""

    kind: Literal["signal_clip"] = "signal_clip"
    max: Positive = 6.0


class RatioClip(Section):
    """Weight each token by p/mu clipped to [min, max] (type I: staleness and sampler mismatch)."""

    kind: Literal["ratio_clip"] = "ratio_clip"
    min: NonNegative = 0.0
    max: Positive = 2.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min is {self.min} and max {self.max}; min must be below max")
        return self


class SpecialTokenMask(Section):
    """Leave special tokens out of the loss; end-of-sequence stays in unless keep_eos is false."""

    kind: Literal["special_token_mask"] = "special_token_mask"
    keep_eos: bool = True


class ReferenceKl(Section):
    """Add coef x KL(p || the student as it was at the start)."""

    kind: Literal["reference_kl"] = "reference_kl"
    coef: Positive = 0.01


Stabilizer = Annotated[SignalClip | RatioClip | SpecialTokenMask | ReferenceKl, Field(discriminator="kind")]


class Optim(Section):
    """AdamW. micro_batch_tokens bounds prompt plus completion tokens (padding included) of one forward."""

    lr: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1e-4
    steps: Count = 100
    micro_batch_tokens: Count = 8192
    weight_decay: NonNegative = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: Positive = 1.0


class CheckpointSpec(Section):
    every: Count = 50
    keep: Count = 2


class EvalSpec(Section):
    every: Count = 50
    samples: Annotated[int, Field(ge=1, le=256)] = 1
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0


class Budget(Section):
    """The run ends well at the first limit that it meets. teacher_tokens counts forward plus generated tokens."""

    teacher_tokens: Count | None = None
    wall_clock_s: Positive | None = None


class RunSpec(Section):
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
        for refusal in (_source_and_objective(self), _teacher_needed(self), _data_needed(self), _stabilizers(self)):
            if refusal:
                raise ValueError(refusal)
        return self

    @property
    def asks_teacher_scores(self) -> bool:
        return self.objective.kind in ("divergence", "policy_gradient")


# Which objective can learn from whose text, and why not otherwise.
SOURCES: dict[str, tuple[str, ...]] = {
    "divergence": ("student", "teacher", "data", "mix", "pushed"),
    "policy_gradient": ("student", "pushed"),
    "supervised": ("teacher", "data", "pushed"),
    "constant_penalty": ("student", "pushed"),
}


def _source_and_objective(spec: RunSpec) -> str | None:
    source, kind = spec.rollout.source, spec.objective.kind
    if source not in SOURCES[kind]:
        return (
            f"rollout.source = {source!r} does not go with objective.kind = {kind!r}; it can learn from "
            f"{', '.join(SOURCES[kind])}"
        )
    sampled = isinstance(spec.objective, DivergenceObjective) and spec.objective.support.kind == "sampled"
    if sampled and source not in ("student", "pushed"):
        return f"objective.support kind 'sampled' is unbiased on student text only, not on rollout.source = {source!r}"
    return None


def _teacher_needed(spec: RunSpec) -> str | None:
    needed = spec.asks_teacher_scores or spec.rollout.source == "teacher"
    if needed and not spec.teachers:
        return "this objective or rollout.source needs a teacher; add [[teachers]] with a registered name"
    if spec.teachers and not needed:
        return "teachers is given, but neither the objective nor rollout.source asks one; remove [[teachers]]"
    return None


def _data_needed(spec: RunSpec) -> str | None:
    if spec.rollout.source != "pushed" and spec.data.train is None:
        return f"rollout.source = {spec.rollout.source!r} needs data.train, a JSON-lines file of prompts"
    if spec.rollout.source == "pushed" and spec.data.train is not None:
        return 'data.train is not read with rollout.source = "pushed"; remove it'
    return None


def _stabilizers(spec: RunSpec) -> str | None:
    kinds = [s.kind for s in spec.stabilizers]
    repeated = {kind for kind in kinds if kinds.count(kind) > 1}
    if repeated:
        return f"stabilizers names {', '.join(sorted(repeated))} more than once"
    if "signal_clip" in kinds and not spec.asks_teacher_scores:
        return f"stabilizer 'signal_clip' needs a teacher signal, objective.kind = {spec.objective.kind!r} has none"
    if "ratio_clip" in kinds and spec.rollout.source not in ("student", "mix", "pushed"):
        return f"stabilizer 'ratio_clip' needs student text, rollout.source is {spec.rollout.source!r}"
    return None


# What a divergence over each support asks of the teacher.
SUPPORT_SIGNALS: dict[str, frozenset[Signal]] = {
    "full": frozenset({Signal.HIDDEN}),
    "teacher_top_k": frozenset({Signal.SAMPLED, Signal.TOP_K}),
    "student_top_k": frozenset({Signal.SAMPLED, Signal.CANDIDATES}),
    "sampled": frozenset({Signal.SAMPLED}),
}


def required_signals(spec: RunSpec) -> frozenset[Signal]:
    """The signals without which the objective cannot be computed; empty where it asks for no scores."""
    if isinstance(spec.objective, DivergenceObjective):
        return SUPPORT_SIGNALS[spec.objective.support.kind]
    return frozenset({Signal.SAMPLED}) if spec.asks_teacher_scores else frozenset()


def parse_spec(data: Any) -> RunSpec:
    """The spec in `data`, as read from TOML or JSON.

    Raises:
        InvalidInput: the first thing that is wrong, as one sentence, with its field.
    """
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


def explain(error: ValidationError) -> tuple[str, str | None]:
    """One sentence and the dotted field of the first thing that pydantic found."""
    first = error.errors(include_url=False, include_input=False)[0]
    tags = {"full", "teacher_top_k", "student_top_k", "sampled", "divergence", "policy_gradient", "supervised"}
    tags |= {"constant_penalty", "signal_clip", "ratio_clip", "special_token_mask", "reference_kl"}
    tags |= {"exact_match", "last_number", "contains", "pattern", "sequence", "group"}
    path = first["loc"]
    # The name of a union's member is no key; what stands behind one is (objective.divergence, data.grader.pattern).
    loc = [str(part) for i, part in enumerate(path) if i == 0 or part not in tags or path[i - 1] in tags]
    if first["type"] == "unknown_key":
        loc.append(str(first.get("ctx", {})["key"]))
    field = ".".join(loc) or None
    message = first["msg"].removeprefix("Value error, ")
    return (f"{field}: {message}" if field else message), field


def load_spec(path: Path) -> RunSpec:
    """The spec in a TOML file; its relative paths are resolved against the file's folder.

    Raises:
        InvalidInput: not readable, not TOML, or not a spec.
    """
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    return resolve_paths(parse_spec(data), path.resolve().parent)


def resolve_paths(spec: RunSpec, folder: Path) -> RunSpec:
    """The same spec with absolute paths. `file:ID` and hub ids (a `revision` is given) stay as they are."""

    def resolved(value: str | None) -> str | None:
        return value if value is None or value.startswith("file:") else str((folder / value).resolve())

    data = spec.data.model_copy(update={"train": resolved(spec.data.train), "eval": resolved(spec.data.eval)})
    student = spec.student
    if student.revision is None:
        student = student.model_copy(update={"model": resolved(student.model)})
    return spec.model_copy(update={"data": data, "student": student})
