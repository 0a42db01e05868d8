"""What is minimised, as one value: the choices of a loss, checked for what does not go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from tutelage.core.credit import Credit
from tutelage.core.divergences import measure
from tutelage.core.estimators import ESTIMATORS
from tutelage.core.f_weights import F_WEIGHTS
from tutelage.core.outcome import Outcome
from tutelage.core.skew import GAPS, LEAST
from tutelage.core.support import RESTS, SUPPORTS
from tutelage.core.targets import Target
from tutelage.core.terms import Term, Where

KINDS = ("divergence", "policy_gradient", "preference", "supervised", "constant_penalty", "reward", "sum")


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised. Fields that the kind does not read keep their defaults.

    alpha_by_text, first_gap: whether each text has a skew of its own, and m0 of it once it is known, see `skew`
    beta (jsd), alpha (alpha, skew), head_mass (akl), slope (todi) None: the divergence's own default
    signal_clip: nats; ratio_clip: (min, max) of p / mu; freshness: a token's weight for each version of lag
    special_ids: written tokens that are never learned from
    entropy_gate: whose entropy, and between which nats a row is learned from
    reference_coef: weight of KL(p || ref)
    outcome: how rewards of rollouts are learned from, alone (kind "reward") or beside the teacher's signal
    preference_beta: how sharply a pair is told apart
    terms: of a sum; clips, masks, anchor and outcome are those of the sum

    Raises:
        ValueError: an unknown name, a parameter out of range, or a support on which the divergence cannot be had.
    """

    kind: Literal["divergence", "policy_gradient", "preference", "supervised", "constant_penalty", "reward", "sum"]
    divergence: str = "reverse_kl"
    beta: float | None = None
    alpha: float | None = None
    alpha_by_text: bool = False
    first_gap: float | None = None
    head_mass: float | None = None
    slope: float | None = None
    support: Literal["full", "teacher_top_k", "student_top_k", "union_top_k", "sampled"] = "full"
    rest: Literal["tail", "renormalise", "truncate"] = "tail"
    target: Target = field(default_factory=Target)
    credit: Credit = field(default_factory=Credit)
    preference_beta: float = 0.1
    penalty: float = 1.0
    max_probability: float = 1.0
    signal_clip: float | None = None
    ratio_clip: tuple[float, float] | None = None
    entropy_gate: tuple[Literal["teacher", "student"], float, float] | None = None
    freshness: float | None = None
    special_ids: frozenset[int] = frozenset()
    reference_coef: float | None = None
    outcome: Outcome | None = None
    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("objective kind", self.kind, KINDS),
            ("support", self.support, SUPPORTS),
            ("rest", self.rest, RESTS),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known are {', '.join(known)}")
        self._check_terms()
        self._check_pairs()
        if self.kind == "reward" and self.outcome is None:
            raise ValueError("kind reward learns from rewards alone; say how in `outcome`")
        if self.kind != "reward" and self.outcome is not None and self.outcome.teacher_share:
            raise ValueError("a ratio with a share of the teacher is its signal; use kind reward, or no share")
        measure(self.divergence, **self.parameters)
        self._check_skew()
        self._check_rest()
        if self.kind == "policy_gradient":
            self._check_advantage()
        if self.target.kind == "mixture" and self.comparison == "sampled":
            raise ValueError("a mixture needs distributions, not one written token; use the full support or a top-k")
        if self.target.kind == "extrapolation" and self.comparison not in ("full", "sampled", None):
            raise ValueError("an extrapolation is normalised over the vocabulary; use the full or the sampled support")
        unscaled = self.target.kind == "extrapolation" and self.divergence != "reverse_kl"
        if self.kind == "divergence" and self.support == "sampled" and unscaled:
            raise ValueError(f"an extrapolation at one token has no scale for {self.divergence}; use reverse_kl")
        if self.kind == "divergence" and self.support == "sampled" and self.divergence not in ESTIMATORS:
            raise ValueError(
                f"{self.divergence} has no sampled-token estimator; use the full support or a top-k, "
                f"or one of {', '.join(ESTIMATORS)}"
            )

    def _check_terms(self) -> None:
        if (self.kind == "sum") != bool(self.terms):
            raise ValueError("a sum has terms, and nothing else has; give kind sum and at least one term")
        if any(term.objective.kind in ("sum", "reward") for term in self.terms):
            raise ValueError("a term is no sum and no reward; write its terms beside the others, give `outcome`")
        if any(term.objective.target.adaptive for term in self.terms):
            raise ValueError("a share that follows the loss follows that of one objective; give it as no term of a sum")
        if sum(term.objective.looks_ahead for term in self.terms) > 1:
            raise ValueError("at most one term of a sum has a credit that looks ahead, or pairs")

    def _check_pairs(self) -> None:
        if not self.preference_beta > 0:
            raise ValueError(f"preference_beta is {self.preference_beta}; give one above 0")
        if any(term.objective.in_pairs and term.where != Where() for term in self.terms):
            raise ValueError("a pair is compared as a whole; give a preference no `where`")
        if self.in_pairs and any((self.signal_clip, self.ratio_clip, self.freshness, self.entropy_gate)):
            raise ValueError("a pair is compared as a whole; clips and gates are of tokens, give a preference none")

    def _check_rest(self) -> None:
        """A teacher cut to a set has zeros where the student does not: some divergences are infinite there."""
        name, parameter = self.divergence, next(iter(self.parameters.values()), None)
        ends = (name, parameter) in (("jsd", 1), ("skew_reverse_kl", 0))
        order = name == "alpha" and self.alpha is not None and self.alpha <= 0
        if self.rest == "truncate" and (name in ("reverse_kl", "akl", "todi") or ends or order):
            raise ValueError(f"{name} is infinite to a truncated teacher; use rest tail or renormalise, or forward_kl")

    def _check_skew(self) -> None:
        if self.alpha_by_text and (self.kind != "divergence" or self.divergence not in GAPS):
            raise ValueError(f"a skew of each text goes with a divergence of {', '.join(GAPS)}")
        if self.alpha_by_text and self.skew < LEAST:
            raise ValueError(f"alpha is {self.skew}; a skew of each text is at least {LEAST}, give one above it")

    def _check_advantage(self) -> None:
        if self.divergence not in F_WEIGHTS:
            able = ", ".join(F_WEIGHTS)
            raise ValueError(f"{self.divergence} is no f-divergence and has no advantage; use one of {able}")
        if self.divergence == "reverse_kl":
            return
        if self.credit.looks_ahead:
            raise ValueError(
                f"a return of {self.divergence} descends no divergence of the sequence; use reverse_kl or steps 1"
            )
        if self.credit.baseline:
            raise ValueError(f"the baseline is that of reverse_kl, not of {self.divergence}; use that or no baseline")
        if self.target.kind == "extrapolation":
            raise ValueError(f"an extrapolation at one token has no scale for {self.divergence}; use reverse_kl")

    @property
    def parameters(self) -> dict[str, float]:
        given = {"beta": self.beta, "alpha": self.alpha, "head_mass": self.head_mass, "slope": self.slope}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def skew(self) -> float:
        """alpha of a skewed divergence."""
        return 0.1 if self.alpha is None else self.alpha  # as in `divergences`

    @property
    def by_text(self) -> bool:
        """Whether a skew follows how far the two models are apart on each text."""
        return any(term.objective.alpha_by_text for term in self.parts)

    @property
    def ranks_entropy(self) -> bool:
        """Whether a term is of the rows of highest entropy of each text."""
        return any(term.where.student_entropy_top is not None for term in self.terms)

    @property
    def needs_reference(self) -> bool:
        """Whether the batch must carry the reference policy."""
        extrapolates = self.target.kind == "extrapolation" and self.comparison is not None and self.target.scale != 1
        asked = any(term.objective.needs_reference for term in self.terms)
        return self.reference_coef is not None or extrapolates or asked

    def at(
        self, step: int, share: float | None = None, first_gaps: Mapping[str, float] = MappingProxyType({})
    ) -> Objective:
        """The objective of this optimiser step, counted from 0.

        share: the teacher's in the target, from a clock; first_gaps: what the first step told of the gaps of texts
        """
        terms = tuple(term.at(step, first_gaps) for term in self.terms if term.acts(step))
        first_gap = first_gaps.get(GAPS[self.divergence]) if self.alpha_by_text else None
        return replace(self, target=self.target.at(step, share), terms=terms, first_gap=first_gap)

    @property
    def parts(self) -> tuple[Term, ...]:
        """The terms under the clips of the sum; what is no sum is its own only term."""
        if self.kind != "sum":
            return (Term(self),)
        clips = {"signal_clip": self.signal_clip, "ratio_clip": self.ratio_clip}
        return tuple(replace(term, objective=replace(term.objective, **clips)) for term in self.terms)

    @property
    def in_pairs(self) -> bool:
        """Whether rollouts are compared two by two, so that a batch holds whole pairs: 2i is preferred to 2i + 1."""
        return self.kind == "preference" or any(term.objective.in_pairs for term in self.terms)

    @property
    def looks_ahead(self) -> bool:
        """Whether what a row learns follows from other rows, which a pass before the chunks takes together."""
        own = self.kind == "preference" or (self.kind == "policy_gradient" and self.credit.looks_ahead)
        return own or any(term.objective.looks_ahead for term in self.terms)

    @property
    def entropy_asked(self) -> bool:
        """Whether the teacher's entropy is needed by itself: no whole distribution brings it."""
        return self.entropy_gate is not None and self.entropy_gate[0] == "teacher" and self.comparison != "full"

    @property
    def comparison(self) -> str | None:
        """The support on which the teacher is heard; None where no teacher is."""
        if self.kind == "divergence":
            return self.support
        if self.kind == "policy_gradient":
            return "full" if self.credit.baseline else "sampled"
        if self.kind == "preference":
            return "sampled"
        if self.kind == "reward" and self.outcome is not None and self.outcome.teacher_share:
            return "sampled"
        return None
