"""What the student minimises: objectives, the supports and targets of a divergence, and the signals they ask."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.spec.ranges import Positive, TopK, Unit
from tutelage_client.spec.section import Section
from tutelage_client.wire.teaching import Signal


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
