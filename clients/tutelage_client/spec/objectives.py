"""What the student minimises: objectives, the supports and targets of a divergence, and the signals they ask."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from tutelage_client.spec.ranges import Positive, TopK, Unit
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.refusal import refused
from tutelage_client.wire.teachers import Signal


class FullSupport(Message):
    """The whole vocabulary, from the teacher's hidden states and its head: exact."""

    kind: Literal["full"] = "full"


class TeacherTopK(Message):
    kind: Literal["teacher_top_k"] = "teacher_top_k"
    k: TopK = 16
    rest: Literal["tail", "renormalise"] = "tail"


class StudentTopK(Message):
    kind: Literal["student_top_k"] = "student_top_k"
    k: TopK = 16
    rest: Literal["tail", "renormalise"] = "tail"


class SampledSupport(Message):
    """Only the token that was written: unbiased gradients for reverse_kl (k2) and forward_kl (k3) on student text."""

    kind: Literal["sampled"] = "sampled"


Support = Annotated[FullSupport | TeacherTopK | StudentTopK | SampledSupport, ByKind()]


class TeacherTarget(Message):
    kind: Literal["teacher"] = "teacher"


Target = TeacherTarget


class DivergenceObjective(Message):
    """Minimise a divergence between student and teacher at every token. `beta` is JSD's weight on the teacher."""

    kind: Literal["divergence"] = "divergence"
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "reverse_kl"
    beta: Unit | None = None
    support: Support = FullSupport()
    target: Target = TeacherTarget()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta is not None and self.divergence != "jsd":
            raise refused("beta", 'goes with divergence = "jsd"; remove it')
        if self.divergence == "jsd" and self.support.kind == "sampled":
            raise refused("support", 'jsd has no sampled-token estimator; use support kind "full" or a top_k')
        return self


class PolicyGradientObjective(Message):
    """REINFORCE with the per-token advantage log q - log p (the k1 estimator of reverse KL)."""

    kind: Literal["policy_gradient"] = "policy_gradient"
    target: Target = TeacherTarget()


class SupervisedObjective(Message):
    """Cross-entropy of the tokens that are there: SFT on data, SeqKD on teacher text."""

    kind: Literal["supervised"] = "supervised"


class ConstantPenaltyObjective(Message):
    """The teacher-free control: advantage -penalty on tokens that the student gave at most `max_probability`."""

    kind: Literal["constant_penalty"] = "constant_penalty"
    penalty: Positive = 1.0
    max_probability: Unit = 1.0


Objective = Annotated[
    DivergenceObjective | PolicyGradientObjective | SupervisedObjective | ConstantPenaltyObjective,
    ByKind(),
]


# What a divergence over each support asks of the teacher.
SUPPORT_SIGNALS: dict[str, frozenset[Signal]] = {
    "full": frozenset({Signal.HIDDEN}),
    "teacher_top_k": frozenset({Signal.SAMPLED, Signal.TOP_K}),
    "student_top_k": frozenset({Signal.SAMPLED, Signal.CANDIDATES}),
    "sampled": frozenset({Signal.SAMPLED}),
}


def signals_asked(objective: Objective) -> frozenset[Signal]:
    """What the objective asks of the teacher at every token; empty where it needs no scores."""
    match objective:
        case DivergenceObjective():
            return SUPPORT_SIGNALS[objective.support.kind]
        case PolicyGradientObjective():
            return frozenset({Signal.SAMPLED})
        case SupervisedObjective() | ConstantPenaltyObjective():
            return frozenset()
