"""A sum of objectives, each with its weight, its rows and its steps; and what any objective asks of the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutelage_client.spec.objectives import (
    ExtrapolationTarget,
    PolicyGradientObjective,
    PreferenceObjective,
    RewardObjective,
    SimpleObjective,
    simple_signals,
)
from tutelage_client.spec.ranges import Count, NonNegative, Positive
from tutelage_client.spec.supports import SUPPORT_SIGNALS
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.refusal import refused
from tutelage_client.wire.teachers import Signal

LogRatio = Annotated[float, Field(allow_inf_nan=False)]


class Where(Message):
    """The tokens of a term: those that meet every condition that is set. All others add nothing to the term."""

    text: Literal["student", "other"] | None = Field(
        default=None, description="student: written with a behaviour_logprob; other: without, from data or a teacher"
    )
    log_ratio_above: LogRatio | None = Field(
        default=None, description="log q - log p of the written token, in nats, is above this"
    )
    log_ratio_up_to: LogRatio | None = Field(default=None, description="log q - log p is at most this")
    teacher_entropy_above: NonNegative | None = Field(
        default=None, description="the entropy of the teacher's next token, in nats, is above this"
    )
    student_entropy_above: NonNegative | None = Field(default=None, description="the same of the student's")
    student_entropy_top: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="it is among this share of its text's tokens, those of the student's highest entropy"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        above, up_to = self.log_ratio_above, self.log_ratio_up_to
        if above is not None and up_to is not None and above >= up_to:
            raise refused("log_ratio_above", f"{above} is not below log_ratio_up_to, which is {up_to}; nothing is left")
        return self

    @property
    def signals(self) -> frozenset[Signal]:
        """What the conditions ask of the teacher."""
        ratio = self.log_ratio_above is not None or self.log_ratio_up_to is not None
        asked = {Signal.SAMPLED: ratio, Signal.ENTROPY: self.teacher_entropy_above is not None}
        return frozenset(signal for signal, wanted in asked.items() if wanted)


class Term(Message):
    """weight x objective, on the tokens of `where`, at the steps from_step <= step < until_step."""

    objective: Annotated[SimpleObjective, ByKind()] = Field(description="any kind but sum, reward and preset")
    weight: Positive = Field(default=1.0, description="of its loss in the sum; at the first step if it moves")
    final_weight: Positive | None = Field(default=None, description="the weight moves linearly to this, and stays")
    over_steps: Count | None = Field(default=None, description="with final_weight: the steps until it is reached")
    where: Where = Field(default=Where(), description="which tokens it is of; all if absent")
    from_step: int = Field(default=0, ge=0, description="the first step that has it, counted from 0")
    until_step: Count | None = Field(default=None, description="the first step that no longer has it; none if absent")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.until_step is not None and self.until_step <= self.from_step:
            raise refused("until_step", f"{self.until_step} is not above from_step, which is {self.from_step}")
        if (self.final_weight is None) != (self.over_steps is None):
            raise refused("over_steps", "goes with final_weight; give both or neither")
        if isinstance(self.objective, PreferenceObjective) and self.where != Where():
            raise refused("where", "a pair is compared as a whole, this term takes no `where`; remove it")
        if getattr(getattr(self.objective, "target", None), "adaptive", False):
            sentence = "a share that follows the loss cannot follow that of a sum; remove it, and the share is linear"
            raise refused("objective.target.adaptive", sentence)
        return self


class SumObjective(Message):
    """Minimise several objectives at once. Each is summed over its own tokens; all are divided by all learned tokens.

    A token is learned from where every term at that step has the signals that it needs of the teacher.
    """

    kind: Literal["sum"] = "sum"
    terms: Annotated[list[Term], Field(max_length=8)] = Field(description="one or more, up to 8")

    @field_validator("terms")
    @classmethod
    def _is_something(cls, terms: list[Term]) -> list[Term]:
        if not terms:
            raise ValueError("a sum of nothing has no loss; give at least one term")
        return terms

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_sizes(self.terms)
        _check_credits(self.terms)
        _check_steps(self.terms)
        return self


Objective = Annotated[SimpleObjective | RewardObjective | SumObjective, ByKind()]


def parts(objective: Objective) -> list[tuple[str, SimpleObjective | RewardObjective, Where]]:
    """The objectives of a sum, or the one that is no sum; each with its field and the tokens that it is of."""
    if not isinstance(objective, SumObjective):
        return [("objective", objective, Where())]
    return [(f"objective.terms.{i}.objective", term.objective, term.where) for i, term in enumerate(objective.terms)]


def signals_asked(objective: Objective) -> frozenset[Signal]:
    """What the objective asks of the teacher at every token; empty where it needs no scores."""
    asked = (simple_signals(part) | where.signals for _, part, where in parts(objective))
    return frozenset().union(*asked)


def size_asked(objective: Objective, signal: Signal) -> int | None:
    """k, where the objective asks this signal of that size."""
    return next((k for _, k in _sizes(objective, signal)), None)


def extrapolates(objective: Objective) -> bool:
    """Whether a target needs the reference: at scale 1 an extrapolation is the teacher, whatever the reference."""
    return any(target.scale != 1 for target in _extrapolations(objective))


def has_extrapolation(objective: Objective) -> bool:
    """Whether a target is an extrapolation, of whatever scale."""
    return any(True for _ in _extrapolations(objective))


def _extrapolations(objective: Objective) -> Iterator[ExtrapolationTarget]:
    targets = (getattr(part, "target", None) for _, part, _ in parts(objective))
    return (target for target in targets if isinstance(target, ExtrapolationTarget))


def _sizes(objective: Objective, signal: Signal) -> Iterator[tuple[str, int]]:
    for field, part, _ in parts(objective):
        support = getattr(part, "support", None)
        k = getattr(support, "k", None)
        if support is not None and k is not None and signal in SUPPORT_SIGNALS[support.kind]:
            yield f"{field}.support.k", k


def _check_sizes(terms: Sequence[Term]) -> None:
    """The teacher is asked once for all terms."""
    found: dict[Signal, int] = {}
    for index, term in enumerate(terms):
        for signal in (Signal.TOP_K, Signal.CANDIDATES):
            for field, k in _sizes(term.objective, signal):
                if found.setdefault(signal, k) != k:
                    raise refused(
                        f"terms.{index}.{field}",
                        f"{k} is not the {found[signal]} of a term before; the teacher is asked once, give one k",
                    )


def _check_credits(terms: Sequence[Term]) -> None:
    """At most one term takes whole rollouts or pairs together."""
    ahead = [
        index
        for index, term in enumerate(terms)
        if isinstance(term.objective, PreferenceObjective)
        or (
            isinstance(term.objective, PolicyGradientObjective)
            and term.objective.credit.kind in ("return_to_go", "k_step_return")
        )
    ]
    if len(ahead) > 1:
        field = "credit" if isinstance(terms[ahead[1]].objective, PolicyGradientObjective) else "kind"
        sentence = f"term {ahead[0]} has a return or pairs already; keep one, or give credit kind token"
        raise refused(f"terms.{ahead[1]}.objective.{field}", sentence)


def _check_steps(terms: Sequence[Term]) -> None:
    """No step is without a term; between the steps at which one begins or ends, nothing changes."""
    starts, ends = {term.from_step for term in terms}, {term.until_step for term in terms}
    for step in sorted({0} | starts | {end for end in ends if end is not None}):
        if not any(t.from_step <= step and (t.until_step is None or step < t.until_step) for t in terms):
            raise refused("terms", f"no term acts at step {step}; give one a smaller from_step, or no until_step")
