"""What the student minimises: objectives, their divergences and targets, and the signals they ask."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.spec.credits import Credit, TokenCredit
from tutelage_client.spec.ranges import Count, Positive, Unit
from tutelage_client.spec.supports import SUPPORT_SIGNALS, FullSupport, Support
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.refusal import refused
from tutelage_client.wire.teachers import Signal


class TeacherTarget(Message):
    """The teacher's own distribution."""

    kind: Literal["teacher"] = "teacher"


class MixtureTarget(Message):
    """Between the student as it is and the teacher: r ~ (w q^a + (1 - w) p^a)^(1/a) with a = (1 - alpha) / 2."""

    kind: Literal["mixture"] = "mixture"
    weight: Unit = Field(default=0.5, description="w, the teacher's share; at the first step if it moves")
    alpha: Annotated[float, Field(ge=-5, le=1, allow_inf_nan=False)] = Field(
        default=1.0, description="-1: the plain mixture; 1: the geometric one, which interpolates logits"
    )
    stands_for: Literal["teacher", "student"] = Field(
        default="teacher", description="in whose place it is compared; in the student's it carries the gradient (AMiD)"
    )
    final_weight: Unit | None = Field(default=None, description="w moves linearly to this, and stays")
    over_steps: Count | None = Field(default=None, description="with final_weight: the steps until it is reached")

    adaptive: bool = Field(
        default=False, description="with final_weight: w rises faster while the loss falls, as TAID's clock has it"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.adaptive and (self.final_weight is None or self.final_weight <= self.weight):
            raise refused("adaptive", "it needs a share that rises; give a final_weight above weight, and over_steps")
        if (self.final_weight is None) != (self.over_steps is None):
            raise refused("over_steps", "goes with final_weight; give both or neither")
        if self.stands_for == "student" and 1 in (self.weight, self.final_weight):
            raise refused("weight", "1 in the student's place holds nothing of the student; give less than 1")
        if 0.99 < self.alpha < 1:
            raise refused("alpha", f"{self.alpha} is too near to 1 for its digits; give 1 or at most 0.99")
        return self


class ExtrapolationTarget(Message):
    """log q + (scale - 1)(log q - log ref), normalised (G-OPD, ExOPD); ref is `[reference]` or the student's start."""

    kind: Literal["extrapolation"] = "extrapolation"
    scale: Annotated[float, Field(ge=0, le=10)] = Field(
        default=1.25, description="0: the reference; 1: the teacher; above 1: beyond it, which 1.5 may already break"
    )


Target = Annotated[TeacherTarget | MixtureTarget | ExtrapolationTarget, ByKind()]


FDivergenceKind = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "tvd",
    "hellinger",
    "chi_square",
    "alpha",
    "skew_forward_kl",
    "skew_reverse_kl",
]
DivergenceKind = Literal[FDivergenceKind, "akl", "todi", "concrete_score"]
# Which divergence has which parameter, and which can be had from the written token alone.
DIVERGENCE_PARAMETERS = {
    "jsd": "beta",
    "alpha": "alpha",
    "skew_forward_kl": "alpha",
    "skew_reverse_kl": "alpha",
    "akl": "head_mass",
    "todi": "slope",
}
SAMPLED_DIVERGENCES = ("reverse_kl", "forward_kl")


Beta = Annotated[
    Unit | None,
    Field(description="with jsd: the weight on the teacher, 0.5 if absent; 0 is forward_kl and 1 is reverse_kl"),
]
Alpha = Annotated[
    Annotated[float, Field(ge=-1, le=2, allow_inf_nan=False)] | None,
    Field(
        description="with alpha: the order, 0.5 if absent; 0 is reverse_kl, 1 is forward_kl. With the skewed: the "
        "share of the other side, 0.1 if absent, from 0 to below 1",
    ),
]


def quoted(name: str) -> str:
    return f'"{name}"'


def check_parameters(objective: DivergenceObjective | PolicyGradientObjective) -> None:
    """Each parameter goes with its divergence and lies where it has a meaning."""
    divergence, alpha = objective.divergence, objective.alpha
    for name in dict.fromkeys(DIVERGENCE_PARAMETERS.values()):
        owners = [kind for kind, own in DIVERGENCE_PARAMETERS.items() if own == name]
        if getattr(objective, name, None) is not None and divergence not in owners:
            raise refused(name, f"goes with divergence = {' or '.join(map(quoted, owners))}; remove it")
    if alpha is not None and divergence.startswith("skew") and not 0 <= alpha < 1:
        raise refused("alpha", f"{alpha} is no skew; give one from 0 to below 1")
    if divergence == "alpha" and 0 < min(abs(alpha or 0), abs(1 - (alpha or 0))) < 1e-3:
        raise refused("alpha", f"{alpha} is too near to 0 or 1 for its digits; give that number itself")


def check_skew(objective: DivergenceObjective) -> None:
    """A share of each text goes with a share, and lies between 0.01 and it."""
    if not objective.alpha_by_text:
        return
    if not objective.divergence.startswith("skew"):
        sentence = 'goes with divergence = "skew_forward_kl" or "skew_reverse_kl"'
        raise refused("alpha_by_text", f"{sentence}; remove it")
    if objective.alpha is not None and objective.alpha < 0.01:
        raise refused("alpha", f"{objective.alpha} is below 0.01, the least that alpha_by_text gives a text; raise it")


def check_rest(objective: DivergenceObjective) -> None:
    """A teacher cut to a set gives no mass where the student may: some divergences are infinite there."""
    name, alpha = objective.divergence, objective.alpha
    ends = (name == "jsd" and objective.beta == 1) or (name == "skew_reverse_kl" and alpha == 0)
    order = name == "alpha" and alpha is not None and alpha <= 0
    if getattr(objective.support, "rest", None) == "truncate" and (
        name in ("reverse_kl", "akl", "todi") or ends or order
    ):
        sentence = f"{name} is infinite to a truncated teacher"
        raise refused("support.rest", f'{sentence}; use "tail" or "renormalise", or divergence forward_kl')


class DivergenceObjective(Message):
    """Minimise a divergence between student and teacher at every token."""

    kind: Literal["divergence"] = "divergence"
    divergence: DivergenceKind = Field(
        default="reverse_kl",
        description="forward_kl: KL(q || p); reverse_kl: KL(p || q); jsd and the skewed: between them; tvd, hellinger, "
        "chi_square, alpha: other f-divergences; akl, todi: direction by the gap; concrete_score: logit differences",
    )
    beta: Beta = None
    alpha: Alpha = None
    alpha_by_text: bool = Field(
        default=False,
        description="with the skewed: each text has its own share, at most alpha, and less where the two models have "
        "come nearer on it than they were at the first step (DistiLLM-2)",
    )
    head_mass: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="with akl: the teacher's mass that counts as head, 0.5 if absent"
    )
    slope: Annotated[float, Field(ge=0, le=10)] | None = Field(
        default=None, description="with todi: how sharply the direction follows the log-ratio, 1 if absent"
    )
    support: Support = Field(default=FullSupport(), description="over which tokens it is taken")
    target: Target = Field(default=TeacherTarget(), description="what the student is pulled to")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_parameters(self)
        check_skew(self)
        check_rest(self)
        if self.target.kind == "mixture" and self.support.kind == "sampled":
            raise refused("target", 'a mixture needs distributions; use support kind "full" or a top_k')
        if self.target.kind == "extrapolation" and self.support.kind not in ("full", "sampled"):
            raise refused("target", 'an extrapolation is over the vocabulary; use support kind "full" or "sampled"')
        if (self.target.kind, self.support.kind) == ("extrapolation", "sampled") and self.divergence != "reverse_kl":
            sentence = f"an extrapolation at one token has no scale for {self.divergence}"
            raise refused("target", f'{sentence}; use divergence reverse_kl or support kind "full"')
        if self.support.kind == "sampled" and self.divergence not in SAMPLED_DIVERGENCES:
            sentence = f'{self.divergence} has no sampled-token estimator; use support kind "full" or a top_k'
            raise refused("support", sentence)
        return self


class PolicyGradientObjective(Message):
    """REINFORCE with the advantage that descends the divergence: log q - log p for reverse_kl (the k1 estimator)."""

    kind: Literal["policy_gradient"] = "policy_gradient"
    divergence: FDivergenceKind = Field(default="reverse_kl", description="as in a divergence; these are f-divergences")
    beta: Beta = None
    alpha: Alpha = None
    target: Target = Field(default=TeacherTarget(), description="what the student is pulled to")
    credit: Credit = Field(default=TokenCredit(), description="for what a token answers")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_parameters(self)
        if self.target.kind == "mixture":
            raise refused("target", 'a mixture needs distributions; use objective kind "divergence"')
        if self.divergence != "reverse_kl" and self.target.kind == "extrapolation":
            raise refused(
                "target", f"an extrapolation is not that of {self.divergence} here; use divergence reverse_kl"
            )
        if self.divergence != "reverse_kl" and self.credit.kind != "token":
            sentence = f"{self.credit.kind!r} is not that of {self.divergence}; use divergence reverse_kl"
            raise refused("credit", f'{sentence} or credit kind "token"')
        return self


class PreferenceObjective(Message):
    """Prefer the completion of the data, as the teacher's, to the student's own text (DPKD), two by two.

    -log sigmoid(beta (mean_t log p/q of the one - mean_t log p/q of the other)), the mean over all tokens of all pairs.
    """

    kind: Literal["preference"] = "preference"
    beta: Positive = Field(default=0.1, description="how sharply the two are told apart")


class SupervisedObjective(Message):
    """Cross-entropy of the tokens that are there: SFT on data, SeqKD on teacher text."""

    kind: Literal["supervised"] = "supervised"


class ConstantPenaltyObjective(Message):
    """The teacher-free control: a constant negative advantage on what the student wrote."""

    kind: Literal["constant_penalty"] = "constant_penalty"
    penalty: Positive = Field(default=1.0, description="the advantage is minus this")
    max_probability: Unit = Field(
        default=1.0, description="only tokens to which the student gave at most this probability"
    )


class RewardObjective(Message):
    """The rewards of `[reward]` alone: GRPO and its kin. No teacher is needed where a grader gives them."""

    kind: Literal["reward"] = "reward"


SimpleObjective = (
    DivergenceObjective | PolicyGradientObjective | PreferenceObjective | SupervisedObjective | ConstantPenaltyObjective
)


def simple_signals(objective: SimpleObjective | RewardObjective) -> frozenset[Signal]:
    """What an objective that is no sum asks of the teacher at every token; empty where it needs no scores."""
    match objective:
        case DivergenceObjective():
            texts = {Signal.SAMPLED} if objective.alpha_by_text else set[Signal]()
            return SUPPORT_SIGNALS[objective.support.kind] | texts
        case PolicyGradientObjective():
            whole = objective.credit.kind == "control_variate"
            return frozenset({Signal.HIDDEN if whole else Signal.SAMPLED})
        case PreferenceObjective():
            return frozenset({Signal.SAMPLED})
        case SupervisedObjective() | ConstantPenaltyObjective() | RewardObjective():
            return frozenset()
